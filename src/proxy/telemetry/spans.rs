//! One record as a span, in the words of OpenTelemetry's semantic conventions for HTTP and RPC (stable HTTP conventions, 1.23 and later).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leno_core::names::split_authority;
use leno_core::request::split_target;
use leno_core::trace::Trace;

use super::otlp::{Kind, STATUS_ERROR, Span, Status, number, text};
use super::{Direction, RequestRecord, Spoken};

/// Longest text of an attribute that a request brings.
const TEXT_BYTES_MAX: usize = 1024;
/// The methods that the conventions know; others are `_OTHER`, so that a caller cannot make names of its own.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The span of a request that ended `now`.
pub(super) fn span(record: &RequestRecord<'_>, trace: &Trace, now: SystemTime) -> Span {
    let kind = match record.direction {
        Direction::Inbound => Kind::Server,
        Direction::Outbound => Kind::Client,
    };
    let end = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut attributes = Vec::with_capacity(16);
    let method = METHODS.into_iter().find(|method| *method == record.method);
    attributes.push(text("http.request.method", method.unwrap_or("_OTHER")));
    if method.is_none() && !record.method.is_empty() {
        attributes.push(text("http.request.method_original", bounded(record.method)));
    }
    where_to(record, kind, &mut attributes);
    attributes.push(text("network.protocol.name", "http"));
    attributes.push(text("network.protocol.version", if record.spoken == Spoken::Http1 { "1.1" } else { "2" }));
    if record.status != 0 {
        attributes.push(number("http.response.status_code", record.status));
    }
    let name = match record.spoken {
        Spoken::Grpc => rpc(record, &mut attributes),
        Spoken::Http1 | Spoken::Http2 | Spoken::Tcp => method.unwrap_or("HTTP").to_owned(),
    };
    own_words(record, &mut attributes);
    let error = error(record, kind);
    attributes.extend(error.as_deref().map(|error| text("error.type", error)));
    Span {
        trace_id: trace.id.to_vec(),
        span_id: trace.span.to_vec(),
        trace_state: trace.state.clone(),
        parent_span_id: trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name,
        kind: kind.into(),
        start_time_unix_nano: nanos(end.saturating_sub(record.duration)),
        end_time_unix_nano: nanos(end),
        attributes,
        status: error.map(|message| Status { message, code: STATUS_ERROR }),
        flags: 1,
    }
}

/// What was asked, of whom, by whom.
fn where_to(record: &RequestRecord<'_>, kind: Kind, attributes: &mut Vec<super::otlp::KeyValue>) {
    let (host, port) = split_authority(record.authority).unwrap_or((record.authority, None));
    if !host.is_empty() {
        attributes.push(text("server.address", bounded(host)));
    }
    attributes.extend(port.map(|port| number("server.port", port)));
    if kind == Kind::Client {
        let path = if record.path.starts_with('/') { record.path } else { "/" };
        attributes.push(text("url.full", format!("http://{}{}", bounded(record.authority), bounded(path))));
        if let Some(upstream) = record.upstream {
            attributes.push(text("network.peer.address", upstream.ip().to_string()));
            attributes.push(number("network.peer.port", upstream.port()));
        }
    } else {
        let (path, query) = split_target(record.path);
        attributes.push(text("url.path", bounded(path)));
        if !query.is_empty() {
            attributes.push(text("url.query", bounded(query)));
        }
        attributes.push(text("url.scheme", "http"));
        attributes.push(text("client.address", record.peer.ip().to_canonical().to_string()));
        attributes.push(text("network.peer.address", record.peer.ip().to_canonical().to_string()));
        attributes.push(number("network.peer.port", record.peer.port()));
    }
}

/// `/package.Service/Method`, and gRPC's own status. Returns the span's name.
fn rpc(record: &RequestRecord<'_>, attributes: &mut Vec<super::otlp::KeyValue>) -> String {
    let name = bounded(split_target(record.path).0.trim_start_matches('/'));
    attributes.push(text("rpc.system", "grpc"));
    if let Some((service, method)) = name.rsplit_once('/') {
        attributes.push(text("rpc.service", service));
        attributes.push(text("rpc.method", method));
    }
    attributes.extend(record.grpc_status.map(|status| number("rpc.grpc.status_code", status)));
    name.to_owned()
}

/// What the mesh knows of it.
fn own_words(record: &RequestRecord<'_>, attributes: &mut Vec<super::otlp::KeyValue>) {
    let destination = record.destination;
    attributes.extend(destination.service.as_ref().map(|service| text("leno.destination", service.to_string())));
    attributes.extend(destination.version.as_ref().map(|version| text("leno.version", &**version)));
    attributes.extend(destination.route.as_ref().map(|route| text("leno.route", &**route)));
    attributes.extend(record.reason.map(|reason| text("leno.reason", reason)));
    attributes.push(text("leno.mtls", if record.secured.is_some() { "true" } else { "false" }));
    if !record.request_id.is_empty() {
        attributes.push(text("leno.request_id", bounded(record.request_id)));
    }
}

/// Why the span is one of an error; what is the client's fault is none of the server's.
fn error(record: &RequestRecord<'_>, kind: Kind) -> Option<String> {
    let least = if kind == Kind::Client { 400 } else { 500 };
    match (record.reason, record.grpc_status) {
        (Some(reason), _) if record.status == 0 || record.status >= least || record.grpc_status.is_some() => Some(reason.to_owned()),
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS are the server's.
        (_, Some(status)) if status != 0 && (kind == Kind::Client || matches!(status, 2 | 4 | 12..=15)) => Some(status.to_string()),
        (_, _) if record.status >= least => Some(record.status.to_string()),
        (reason, _) => reason.filter(|reason| matches!(*reason, "response-cut" | "client-gone")).map(str::to_owned),
    }
}

fn bounded(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::otlp::Value;
    use crate::telemetry::test_support::{record, somewhere};

    fn trace() -> Trace {
        let headers = vec![("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned())];
        Trace::begin(&headers, leno_core::percentage::Percentage::NONE, [7, 1, 2, 3])
    }

    fn attribute(span: &Span, key: &str) -> Option<String> {
        let found = span.attributes.iter().find(|it| it.key == key)?;
        Some(match found.value.as_ref()?.value.as_ref()? {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
        })
    }

    #[test]
    fn a_clients_span_says_what_was_asked_of_whom_and_how_it_ended() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let destination = somewhere("v1");
        let it = span(&RequestRecord { authority: "payment:8080", path: "/a?b=c", ..record(&destination, 503) }, &trace(), now);
        let want = [
            ("http.request.method", "GET"),
            ("url.full", "http://payment:8080/a?b=c"),
            ("server.address", "payment"),
            ("server.port", "8080"),
            ("http.response.status_code", "503"),
            ("network.protocol.version", "1.1"),
            ("error.type", "no-endpoint"),
            ("leno.destination", "shop/payment"),
            ("leno.route", "r"),
        ];
        for (key, value) in want {
            assert_eq!(attribute(&it, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!((it.kind(), &*it.name, it.status.unwrap().code), (Kind::Client, "GET", STATUS_ERROR));
        assert_eq!((it.end_time_unix_nano, it.end_time_unix_nano - it.start_time_unix_nano), (100_000_000_000, 3_000_000));
        assert_eq!((it.parent_span_id, it.span_id), (0xb7ad_6b71_6920_3331_u64.to_be_bytes().to_vec(), 7_u64.to_be_bytes().to_vec()));
    }

    #[test]
    fn what_is_the_clients_fault_is_an_error_of_the_clients_span_only() {
        let destination = somewhere("v1");
        for (direction, status, grpc_status, is_error) in [
            (Direction::Inbound, 404, None, false),
            (Direction::Outbound, 404, None, true),
            (Direction::Inbound, 500, None, true),
            (Direction::Inbound, 200, Some(5), false),
            (Direction::Outbound, 200, Some(5), true),
            (Direction::Inbound, 200, Some(14), true),
            (Direction::Outbound, 200, Some(0), false),
            (Direction::Outbound, 200, None, false),
        ] {
            let it = RequestRecord { direction, grpc_status, reason: None, ..record(&destination, status) };
            assert_eq!(span(&it, &trace(), UNIX_EPOCH).status.is_some(), is_error, "{direction:?} {status} {grpc_status:?}");
        }
    }

    #[test]
    fn names_are_few_and_texts_are_bounded() {
        let destination = somewhere("v1");
        let odd = RequestRecord { method: "BREW", ..record(&destination, 200) };
        let it = span(&odd, &trace(), UNIX_EPOCH);
        assert_eq!((&*it.name, attribute(&it, "http.request.method").unwrap().as_str()), ("HTTP", "_OTHER"));
        let path = format!("/{}", "ä".repeat(TEXT_BYTES_MAX));
        let it = span(&RequestRecord { direction: Direction::Inbound, path: &path, ..record(&destination, 200) }, &trace(), UNIX_EPOCH);
        assert!(attribute(&it, "url.path").unwrap().len() <= TEXT_BYTES_MAX);
        let rpc = RequestRecord { spoken: Spoken::Grpc, path: "/shop.Payment/Pay", ..record(&destination, 200) };
        let it = span(&rpc, &trace(), UNIX_EPOCH);
        assert_eq!((&*it.name, attribute(&it, "rpc.service").unwrap().as_str()), ("shop.Payment/Pay", "shop.Payment"));
    }
}
