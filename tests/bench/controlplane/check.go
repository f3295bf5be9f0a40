package main

import (
	"errors"
	"fmt"
)

const (
	// Responses that the controller sends without an answer; after that the latest states wait.
	unansweredMax = 64
	// Kibibytes by which the controller may grow for each proxy that does not read or answer.
	oddMemoryMaxKiB = 1024
	// How much later others may have changes because of such proxies, as a ratio.
	harmMax = 10
)

// check says what of a result must not be on any machine: counts and ratios, no times.
func (r *result) check() error {
	var wrong []error
	must := func(holds bool, format string, values ...any) {
		if !holds {
			wrong = append(wrong, fmt.Errorf(format, values...))
		}
	}
	phases := map[string]*phase{"alone": r.Alone, "single": r.Single, "churn": r.Churn, "route": r.Route}
	if r.Odd != nil {
		phases["odd"] = &r.Odd.phase
	}
	for name, phase := range phases {
		must(phase == nil || phase.Missed == 0, "%s: proxies missed changes", name)
	}
	must(r.StreamsLost == 0, "%d proxies lost their streams", r.StreamsLost)
	if r.Odd == nil {
		return errors.Join(wrong...)
	}
	must(r.Odd.Changes > 2*unansweredMax, "odd: %d changes are too few to show a bound of %d", r.Odd.Changes, unansweredMax)
	// What waited when a proxy stopped to read, and then one response of each type with the latest states.
	unread := r.Odd.DeafResponsesMax - r.Odd.configurationAtStart
	must(unread <= unansweredMax+4, "odd: a proxy that did not read was sent %d responses, not the latest states", unread)
	must(r.Odd.MuteResponsesMax <= unansweredMax, "odd: a proxy that acknowledges nothing was sent %d responses", r.Odd.MuteResponsesMax)
	must(r.Odd.MemoryPerOddKiB <= oddMemoryMaxKiB, "odd: the controller grew by %.0f KiB for each such proxy", r.Odd.MemoryPerOddKiB)
	with, without := r.Odd.LastClientMs["p50"], r.Churn.LastClientMs["p50"]
	must(with <= harmMax*max(without, 1), "odd: others had changes after %.2f ms, not %.2f", with, without)
	return errors.Join(wrong...)
}
