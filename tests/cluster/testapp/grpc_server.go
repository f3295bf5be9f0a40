// The gRPC server. Its messages are protobuf's own well-known types, so there is no code to generate: requests are a
// StringValue, answers a Struct {version, pod, text, metadata}.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	echoService   = "leno.test.Echo"
	messagesSent  = 3 // by the server stream, for each request
	failTrailer   = "echo-fail"
	failMessage   = "failed as asked"
	trailerServed = "echo-version"
)

// echoServer is the service /leno.test.Echo/{Unary,Fail,Flaky,ServerStream,ClientStream,BidiStream}.
type echoServer struct {
	version, pod string
	flaky        flakyKeys
}

var echoDescription = grpc.ServiceDesc{
	ServiceName: echoService,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Unary", Handler: unaryHandler((*echoServer).unary)},
		{MethodName: "Fail", Handler: unaryHandler((*echoServer).fail)},
		{MethodName: "Flaky", Handler: unaryHandler((*echoServer).failOnce)},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "ServerStream", Handler: streamHandler((*echoServer).serverStream), ServerStreams: true},
		{StreamName: "ClientStream", Handler: streamHandler((*echoServer).clientStream), ClientStreams: true},
		{StreamName: "BidiStream", Handler: streamHandler((*echoServer).bidiStream), ServerStreams: true, ClientStreams: true},
	},
}

type unaryMethod = func(*echoServer, context.Context, string) (*structpb.Struct, error)

func unaryHandler(method unaryMethod) grpc.MethodHandler {
	return func(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var request wrapperspb.StringValue
		if err := decode(&request); err != nil {
			return nil, err
		}
		return method(server.(*echoServer), ctx, request.GetValue())
	}
}

func streamHandler(method func(*echoServer, grpc.ServerStream) error) grpc.StreamHandler {
	return func(server any, stream grpc.ServerStream) error { return method(server.(*echoServer), stream) }
}

func (s *echoServer) answer(ctx context.Context, text string) (*structpb.Struct, error) {
	received := map[string]any{}
	incoming, _ := metadata.FromIncomingContext(ctx)
	for name, values := range incoming {
		if !strings.HasSuffix(name, "-bin") { // binary values are no text
			received[name] = strings.Join(values, ", ")
		}
	}
	return structpb.NewStruct(map[string]any{"version": s.version, "pod": s.pod, "text": text, "metadata": received})
}

func (s *echoServer) unary(ctx context.Context, text string) (*structpb.Struct, error) {
	if err := grpc.SetTrailer(ctx, metadata.Pairs(trailerServed, s.version)); err != nil {
		return nil, err
	}
	return s.answer(ctx, text)
}

func (s *echoServer) fail(ctx context.Context, text string) (*structpb.Struct, error) {
	if err := grpc.SetTrailer(ctx, metadata.Pairs(failTrailer, text)); err != nil {
		return nil, err
	}
	return nil, status.Error(codes.FailedPrecondition, failMessage)
}

// failOnce is not available for the first call with a text.
func (s *echoServer) failOnce(ctx context.Context, text string) (*structpb.Struct, error) {
	if s.flaky.seen(text) == 1 {
		return nil, status.Error(codes.Unavailable, failMessage)
	}
	return s.unary(ctx, text)
}

func (s *echoServer) serverStream(stream grpc.ServerStream) error {
	var request wrapperspb.StringValue
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	for i := range messagesSent {
		if err := s.send(stream, fmt.Sprintf("%s %d", request.GetValue(), i)); err != nil {
			return err
		}
	}
	return nil
}

// clientStream answers once, with everything that came.
func (s *echoServer) clientStream(stream grpc.ServerStream) error {
	var texts []string
	for {
		var request wrapperspb.StringValue
		err := stream.RecvMsg(&request)
		if errors.Is(err, io.EOF) {
			return s.send(stream, strings.Join(texts, ", "))
		}
		if err != nil {
			return err
		}
		texts = append(texts, request.GetValue())
	}
}

func (s *echoServer) bidiStream(stream grpc.ServerStream) error {
	for {
		var request wrapperspb.StringValue
		err := stream.RecvMsg(&request)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.send(stream, request.GetValue()); err != nil {
			return err
		}
	}
}

func (s *echoServer) send(stream grpc.ServerStream, text string) error {
	answer, err := s.answer(stream.Context(), text)
	if err != nil {
		return err
	}
	return stream.SendMsg(answer)
}

func runGRPCServer(args []string) error {
	flags := flag.NewFlagSet("grpc-server", flag.ContinueOnError)
	port := flags.Int("port", 9000, "")
	echo := &echoServer{pod: podName()}
	flags.StringVar(&echo.version, "version", "v1", "")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", *port))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&echoDescription, echo)
	healthpb.RegisterHealthServer(server, health.NewServer()) // for the kubelet's gRPC probes
	fmt.Fprintf(os.Stderr, "grpc %s in %s: listening on %s\n", echo.version, echo.pod, listener.Addr())
	stop, failed := terminated(), make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-stop:
		server.GracefulStop() // returns when the calls in flight have ended
		return nil
	}
}
