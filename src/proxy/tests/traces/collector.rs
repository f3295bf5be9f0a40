//! A collector of OpenTelemetry: takes spans over HTTP/1.1 or gRPC and reads them by the rules of Protobuf alone, with the numbers of
//! opentelemetry-proto's fields written down here once more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;

use crate::peers;
use crate::support::{self, eventually};

/// A span, as far as tests look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) is_error: bool,
    pub(crate) attributes: BTreeMap<String, String>,
}

pub(crate) const SERVER: u64 = 2;
pub(crate) const CLIENT: u64 = 3;

/// Where spans arrive.
#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Speaks HTTP/1.1.
    pub(crate) fn http() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let taken = Arc::clone(&spans);
        let server = support::Server::start(move |mut peer| {
            while let Some(message) = peer.message() {
                assert!(message.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", message.head);
                assert_eq!(message.field("content-type"), Some("application/x-protobuf"));
                taken.lock().unwrap().extend(read(&message.body));
                peer.send("HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n");
            }
        });
        Self { address: server.address, spans }
    }

    /// Speaks gRPC.
    pub(crate) async fn grpc() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let taken = Arc::clone(&spans);
        let server = peers::Server::start(move |(request, mut respond)| {
            let taken = Arc::clone(&taken);
            async move {
                assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                let mut body = request.into_body();
                let mut message = Vec::new();
                while let Some(piece) = body.data().await {
                    let piece = piece.unwrap();
                    body.flow_control().release_capacity(piece.len()).unwrap();
                    message.extend_from_slice(&piece);
                }
                let (prefix, message) = message.split_at(5);
                assert_eq!((prefix[0], u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize), (0, message.len()));
                taken.lock().unwrap().extend(read(message));
                let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut send = respond.send_response(response, false).unwrap();
                send.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
                send.send_trailers(peers::trailers(&[("grpc-status", "0")])).unwrap();
            }
        })
        .await;
        Self { address: server.address, spans }
    }

    /// Waits for `count` spans. There may be no more of them.
    pub(crate) fn spans(&self, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans arrive"), || self.spans.lock().unwrap().len() >= count);
        let spans = self.spans.lock().unwrap().clone();
        assert_eq!(spans.len(), count, "{spans:?}");
        spans
    }
}

impl Collector {
    /// Those that have arrived.
    pub(crate) fn now(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

/// A value on the wire.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number of more than 64 bits");
}

/// The fields of a message, by their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_first_chunk::<8>().unwrap();
                bytes = rest;
                Value::Number(u64::from_le_bytes(*number))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (here, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(here)
            }
            5 => {
                let (number, rest) = bytes.split_first_chunk::<4>().unwrap();
                bytes = rest;
                Value::Number(u32::from_le_bytes(*number).into())
            }
            other => panic!("no wire type: {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn messages(bytes: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).into_iter().filter_map(move |(number, value)| match value {
        Value::Bytes(bytes) if number == wanted => Some(bytes),
        Value::Bytes(_) | Value::Number(_) => None,
    })
}

/// ExportTraceServiceRequest: resource_spans = 1 { resource = 1 { attributes = 1 }, scope_spans = 2 { spans = 2 } }.
fn read(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in messages(request, 1) {
        let resource: BTreeMap<String, String> =
            messages(of_resource, 1).flat_map(|resource| messages(resource, 1)).map(attribute).collect();
        for of_scope in messages(of_resource, 2) {
            spans.extend(messages(of_scope, 2).map(|bytes| Span { resource: resource.clone(), ..span(bytes) }));
        }
    }
    spans
}

fn span(bytes: &[u8]) -> Span {
    let mut span = Span::default();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    for field in fields(bytes) {
        match field {
            (1, Value::Bytes(bytes)) => span.trace = hex(bytes),
            (2, Value::Bytes(bytes)) => span.id = hex(bytes),
            (3, Value::Bytes(bytes)) => span.state = text(bytes),
            (4, Value::Bytes(bytes)) => span.parent = hex(bytes),
            (5, Value::Bytes(bytes)) => span.name = text(bytes),
            (6, Value::Number(kind)) => span.kind = kind,
            (9, Value::Bytes(bytes)) => span.attributes.extend([attribute(bytes)]),
            (15, Value::Bytes(bytes)) => span.is_error = fields(bytes).iter().any(|field| matches!(field, (3, Value::Number(2)))),
            (7 | 8 | 16, Value::Number(_)) => {}
            (number, _) => panic!("field {number} is not expected"),
        }
    }
    span
}

/// KeyValue { key = 1, value = 2 { string_value = 1, int_value = 3, array_value = 5 { values = 1 } } }
fn attribute(bytes: &[u8]) -> (String, String) {
    let key = messages(bytes, 1).next().unwrap();
    let value = fields(messages(bytes, 2).next().unwrap()).into_iter().next().unwrap();
    let value = match value {
        (1, Value::Bytes(text)) => String::from_utf8(text.to_vec()).unwrap(),
        (3, Value::Number(number)) => number.to_string(),
        (5, Value::Bytes(list)) => {
            let texts = messages(list, 1).flat_map(|value| messages(value, 1)).map(|text| String::from_utf8(text.to_vec()).unwrap());
            texts.collect::<Vec<_>>().join(",")
        }
        (number, _) => panic!("value {number} is not expected"),
    };
    (String::from_utf8(key.to_vec()).unwrap(), value)
}
