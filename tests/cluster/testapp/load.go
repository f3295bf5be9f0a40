// Steady load: requests start when their time has come, not when the answer before them has arrived, and their
// latency counts from that time. A server that stalls is charged for everything it kept waiting.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

func runLoad(args []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	var request requestFlags
	request.register(flags)
	rate := flags.Float64("rate", 100, "requests a second; 0: as fast as the workers can")
	duration := flags.Duration("duration", 0, "")
	number := flags.Int("n", 0, "requests in all, instead of a duration")
	workers := flags.Int("c", 64, "requests in flight at most")
	mark := flags.String("mark", "", "mark requests MARK-1, MARK-2, …: servers log marked requests, so doubles show")
	stdin := flags.Bool("stdin", false, "until standard input ends, instead of a duration")
	urls, err := parse(flags, args, 1)
	ends := 0 // exactly one of the three says when
	for _, given := range []bool{*number > 0, *duration > 0, *stdin} {
		if given {
			ends++
		}
	}
	if err != nil || ends != 1 || *workers < 1 || *rate < 0 {
		return errUsage
	}
	request.url = urls[0]
	client, counts := request.client(*workers), newCounts()
	due := make(chan time.Time)
	var running sync.WaitGroup
	var sent atomic.Int64
	for range *workers {
		running.Go(func() {
			for at := range due {
				var marks [][2]string
				if *mark != "" {
					marks = [][2]string{{markHeader, fmt.Sprintf("%s-%d", *mark, sent.Add(1))}}
				}
				answer := request.send(client, marks...)
				counts.add(answer, time.Since(at))
			}
		})
	}
	stop := terminated()
	if *stdin {
		stop = inputEnded()
	}
	schedule(due, *rate, *duration, *number, stop)
	close(due)
	running.Wait()
	return counts.print()
}

// inputEnded is closed when standard input ends: the caller of `kubectl exec -i` has no other way to end a client.
func inputEnded() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	return ended
}

// schedule hands out the time of each request until the number, the duration or `stop` ends it.
func schedule(due chan<- time.Time, rate float64, duration time.Duration, number int, stop <-chan struct{}) {
	started := time.Now()
	for i := 0; number == 0 || i < number; i++ {
		at := time.Now()
		if rate > 0 {
			at = started.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		}
		if duration > 0 && at.Sub(started) >= duration {
			return
		}
		select {
		case <-time.After(time.Until(at)):
		case <-stop:
			return
		}
		select {
		case due <- at:
		case <-stop:
			return
		}
	}
}
