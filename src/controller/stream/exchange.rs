//! One request of one proxy: which method it is, and what is read from a stream.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use jiff::Timestamp;
use leno_xds::frame::{Decoder, FrameError};
use leno_xds::server::ServerError;
use leno_xds::{METHOD_PATH, SIGN_PATH};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::body::{Responses, trailers};
use super::peer::{Impostor, Peer, Stranger, check};
use super::sign::sign;
use crate::publish::outbox::{Ending, Outbox};
use crate::publish::{Caller, ConnectionId, Stopped};

/// gRPC status codes.
pub(super) mod code {
    pub(in crate::stream) const OK: u8 = 0;
    pub(in crate::stream) const INVALID_ARGUMENT: u8 = 3;
    pub(in crate::stream) const DEADLINE_EXCEEDED: u8 = 4;
    pub(in crate::stream) const PERMISSION_DENIED: u8 = 7;
    pub(in crate::stream) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(in crate::stream) const UNIMPLEMENTED: u8 = 12;
    pub(in crate::stream) const UNAVAILABLE: u8 = 14;
    pub(in crate::stream) const UNAUTHENTICATED: u8 = 16;
}

/// Why a stream is ended from this side.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Protocol(#[from] ServerError),
    #[error(transparent)]
    Impostor(#[from] Impostor),
    #[error("no request came in time")]
    Silent,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl ExchangeError {
    fn code(&self) -> u8 {
        match self {
            Self::Frame(FrameError::TooLong { .. }) | Self::Protocol(ServerError::TooManySubscriptions(_)) => code::RESOURCE_EXHAUSTED,
            Self::Frame(FrameError::Flags(_)) => code::UNIMPLEMENTED,
            Self::Frame(FrameError::Truncated)
            | Self::Protocol(ServerError::Protobuf(_) | ServerError::Node(_) | ServerError::Certificate(_)) => code::INVALID_ARGUMENT,
            Self::Impostor(_) => code::PERMISSION_DENIED,
            Self::Silent => code::DEADLINE_EXCEEDED,
            Self::Stopped(_) => code::UNAVAILABLE,
        }
    }
}

impl Server {
    /// Answers a request: the response begins at once and is written as long as the stream lives.
    pub(super) async fn exchange(self: Arc<Self>, peer: Arc<Peer>, request: Request<Incoming>) -> Result<Response<Responses>, Infallible> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return Ok(refused(StatusCode::METHOD_NOT_ALLOWED, HeaderMap::new()));
        }
        if !is_grpc(&head.headers) {
            return Ok(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, HeaderMap::new()));
        }
        match (head.uri.path(), &self.signer) {
            (METHOD_PATH, _) => Ok(self.discover(&peer, body).await),
            (SIGN_PATH, Some(signer)) => Ok(sign(signer, &head.headers, peer.address, body).await),
            (path, _) => Ok(ended(&Ending { code: code::UNIMPLEMENTED, message: format!("this server does not know the method {path}") })),
        }
    }

    /// Opens a stream of resources, for who may have one.
    async fn discover(self: Arc<Self>, peer: &Peer, body: Incoming) -> Response<Responses> {
        let caller = match peer.caller(self.signer.as_deref(), Timestamp::now()) {
            Ok(caller) => caller,
            Err(stranger) => {
                self.signer.iter().for_each(|signer| signer.counts().stream_refused());
                tracing::warn!(address = ?peer.address, %stranger, "a control stream was refused");
                let code = if stranger == Stranger::NotReady { code::UNAVAILABLE } else { code::UNAUTHENTICATED };
                return ended(&Ending { code, message: stranger.to_string() });
            }
        };
        let Ok((id, outbox)) = self.publisher.connect(self.settings.limits, caller.clone()).await else { return ended(&farewell()) };
        let over = CancellationToken::new();
        let counters = self.publisher.counters().clone();
        let responses = Responses::Open { outbox: outbox.clone(), counters, _over: over.clone().drop_guard() };
        let server = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => (),
                () = server.read(id, &outbox, &caller, body) => over.cancelled().await,
                () = server.cancel.cancelled() => {
                    outbox.end(farewell());
                    over.cancelled().await;
                }
            }
            server.publisher.disconnect(id).await;
        });
        with_grpc(Response::new(responses))
    }

    /// Reads until the stream ends, and says how it ended.
    async fn read(&self, id: ConnectionId, outbox: &Outbox, caller: &Caller, mut body: Incoming) {
        let ending = match self.take_in(id, outbox, caller, &mut body).await {
            Ok(()) => Ending { code: code::OK, message: String::new() },
            Err(error) => {
                if let (ExchangeError::Impostor(_), Some(signer)) = (&error, &self.signer) {
                    signer.counts().stream_refused();
                }
                let node = outbox.with(|connection| connection.node().map(ToString::to_string));
                tracing::warn!(node, %error, "ending a proxy's stream");
                Ending { code: error.code(), message: error.to_string() }
            }
        };
        outbox.end(ending);
    }

    async fn take_in(&self, id: ConnectionId, outbox: &Outbox, caller: &Caller, body: &mut Incoming) -> Result<(), ExchangeError> {
        let mut decoder = Decoder::new(self.settings.message_bytes_max);
        let mut first_until = Some(Instant::now() + self.settings.patience);
        loop {
            let next = match first_until {
                Some(until) => timeout_at(until, body.frame()).await.ok().ok_or(ExchangeError::Silent)?,
                None => body.frame().await,
            };
            let Some(Ok(frame)) = next else { break };
            let Ok(piece) = frame.into_data() else { continue };
            decoder.push(&piece);
            while let Some(message) = decoder.next()? {
                first_until = None;
                let (intake, node) =
                    outbox.with(|connection| Ok::<_, ServerError>((connection.receive(message)?, connection.node().cloned())))?;
                check(caller, node.as_ref(), &intake)?;
                // An answer makes room for what waits.
                outbox.wake();
                self.publisher.intake(id, intake).await?;
            }
        }
        Ok(decoder.finish()?)
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn farewell() -> Ending {
    Ending { code: code::UNAVAILABLE, message: "this controller is shutting down: connect again".to_owned() }
}

/// A response that says at once how the call ended.
pub(super) fn ended(ending: &Ending) -> Response<Responses> {
    refused(StatusCode::OK, trailers(ending))
}

/// A response without a body.
fn refused(status: StatusCode, fields: HeaderMap) -> Response<Responses> {
    let mut response = with_grpc(Response::new(Responses::Ended));
    *response.status_mut() = status;
    response.headers_mut().extend(fields);
    response
}

pub(super) fn with_grpc(mut response: Response<Responses>) -> Response<Responses> {
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    response
}
