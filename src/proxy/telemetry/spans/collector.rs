//! The connection to the collector: OTLP over gRPC, or Protobuf over HTTP/1.1.
//!
//! It is plain: the collector stands in the cluster, and speaks TLS with whoever is beyond.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use leno_core::trace::collector::{Endpoint, Protocol};
use leno_xds::frame::{self, Decoder, FrameError};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::export::{Export, ExportError};
use super::otlp::{ExportTraceServiceRequest, ExportTraceServiceResponse};

/// Where gRPC is called.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Where HTTP is posted to.
const HTTP_PATH: &str = "/v1/traces";
/// How long one request may take, from connecting to the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read: a count and a few words.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectorError {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("HTTP failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer within {ATTEMPT_TIMEOUT:?}")]
    Timeout,
    #[error("the answer broke off: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer cannot be read: {0}")]
    Frame(#[from] FrameError),
    #[error("the answer cannot be read: {0}")]
    Message(#[from] prost::DecodeError),
    #[error("it answered {status}, grpc-status {grpc:?}: {message:?}")]
    Refused { status: u16, grpc: Option<u16>, message: String },
}

impl ExportError for CollectorError {
    /// As OTLP has it: what may pass by itself.
    fn may_pass(&self) -> bool {
        match self {
            // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
            Self::Refused { grpc: Some(code), .. } => matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15),
            Self::Refused { status, .. } => matches!(status, 429 | 502..=504),
            Self::Connect(_) | Self::Http(_) | Self::Timeout | Self::Body(_) | Self::Frame(_) | Self::Message(_) => true,
        }
    }
}

/// The collector, with the connection that is open, if one is.
pub(super) struct Collector {
    endpoint: Endpoint,
    protocol: Protocol,
    link: Option<Link>,
}

enum Link {
    Grpc(http2::SendRequest<Full<Bytes>>),
    Http(http1::SendRequest<Full<Bytes>>),
}

impl Collector {
    pub(super) fn new(endpoint: Endpoint, protocol: Protocol) -> Self {
        Self { endpoint, protocol, link: None }
    }

    async fn ask(&mut self, spans: &ExportTraceServiceRequest) -> Result<ExportTraceServiceResponse, CollectorError> {
        let mut link = self.link.take();
        if let Some(open) = &mut link
            && !open.is_ready().await
        {
            link = None;
        }
        let link = match link {
            Some(open) => self.link.insert(open),
            None => {
                let open = self.connect().await?;
                self.link.insert(open)
            }
        };
        let answered = match link {
            Link::Grpc(sender) => grpc(sender, &self.endpoint, spans).await,
            Link::Http(sender) => http(sender, &self.endpoint, spans).await,
        };
        // After a failure the next attempt begins anew.
        if answered.is_err() {
            self.link = None;
        }
        answered
    }

    async fn connect(&self) -> Result<Link, CollectorError> {
        let stream = TcpStream::connect((&*self.endpoint.host, self.endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        match self.protocol {
            Protocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(drive(connection));
                Ok(Link::Grpc(sender))
            }
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(drive(connection));
                Ok(Link::Http(sender))
            }
        }
    }
}

impl Export for Collector {
    type Error = CollectorError;

    async fn export(&mut self, spans: &ExportTraceServiceRequest) -> Result<u64, CollectorError> {
        let answer = match timeout(ATTEMPT_TIMEOUT, self.ask(spans)).await {
            Ok(answered) => answered?,
            Err(_) => {
                self.link = None;
                return Err(CollectorError::Timeout);
            }
        };
        let Some(partial) = answer.partial_success else { return Ok(0) };
        if !partial.error_message.is_empty() {
            tracing::info!(
                message = partial.error_message,
                rejected = partial.rejected_spans,
                "the collector has something to say of spans"
            );
        }
        Ok(u64::try_from(partial.rejected_spans).unwrap_or_default())
    }
}

impl Link {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Grpc(sender) => sender.ready().await.is_ok(),
            Self::Http(sender) => sender.ready().await.is_ok(),
        }
    }
}

async fn drive(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "the connection to the collector ended");
    }
}

async fn grpc(
    sender: &mut http2::SendRequest<Full<Bytes>>,
    endpoint: &Endpoint,
    spans: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, CollectorError> {
    let request = post(endpoint.authority(), &format!("{endpoint}{GRPC_PATH}"), "application/grpc", frame::encode(spans));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(CollectorError::Body)?;
    let trailers = body.trailers().unwrap_or(&head.headers);
    let status = head.status.as_u16();
    if status != 200 || grpc_status(trailers) != Some(0) {
        return Err(CollectorError::Refused { status, grpc: grpc_status(trailers), message: text(trailers.get("grpc-message")) });
    }
    let mut decoder = Decoder::new(ANSWER_BYTES_MAX);
    decoder.push(&body.to_bytes());
    Ok(ExportTraceServiceResponse::decode(decoder.next()?.ok_or(FrameError::Truncated)?)?)
}

async fn http(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    endpoint: &Endpoint,
    spans: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, CollectorError> {
    let request = post(endpoint.authority(), HTTP_PATH, "application/x-protobuf", spans.encode_to_vec().into());
    let response: Response<Incoming> = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(CollectorError::Body)?.to_bytes();
    if !(200..300).contains(&status) {
        // A Status message of gRPC, of which only words are of use here.
        let message = String::from_utf8_lossy(&body).chars().filter(|char| !char.is_control()).take(200).collect();
        return Err(CollectorError::Refused { status, grpc: None, message });
    }
    Ok(ExportTraceServiceResponse::decode(body)?)
}

fn post(host: String, target: &str, content_type: &'static str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::post(target)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::USER_AGENT, concat!("leno-proxy/", env!("CARGO_PKG_VERSION")));
    // HTTP/2 has the host in its target already.
    request = if target.starts_with('/') { request.header(header::HOST, host) } else { request.header(header::TE, "trailers") };
    request.body(Full::new(body)).expect("the parts are constants and an address that was checked")
}

fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn text(value: Option<&HeaderValue>) -> String {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
