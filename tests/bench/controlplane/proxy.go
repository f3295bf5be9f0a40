package main

import (
	"context"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

const (
	serviceType   = "type.googleapis.com/leno.dev.Service"
	endpointsType = "type.googleapis.com/leno.dev.Endpoints"
	deltaStream   = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	grpcHeadLen   = 5
	retryPause    = 50 * time.Millisecond
)

// proxy is one simulated sidecar. It subscribes to some services and then, as each comes, to its
// endpoints, and acknowledges every response.
type proxy struct {
	number   int
	nodeID   string // namespace/pod
	services []string
	book     *changeBook
	dial     []grpc.DialOption

	namespace, serviceAccount string

	bytes  atomic.Int64
	lost   *atomic.Int64 // streams that ended after they were complete, of all proxies
	once   sync.Once
	ready  chan struct{} // closed when it holds everything it subscribed to
	readyT time.Time     // valid once `ready` is closed
}

func newProxy(number int, w world, services []string, book *changeBook, lost *atomic.Int64) *proxy {
	service, endpoint := number/w.endpoints, number%w.endpoints
	return &proxy{
		number: number, services: services, book: book, lost: lost, ready: make(chan struct{}),
		nodeID:    w.namespace(service) + "/" + podName(service, endpoint),
		namespace: w.namespace(service), serviceAccount: serviceName(service),
	}
}

// run keeps a stream open until the context ends; a stream that breaks early is opened again.
func (p *proxy) run(ctx context.Context, address string) {
	connection, err := grpc.NewClient("passthrough:///"+address, p.dial...)
	if err != nil {
		log.Fatalf("%s: %v", address, err)
	}
	defer connection.Close()
	for ctx.Err() == nil {
		err := p.stream(ctx, connection)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-p.ready:
			p.lost.Add(1)
			log.Printf("proxy %d lost its stream: %v", p.number, err)
		default:
		}
		time.Sleep(retryPause)
	}
}

func (p *proxy) stream(ctx context.Context, connection *grpc.ClientConn) error {
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := connection.NewStream(ctx, description, deltaStream, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	send := func(request deltaRequest) error {
		message := request.encode()
		return stream.SendMsg(&message)
	}
	if err := send(deltaRequest{nodeID: p.nodeID, typeURL: serviceType, subscribe: p.services}); err != nil {
		return err
	}
	missing := p.wanted()
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		response := p.take(message, time.Now())
		if err := send(deltaRequest{typeURL: response.typeURL, nonce: response.nonce}); err != nil {
			return err
		}
		if endpoints := p.settle(response, missing); len(endpoints) > 0 {
			if err := send(deltaRequest{typeURL: endpointsType, subscribe: endpoints}); err != nil {
				return err
			}
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
	findMarkers(message, func(marker int) { p.book.received(p.number, marker, at) })
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
		p.once.Do(func() {
			p.readyT = time.Now()
			close(p.ready)
		})
	}
	return endpoints
}

func endpointsOf(service string) string { return fmt.Sprintf("%s:%d", service, servicePort) }
