// The gRPC client: every kind of call against grpc-server, each answer checked, over one connection.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const callTimeout = 10 * time.Second

// grpcCounts is what the client prints. byVersion counts unary calls; metadata is what the last of them carried
// when it arrived.
type grpcCounts struct {
	Calls     int            `json:"calls"`
	Failed    int            `json:"failed"`
	ByVersion map[string]int `json:"byVersion"`
	ByPod     map[string]int `json:"byPod"`
	Metadata  map[string]any `json:"metadata"`
	Messages  int            `json:"heldStreamMessages"`
	Errors    []string       `json:"errors"`
}

func runGRPCClient(args []string) error {
	flags := flag.NewFlagSet("grpc-client", flag.ContinueOnError)
	number := flags.Int("n", 1, "")
	hold := flags.Duration("hold", 0, "also keep one stream open that long, with a message every 100 ms")
	stdin := flags.Bool("stdin", false, "keep that stream open until standard input ends")
	flaky := flags.String("flaky", "", "instead: one call that fails the first time that it is made with this text")
	var extra headers
	flags.Var(&extra, "H", "name:value, may be repeated")
	targets, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(targets[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	ctx := context.Background()
	for _, header := range extra {
		ctx = metadata.AppendToOutgoingContext(ctx, header[0], header[1])
	}

	counts := grpcCounts{ByVersion: map[string]int{}, ByPod: map[string]int{}, Errors: []string{}}
	calls := []func(context.Context, *grpc.ClientConn, *grpcCounts) error{callUnary, callFail, callServerStream, callClientStream, callBidiStream}
	if *flaky != "" {
		*number = 0
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		counts.add(connection.Invoke(limited, "/"+echoService+"/Flaky", wrapperspb.String(*flaky), &structpb.Struct{}))
		cancel()
	}
	for range *number {
		for _, call := range calls {
			limited, cancel := context.WithTimeout(ctx, callTimeout)
			counts.add(call(limited, connection, &counts))
			cancel()
		}
	}
	if *hold > 0 || *stdin {
		counts.add(holdStream(ctx, connection, holding(*hold, *stdin), &counts))
	}
	if err := printJSON(counts); err != nil {
		return err
	}
	if counts.Failed > 0 {
		return fmt.Errorf("%d of %d calls failed", counts.Failed, counts.Calls)
	}
	return nil
}

func (c *grpcCounts) add(err error) {
	c.Calls++
	if err == nil {
		return
	}
	c.Failed++
	if len(c.Errors) < errorsKept {
		c.Errors = append(c.Errors, err.Error())
	}
}

func callUnary(ctx context.Context, connection *grpc.ClientConn, counts *grpcCounts) error {
	var answer structpb.Struct
	var trailer metadata.MD
	err := connection.Invoke(ctx, "/"+echoService+"/Unary", wrapperspb.String("hello"), &answer, grpc.Trailer(&trailer))
	if err != nil {
		return fmt.Errorf("unary: %w", err)
	}
	fields := answer.AsMap()
	version := fmt.Sprint(fields["version"])
	if fields["text"] != "hello" || len(trailer[trailerServed]) != 1 || trailer[trailerServed][0] != version {
		return fmt.Errorf("unary: got %v and the trailer %v", fields, trailer)
	}
	counts.ByVersion[version]++
	counts.ByPod[fmt.Sprint(fields["pod"])]++
	counts.Metadata, _ = fields["metadata"].(map[string]any)
	return nil
}

// callFail wants the error and the trailer that the server gives on purpose.
func callFail(ctx context.Context, connection *grpc.ClientConn, _ *grpcCounts) error {
	var trailer metadata.MD
	err := connection.Invoke(ctx, "/"+echoService+"/Fail", wrapperspb.String("why"), &structpb.Struct{}, grpc.Trailer(&trailer))
	got := status.Convert(err)
	if got.Code() != codes.FailedPrecondition || got.Message() != failMessage {
		return fmt.Errorf("fail: want %s, got %w", codes.FailedPrecondition, err)
	}
	if len(trailer[failTrailer]) != 1 || trailer[failTrailer][0] != "why" {
		return fmt.Errorf("fail: the trailer %s is missing from %v", failTrailer, trailer)
	}
	return nil
}

func callServerStream(ctx context.Context, connection *grpc.ClientConn, _ *grpcCounts) error {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+echoService+"/ServerStream")
	if err != nil {
		return fmt.Errorf("server stream: %w", err)
	}
	if err := errors.Join(stream.SendMsg(wrapperspb.String("s")), stream.CloseSend()); err != nil {
		return fmt.Errorf("server stream: %w", err)
	}
	for i := range messagesSent {
		if err := expectText(stream, fmt.Sprintf("s %d", i)); err != nil {
			return fmt.Errorf("server stream: %w", err)
		}
	}
	return expectEnd(stream)
}

func callClientStream(ctx context.Context, connection *grpc.ClientConn, _ *grpcCounts) error {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/"+echoService+"/ClientStream")
	var texts []string
	for i := 0; err == nil && i < messagesSent; i++ {
		texts = append(texts, fmt.Sprintf("c %d", i))
		err = stream.SendMsg(wrapperspb.String(texts[i]))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("client stream: %w", err)
	}
	if err := expectText(stream, strings.Join(texts, ", ")); err != nil {
		return fmt.Errorf("client stream: %w", err)
	}
	return expectEnd(stream)
}

func callBidiStream(ctx context.Context, connection *grpc.ClientConn, _ *grpcCounts) error {
	stream, err := openBidiStream(ctx, connection)
	for i := 0; err == nil && i < messagesSent; i++ {
		err = exchange(stream, fmt.Sprintf("b %d", i))
	}
	if err != nil {
		return fmt.Errorf("bidirectional stream: %w", err)
	}
	return errors.Join(stream.CloseSend(), expectEnd(stream))
}

// holdStream keeps one stream open while other things happen to its two ends.
func holdStream(ctx context.Context, connection *grpc.ClientConn, done <-chan struct{}, counts *grpcCounts) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(callTimeout, cancel) // ends the stream when an answer takes that long
	defer silence.Stop()
	stream, err := openBidiStream(ctx, connection)
	for ; err == nil && !isDone(done); counts.Messages++ {
		err = exchange(stream, fmt.Sprintf("h %d", counts.Messages))
		if err == nil && counts.Messages == 0 {
			tellHeld()
		}
		silence.Reset(callTimeout)
		time.Sleep(betweenMessages)
	}
	if err != nil {
		return fmt.Errorf("held stream, after %d messages: %w", counts.Messages, err)
	}
	return errors.Join(stream.CloseSend(), expectEnd(stream))
}

func openBidiStream(ctx context.Context, connection *grpc.ClientConn) (grpc.ClientStream, error) {
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	return connection.NewStream(ctx, description, "/"+echoService+"/BidiStream")
}

func exchange(stream grpc.ClientStream, text string) error {
	if err := stream.SendMsg(wrapperspb.String(text)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return expectText(stream, text) // after io.EOF on sending, receiving says what happened
}

func expectText(stream grpc.ClientStream, want string) error {
	var answer structpb.Struct
	if err := stream.RecvMsg(&answer); err != nil {
		return err
	}
	if got := answer.AsMap()["text"]; got != want {
		return fmt.Errorf("want %q, got %q", want, got)
	}
	return nil
}

func expectEnd(stream grpc.ClientStream) error {
	if err := stream.RecvMsg(&structpb.Struct{}); !errors.Is(err, io.EOF) {
		return fmt.Errorf("stream should have ended, got %v", err)
	}
	return nil
}
