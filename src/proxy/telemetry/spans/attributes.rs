//! A span as OpenTelemetry names its parts: the semantic conventions for HTTP and RPC, and names of its own for what only a mesh knows.

use std::time::UNIX_EPOCH;

use leno_core::names::{Name, WorkloadId, split_authority};
use leno_core::trace::Span;

use super::finished::Finished;
use super::otlp::{self, AnyValue, ArrayValue, KeyValue, SpanKind, StatusCode, Value};
use crate::telemetry::{Direction, Origin, Spoken};

/// The methods that conventions know; every other one is `_OTHER`, so that names of spans stay a closed set.
const METHODS: [&str; 10] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"];
const OTHER: &str = "_OTHER";

/// In [`otlp::Span::flags`]: whether the parent is another program's span is known.
const HAS_IS_REMOTE: u32 = 1 << 8;
/// It is.
const IS_REMOTE: u32 = 1 << 9;

/// gRPC's statuses that are the server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const FAULTS_OF_SERVERS: [u16; 6] = [2, 4, 12, 13, 14, 15];

/// Whose spans they are.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    service: Name,
    workload: WorkloadId,
}

impl Resource {
    /// The workload `source` with the pod `workload`.
    pub(super) fn of(source: &Name, workload: &WorkloadId) -> Self {
        Self { service: Name::clone(source), workload: workload.clone() }
    }

    /// A request to the collector with these spans.
    pub(super) fn request(&self, spans: &[Finished]) -> otlp::ExportTraceServiceRequest {
        let mut attributes = Attributes::default();
        attributes.text("service.name", &*self.service);
        attributes.text("k8s.namespace.name", &*self.workload.namespace);
        attributes.text("k8s.pod.name", &*self.workload.name);
        let scope = otlp::InstrumentationScope { name: "leno".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![otlp::ScopeSpans { scope: Some(scope), spans: spans.iter().map(span).collect() }];
        let resource = Some(otlp::Resource { attributes: attributes.0 });
        otlp::ExportTraceServiceRequest { resource_spans: vec![otlp::ResourceSpans { resource, scope_spans }] }
    }
}

fn span(finished: &Finished) -> otlp::Span {
    let Span { trace, id, parent, state, .. } = &finished.span;
    let ended = finished.ended.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let is_error = is_error(finished);
    let remote = if parent.is_some() { HAS_IS_REMOTE | IS_REMOTE } else { HAS_IS_REMOTE };
    otlp::Span {
        trace_id: trace.bytes().to_vec(),
        span_id: id.bytes().to_vec(),
        trace_state: state.as_deref().unwrap_or_default().to_owned(),
        parent_span_id: parent.map(|parent| parent.bytes().to_vec()).unwrap_or_default(),
        name: name(finished),
        kind: match finished.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        } as i32,
        start_time_unix_nano: nanos(ended.saturating_sub(finished.duration)),
        end_time_unix_nano: nanos(ended),
        attributes: attributes(finished, is_error),
        status: is_error.then(|| otlp::Status { message: String::new(), code: StatusCode::Error as i32 }),
        flags: u32::from(finished.span.flags()) | remote,
    }
}

/// gRPC's method, or the method of HTTP: nothing that makes the set of names grow with what clients ask.
fn name(finished: &Finished) -> String {
    match (finished.spoken, rpc(&finished.path)) {
        (Spoken::Grpc, Some((service, method))) => format!("{service}/{method}"),
        (Spoken::Http1 | Spoken::Http2 | Spoken::Grpc | Spoken::Tcp, _) => match known(&finished.method) {
            OTHER => "HTTP".to_owned(),
            method => method.to_owned(),
        },
    }
}

fn known(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER)
}

/// Service and method of gRPC.
fn rpc(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.rsplit_once('/')
}

/// Whether it counts as a failure: a server's span only by what is the server's fault, a client's by every failure.
fn is_error(finished: &Finished) -> bool {
    let is_client = finished.direction == Direction::Outbound;
    match (finished.spoken, finished.grpc_status) {
        (Spoken::Grpc, Some(code)) => {
            let is_fault = if is_client { code != 0 } else { FAULTS_OF_SERVERS.contains(&code) };
            is_fault || finished.reason.is_some_and(|reason| Origin::of(reason) != Origin::Downstream)
        }
        (Spoken::Http1 | Spoken::Http2 | Spoken::Grpc | Spoken::Tcp, _) => {
            let first = if is_client { 400 } else { 500 };
            finished.status >= first || finished.status == 0 || is_cut(finished)
        }
    }
}

/// Whether a response that had begun well did not end so.
fn is_cut(finished: &Finished) -> bool {
    finished.reason.is_some() && finished.status < 400
}

fn attributes(finished: &Finished, is_error: bool) -> Vec<KeyValue> {
    let mut attributes = Attributes::default();
    http(finished, &mut attributes);
    network(finished, &mut attributes);
    if finished.spoken == Spoken::Grpc {
        attributes.text("rpc.system", "grpc");
        if let Some((service, method)) = rpc(&finished.path) {
            attributes.text("rpc.service", service);
            attributes.text("rpc.method", method);
        }
        attributes.number("rpc.grpc.status_code", finished.grpc_status);
    }
    if is_error || finished.reason.is_some() {
        let by_status = || finished.grpc_status.filter(|code| *code != 0).unwrap_or(finished.status).to_string();
        attributes.text("error.type", finished.reason.map_or_else(by_status, str::to_owned));
    }
    mesh(finished, &mut attributes);
    attributes.0
}

fn http(finished: &Finished, attributes: &mut Attributes) {
    let method = known(&finished.method);
    attributes.text("http.request.method", method);
    if method == OTHER {
        attributes.text("http.request.method_original", &*finished.method);
    }
    // With `http://host` before it, where the client asked so; or `*`.
    let path = match finished.path.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |place| &rest[place..]),
        None => &finished.path,
    };
    attributes.text("url.path", path);
    attributes.text("url.scheme", "http");
    if finished.direction == Direction::Outbound {
        attributes.text("url.full", format!("http://{}{path}", finished.authority));
    }
    attributes.number("http.response.status_code", Some(finished.status).filter(|status| *status != 0));
    attributes.number("http.request.body.size", Some(finished.bytes_in));
    attributes.number("http.response.body.size", Some(finished.bytes_out));
    attributes.number("http.request.resend_count", finished.tries.checked_sub(1).filter(|resent| *resent > 0));
    attributes.list("http.request.header.x-request-id", [&*finished.request_id].into_iter().filter(|id| !id.is_empty()));
}

fn network(finished: &Finished, attributes: &mut Attributes) {
    if let Some((host, port)) = split_authority(&finished.authority) {
        attributes.text("server.address", host);
        attributes.number("server.port", port);
    }
    attributes.text("network.protocol.name", "http");
    attributes.text("network.protocol.version", if finished.spoken == Spoken::Http1 { "1.1" } else { "2" });
    let peer = match finished.direction {
        Direction::Inbound => Some(finished.peer),
        Direction::Outbound => finished.upstream,
    };
    if let Some(peer) = peer {
        attributes.text("network.peer.address", peer.ip().to_canonical().to_string());
        attributes.number("network.peer.port", Some(peer.port()));
    }
    if finished.direction == Direction::Inbound {
        attributes.text("client.address", finished.peer.ip().to_canonical().to_string());
    }
}

/// What only the mesh knows, by the names of the access log.
fn mesh(finished: &Finished, attributes: &mut Attributes) {
    attributes.text("leno.direction", finished.direction.as_str());
    let destination = &finished.destination;
    attributes.text("leno.destination", destination.service.as_ref().map(ToString::to_string).unwrap_or_default());
    attributes.text("leno.version", destination.version.as_deref().unwrap_or_default());
    attributes.text("leno.route", destination.route.as_deref().unwrap_or_default());
    if let Some((source, destination)) = &finished.identities {
        attributes.text("leno.source_identity", source.to_string());
        attributes.text("leno.destination_identity", destination.to_string());
    }
    attributes.text("leno.policy", finished.policy.as_deref().unwrap_or_default());
    attributes.text("leno.origin", finished.reason.map(|reason| Origin::of(reason).as_str()).unwrap_or_default());
    let retried = finished.retried.iter().map(|retried| format!("{} {}", retried.reason.as_str(), retried.went.as_str()));
    attributes.list("leno.retries", retried);
}

/// Attributes; what has no value is none.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.push(key, Value::Text(value));
        }
    }

    fn number<N: TryInto<i64>>(&mut self, key: &str, value: Option<N>) {
        if let Some(value) = value {
            self.push(key, Value::Number(value.try_into().unwrap_or(i64::MAX)));
        }
    }

    fn list<T: Into<String>>(&mut self, key: &str, values: impl Iterator<Item = T>) {
        let values: Vec<AnyValue> = values.map(|value| AnyValue { value: Some(Value::Text(value.into())) }).collect();
        if !values.is_empty() {
            self.push(key, Value::List(ArrayValue { values }));
        }
    }

    fn push(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) });
    }
}
