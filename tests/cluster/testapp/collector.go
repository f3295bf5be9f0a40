// The collector: takes spans of OpenTelemetry over gRPC, with OpenTelemetry's own types, and prints each as a line of JSON.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"net"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc"
)

// spanLine is one span, as far as tests look at it.
type spanLine struct {
	Trace      string         `json:"trace"`
	Span       string         `json:"span"`
	Parent     string         `json:"parent"`
	Name       string         `json:"name"`
	Kind       string         `json:"kind"`
	Resource   map[string]any `json:"resource"`
	Attributes map[string]any `json:"attributes"`
}

type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	take func(spanLine) error
}

func (c *collector) Export(_ context.Context, request *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	for _, from := range request.ResourceSpans {
		resource := values(from.GetResource().GetAttributes())
		for _, scope := range from.ScopeSpans {
			for _, span := range scope.Spans {
				line := spanLine{
					Trace: hex.EncodeToString(span.TraceId), Span: hex.EncodeToString(span.SpanId), Parent: hex.EncodeToString(span.ParentSpanId),
					Name: span.Name, Kind: span.Kind.String(), Resource: resource, Attributes: values(span.Attributes),
				}
				if err := c.take(line); err != nil {
					return nil, err
				}
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func values(attributes []*commonpb.KeyValue) map[string]any {
	found := map[string]any{}
	for _, attribute := range attributes {
		switch value := attribute.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			found[attribute.Key] = value.StringValue
		case *commonpb.AnyValue_IntValue:
			found[attribute.Key] = value.IntValue
		default:
			found[attribute.Key] = attribute.Value.String()
		}
	}
	return found
}

func runCollector(args []string) error {
	flags := flag.NewFlagSet("collector", flag.ContinueOnError)
	port := flags.Int("port", 4317, "port to listen on")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", *port))
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, &collector{take: func(line spanLine) error { return printJSON(line) }})
	go func() {
		<-terminated()
		server.Stop()
	}()
	return server.Serve(listener)
}
