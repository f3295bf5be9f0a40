// The WebSocket client of the server's /ws.
package main

import (
	"flag"
	"fmt"
	"strings"
	"time"

	"golang.org/x/net/websocket"
)

func runWebSocketClient(args []string) error {
	flags := flag.NewFlagSet("ws-client", flag.ContinueOnError)
	number := flags.Int("n", 1, "")
	hold := flags.Duration("hold", 0, "keep the socket that long, with a message every 100 ms")
	overHTTP2 := flags.Bool("h2", false, "on a stream of an HTTP/2 connection, by extended CONNECT")
	urls, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	if *overHTTP2 {
		return runSocket2(urls[0], *number, *hold)
	}
	url := strings.Replace(urls[0], "http", "ws", 1)
	socket, err := websocket.Dial(url, "", "http://testapp")
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	sent := 0
	for started := time.Now(); sent < *number || time.Since(started) < *hold; sent++ {
		if *hold > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if err := socket.SetDeadline(time.Now().Add(callTimeout)); err != nil {
			return err
		}
		want, got := fmt.Sprintf("message %d", sent), ""
		if err := websocket.Message.Send(socket, want); err != nil {
			return fmt.Errorf("after %d messages: %w", sent, err)
		}
		if err := websocket.Message.Receive(socket, &got); err != nil || got != want {
			return fmt.Errorf("after %d messages: want %q, got %q (%v)", sent, want, got, err)
		}
	}
	return printJSON(map[string]int{"messages": sent})
}

// runSocket2 is the same over HTTP/2.
func runSocket2(url string, number int, hold time.Duration) error {
	socket, err := dialSocket2(url)
	if err != nil {
		return err
	}
	sent := 0
	for started := time.Now(); sent < number || time.Since(started) < hold; sent++ {
		if hold > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if err := socket.echo(fmt.Sprintf("message %d", sent)); err != nil {
			return fmt.Errorf("after %d messages: %w", sent, err)
		}
	}
	if err := socket.end(); err != nil {
		return err
	}
	return printJSON(map[string]int{"messages": sent})
}
