package main

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	serviceType   = "type.googleapis.com/leno.dev.Service"
	endpointsType = "type.googleapis.com/leno.dev.Endpoints"
	deltaStream   = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	// How long a proxy waits before it connects again, on average. The first one of a bench is eager, so
	// that readiness is seen at once.
	retryPause = 200 * time.Millisecond
	eagerPause = 5 * time.Millisecond
)

// proxy is one simulated sidecar. It subscribes to some services and then, as each comes, to its
// endpoints, and acknowledges every response, as late as a proxy does.
type proxy struct {
	number   int
	nodeID   string // namespace/pod
	services []string
	book     *changeBook // nil: it is not awaited, and what it holds is not noted
	dial     func(context.Context) (net.Conn, error)
	eager    bool
	mute     bool      // never acknowledges anything
	deaf     *deafness // for a proxy that stops reading

	namespace, serviceAccount string

	bytes, responses atomic.Int64
	lost             *atomic.Int64 // streams that ended after they were complete
	life             atomic.Pointer[life]
}

// life is the time from one start of the controller to its end.
type life struct {
	once  sync.Once
	ready chan struct{} // closed when the proxy holds everything it subscribed to
	at    time.Time     // valid once `ready` is closed
}

func newLife() *life { return &life{ready: make(chan struct{})} }

// deafness stops a proxy from reading, for a while.
type deafness struct {
	stopped atomic.Bool
	resumed chan struct{}
}

func newProxy(number int, w world, services []string, book *changeBook, lost *atomic.Int64) *proxy {
	service, endpoint := number/w.endpoints, number%w.endpoints
	p := &proxy{
		number: number, services: services, book: book, lost: lost,
		nodeID:    w.namespace(service) + "/" + podName(service, endpoint),
		namespace: w.namespace(service), serviceAccount: serviceName(service),
	}
	p.life.Store(newLife())
	return p
}

// run keeps a stream open until the context ends; a stream that breaks is opened again.
func (p *proxy) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-p.life.Load().ready:
			if p.lost.Add(1) == 1 {
				log.Printf("proxy %d is the first to lose its stream: %v", p.number, err)
			}
		default:
		}
		pause := eagerPause
		if !p.eager {
			pause = retryPause/2 + rand.N(retryPause)
		}
		time.Sleep(pause)
	}
}

func (p *proxy) stream(ctx context.Context) error {
	connection, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { connection.Close() })()
	window := streamWindow
	if p.deaf != nil {
		window = defaultWindow
	}
	stream, err := openStream(connection, connection.RemoteAddr().String(), deltaStream, window)
	if err != nil {
		return err
	}
	if err := stream.send(deltaRequest{nodeID: p.nodeID, typeURL: serviceType, subscribe: p.services}.encode()); err != nil {
		return err
	}
	missing := p.wanted()
	var waiting acknowledgements
	for {
		message, err := stream.receive(waiting.by)
		if err != nil {
			return err
		}
		now := time.Now()
		var endpoints []string
		if message != nil {
			response := p.take(message, now)
			if !p.mute {
				waiting.add(response, now)
			}
			endpoints = p.settle(response, missing)
		}
		if len(endpoints) > 0 || waiting.due(now) {
			if err := waiting.send(stream); err != nil {
				return err
			}
		}
		if len(endpoints) > 0 {
			if err := stream.send(deltaRequest{typeURL: endpointsType, subscribe: endpoints}.encode()); err != nil {
				return err
			}
		}
		if p.deaf != nil && p.deaf.stopped.Load() {
			<-p.deaf.resumed
		}
	}
}

// wanted is every resource the proxy will subscribe to.
func (p *proxy) wanted() map[string]bool {
	names := map[string]bool{}
	for _, service := range p.services {
		names[serviceType+" "+service] = true
		names[endpointsType+" "+endpointsOf(service)] = true
	}
	return names
}

// take counts a response and notes the changes it carries.
func (p *proxy) take(message []byte, at time.Time) deltaResponse {
	p.bytes.Add(int64(len(message) + grpcHeadLen))
	p.responses.Add(1)
	if p.book != nil {
		findMarkers(message, func(marker int) { p.book.received(p.number, marker, at) })
	}
	return decodeResponse(message)
}

// settle takes what came off `missing`, and gives the endpoints to subscribe to next.
func (p *proxy) settle(response deltaResponse, missing map[string]bool) (endpoints []string) {
	if len(missing) == 0 {
		return nil
	}
	for _, name := range response.names {
		key := response.typeURL + " " + name
		if missing[key] && response.typeURL == serviceType {
			endpoints = append(endpoints, endpointsOf(name))
		}
		delete(missing, key)
	}
	if len(missing) == 0 {
		life := p.life.Load()
		life.once.Do(func() {
			life.at = time.Now()
			close(life.ready)
		})
	}
	return endpoints
}

func endpointsOf(service string) string { return fmt.Sprintf("%s:%d", service, servicePort) }
