package main

import (
	"context"
	"math"
	"time"
)

const (
	// How long proxies that read again may be silent before they count as having all.
	quietPause = 500 * time.Millisecond
	quietLimit = 10 * time.Second
)

// oddPhase is what changes at a steady rate cost while some proxies do not read and some never acknowledge.
type oddPhase struct {
	phase
	Deaf                 int     `json:"deaf"`
	Mute                 int     `json:"mute"`
	MemoryPerOddKiB      float64 `json:"memory_per_odd_client_kib"` // by which the controller grew meanwhile
	DeafResponsesMax     int64   `json:"deaf_responses_max"`        // that one was sent in all once it read again
	MuteResponsesMax     int64   `json:"mute_responses_max"`
	StreamsLost          int64   `json:"streams_lost_of_odd"`
	configurationAtStart int64   // responses that a deaf one had before
}

// oddChanges churns as `churnChanges` does, beside proxies that do not behave.
func (b *bench) oddChanges(ctx context.Context) (*oddPhase, error) {
	odd := append(append([]*proxy{}, b.deaf...), b.mute...)
	if _, err := b.bringUp(ctx, odd); err != nil {
		return nil, err
	}
	time.Sleep(b.settle)
	found := &oddPhase{Deaf: len(b.deaf), Mute: len(b.mute), configurationAtStart: mostResponses(b.deaf)}
	for _, p := range b.deaf {
		p.deaf.stopped.Store(true)
	}
	before := b.controller.memoryMiB("VmRSS")
	churned, err := b.churnChanges(ctx)
	if err != nil {
		return nil, err
	}
	found.phase = *churned
	grown := (b.controller.memoryMiB("VmRSS") - before) * 1024
	found.MemoryPerOddKiB = math.Max(0, hundredths(grown/float64(len(odd))))
	for _, p := range b.deaf {
		p.deaf.stopped.Store(false)
		close(p.deaf.resumed)
	}
	b.awaitQuiet(odd)
	found.DeafResponsesMax, found.MuteResponsesMax = mostResponses(b.deaf), mostResponses(b.mute)
	found.StreamsLost = b.oddLost.Load()
	return found, nil
}

// awaitQuiet waits until nothing more comes to the proxies.
func (b *bench) awaitQuiet(proxies []*proxy) {
	deadline := time.Now().Add(quietLimit)
	for before := int64(-1); time.Now().Before(deadline); time.Sleep(quietPause) {
		var now int64
		for _, p := range proxies {
			now += p.responses.Load()
		}
		if now == before {
			return
		}
		before = now
	}
}

func mostResponses(proxies []*proxy) int64 {
	var most int64
	for _, p := range proxies {
		most = max(most, p.responses.Load())
	}
	return most
}
