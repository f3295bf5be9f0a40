package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
)

const servicesPerProxy = 10

type measureOptions struct {
	world
	kubeconfig, command, controllerLog string
	address, ca, serverName            string
	clients, groups, odd               int
	singles, routes, rate              int
	churn, settle, readyTimeout        time.Duration
	restarts, checks                   bool
}

func measureCommand(arguments []string) error {
	var o measureOptions
	flags := flag.NewFlagSet("measure", flag.ExitOnError)
	worldFlags(flags, &o.kubeconfig, &o.world)
	flags.StringVar(&o.command, "controller", "", "shell command that becomes the controller")
	flags.StringVar(&o.controllerLog, "controller-log", "controller.log", "file for its output")
	flags.StringVar(&o.address, "address", "127.0.0.1:15110", "where the controller serves the control stream")
	flags.StringVar(&o.ca, "ca", "", "CA of the control stream's certificate; without it any certificate is taken")
	flags.StringVar(&o.serverName, "server-name", "leno-controller.leno-system.svc", "name in that certificate")
	flags.IntVar(&o.clients, "clients", 100, "simulated proxies")
	flags.IntVar(&o.groups, "groups", 1, "proxies fall into this many groups, each using ten services of its own")
	flags.IntVar(&o.odd, "odd", 2, "so many proxies that stop reading, and as many that never acknowledge, beside the others")
	flags.IntVar(&o.singles, "singles", 30, "endpoint changes one by one")
	flags.IntVar(&o.routes, "routes", 10, "routing changes one by one, if the TrafficPolicy kind is installed")
	flags.IntVar(&o.rate, "rate", 100, "endpoint changes per second while churning")
	flags.DurationVar(&o.churn, "churn", 20*time.Second, "how long to churn")
	flags.DurationVar(&o.settle, "settle", 5*time.Second, "rest before memory and idle CPU are read")
	flags.DurationVar(&o.readyTimeout, "ready-timeout", time.Minute, "limit for the proxies to get their configuration")
	flags.BoolVar(&o.restarts, "restart", true, "restart the controller at the end")
	flags.BoolVar(&o.checks, "check", false, "fail unless what must hold on every machine does")
	flags.Parse(arguments)
	if err := o.valid(); err != nil {
		return err
	}
	result, err := measure(o)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(result); err != nil || !o.checks {
		return err
	}
	return result.check()
}

func (o measureOptions) valid() error {
	switch {
	case o.command == "":
		return errors.New("-controller is needed: the command that starts the controller")
	case o.groups < 1 || o.groups*servicesPerProxy > o.services:
		return fmt.Errorf("-groups must be from 1 to %d, a tenth of -services", o.services/servicesPerProxy)
	case o.odd < 0 || o.clients < o.groups || o.clients+2*o.odd > o.pods():
		return fmt.Errorf("-clients must be from %d (-groups) to %d (all pods without twice -odd)", o.groups, o.pods()-2*o.odd)
	case o.rate < 1:
		return errors.New("-rate must be at least 1")
	case 2*o.singles+o.routes+2*int(o.churn.Seconds()*float64(o.rate)) > changesMax:
		return fmt.Errorf("at most %d changes fit one run: lower -singles, -routes, -rate or -churn", changesMax)
	}
	return nil
}

// result is what one run found out. Memory is the controller's resident set.
type result struct {
	Services            int       `json:"services"`
	EndpointsPerService int       `json:"endpoints_per_service"`
	Clients             int       `json:"clients"`
	ReadySeconds        float64   `json:"ready_s"`       // from the controller's start until one proxy has everything
	AllReadySeconds     float64   `json:"all_clients_s"` // from the start of the others until they have, too
	AllReadyCPUSeconds  float64   `json:"all_clients_cpu_s"`
	ConfigurationBytes  int64     `json:"configuration_bytes_of_a_client"`
	MemoryStartMaxMiB   float64   `json:"memory_start_max_mib"` // at most until one proxy has everything
	MemoryOneMiB        float64   `json:"memory_one_client_mib"`
	MemoryAllMiB        float64   `json:"memory_all_clients_mib"`
	MemoryPerClientKiB  float64   `json:"memory_per_client_kib"`
	MemoryMaxMiB        float64   `json:"memory_max_mib"`
	StartCPUSeconds     float64   `json:"start_cpu_s"`
	IdleCPUPercent      float64   `json:"idle_cpu_percent"`
	Alone               *phase    `json:"alone"`
	Single              *phase    `json:"single"`
	Churn               *phase    `json:"churn"`
	Route               *phase    `json:"route,omitempty"`
	Odd                 *oddPhase `json:"odd,omitempty"`
	StreamsLost         int64     `json:"streams_lost"`
	Restart             *restart  `json:"restart,omitempty"`
}

// bench is one run under way.
type bench struct {
	measureOptions
	writer     *kubernetes.Clientset
	controller *process
	book       *changeBook
	proxies    []*proxy
	deaf, mute []*proxy
	attached   int // so many of `proxies` have a stream
	lost       atomic.Int64
	oddLost    atomic.Int64
	idleCPU    float64 // of a core
}

func measure(o measureOptions) (*result, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	writer, err := connect(o.kubeconfig, "writer")
	if err != nil {
		return nil, err
	}
	watcher, err := connect(o.kubeconfig, "watcher")
	if err != nil {
		return nil, err
	}
	b := &bench{measureOptions: o, writer: writer, book: newChangeBook(time.Now())}
	if err := b.makeProxies(ctx); err != nil {
		return nil, err
	}
	if err := watchBarely(ctx, watcher, b.book); err != nil {
		return nil, err
	}
	started := time.Now()
	if b.controller, err = startProcess(o.command, o.controllerLog); err != nil {
		return nil, err
	}
	defer func() { b.controller.stop() }()
	found := &result{Services: o.services, EndpointsPerService: o.endpoints, Clients: o.clients}
	for _, step := range []func() error{
		func() error { return b.attachFirst(ctx, started, found) },
		func() error { return b.attachOthers(ctx, found) },
		func() error { return b.change(ctx, found) },
		func() error { return b.restartController(found) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// makeProxies makes the proxies, each with a certificate of an authority that the controller is given.
func (b *bench) makeProxies(ctx context.Context) error {
	config, err := tlsConfig(b.ca, b.serverName)
	if err != nil {
		return err
	}
	signer, err := newAuthority()
	if err != nil {
		return err
	}
	if err := signer.bring(ctx, b.writer); err != nil {
		return err
	}
	for number := range b.clients + 2*b.odd {
		var services []string
		for i := range servicesPerProxy {
			services = append(services, b.resource(b.groupOf(number)*servicesPerProxy+i))
		}
		p := newProxy(number, b.world, services, b.book, &b.lost)
		certificate, err := signer.sign(number, p.namespace, p.serviceAccount)
		if err != nil {
			return err
		}
		p.dial = dialer(b.address, config, certificate)
		b.place(p)
	}
	b.proxies[0].eager = true
	return nil
}

// place puts a proxy where it belongs: the last ones are odd, deaf or mute.
func (b *bench) place(p *proxy) {
	if p.number < b.clients {
		b.proxies = append(b.proxies, p)
		return
	}
	p.book, p.lost = nil, &b.oddLost
	if p.number < b.clients+b.odd {
		p.deaf = &deafness{resumed: make(chan struct{})}
		b.deaf = append(b.deaf, p)
	} else {
		p.mute = true
		b.mute = append(b.mute, p)
	}
}

func (b *bench) groupOf(number int) int { return number % b.groups }

// attachFirst brings one proxy up, makes changes for it alone and reads what that takes.
func (b *bench) attachFirst(ctx context.Context, started time.Time, found *result) error {
	first := b.proxies[:1]
	last, err := b.bringUp(ctx, first)
	if err != nil {
		return err
	}
	found.ReadySeconds = hundredths(last.Sub(started).Seconds())
	found.StartCPUSeconds = hundredths(b.controller.cpu().Seconds())
	found.MemoryStartMaxMiB = b.controller.memoryMiB("VmHWM")
	found.ConfigurationBytes = first[0].bytes.Load()
	b.attached = 1
	time.Sleep(b.settle)
	b.restIdle()
	if found.Alone, err = b.singleChanges(ctx, 1); err != nil {
		return err
	}
	found.MemoryOneMiB = b.controller.memoryMiB("VmRSS")
	return nil
}

// attachOthers brings up all other proxies at once.
func (b *bench) attachOthers(ctx context.Context, found *result) error {
	others := b.proxies[1:]
	started, used := time.Now(), b.controller.cpu()
	last, err := b.bringUp(ctx, others)
	if err != nil {
		return err
	}
	found.AllReadySeconds = max(0, hundredths(last.Sub(started).Seconds()))
	found.AllReadyCPUSeconds = hundredths((b.controller.cpu() - used).Seconds())
	b.attached = len(b.proxies)
	time.Sleep(b.settle)
	found.MemoryAllMiB = b.controller.memoryMiB("VmRSS")
	grown := (found.MemoryAllMiB - found.MemoryOneMiB) * 1024
	found.MemoryPerClientKiB = hundredths(grown / math.Max(1, float64(len(others))))
	b.restIdle()
	found.IdleCPUPercent = hundredths(b.idleCPU * 100)
	return nil
}

// restIdle reads what the controller uses when nothing happens.
func (b *bench) restIdle() {
	usedBefore, before := b.controller.cpu(), time.Now()
	time.Sleep(b.settle)
	b.idleCPU = (b.controller.cpu() - usedBefore).Seconds() / time.Since(before).Seconds()
}

// bringUp starts proxies and gives the instant when the last of them had its configuration.
func (b *bench) bringUp(ctx context.Context, proxies []*proxy) (time.Time, error) {
	for _, p := range proxies {
		go p.run(ctx)
	}
	return b.awaitReady(proxies)
}

// awaitReady waits until all proxies have their configuration, and gives the instant when the last had it.
func (b *bench) awaitReady(proxies []*proxy) (time.Time, error) {
	var last time.Time
	timeout := time.After(b.readyTimeout)
	for i, p := range proxies {
		life := p.life.Load()
		select {
		case <-life.ready:
			if life.at.After(last) {
				last = life.at
			}
		case <-b.controller.ended:
			return last, fmt.Errorf("the controller ended: see %s", b.controllerLog)
		case <-timeout:
			return last, fmt.Errorf("proxy %s (%d of %d) has not got its %d services with their endpoints from %s after %v: see %s",
				p.nodeID, i+1, len(proxies), servicesPerProxy, b.address, b.readyTimeout, b.controllerLog)
		}
	}
	return last, nil
}

func (b *bench) change(ctx context.Context, found *result) error {
	var err error
	if found.Single, err = b.singleChanges(ctx, b.groups); err != nil {
		return err
	}
	if found.Churn, err = b.churnChanges(ctx); err != nil {
		return err
	}
	if !hasTrafficPolicies(ctx, b.writer) {
		log.Print("routing changes are left out: the TrafficPolicy kind is not installed")
	} else if found.Route, err = b.routeChanges(ctx); err != nil {
		return err
	}
	if b.odd > 0 {
		if found.Odd, err = b.oddChanges(ctx); err != nil {
			return err
		}
	}
	found.MemoryMaxMiB = b.controller.memoryMiB("VmHWM")
	found.StreamsLost = b.lost.Load()
	return nil
}

func tlsConfig(caFile, serverName string) (*tls.Config, error) {
	config := &tls.Config{ServerName: serverName, InsecureSkipVerify: caFile == ""}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", caFile)
		}
	}
	return config, nil
}

// dialer connects as a proxy that shows `certificate`.
func dialer(address string, config *tls.Config, certificate *tls.Certificate) func(context.Context) (net.Conn, error) {
	config = config.Clone()
	config.Certificates = []tls.Certificate{*certificate}
	config.NextProtos = []string{"h2"}
	dialer := tls.Dialer{Config: config}
	return func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", address) }
}
