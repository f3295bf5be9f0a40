package main

import (
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

func TestTheCollectorSaysWhoseSpanAndWhoseChildEachOneIs(t *testing.T) {
	text := func(key, value string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
	}
	span := &tracepb.Span{
		TraceId: []byte{1}, SpanId: []byte{2}, ParentSpanId: []byte{3}, Name: "GET", Kind: tracepb.Span_SPAN_KIND_CLIENT,
		Attributes: []*commonpb.KeyValue{text("url.path", "/")},
	}
	var got []spanLine
	taking := collector{take: func(line spanLine) error { got = append(got, line); return nil }}
	_, err := taking.Export(t.Context(), &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "web")}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{span}}},
	}}})
	if err != nil || len(got) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	line := got[0]
	if line.Trace != "01" || line.Span != "02" || line.Parent != "03" || line.Kind != "SPAN_KIND_CLIENT" {
		t.Fatalf("got %+v", line)
	}
	if line.Resource["service.name"] != "web" || line.Attributes["url.path"] != "/" {
		t.Fatalf("got %+v", line)
	}
}
