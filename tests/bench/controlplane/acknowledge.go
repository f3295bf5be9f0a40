package main

import "time"

// As in src/xds/client.rs: how long an acknowledgement waits for others, how long where only endpoints were taken, and how
// many wait at most.
const (
	ackWait          = 50 * time.Millisecond
	endpointsAckWait = 15 * time.Second
	acksWaitingMax   = 16
)

// acknowledgements wait to be sent together.
type acknowledgements struct {
	requests [][]byte
	by       time.Time // when they must be sent; zero while there are none
}

func (a *acknowledgements) add(response deltaResponse, now time.Time) {
	wait := ackWait
	if response.typeURL == endpointsType {
		wait = endpointsAckWait
	}
	if len(a.requests)+1 >= acksWaitingMax {
		wait = 0
	}
	if by := now.Add(wait); a.by.IsZero() || by.Before(a.by) {
		a.by = by
	}
	a.requests = append(a.requests, deltaRequest{typeURL: response.typeURL, nonce: response.nonce}.encode())
}

func (a *acknowledgements) due(now time.Time) bool { return !a.by.IsZero() && !now.Before(a.by) }

func (a *acknowledgements) send(stream *grpcStream) error {
	for _, request := range a.requests {
		if err := stream.send(request); err != nil {
			return err
		}
	}
	*a = acknowledgements{requests: a.requests[:0]}
	return nil
}
