package main

import (
	"sync"
	"time"
)

// routing stands for the service of changes that are routes; endpoints changes carry a real one.
const routing = -1

// change is one write to the cluster, known to the proxies by its marker.
type change struct {
	marker          int
	previous        *change // the change before it of the same service, which it replaced
	asked, answered time.Time
	receivedAt      []time.Time // by client; zero: not yet
	awaited         []bool      // by client: whether it must come there
	missing         int
	complete        chan struct{} // closed once nobody misses it
	made            chan struct{} // closed once it was written, or could not be
}

// changeBook knows every change and which client holds it since when.
type changeBook struct {
	mutex     sync.Mutex
	first     int // marker of the first change
	changes   []*change
	latest    map[int]*change // by service
	watchedAt map[int]time.Time
}

// newChangeBook starts with markers that an earlier run, whose marks may still stand in the cluster,
// did not use.
func newChangeBook(now time.Time) *changeBook {
	runs := int64(1 << markerBits / changesMax)
	return &changeBook{first: int(now.Unix()%runs) * changesMax, latest: map[int]*change{}, watchedAt: map[int]time.Time{}}
}

// add enters a change before it is made. `awaited` says which clients must receive it.
func (b *changeBook) add(service int, awaited []bool) *change {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	entered := &change{
		marker: b.first + len(b.changes), previous: b.latest[service],
		receivedAt: make([]time.Time, len(awaited)), awaited: awaited,
		complete: make(chan struct{}), made: make(chan struct{}),
	}
	for _, waits := range awaited {
		if waits {
			entered.missing++
		}
	}
	b.changes = append(b.changes, entered)
	b.latest[service] = entered
	return entered
}

// written notes when a change was asked for and when the API server had it.
func (b *changeBook) written(entered *change, asked, answered time.Time) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	entered.asked, entered.answered = asked, answered
}

// received notes that a client holds a change, and with it all earlier ones of the same service.
func (b *changeBook) received(client, marker int, at time.Time) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for held := b.find(marker); held != nil && held.receivedAt[client].IsZero(); held = held.previous {
		held.receivedAt[client] = at
		if !held.awaited[client] {
			continue
		}
		held.missing--
		if held.missing == 0 {
			close(held.complete)
		}
	}
}

// watched notes when a bare watch of the API server brought a change: the floor of every latency.
func (b *changeBook) watched(marker int, at time.Time) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.find(marker) != nil {
		b.watchedAt[marker] = at
	}
}

func (b *changeBook) find(marker int) *change {
	if marker < b.first || marker >= b.first+len(b.changes) {
		return nil
	}
	return b.changes[marker-b.first]
}

// latencies summarises some changes. Times count from the answer to the write, so a proxy that was
// faster than the API server's answer counts as negative.
func (b *changeBook) latencies(changes []*change) latencies {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	var all, first, last, writes, watch []float64
	missed := 0
	for _, c := range changes {
		var own []float64
		for client, at := range c.receivedAt {
			if c.awaited[client] && !at.IsZero() {
				own = append(own, milliseconds(at.Sub(c.answered)))
			}
		}
		missed += c.missing
		all = append(all, own...)
		if c.missing == 0 && len(own) > 0 {
			low, high := extremes(own)
			first, last = append(first, low), append(last, high)
		}
		writes = append(writes, milliseconds(c.answered.Sub(c.asked)))
		if at, ok := b.watchedAt[c.marker]; ok {
			watch = append(watch, milliseconds(at.Sub(c.answered)))
		}
	}
	return latencies{
		Changes: len(changes), Missed: missed, EachClientMs: summarise(all), FirstClientMs: summarise(first),
		LastClientMs: summarise(last), WriteMs: summarise(writes), BareWatchMs: summarise(watch),
	}
}
