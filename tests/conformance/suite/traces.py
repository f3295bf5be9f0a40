"""Spans and trace contexts, read and written by OpenTelemetry's own code: its types, its propagators."""

import concurrent.futures
import http.server
import pathlib
import tempfile
import threading

import grpc
from opentelemetry import trace
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import mesh, wire
from .check import case, equal, eventually
from .http1 import seen


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans over gRPC and over HTTP."""

    def __init__(self):
        self.spans = []
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor())
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.grpc)
        self.grpc_port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()
        taking = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = taking.Export(trace_service_pb2.ExportTraceServiceRequest.FromString(body), None).SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def Export(self, request, _context):
        for of_resource in request.resource_spans:
            resource = values(of_resource.resource.attributes)
            self.spans += [(resource, span) for scope in of_resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def close(self):
        self.grpc.stop(None)
        self.http.shutdown()
        self.http.server_close()

    def chain(self, of_trace):
        """The spans of both proxies in one trace: the caller's and the app's."""
        ours = lambda: [(resource, span) for resource, span in list(self.spans) if int.from_bytes(span.trace_id) == of_trace]
        eventually("both spans arrive", lambda: len(ours()) == 2, seconds=20)
        by_kind = {span.kind: (resource, span) for resource, span in ours()}
        return by_kind[Span.SPAN_KIND_CLIENT], by_kind[Span.SPAN_KIND_SERVER]


def values(attributes):
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in attributes}


def through(env, port, protocol, propagation, run):
    """Runs `run` with the echo service of a mesh of its own, whose proxies trace."""
    with tempfile.TemporaryDirectory(prefix="leno-traces-") as folder:
        flags = ["--otlp-endpoint", f"http://127.0.0.1:{port}", "--otlp-protocol", protocol, "--trace-propagation", propagation]
        traced = mesh.Up(env.binary, pathlib.Path(folder), env.apps, *flags)
        try:
            run(lambda: wire.Client(traced.addresses["echo"]))
        finally:
            traced.process.kill()
            traced.process.wait()


def asked(dial, carrier):
    """The fields that the app was sent, in lower case, where the client sent these."""
    with dial() as client:
        response = client.get("/traced?secret=1", *(f"{name}: {value}" for name, value in carrier.items()))
        equal(response.status, 200)
        return {name.lower(): value for name, value in seen(response)["fields"]}


def context_of(propagator, fields):
    return trace.get_current_span(propagator.extract(fields)).get_span_context()


def a_trace(sampled=True):
    """A context that an app would have."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    state = trace.TraceState([("vendor", "value"), ("other", "1")])
    ids = trace.span.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, flags, state)
    return ids, trace.set_span_in_context(trace.NonRecordingSpan(ids))


def check_chain(collector, sent, fields, *propagators):
    """Caller, proxy, proxy, app: each is the child of the one before."""
    (from_caller, caller), (from_app, callee) = collector.chain(sent.trace_id)
    equal(int.from_bytes(caller.parent_span_id), sent.span_id, "the caller's proxy is the child of the caller")
    equal(callee.parent_span_id, caller.span_id, "the app's proxy is the child of the caller's proxy")
    for propagator in propagators:
        context = context_of(propagator, fields)
        equal((context.trace_id, context.span_id), (sent.trace_id, int.from_bytes(callee.span_id)), f"the app's context by {type(propagator).__name__}")
        assert context.trace_flags.sampled
    for resource, span in ((from_caller, caller), (from_app, callee)):
        assert resource["k8s.namespace.name"] == "shop" and resource["service.name"] and resource["k8s.pod.name"], resource
        said = values(span.attributes)
        wanted = {"http.request.method": "GET", "url.path": "/traced", "http.response.status_code": 200, "network.protocol.version": "1.1"}
        equal({name: said.get(name) for name in wanted}, wanted)
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano and span.status.code == Status.STATUS_CODE_UNSET
        assert b"secret" not in span.SerializeToString()
    assert caller.start_time_unix_nano <= callee.start_time_unix_nano + 10_000_000, "within what clocks are read apart"


@case("traces")
def w3c_contexts_and_spans_over_grpc_are_what_opentelemetry_reads_and_writes(env):
    collector, propagator = Collector(), TraceContextTextMapPropagator()

    def run(dial):
        sent, context = a_trace()
        carrier = {}
        propagator.inject(carrier, context)
        fields = asked(dial, carrier)
        check_chain(collector, sent, fields, propagator)
        equal(context_of(propagator, fields).trace_state.to_header(), sent.trace_state.to_header())
        equal({span.trace_state for _, span in collector.spans}, {sent.trace_state.to_header()})
        unsampled, context = a_trace(sampled=False)
        propagator.inject(carrier, context)
        before = len(collector.spans)
        assert not context_of(propagator, asked(dial, carrier)).trace_flags.sampled
        new = context_of(propagator, asked(dial, {}))
        assert new.is_valid and new.trace_flags.sampled and new.trace_id != unsampled.trace_id
        (_, caller), _ = collector.chain(new.trace_id)
        equal((caller.parent_span_id, len(collector.spans)), (b"", before + 2), "the one that nobody keeps is not sent")

    try:
        through(env, collector.grpc_port, "grpc", "W3C", run)
    finally:
        collector.close()


@case("traces")
def b3_contexts_and_spans_over_http_are_what_opentelemetry_reads_and_writes(env):
    for form in (B3SingleFormat(), B3MultiFormat()):
        collector = Collector()

        def run(dial):
            sent, context = a_trace()
            carrier = {}
            form.inject(carrier, context)
            fields = asked(dial, carrier)
            check_chain(collector, sent, fields, form, TraceContextTextMapPropagator())

        try:
            through(env, collector.http.server_address[1], "http/protobuf", "B3,W3C", run)
        finally:
            collector.close()
