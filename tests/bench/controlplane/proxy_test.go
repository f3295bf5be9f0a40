package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// rawCodec passes messages as bytes.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}

// request is what the proxy under test sent, decoded by hand.
type request struct {
	node, typeURL, nonce string
	subscribe            []string
}

func decodeRequest(message []byte) request {
	var r request
	forEachBytes(message, func(field protowire.Number, value []byte) {
		switch field {
		case 1:
			forEachBytes(value, func(_ protowire.Number, id []byte) { r.node = string(id) })
		case 2:
			r.typeURL = string(value)
		case 3:
			r.subscribe = append(r.subscribe, string(value))
		case 6:
			r.nonce = string(value)
		}
	})
	return r
}

func encodeResponse(typeURL, nonce string, names []string, content string) []byte {
	var message []byte
	for _, name := range names {
		resource := appendString(nil, 3, name)
		message = appendBytes(message, 2, appendBytes(resource, 2, appendString(nil, 2, content)))
	}
	return appendString(appendString(message, 4, typeURL), 5, nonce)
}

// serve answers every subscription with the resources asked for, and passes on what it was sent.
func serve(t *testing.T, contents <-chan string) (address string, requests <-chan request) {
	t.Helper()
	seen := make(chan request, 100)
	handler := func(_ any, stream grpc.ServerStream) error {
		for {
			var message []byte
			if err := stream.RecvMsg(&message); err != nil {
				return err
			}
			r := decodeRequest(message)
			seen <- r
			if len(r.subscribe) == 0 {
				continue
			}
			answer := encodeResponse(r.typeURL, "nonce of "+r.typeURL, r.subscribe, <-contents)
			if err := stream.SendMsg(&answer); err != nil {
				return err
			}
		}
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(handler))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String(), seen
}

func plainly(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", address)
	}
}

func TestAProxySubscribesToServicesThenTheirEndpointsAndAcknowledgesBoth(t *testing.T) {
	contents := make(chan string, 2)
	address, requests := serve(t, contents)
	book := newChangeBook(time.Unix(1000, 0))
	made := book.add(0, []bool{true})
	contents <- "a service"
	contents <- "endpoint " + markerAddress(made.marker)

	w := world{services: 10, endpoints: 10, perNamespace: 10}
	p := newProxy(0, w, []string{"ns-0/svc-0", "ns-0/svc-1"}, book, &atomic.Int64{})
	p.dial = plainly(address)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go p.run(ctx)

	want := []request{
		{node: "ns-0/svc-0-0", typeURL: serviceType, subscribe: []string{"ns-0/svc-0", "ns-0/svc-1"}},
		{typeURL: serviceType, nonce: "nonce of " + serviceType},
		{typeURL: endpointsType, subscribe: []string{"ns-0/svc-0:80", "ns-0/svc-1:80"}},
		{typeURL: endpointsType, nonce: "nonce of " + endpointsType},
	}
	for _, w := range want {
		got := <-requests
		if got.node != w.node || got.typeURL != w.typeURL || got.nonce != w.nonce || !slices.Equal(got.subscribe, w.subscribe) {
			t.Fatalf("the proxy sent %+v, want %+v", got, w)
		}
	}
	<-p.life.Load().ready
	<-made.complete
}

func TestResponsesLongerThanTheWindowsArriveWholeAndAreAnsweredOneByOne(t *testing.T) {
	contents := make(chan string, 2)
	address, requests := serve(t, contents)
	contents <- strings.Repeat("s", 3*streamWindow)
	contents <- strings.Repeat("e", streamWindow)
	w := world{services: 10, endpoints: 10, perNamespace: 10}
	p := newProxy(0, w, []string{"ns-0/svc-0"}, nil, &atomic.Int64{})
	p.dial = plainly(address)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go p.run(ctx)
	<-p.life.Load().ready
	for range 4 {
		<-requests
	}
	if got := p.bytes.Load(); got < 4*streamWindow {
		t.Errorf("%d bytes came of more than %d", got, 4*streamWindow)
	}
}

func TestAMessageThatComesAfterOneThatDidNotInTimeIsReadWhole(t *testing.T) {
	contents := make(chan string, 1)
	address, _ := serve(t, contents)
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	stream, err := openStream(connection, address, deltaStream, streamWindow)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.send(deltaRequest{typeURL: serviceType, subscribe: []string{"ns-0/svc-0"}}.encode()); err != nil {
		t.Fatal(err)
	}
	if message, err := stream.receive(time.Now().Add(10 * time.Millisecond)); message != nil || err != nil {
		t.Fatalf("got %q and %v before anything was sent", message, err)
	}
	contents <- "a service"
	message, err := stream.receive(time.Now().Add(time.Minute))
	if err != nil || !slices.Equal(decodeResponse(message).names, []string{"ns-0/svc-0"}) {
		t.Errorf("got %q and %v", message, err)
	}
}

func TestAProxyThatIsMuteAcknowledgesNothing(t *testing.T) {
	contents := make(chan string, 2)
	address, requests := serve(t, contents)
	contents <- "a service"
	contents <- "endpoints"
	w := world{services: 10, endpoints: 10, perNamespace: 10}
	p := newProxy(0, w, []string{"ns-0/svc-0"}, nil, &atomic.Int64{})
	p.dial, p.mute = plainly(address), true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go p.run(ctx)
	<-p.life.Load().ready
	for range 2 {
		if got := <-requests; got.nonce != "" {
			t.Errorf("it acknowledged %q", got.nonce)
		}
	}
}
