// The control plane's benchmark: fills a cluster with services, starts the controller against it,
// attaches simulated proxies and measures when they hold a change.
//
//	bench load    -kubeconfig FILE -services N [-etcd URL]
//	bench measure -kubeconfig FILE -services N -clients N -address HOST:PORT -controller COMMAND
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	commands := map[string]func([]string) error{"load": loadCommand, "measure": measureCommand}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench load|measure -h")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		log.Fatalf("%s: %v", os.Args[1], err)
	}
}

// worldFlags adds the flags that must be the same in `load` and `measure`.
func worldFlags(flags *flag.FlagSet, kubeconfig *string, w *world) {
	flags.StringVar(kubeconfig, "kubeconfig", "", "how to reach the API server")
	flags.IntVar(&w.services, "services", 1000, "services in the cluster")
	flags.IntVar(&w.endpoints, "endpoints", 10, "endpoints of each service")
	flags.IntVar(&w.perNamespace, "per-namespace", 10, "services in each namespace")
}
