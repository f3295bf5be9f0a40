package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	changesMax   = 1 << 12 // markers of one run
	singlePause  = 200 * time.Millisecond
	singleLimit  = 20 * time.Second
	churnLimit   = time.Minute
	churnWriters = 16
	// Changes walk through the services in a step that has no divisor in common with their number.
	serviceStep = 37
)

// phase is what one kind of change cost.
type phase struct {
	latencies
	CPUMsPerChange float64 `json:"cpu_ms_per_change"`
	CPUPercent     float64 `json:"cpu_percent"`
	BytesPerChange float64 `json:"bytes_per_client_per_change"`
	Seconds        float64 `json:"seconds"`
}

// observe runs the changes and reads what the controller and the streams did meanwhile.
func (b *bench) observe(run func() ([]*change, error)) (*phase, error) {
	bytes, cpu, started := b.receivedBytes(), b.controller.cpu(), time.Now()
	changes, err := run()
	if err != nil || len(changes) == 0 {
		return nil, err
	}
	if b.controller.hasEnded() {
		return nil, fmt.Errorf("the controller ended while changes were made: see %s", b.controllerLog)
	}
	elapsed, used := time.Since(started).Seconds(), (b.controller.cpu() - cpu).Seconds()
	count := float64(len(changes))
	return &phase{
		latencies:      b.book.latencies(changes),
		CPUMsPerChange: hundredths(math.Max(0, used-b.idleCPU*elapsed) * 1e3 / count),
		CPUPercent:     hundredths(used / elapsed * 100),
		BytesPerChange: hundredths(float64(b.receivedBytes()-bytes) / count / float64(b.attached)),
		Seconds:        hundredths(elapsed),
	}, nil
}

// singleChanges changes one endpoint at a time, each after the one before has arrived everywhere, of the services of `groups`.
func (b *bench) singleChanges(ctx context.Context, groups int) (*phase, error) {
	return b.observe(func() ([]*change, error) {
		var made []*change
		for i := range b.singles {
			service := changedService(i, groups)
			entered := b.book.add(service, b.usersOf(service))
			if err := b.write(entered, func() error { return putMarker(ctx, b.writer, b.world, service, entered.marker) }); err != nil {
				return nil, err
			}
			made = append(made, entered)
			if !b.await(entered, singleLimit) {
				log.Printf("no further changes of this kind: one did not come to all proxies in %v", singleLimit)
				break
			}
			time.Sleep(singlePause)
		}
		return made, nil
	})
}

// routeChanges gives service 0 one route after another.
func (b *bench) routeChanges(ctx context.Context) (*phase, error) {
	return b.observe(func() ([]*change, error) {
		var made []*change
		for range b.routes {
			entered := b.book.add(routing, b.usersOf(0))
			if err := b.write(entered, func() error { return putRoute(ctx, b.writer, b.world, entered.marker) }); err != nil {
				return nil, err
			}
			made = append(made, entered)
			if !b.await(entered, singleLimit) {
				log.Printf("no further changes of this kind: one did not come to all proxies in %v", singleLimit)
				break
			}
			time.Sleep(singlePause)
		}
		return made, nil
	})
}

// churnChanges makes changes at a steady rate, whatever the controller does.
func (b *bench) churnChanges(ctx context.Context) (*phase, error) {
	return b.observe(func() ([]*change, error) {
		var made []*change
		var writers errgroup.Group
		writers.SetLimit(churnWriters)
		started := time.Now()
		for i := range int(b.churn.Seconds() * float64(b.rate)) {
			time.Sleep(time.Until(started.Add(time.Duration(i) * time.Second / time.Duration(b.rate))))
			service := changedService(i, b.groups)
			entered := b.book.add(service, b.usersOf(service))
			made = append(made, entered)
			writers.Go(func() error {
				return b.write(entered, func() error { return putMarker(ctx, b.writer, b.world, service, entered.marker) })
			})
		}
		if err := writers.Wait(); err != nil {
			return nil, err
		}
		deadline := time.Now().Add(churnLimit)
		for _, entered := range made {
			b.await(entered, time.Until(deadline))
		}
		return made, nil
	})
}

// write makes a change, after the one before it of the same service, and notes when it was asked for and answered. Were two
// under way at once, the earlier could come to stand last, and nobody would ever see the later.
func (b *bench) write(entered *change, put func() error) error {
	defer close(entered.made)
	if entered.previous != nil {
		<-entered.previous.made
	}
	asked := time.Now()
	err := put()
	answered := time.Now()
	b.book.written(entered, asked, answered)
	return err
}

// await waits until everybody who uses the service has the change, and says whether they do. One that
// has not come in time counts as missed.
func (b *bench) await(entered *change, limit time.Duration) bool {
	select {
	case <-entered.complete:
		return true
	case <-time.After(limit):
	case <-b.controller.ended:
	}
	return false
}

func changedService(i, groups int) int { return (i*serviceStep + 5) % (groups * servicesPerProxy) }

// usersOf says of each proxy whether it uses a service now.
func (b *bench) usersOf(service int) []bool {
	users := make([]bool, len(b.proxies))
	for number := range users {
		users[number] = number < b.attached && b.groupOf(number) == service/servicesPerProxy
	}
	return users
}

func (b *bench) receivedBytes() int64 {
	var total int64
	for _, p := range b.proxies {
		total += p.bytes.Load()
	}
	return total
}
