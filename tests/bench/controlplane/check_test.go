package main

import (
	"strings"
	"testing"
)

func goodResult() *result {
	calm := func(changes int) phase {
		return phase{latencies: latencies{Changes: changes, LastClientMs: map[string]float64{"p50": 2}}}
	}
	single, churn := calm(30), calm(200)
	return &result{Alone: &single, Single: &single, Churn: &churn, Odd: &oddPhase{
		phase: calm(200), DeafResponsesMax: 80, MuteResponsesMax: 64, configurationAtStart: 13,
	}}
}

func TestAResultIsGoodUntilABoundIsPassed(t *testing.T) {
	if err := goodResult().check(); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(*result){
		"missed changes":         func(r *result) { r.Odd.Missed = 1 },
		"lost their streams":     func(r *result) { r.StreamsLost = 1 },
		"too few":                func(r *result) { r.Odd.Changes = 128 },
		"not the latest states":  func(r *result) { r.Odd.DeafResponsesMax = 13 + 69 },
		"acknowledges nothing":   func(r *result) { r.Odd.MuteResponsesMax = 65 },
		"the controller grew":    func(r *result) { r.Odd.MemoryPerOddKiB = 1025 },
		"others had changes":     func(r *result) { r.Odd.LastClientMs["p50"] = 21 },
		"single: proxies missed": func(r *result) { r.Single.Missed = 2 },
	}
	for want, spoil := range cases {
		result := goodResult()
		spoil(result)
		if err := result.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
