// The HTTP server: HTTP/1.1 and HTTP/2 with prior knowledge on one port.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// terminated is closed by the signal with which Kubernetes ends a container.
func terminated() <-chan struct{} {
	context, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	return context.Done()
}

// app is what one server says about itself, and how it misbehaves on request.
type app struct {
	name    string
	version string
	pod     string
	status  int
	delay   time.Duration
	flaky   flakyKeys
	turn    sync.Mutex
	served  atomic.Int64
}

func runServer(args []string) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	port := flags.Int("port", 8080, "")
	app := &app{pod: podName()}
	flags.StringVar(&app.version, "version", "v1", "")
	flags.StringVar(&app.name, "name", "app", "")
	flags.IntVar(&app.status, "status", http.StatusOK, "the status of ordinary answers")
	flags.DurationVar(&app.delay, "delay", 0, "the delay of every answer but /healthz")
	overTLS := flags.Bool("tls", false, "HTTPS, with a certificate of its own")
	pem := flags.String("pem", "", "a file with the certificate and key to use instead")
	alpn := flags.String("alpn", webProtocols, "the protocols that HTTPS offers; with others, HTTP is what it speaks under their names")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: fmt.Sprintf(":%d", *port), Handler: app.routes(), Protocols: protocols}
	fmt.Fprintf(os.Stderr, "%s %s in %s: listening on %s\n", app.name, app.version, app.pod, server.Addr)
	if !*overTLS {
		return serveUntilTerminated(server, server.ListenAndServe)
	}
	settings, err := serverTLS(*pem, *alpn)
	if err != nil {
		return err
	}
	if *alpn == webProtocols {
		server.TLSConfig = settings
		protocols.SetHTTP2(true)
		return serveUntilTerminated(server, func() error { return server.ListenAndServeTLS("", "") })
	}
	listener, err := tls.Listen("tcp", server.Addr, settings)
	if err != nil {
		return err
	}
	return serveUntilTerminated(server, func() error { return server.Serve(insideTLS{listener}) })
}

// serveUntilTerminated stops accepting at once on SIGTERM, lets requests in flight finish, and returns.
func serveUntilTerminated(server *http.Server, serve func() error) error {
	stop, failed := terminated(), make(chan error, 1)
	go func() { failed <- serve() }()
	select {
	case err := <-failed:
		return err
	case <-stop:
		return server.Shutdown(context.Background())
	}
}
