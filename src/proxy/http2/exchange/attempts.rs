//! Trying: a request goes to one endpoint, and to another where that is safe.
//!
//! Reading order: [`Exchange::attempts`], [`Exchange::attempt`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use http::header::RETRY_AFTER;
use leno_core::resilience;
use leno_core::retry::Outcome;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::super::flow::Stopped;
use super::super::head;
use super::super::upstream::Lease;
use super::{Exchange, Target};
use crate::concurrency;
use crate::http1::response::{UNDELIVERED, Undelivered};
use crate::pool::{InFlight, Peer};
use crate::retry::{Ended, per_try, report_of};
use crate::retry_after;
use crate::target::Refusal;

/// Interim responses that are passed on for one request. They are under no flow control, so a row of them without an end
/// would be kept for a client that does not read.
const INTERIM_MAX: usize = 100;

/// A response whose head is there.
pub(super) struct Arrived {
    pub(super) response: Response<RecvStream>,
    pub(super) send: SendStream<Bytes>,
    pub(super) undelivered: Option<Undelivered>,
    pub(super) lease: Lease,
}

/// Why there is no response.
pub(super) enum Failure {
    Refused(Refusal),
    /// The route has the proxy answer itself.
    Replied,
    /// The endpoint has reset the stream: the client hears it in the same words.
    Reset(Reason),
    /// The endpoint cannot change to the protocol asked for.
    NoProtocol,
    ClientGone,
}

/// Why a try failed.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// There is no connection.
    Unreached(Refusal),
    /// No app has seen the request, for certain (RFC 9113 section 8.7).
    Unprocessed,
    /// The connection broke.
    Disconnected,
    Reset(Reason),
    Invalid,
    /// The time for one try is over.
    TimedOut,
    NoProtocol,
    ClientGone,
}

impl Broken {
    fn outcome(self) -> Outcome {
        match self {
            Self::Unreached(_) => Outcome::Unreached,
            Self::Unprocessed => Outcome::Unprocessed,
            // Connections are shared and stay: each of them may just have been closed.
            Self::Disconnected => Outcome::Stale,
            Self::Reset(_) | Self::Invalid | Self::NoProtocol | Self::ClientGone => Outcome::Reset,
            Self::TimedOut => Outcome::TimedOut,
        }
    }

    fn failure(self) -> Failure {
        match self {
            Self::Unreached(refusal) => Failure::Refused(refusal),
            // The client, or the proxy in between, is free to send it again.
            Self::Unprocessed => Failure::Reset(Reason::REFUSED_STREAM),
            Self::Disconnected => Failure::Refused(Refusal::Disconnected),
            Self::Invalid => Failure::Refused(Refusal::BadResponse),
            Self::TimedOut => Failure::Refused(Refusal::Timeout),
            Self::Reset(reason) => Failure::Reset(reason),
            Self::NoProtocol => Failure::NoProtocol,
            Self::ClientGone => Failure::ClientGone,
        }
    }
}

impl Arrived {
    fn outcome(&self) -> Outcome {
        if self.undelivered.is_some() {
            return Outcome::Unreached;
        }
        let headers = self.response.headers();
        let status = self.response.status().as_u16();
        let value = if matches!(status, 429 | 503) { headers.get(RETRY_AFTER) } else { None };
        let retry_after = value.and_then(|value| retry_after::retry_after(value.as_bytes(), OffsetDateTime::now_utc()));
        Outcome::Answered { status, grpc_status: head::grpc_status(headers), retry_after }
    }
}

impl Exchange {
    /// Sends the request until somebody answers, as often as [`leno_core::retry`] says.
    pub(super) async fn attempts(&mut self) -> Result<Arrived, Failure> {
        if let Some(route) = self.target.route().filter(|route| route.retry().is_some()) {
            route.budget().borrow_mut().request(self.started);
        }
        loop {
            let peer = self.pick().await.map_err(Failure::Refused)?;
            let ended = self.attempt(&peer).await;
            let outcome = match &ended {
                Ok(arrived) => arrived.outcome(),
                Err(broken @ Broken::ClientGone) => return Err(broken.failure()),
                Err(broken @ (Broken::NoProtocol | Broken::Unreached(Refusal::Overflow))) => {
                    self.tries.unsent();
                    return Err(broken.failure());
                }
                Err(broken) => broken.outcome(),
            };
            if let Err(Broken::Unreached(refusal)) = ended {
                self.tries.unreached(refusal);
            } else if let Ok(Arrived { undelivered: Some(why), .. }) = &ended {
                self.tries.unreached(why.refusal());
            }
            let Some(after) = self.follow(outcome, peer.address()) else {
                if let Ok(arrived) = &ended {
                    self.answered(&arrived.response);
                }
                return ended.map_err(Broken::failure);
            };
            // An app that has as many requests as it bears has not failed.
            let is_full = matches!(&ended, Ok(arrived) if arrived.undelivered == Some(Undelivered::Overflow));
            if let Some(report) = self.report_of(outcome).filter(|_| !is_full) {
                self.report(report);
            }
            drop(ended);
            self.in_flight = None;
            if !after.is_zero() {
                self.pause(after).await?;
            }
            self.up.rewind();
        }
    }

    /// After how long there is another try; `None`: there is none.
    fn follow(&mut self, outcome: Outcome, address: SocketAddr) -> Option<Duration> {
        let ended = Ended {
            outcome,
            address,
            method: self.head.method.as_str(),
            is_grpc: self.head.is_grpc,
            can_replay: self.up.can_replay(),
            is_unsent: false,
            deadline: self.deadline,
        };
        self.tries.follow(&ended, self.target.route(), &self.client.context)
    }

    /// Waits, for as long as the client does.
    async fn pause(&mut self, after: Duration) -> Result<(), Failure> {
        let gone = poll_fn(|cx| self.respond.poll_reset(cx));
        if timeout(after, gone).await.is_ok() { Err(Failure::ClientGone) } else { Ok(()) }
    }

    /// What a try that is followed by another one says of its endpoint.
    fn report_of(&self, outcome: Outcome) -> Option<resilience::Outcome> {
        if outcome == Outcome::Stale { Some(resilience::Outcome::Reset) } else { report_of(outcome) }
    }

    /// How the present try has ended.
    fn report(&self, outcome: resilience::Outcome) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.report(outcome, &self.client.context);
        }
    }

    fn answered(&self, response: &Response<RecvStream>) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.answered(resilience::Outcome::of(response.status().as_u16(), head::grpc_status(response.headers())));
        }
    }

    /// The next peer to try: another one than before, where there is one.
    async fn pick(&mut self) -> Result<Rc<Peer>, Refusal> {
        let (peer, in_flight) = match &self.target {
            Target::Nobody(refusal) => return Err(*refusal),
            Target::Address(peer, limiter) => (Rc::clone(peer), concurrency::enter(limiter.as_ref(), &self.client.context)?.begin(peer)),
            Target::Service(route) => {
                let context = &self.client.context;
                let picked = match route.pick(self.tries.avoided(), context).await {
                    Err(Refusal::NoEndpoint) => {
                        self.tries.nobody_left(route.retry().is_some())?;
                        route.pick(&[], context).await
                    }
                    picked => picked,
                };
                let (endpoint, in_flight) = picked?;
                self.outcome.labels = route.labels(Some(&endpoint));
                (Rc::clone(&endpoint.peer), in_flight)
            }
        };
        self.tries.begin();
        self.outcome.upstream = Some(peer.address());
        self.in_flight = Some(in_flight);
        Ok(peer)
    }

    /// One try, within the time for one.
    async fn attempt(&mut self, peer: &Peer) -> Result<Arrived, Broken> {
        match per_try(self.target.route()) {
            None => self.ask(peer).await,
            Some(limit) => Box::pin(timeout(limit, self.ask(peer))).await.unwrap_or(Err(Broken::TimedOut)),
        }
    }

    /// Sends the request on a connection to `peer` and waits for the response's head, while the request's body goes up.
    async fn ask(&mut self, peer: &Peer) -> Result<Arrived, Broken> {
        let attempt = self.in_flight.as_ref().and_then(InFlight::attempt);
        let lease = peer.http2.lease(peer, self.client.who(), attempt, &self.client.context).await.map_err(Broken::Unreached)?;
        if let Some(secured) = lease.secured() {
            self.outcome.secured = Some(Rc::clone(secured));
        }
        if self.head.protocol.is_some() && !lease.allows_protocols() {
            return Err(Broken::NoProtocol);
        }
        let ends = self.up.is_empty();
        let (mut answer, mut send) = lease.send(self.head.request(lease.is_originated()), ends).map_err(|error| broken_by(&error))?;
        if ends {
            self.up.skip();
        }
        let mut is_going_up = !ends;
        let response = poll_fn(|cx| self.poll_response(&mut answer, &mut send, &mut is_going_up, cx)).await?;
        lease.answered();
        let undelivered = response.headers().get(UNDELIVERED).map(|value| Undelivered::read(value.as_bytes()));
        Ok(Arrived { response, send, undelivered, lease })
    }

    fn poll_response(
        &mut self,
        answer: &mut ResponseFuture,
        send: &mut SendStream<Bytes>,
        is_going_up: &mut bool,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Response<RecvStream>, Broken>> {
        if *is_going_up && let Poll::Ready(result) = self.up.poll(send, cx) {
            *is_going_up = false;
            match result {
                // What the endpoint says instead of taking the body comes as its response.
                Ok(()) | Err(Stopped::Receiver(_) | Stopped::Stalled) => {}
                Err(Stopped::Sender(error)) => return Poll::Ready(Err(client_gone(send, error.reason()))),
                Err(Stopped::Idle) => return Poll::Ready(Err(client_gone(send, None))),
            }
        }
        while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                send.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(Broken::Invalid));
            }
            if let Err(error) = self.respond.send_informational(interim) {
                tracing::debug!(%error, "the client takes no interim response");
            }
        }
        match Pin::new(answer).poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(|error| broken_by(&error))),
            Poll::Pending => match ready!(self.respond.poll_reset(cx)) {
                Ok(reason) => Poll::Ready(Err(client_gone(send, Some(reason)))),
                Err(_) => Poll::Ready(Err(client_gone(send, None))),
            },
        }
    }
}

/// What an error says of an attempt.
fn broken_by(error: &h2::Error) -> Broken {
    let is_unprocessed = error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
    match error.reason() {
        _ if is_unprocessed => Broken::Unprocessed,
        Some(reason) if error.is_remote() => Broken::Reset(reason),
        // What came is wrong by HTTP/2 itself, on this stream or on the connection.
        Some(_) if error.is_reset() || error.is_go_away() => Broken::Invalid,
        Some(_) | None => Broken::Disconnected,
    }
}

/// The client is gone: the endpoint hears it in the client's words.
fn client_gone(send: &mut SendStream<Bytes>, reason: Option<Reason>) -> Broken {
    send.send_reset(reason.unwrap_or(Reason::CANCEL));
    Broken::ClientGone
}
