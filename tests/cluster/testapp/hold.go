// How long a client keeps its stream, connection or socket.
package main

import (
	"fmt"
	"os"
	"time"
)

// betweenMessages is the pace of what is held open.
const betweenMessages = 100 * time.Millisecond

// holding is closed when standard input ends, if that is what was asked for, or else after that long.
func holding(hold time.Duration, stdin bool) <-chan struct{} {
	if stdin {
		return inputEnded()
	}
	done := make(chan struct{})
	if hold <= 0 {
		close(done)
	} else {
		time.AfterFunc(hold, func() { close(done) })
	}
	return done
}

// tellHeld says on standard error that what is held open was answered over for the first time.
func tellHeld() { fmt.Fprintln(os.Stderr, "held") }

func isDone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
