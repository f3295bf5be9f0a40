//! Trying: a request goes to one endpoint, and to another where that is safe.
//!
//! Reading order: [`Exchange::attempts`], [`Exchange::attempt`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use leno_core::resilience::Outcome;

use super::super::flow::Stopped;
use super::super::upstream::Lease;
use super::{Exchange, Target};
use crate::http1::response::UNDELIVERED;
use crate::pool::Peer;
use crate::target::{OTHERS_MAX, Refusal};
use crate::tls::Secured;

/// How often a request that no app has seen is sent again.
const AGAIN_MAX: usize = 3;
/// Interim responses that are passed on for one request. They are under no flow control, so a row of them without an end
/// would be kept for a client that does not read.
const INTERIM_MAX: usize = 100;

/// What has been tried for one request.
#[derive(Default)]
struct Tries {
    /// Who is not to be tried again.
    avoid: Vec<SocketAddr>,
    /// How many could not be reached, or could not reach their app.
    unreachable: usize,
    /// Why the last of them could not be.
    why: Option<Refusal>,
    /// How often the request was sent again.
    again: usize,
}

impl Tries {
    fn is_first(&self) -> bool {
        self.unreachable == 0 && self.again == 0
    }
}

/// A response whose head is there.
pub(super) struct Arrived {
    pub(super) response: Response<RecvStream>,
    pub(super) send: SendStream<Bytes>,
    pub(super) undelivered: bool,
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

/// Why an attempt failed.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// No app has seen the request, for certain (RFC 9113 section 8.7).
    Unprocessed,
    /// The connection broke.
    Disconnected,
    Reset(Reason),
    Invalid,
    NoProtocol,
    ClientGone,
}

impl Exchange {
    /// Sends the request until somebody answers: elsewhere when an endpoint cannot be reached or says that no app has
    /// seen it, and once more when a connection broke under a request that may be repeated.
    pub(super) async fn attempts(&mut self) -> Result<Arrived, Failure> {
        let mut tries = Tries::default();
        loop {
            let peer = match self.pick(&tries.avoid).await {
                Ok(peer) => peer,
                Err(Refusal::NoEndpoint) if tries.is_first() => return Err(Failure::Refused(Refusal::NoEndpoint)),
                // Nobody else is left for a request that was refused only for the moment.
                Err(Refusal::NoEndpoint) if tries.unreachable == 0 && !tries.avoid.is_empty() => {
                    tries.avoid.clear();
                    continue;
                }
                Err(Refusal::NoEndpoint) => return Err(Failure::Refused(tries.why.unwrap_or(Refusal::ConnectFailed))),
                Err(refusal) => return Err(Failure::Refused(refusal)),
            };
            let lease = match peer.http2.lease(&peer, self.client.who(), &self.client.context).await {
                Ok(lease) => lease,
                Err(refusal) => {
                    self.report(Outcome::Connect);
                    tries.unreachable += 1;
                    tries.why = Some(refusal);
                    tries.avoid.push(peer.address());
                    if tries.unreachable > OTHERS_MAX || !self.is_for_many() {
                        return Err(Failure::Refused(refusal));
                    }
                    continue;
                }
            };
            if let Some(secured) = Secured::outbound(peer.identity(), lease.agreed(), &self.client.context.security) {
                self.outcome.secured = Some(secured);
            }
            match self.attempt(lease).await {
                Ok(arrived) if arrived.undelivered && self.is_for_many() && tries.unreachable < OTHERS_MAX && self.up.rewind() => {
                    self.report(Outcome::Connect);
                    tries.unreachable += 1;
                }
                Ok(arrived) => {
                    self.answered();
                    return Ok(arrived);
                }
                Err(broken) => {
                    if matches!(broken, Broken::Disconnected) {
                        self.report(Outcome::Reset);
                    }
                    self.after(broken, tries.again)?;
                    tries.again += 1;
                }
            }
            tries.avoid.push(peer.address());
        }
    }

    /// How the present try has ended.
    fn report(&self, outcome: Outcome) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.report(outcome, &self.client.context);
        }
    }

    fn answered(&self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.answered();
        }
    }

    /// Whether there may be others to go to.
    fn is_for_many(&self) -> bool {
        matches!(self.target, Target::Service(_))
    }

    /// Whether the request may be sent again after a failed attempt; `again` is how often it was already.
    fn after(&mut self, broken: Broken, again: usize) -> Result<(), Failure> {
        let failure = match broken {
            Broken::Unprocessed if again < AGAIN_MAX && self.up.rewind() => return Ok(()),
            Broken::Disconnected if again == 0 && self.head.is_idempotent() && self.up.rewind() => return Ok(()),
            // The client, or the proxy in between, is free to send it again.
            Broken::Unprocessed => Failure::Reset(Reason::REFUSED_STREAM),
            Broken::Disconnected => Failure::Refused(Refusal::Disconnected),
            Broken::Invalid => Failure::Refused(Refusal::BadResponse),
            Broken::Reset(reason) => Failure::Reset(reason),
            Broken::NoProtocol => Failure::NoProtocol,
            Broken::ClientGone => Failure::ClientGone,
        };
        Err(failure)
    }

    /// The next peer to try.
    async fn pick(&mut self, avoid: &[SocketAddr]) -> Result<Rc<Peer>, Refusal> {
        let (peer, in_flight) = match &self.target {
            Target::Nobody(refusal) => return Err(*refusal),
            Target::Address(peer) => (Rc::clone(peer), peer.begin()),
            Target::Service(route) => {
                let (endpoint, in_flight) = route.pick(avoid, &self.client.context).await?;
                self.outcome.labels = route.labels(Some(&endpoint));
                (Rc::clone(&endpoint.peer), in_flight)
            }
        };
        self.outcome.upstream = Some(peer.address());
        self.in_flight = Some(in_flight);
        Ok(peer)
    }

    /// Sends the request on one connection and waits for the response's head, while the request's body goes up.
    async fn attempt(&mut self, lease: Lease) -> Result<Arrived, Broken> {
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
        let undelivered = response.headers().contains_key(UNDELIVERED);
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
        Some(_) if error.is_reset() => Broken::Invalid,
        Some(_) | None => Broken::Disconnected,
    }
}

/// The client is gone: the endpoint hears it in the client's words.
fn client_gone(send: &mut SendStream<Bytes>, reason: Option<Reason>) -> Broken {
    send.send_reset(reason.unwrap_or(Reason::CANCEL));
    Broken::ClientGone
}
