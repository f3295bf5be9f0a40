// How long a client keeps its stream, connection or socket.
package main

import "time"

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

func isDone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
