//! One request of one proxy: which method it is, and what is read from a stream.

use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, StatusCode};
use jiff::Timestamp;
use leno_xds::frame::{Decoder, FrameError};
use leno_xds::message::Message;
use leno_xds::server::ServerError;
use leno_xds::{METHOD_PATH, SIGN_PATH};
use tokio::time::{Instant, timeout_at};

use super::Server;
use super::answer::{answer, begin, end, refuse, write};
use super::peer::{Impostor, Peer, Stranger, check};
use super::sign::sign;
use crate::publish::outbox::{Ending, Outbox};
use crate::publish::{Caller, ConnectionId, Stopped};

/// gRPC status codes.
pub(super) mod code {
    pub(super) const OK: u8 = 0;
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
    pub(super) async fn exchange(&self, peer: &Peer, request: Request<RecvStream>, mut respond: SendResponse<Message>) {
        let respond = &mut respond;
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return refuse(respond, StatusCode::METHOD_NOT_ALLOWED, HeaderMap::new());
        }
        if !is_grpc(&head.headers) {
            return refuse(respond, StatusCode::UNSUPPORTED_MEDIA_TYPE, HeaderMap::new());
        }
        match (head.uri.path(), &self.signer) {
            (METHOD_PATH, _) => self.discover(peer, body, respond).await,
            (SIGN_PATH, Some(signer)) => match sign(signer, &head.headers, peer.address, body).await {
                Ok(message) => answer(respond, message),
                Err(ending) => end(respond, &ending),
            },
            (path, _) => {
                end(respond, &Ending { code: code::UNIMPLEMENTED, message: format!("this server does not know the method {path}") });
            }
        }
    }

    /// Carries a stream of resources, for who may have one.
    async fn discover(&self, peer: &Peer, body: RecvStream, respond: &mut SendResponse<Message>) {
        let caller = match peer.caller(self.signer.as_deref(), Timestamp::now()) {
            Ok(caller) => caller,
            Err(stranger) => {
                self.signer.iter().for_each(|signer| signer.counts().stream_refused());
                tracing::warn!(address = ?peer.address, %stranger, "a control stream was refused");
                let code = if stranger == Stranger::NotReady { code::UNAVAILABLE } else { code::UNAUTHENTICATED };
                return end(respond, &Ending { code, message: stranger.to_string() });
            }
        };
        let Ok((id, outbox)) = self.publisher.connect(self.settings.limits, caller.clone()).await else {
            return end(respond, &Ending::shutdown());
        };
        if let Some(mut stream) = begin(respond) {
            // That the proxy has nothing more to say ends the stream by what is written last.
            let read = async {
                self.read(id, &outbox, &caller, body).await;
                std::future::pending().await
            };
            tokio::select! {
                biased;
                () = read => (),
                () = write(&mut stream, &outbox, self.publisher.counters()) => (),
            }
        }
        self.publisher.disconnect(id).await;
    }

    /// Reads until the stream ends, and says how it ended.
    async fn read(&self, id: ConnectionId, outbox: &Outbox, caller: &Caller, mut body: RecvStream) {
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

    async fn take_in(&self, id: ConnectionId, outbox: &Outbox, caller: &Caller, body: &mut RecvStream) -> Result<(), ExchangeError> {
        let mut decoder = Decoder::new(self.settings.message_bytes_max);
        let mut first_until = Some(Instant::now() + self.settings.patience);
        loop {
            let next = match first_until {
                Some(until) => timeout_at(until, body.data()).await.ok().ok_or(ExchangeError::Silent)?,
                None => body.data().await,
            };
            let Some(Ok(piece)) = next else { break };
            // What fails here is a stream that has ended, which the next call tells.
            let _ended = body.flow_control().release_capacity(piece.len());
            decoder.push(&piece);
            // A proxy's answers come several at a time.
            let mut intake = Vec::new();
            while let Some(message) = decoder.next()? {
                first_until = None;
                intake.extend(outbox.with(|connection| {
                    let intake = connection.receive(message)?;
                    check(caller, connection.node(), &intake)?;
                    Ok::<_, ExchangeError>(intake)
                })?);
            }
            // An answer makes room for what waits.
            outbox.wake();
            self.publisher.intake(id, intake).await?;
        }
        Ok(decoder.finish()?)
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
