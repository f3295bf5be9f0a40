//! Traces: who begins spans, and how they leave the proxy.
//!
//! Workers put finished spans into one bounded queue and never wait; a thread of its own sends them, many at once, to a collector by
//! OTLP over HTTP. What does not fit, or is not taken, is dropped and counted.
//!
//! Reading order: [`Tracing::start`], [`Tracing::begin`], `Exporter`.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use leno_core::percentage::Percentage;
use leno_core::request::Headers;
use leno_core::trace::Trace;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::RequestRecord;
use super::otlp::{ExportRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span, text};
use super::spans::span;

/// Spans that wait for the exporter.
pub const QUEUE_MAX: usize = 2048;
/// Spans in one request.
const BATCH_MAX: usize = 256;
/// How long a span may wait for others.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// How long a collector may take.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);

/// Where a collector takes spans: `http://HOST:PORT`, with a path where it is not `/v1/traces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    authority: String,
    address: String,
    path: String,
}

/// The text is no endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no endpoint: write http://HOST:PORT, such as http://otel-collector.observability:4318")]
pub struct InvalidEndpoint(String);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let wrong = || InvalidEndpoint(text.to_owned());
        let uri: Uri = text.parse().ok().ok_or_else(wrong)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(4318));
        let path = if uri.path() == "/" { "/v1/traces" } else { uri.path() };
        Ok(Self { authority: authority.to_string(), address, path: path.to_owned() })
    }
}

/// The traces of one proxy. Shared by its workers.
#[derive(Debug)]
pub struct Tracing {
    sampling: Percentage,
    queue: Sender<Span>,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) exported: AtomicU64,
    pub(super) dropped: AtomicU64,
}

impl Tracing {
    /// Starts the thread that sends spans to `endpoint`, as those of a workload with these attributes. It ends with the last holder.
    ///
    /// `sampling`: of how many traces that begin here are kept; of others whoever began them decided.
    pub fn start(endpoint: Endpoint, sampling: Percentage, resource: Vec<KeyValue>) -> std::io::Result<Arc<Self>> {
        let (queue, waiting) = channel(QUEUE_MAX);
        let counts: Arc<Counts> = Arc::default();
        let exporter = Exporter { endpoint, resource: Resource { attributes: resource }, waiting, counts: Arc::clone(&counts) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("traces".into()).spawn(move || runtime.block_on(exporter.run()))?;
        Ok(Arc::new(Self { sampling, queue, counts }))
    }

    /// The trace of a request with these fields.
    pub fn begin(&self, headers: &dyn Headers, mut draw: impl FnMut() -> u64) -> Box<Trace> {
        Box::new(Trace::begin(headers, self.sampling, [draw(), draw(), draw(), draw()]))
    }

    /// Keeps the span of a request that has just ended, where its trace is kept.
    pub(super) fn record(&self, record: &RequestRecord<'_>, trace: &Trace) {
        if trace.sampled && self.queue.try_send(span(record, trace, SystemTime::now())).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// How many spans a collector took, and how many were dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.exported.load(Relaxed), self.counts.dropped.load(Relaxed))
    }
}

/// The attributes of a proxy's workload.
pub fn resource(service: &str, namespace: &str, pod: &str) -> Vec<KeyValue> {
    vec![
        text("service.name", service),
        text("service.namespace", namespace),
        text("service.instance.id", format!("{namespace}/{pod}")),
        text("k8s.namespace.name", namespace),
        text("k8s.pod.name", pod),
    ]
}

struct Exporter {
    endpoint: Endpoint,
    resource: Resource,
    waiting: Receiver<Span>,
    counts: Arc<Counts>,
}

type Connection = http1::SendRequest<Full<Bytes>>;

impl Exporter {
    async fn run(mut self) {
        let mut connection = None;
        let mut is_failing = false;
        while let Some(batch) = self.batch().await {
            let count = batch.len() as u64;
            let result = timeout(SEND_TIME_MAX, self.send(&mut connection, batch)).await;
            let result = result.unwrap_or_else(|_| Err("it takes too long".into()));
            match &result {
                Ok(()) => self.counts.exported.fetch_add(count, Relaxed),
                Err(_) => self.counts.dropped.fetch_add(count, Relaxed),
            };
            if let Err(error) = &result {
                connection = None;
                if !is_failing {
                    tracing::warn!(%error, endpoint = self.endpoint.address, "the collector takes no spans; they are dropped until it does");
                }
            }
            is_failing = result.is_err();
        }
    }

    /// The next spans, as many as come within a moment; `None` when there will be no more.
    async fn batch(&mut self) -> Option<Vec<Span>> {
        let mut batch = vec![self.waiting.recv().await?];
        let more = async {
            while batch.len() < BATCH_MAX {
                match self.waiting.recv().await {
                    Some(span) => batch.push(span),
                    None => return,
                }
            }
        };
        if timeout(BATCH_TIME, more).await.is_err() {
            tracing::trace!("no more spans in time");
        }
        Some(batch)
    }

    async fn send(&self, connection: &mut Option<Connection>, spans: Vec<Span>) -> Result<(), Box<dyn std::error::Error>> {
        let scope = Scope { name: "leno-proxy".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let body = ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }] };
        let request = Request::post(&self.endpoint.path)
            .header(HOST, &self.endpoint.authority)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body.encode_to_vec())))?;
        let sender = match connection.take() {
            Some(mut open) if open.ready().await.is_ok() => connection.insert(open),
            Some(_) | None => connection.insert(self.connect().await?),
        };
        let mut response = sender.send_request(request).await?;
        let status = response.status();
        while let Some(frame) = response.frame().await {
            drop(frame?);
        }
        if status.is_success() { Ok(()) } else { Err(format!("it answers {status}").into()) }
    }

    async fn connect(&self) -> Result<Connection, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(&self.endpoint.address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the collector broke");
            }
        });
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_support::{record, somewhere};

    #[test]
    fn endpoints_have_otlps_port_and_path_unless_they_say_another() {
        let cases = [
            ("http://collector", "collector:4318", "/v1/traces"),
            ("http://collector.ops:80/", "collector.ops:80", "/v1/traces"),
            ("http://[::1]:4318/otlp/v1/traces", "[::1]:4318", "/otlp/v1/traces"),
        ];
        for (text, address, path) in cases {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((&*endpoint.address, &*endpoint.path), (address, path), "{text}");
        }
        for text in ["collector:4318", "https://collector", "http://", "http://user@collector", "http://collector?x", ""] {
            assert!(text.parse::<Endpoint>().unwrap_err().to_string().contains("write http://HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn spans_beyond_the_queue_are_dropped_and_counted_and_nobody_waits() {
        let (queue, _waiting) = channel(QUEUE_MAX);
        let tracing = Tracing { sampling: Percentage::ALL, queue, counts: Arc::default() };
        let headers: Vec<(String, String)> = Vec::new();
        let trace = tracing.begin(&headers, || 1);
        for _ in 0..QUEUE_MAX + 5 {
            tracing.record(&record(&somewhere("v1"), 200), &trace);
        }
        assert_eq!(tracing.counts(), (0, 5));
    }

    #[test]
    fn traces_that_are_not_kept_cost_no_span() {
        let (queue, mut waiting) = channel(1);
        let tracing = Tracing { sampling: Percentage::NONE, queue, counts: Arc::default() };
        let headers: Vec<(String, String)> = Vec::new();
        tracing.record(&record(&somewhere("v1"), 200), &tracing.begin(&headers, || 1));
        assert!(waiting.try_recv().is_err());
    }
}
