package main

import (
	"math"
	"slices"
	"time"
)

// latencies is what one kind of change took, in milliseconds.
type latencies struct {
	Changes       int                `json:"changes"`
	Missed        int                `json:"missed"` // clients that did not get a change in time, over all changes
	EachClientMs  map[string]float64 `json:"each_client_ms"`
	FirstClientMs map[string]float64 `json:"first_client_ms"`
	LastClientMs  map[string]float64 `json:"last_client_ms"`
	WriteMs       map[string]float64 `json:"write_ms"`
	BareWatchMs   map[string]float64 `json:"bare_watch_ms"`
}

// summarise gives the quantiles of some values; nothing of no values.
func summarise(values []float64) map[string]float64 {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	at := func(quantile float64) float64 {
		return hundredths(values[min(len(values)-1, int(quantile*float64(len(values))))])
	}
	return map[string]float64{"min": at(0), "p50": at(0.5), "p99": at(0.99), "max": at(1)}
}

func extremes(values []float64) (low, high float64) { return slices.Min(values), slices.Max(values) }

func milliseconds(duration time.Duration) float64 { return duration.Seconds() * 1e3 }

func hundredths(value float64) float64 { return math.Round(value*100) / 100 }
