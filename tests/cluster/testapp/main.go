// testapp is the application of the cluster tests: ordinary servers and clients of the protocols a mesh carries, in
// one static binary. It knows nothing of the mesh, as applications do.
//
// Servers say in each answer which version and which pod they are; clients count the answers and print JSON.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

type command struct {
	usage string
	run   func(args []string) error
}

var commands = map[string]command{
	"server":           {"[-port 8080] [-version v1] [-name app] [-status N] [-delay D] [-tls [-pem FILE] [-alpn P,…]]: HTTP/1.1 and HTTP/2 (h2c)", runServer},
	"grpc-server":      {"[-port 9000] [-version v1]: unary, streams, errors with trailers", runGRPCServer},
	"collector":        {"[-port 4317]: takes spans of OpenTelemetry and prints them", runCollector},
	"tcp-server-first": {"[-port 7000] [-version v1]: sends a banner, then echoes lines", runTCPServer},
	"issuer":           {"[-port 8080]: signs JSON Web Tokens, good and bad ones, and shows its keys", runIssuer},
	"webhook":          {"[-port 8443] [-tls DIR]: an admission webhook that annotates pods", runWebhook},
	"get":              {"URL [-n 1] [-H k:v] [-method M] [-body B] [-h2] [-new-conn] [-cookies] [-print | -head]: one after another", runGet},
	"load":             {"URL [-rate 100] [-duration D | -n N | -stdin] [-c 64] [-H k:v] [-method M] [-h2] [-mark M]: steady open-loop load", runLoad},
	"dial":             {"HOST:PORT,… [-send TEXT]… [-timeout D] [-tls [-alpn P,…] [-pem FILE]]: what a connection meets", runDial},
	"http-wait":        {"URL [-status 200] [-for 60s]: until the status is seen", runHTTPWait},
	"grpc-client":      {"TARGET [-n 1] [-H k:v] [-hold D | -stdin]: every kind of call, -n times; one stream held", runGRPCClient},
	"tcp-client":       {"TARGET [-n 1] [-hold D | -stdin]: connects, reads the banner, checks an echo", runTCPClient},
	"ws-client":        {"URL [-n 1] [-hold D] [-h2]: one WebSocket, -n echoes; with -h2 by extended CONNECT", runWebSocketClient},
	"sleep":            {"[DURATION]: waits, an hour if not told otherwise", runSleep},
	"exit":             {"CODE: ends with that code", runExit},
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]].run == nil {
		printUsage()
		os.Exit(2)
	}
	name := os.Args[1]
	if err := commands[name].run(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "testapp %s: %v\n", name, err)
		if errors.Is(err, errUsage) {
			fmt.Fprintf(os.Stderr, "usage: testapp %s %s\n", name, commands[name].usage)
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func printUsage() {
	names := make([]string, 0, len(commands))
	for name := range commands {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(os.Stderr, "testapp %s %s\n", name, commands[name].usage)
	}
}

var errUsage = errors.New("wrong arguments")

// parse reads flags and positional arguments in any order, and insists on the number of the latter.
func parse(flags *flag.FlagSet, args []string, positional int) ([]string, error) {
	flags.SetOutput(os.Stderr)
	var found []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, errUsage
		}
		if flags.NArg() == 0 {
			break
		}
		found = append(found, flags.Arg(0))
		args = flags.Args()[1:]
	}
	if len(found) != positional {
		return nil, errUsage
	}
	return found, nil
}

// headers is a repeatable flag `-H name:value`.
type headers [][2]string

func (h *headers) String() string { return "" }

func (h *headers) Set(text string) error {
	name, value, ok := strings.Cut(text, ":")
	if !ok {
		return fmt.Errorf("want name:value, got %q", text)
	}
	*h = append(*h, [2]string{strings.TrimSpace(name), strings.TrimSpace(value)})
	return nil
}

func printJSON(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}

func podName() string {
	name, err := os.Hostname() // Kubernetes gives a pod its own name as host name
	if err != nil {
		return "unknown"
	}
	return name
}

func runSleep(args []string) error {
	duration := time.Hour
	if len(args) > 0 {
		parsed, err := time.ParseDuration(args[0])
		if err != nil {
			return errUsage
		}
		duration = parsed
	}
	select {
	case <-time.After(duration):
	case <-terminated():
	}
	return nil
}

func runExit(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return errUsage
	}
	os.Exit(code)
	return nil
}
