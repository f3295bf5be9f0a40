// A protocol that is no HTTP and in which the server speaks first, as in SMTP and MySQL.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

func runTCPServer(args []string) error {
	flags := flag.NewFlagSet("tcp-server-first", flag.ContinueOnError)
	port := flags.Int("port", 7000, "")
	version := flags.String("version", "v1", "")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", *port))
	if err != nil {
		return err
	}
	banner := fmt.Sprintf("hello from %s %s\n", *version, podName())
	fmt.Fprintf(os.Stderr, "tcp: listening on %s: %s", listener.Addr(), banner)
	stop := terminated()
	go func() {
		<-stop
		_ = listener.Close()
	}()
	var open sync.WaitGroup
	for {
		connection, err := listener.Accept()
		if err != nil {
			open.Wait() // the connections there are may end in their own time
			select {
			case <-stop:
				return nil
			default:
				return err
			}
		}
		open.Go(func() { greetAndEcho(connection, banner) })
	}
}

func greetAndEcho(connection net.Conn, banner string) {
	defer func() { _ = connection.Close() }()
	if _, err := connection.Write([]byte(banner)); err != nil {
		return
	}
	lines := bufio.NewReader(connection)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := connection.Write([]byte(line)); err != nil {
			return
		}
	}
}

type tcpCounts struct {
	Connections int            `json:"connections"`
	Failed      int            `json:"failed"`
	Lines       int            `json:"lines"`
	ByVersion   map[string]int `json:"byVersion"`
	ByPod       map[string]int `json:"byPod"`
	Errors      []string       `json:"errors"`
}

func runTCPClient(args []string) error {
	flags := flag.NewFlagSet("tcp-client", flag.ContinueOnError)
	number := flags.Int("n", 1, "")
	hold := flags.Duration("hold", 0, "keep each connection that long, with a line every 100 ms")
	stdin := flags.Bool("stdin", false, "keep it until standard input ends")
	targets, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	counts := tcpCounts{ByVersion: map[string]int{}, ByPod: map[string]int{}, Errors: []string{}}
	for range *number {
		counts.Connections++
		if err := counts.visit(targets[0], holding(*hold, *stdin)); err != nil {
			counts.Failed++
			if len(counts.Errors) < errorsKept {
				counts.Errors = append(counts.Errors, err.Error())
			}
		}
	}
	if err := printJSON(counts); err != nil {
		return err
	}
	if counts.Failed > 0 {
		return fmt.Errorf("%d of %d connections failed", counts.Failed, counts.Connections)
	}
	return nil
}

func (c *tcpCounts) visit(target string, done <-chan struct{}) error {
	connection, err := net.DialTimeout("tcp", target, callTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	lines := bufio.NewReader(connection)
	banner, err := lines.ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading the banner: %w", err)
	}
	var version, pod string
	if _, err := fmt.Sscanf(banner, "hello from %s %s", &version, &pod); err != nil {
		return fmt.Errorf("the banner is %q", banner)
	}
	for ; ; time.Sleep(betweenMessages) {
		if err := connection.SetDeadline(time.Now().Add(callTimeout)); err != nil {
			return err
		}
		line := fmt.Sprintf("line %d\n", c.Lines)
		if _, err := connection.Write([]byte(line)); err != nil {
			return err
		}
		if echo, err := lines.ReadString('\n'); err != nil || echo != line {
			return fmt.Errorf("sent %q, got %q (%v)", strings.TrimSpace(line), strings.TrimSpace(echo), err)
		}
		c.Lines++
		if isDone(done) {
			break
		}
		if c.Lines == 1 {
			tellHeld()
		}
	}
	c.ByVersion[version]++
	c.ByPod[pod]++
	return nil
}
