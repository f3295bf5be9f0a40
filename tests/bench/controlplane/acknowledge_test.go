package main

import (
	"testing"
	"time"
)

func TestAcknowledgementsWaitForOthersUntilTheFirstIsDueOrTheyAreMany(t *testing.T) {
	service, endpoints := deltaResponse{typeURL: serviceType, nonce: "1"}, deltaResponse{typeURL: endpointsType, nonce: "2"}
	now := time.Unix(1000, 0)
	var waiting acknowledgements
	if waiting.due(now) {
		t.Error("nothing is due where nothing waits")
	}
	waiting.add(endpoints, now)
	if want := now.Add(endpointsAckWait); !waiting.by.Equal(want) {
		t.Errorf("endpoints wait until %v, want %v", waiting.by, want)
	}
	waiting.add(service, now)
	waiting.add(endpoints, now)
	if want := now.Add(ackWait); !waiting.by.Equal(want) || waiting.due(want.Add(-1)) || !waiting.due(want) {
		t.Errorf("all wait until %v, want %v: the most urgent one counts", waiting.by, want)
	}
	for len(waiting.requests) < acksWaitingMax-1 {
		waiting.add(service, now)
	}
	if waiting.due(now) {
		t.Errorf("%d are due at once", len(waiting.requests))
	}
	waiting.add(service, now)
	if !waiting.due(now) {
		t.Errorf("%d are not due", len(waiting.requests))
	}
}
