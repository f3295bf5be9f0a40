package main

import (
	"testing"
	"time"
)

func TestALaterChangeOfAServiceImpliesTheEarlierOnes(t *testing.T) {
	book := newChangeBook(time.Unix(1000, 0))
	both := []bool{true, true}
	older, other, newer := book.add(7, both), book.add(8, both), book.add(7, both)
	at := time.Unix(2000, 0)
	book.received(0, newer.marker, at)
	if older.receivedAt[0] != at || older.missing != 1 {
		t.Errorf("the older change counts as received: at %v, missing %d", older.receivedAt[0], older.missing)
	}
	if !other.receivedAt[0].IsZero() {
		t.Error("a change of another service must not count as received")
	}
}

func TestAChangeIsCompleteWhenEveryAwaitedClientHasIt(t *testing.T) {
	book := newChangeBook(time.Unix(1000, 0))
	made := book.add(7, []bool{true, false, true})
	at := time.Unix(2000, 0)
	book.received(0, made.marker, at)
	book.received(0, made.marker, at.Add(time.Second))
	book.received(1, made.marker, at)
	select {
	case <-made.complete:
		t.Fatal("client 2 has not received it")
	default:
	}
	book.received(2, made.marker, at.Add(time.Millisecond))
	select {
	case <-made.complete:
	default:
		t.Fatal("everybody awaited has received it")
	}
	if got := book.latencies([]*change{made}); got.Missed != 0 || len(got.LastClientMs) == 0 {
		t.Errorf("latencies of a complete change: %+v", got)
	}
}

func TestMarkersOfOtherRunsAreIgnored(t *testing.T) {
	book := newChangeBook(time.Unix(1000, 0))
	made := book.add(7, []bool{true})
	book.received(0, made.marker+1, time.Unix(2000, 0))
	book.received(0, made.marker-1, time.Unix(2000, 0))
	if made.missing != 1 {
		t.Error("an unknown marker must change nothing")
	}
}
