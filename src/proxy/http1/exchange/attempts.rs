//! Trying: a request goes to one endpoint, and to another where that is safe.
//!
//! Reading order: [`Exchange::attempts`], [`Exchange::attempt`], [`read_response`].

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use leno_core::filters::FieldChanges;
use leno_core::resilience;
use leno_core::retry::Outcome;
use tokio::time::timeout;

use super::super::body::{Body, Plain};
use super::super::flow::{Flow, Patience, Stopped, Upload, beside};
use super::super::head::{self, HEAD_BYTES_MAX, Head, HeadError};
use super::super::request::Framing;
use super::super::response::{self, Asked, Keep, Response, Undelivered};
use super::{Exchange, Target};
use crate::buffers::{Buffer, Buffers};
use crate::concurrency;
use crate::connection::Side;
use crate::dial::{DialError, may_use, reach};
use crate::drain::Draining;
use crate::io::Io;
use crate::pool::{InFlight, Peer, Sure};
use crate::retry::{Ended, per_try, report_of};
use crate::target::Refusal;
use crate::tls::{self, Carries};

/// A response whose head is there and patched.
pub(super) struct Arrived {
    pub(super) io: Io,
    pub(super) response: Response,
    pub(super) keep: Keep,
    pub(super) inbox: Buffer,
    pub(super) out: Buffer,
}

/// Why there is no response.
pub(super) enum Failure {
    Refused(Refusal),
    /// The route has the proxy answer itself.
    Replied,
    Client(Stopped),
}

/// Why a try failed.
enum Broken {
    /// There is no connection, or the endpoint's proxy did not take this one's certificate: no app has seen the request.
    Unreached(Refusal),
    /// The connection closed before the response's first byte; it had been used before, or not.
    BeforeFirstByte { reused: bool },
    /// It closed within the response's head.
    Midway,
    /// What came is no valid response.
    Invalid(HeadError),
    /// The time for one try is over.
    TimedOut,
    /// The client broke off.
    Client(Stopped),
}

impl Broken {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Unreached(_) => Outcome::Unreached,
            Self::BeforeFirstByte { reused: true } => Outcome::Stale,
            Self::BeforeFirstByte { reused: false } | Self::Midway | Self::Invalid(_) | Self::Client(_) => Outcome::Reset,
            Self::TimedOut => Outcome::TimedOut,
        }
    }

    /// What the client would be told.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Unreached(refusal) => *refusal,
            Self::BeforeFirstByte { .. } | Self::Midway | Self::Client(_) => Refusal::Disconnected,
            Self::Invalid(_) => Refusal::BadResponse,
            Self::TimedOut => Refusal::Timeout,
        }
    }

    fn failure(self) -> Failure {
        match self {
            Self::Client(stopped) => Failure::Client(stopped),
            Self::Unreached(_) | Self::BeforeFirstByte { .. } | Self::Midway | Self::Invalid(_) | Self::TimedOut => {
                Failure::Refused(self.refusal())
            }
        }
    }
}

impl Arrived {
    /// What the client would be told, where the app never got the request.
    fn refusal(&self) -> Refusal {
        self.response.undelivered.map_or(Refusal::ConnectFailed, Undelivered::refusal)
    }

    fn outcome(&self) -> Outcome {
        let Response { status, grpc_status, retry_after, undelivered, .. } = self.response;
        if undelivered.is_some() { Outcome::Unreached } else { Outcome::Answered { status, grpc_status, retry_after } }
    }
}

impl Exchange<'_> {
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
                Err(Broken::Client(_)) => return ended.map_err(Broken::failure),
                Err(Broken::Unreached(Refusal::Overflow)) => {
                    self.tries.unsent();
                    return ended.map_err(Broken::failure);
                }
                Err(broken) => broken.outcome(),
            };
            if outcome == Outcome::Unreached {
                self.tries.unreached(ended.as_ref().map_or_else(Broken::refusal, Arrived::refusal));
            }
            let Some(after) = self.follow(outcome, peer.address()) else {
                if let Ok(arrived) = &ended {
                    self.answered(&arrived.response);
                }
                return ended.map_err(Broken::failure);
            };
            // An app that has as many requests as it bears has not failed.
            let is_full = matches!(&ended, Ok(arrived) if arrived.response.undelivered == Some(Undelivered::Overflow));
            if let Some(report) = report_of(outcome).filter(|_| !is_full) {
                self.report(report);
            }
            if let Ok(arrived) = ended {
                self.forgo(arrived);
            }
            self.in_flight = None;
            if !after.is_zero() {
                self.pause(after).await?;
            }
            self.up.rewind();
            self.upload = Upload::default();
        }
    }

    /// After how long there is another try; `None`: there is none.
    fn follow(&mut self, outcome: Outcome, address: SocketAddr) -> Option<Duration> {
        let ended = Ended {
            outcome,
            address,
            method: self.request.method.text(self.up.inbox.block()),
            is_grpc: false,
            can_replay: self.up.can_replay(),
            is_unsent: self.up.is_unsent(),
            deadline: self.deadline,
        };
        self.tries.follow(&ended, self.target.route(), &self.connection.context)
    }

    /// Waits, for as long as the client is there.
    async fn pause(&self, after: Duration) -> Result<(), Failure> {
        match timeout(after, self.connection.io.dead()).await {
            Ok(error) => Err(Failure::Client(Stopped::Sender(error))),
            Err(_) => Ok(()),
        }
    }

    /// The response is not wanted. Its connection may rest, where all of it has come already.
    fn forgo(&self, arrived: Arrived) {
        let Arrived { io, response, inbox, out, .. } = arrived;
        let mut down = Flow::new(Body::new(response.body, Plain::No), inbox, out, false, Patience::Endless);
        let is_whole = !response.tunnel && down.take_in().is_ok() && down.body.is_done() && down.inbox.is_empty();
        if is_whole
            && response.keep_alive
            && self.up.is_done()
            && !self.upload.refused
            && let Some(in_flight) = &self.in_flight
        {
            in_flight.rest(io, Instant::now(), self.connection.context.settings.rest);
        }
    }

    /// How the present try has ended.
    fn report(&self, outcome: resilience::Outcome) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.report(outcome, &self.connection.context);
        }
    }

    fn answered(&self, response: &Response) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.answered(resilience::Outcome::of(response.status, response.grpc_status));
        }
    }

    /// The next peer to try: another one than before, where there is one.
    async fn pick(&mut self) -> Result<Rc<Peer>, Refusal> {
        let (peer, in_flight) = match &self.target {
            Target::Nobody(refusal) => return Err(*refusal),
            Target::Address(peer, limiter) => {
                (Rc::clone(peer), concurrency::enter(limiter.as_ref(), &self.connection.context)?.begin(peer))
            }
            Target::Service(route) => {
                let context = &self.connection.context;
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

    async fn ask(&mut self, peer: &Peer) -> Result<Arrived, Broken> {
        self.in_turn().await?;
        let (io, reused) = self.connect(peer).await.map_err(Broken::Unreached)?;
        if let Some(secured) = io.secured() {
            self.outcome.secured = Some(Rc::clone(secured));
        }
        let arrived = self.send(io, reused, peer.address()).await;
        if let Err(Broken::Invalid(error)) = &arrived {
            tracing::info!(%error, endpoint = %peer.address(), "refused a response");
        }
        arrived
    }

    /// Waits until there may be one more connection, where that is limited, for as long as the client is there.
    async fn in_turn(&self) -> Result<(), Broken> {
        let attempt = self.in_flight.as_ref().and_then(InFlight::attempt);
        let Some(attempt) = attempt.filter(|attempt| attempt.limits_connections()) else { return Ok(()) };
        tokio::select! {
            biased;
            place = attempt.connection(&self.connection.context) => place.map_err(Broken::Unreached),
            error = self.connection.io.dead() => Err(Broken::Client(Stopped::Sender(error))),
        }
    }

    /// A connection to `peer`, and whether it has been used before.
    async fn connect(&self, peer: &Peer) -> Result<(Io, bool), Refusal> {
        let context = &*self.connection.context;
        let refused = |error: DialError| {
            error.log(peer.address());
            error.refusal()
        };
        may_use(peer, context).map_err(refused)?;
        if self.tries.may_reuse() {
            let sure = if self.is_idempotent { Sure::AsKnown } else { Sure::AskKernel };
            if let Some(io) = peer.reuse(Instant::now(), sure) {
                return Ok((io, true));
            }
        }
        let mut limit = context.settings.connect_timeout;
        if let Some(in_flight) = &self.in_flight {
            limit = in_flight.connect_timeout(context);
            in_flight.make_room();
        }
        Box::pin(reach(peer, Carries::Http1, limit, context)).await.map(|io| (io, false)).map_err(refused)
    }

    /// Sends the request on `io` and waits for the response's head.
    async fn send(&mut self, io: Io, reused: bool, address: SocketAddr) -> Result<Arrived, Broken> {
        let (client, context) = (&self.connection.io, &self.connection.context);
        let is_from_app = matches!(self.connection.side, Side::Inbound { .. });
        let changes = self.target.response_changes();
        let changes = changes.as_deref();
        let rules = Rules { asked: self.asked, is_from_app, keep_alive: self.request.keep_alive, draining: &context.draining, changes };
        let read = {
            let response = pin!(read_response(&io, client, rules, &context.buffers));
            let up = pin!(self.up.run(client, &io, &context.buffers));
            beside(client, &mut self.upload, up, response).await
        };
        let (response, keep, inbox, out) = read.map_err(Broken::Client)?.map_err(|unread| unread.broken(reused, address))?;
        Ok(Arrived { io, response, keep, inbox, out })
    }
}

/// Why a response's head could not be read.
enum Unread {
    /// The connection closed before its first byte.
    Closed,
    /// The endpoint's proxy did not take this one's certificate.
    Unconvinced(DialError),
    /// The connection closed within it.
    Midway,
    /// It is not valid.
    Invalid(HeadError),
    /// The client broke off.
    Client(Stopped),
}

impl Unread {
    fn before_first_byte(error: io::Error) -> Self {
        if tls::is_refusal(&error) { Self::Unconvinced(DialError::Tls(error.into())) } else { Self::Closed }
    }

    fn broken(self, reused: bool, address: SocketAddr) -> Broken {
        match self {
            Self::Closed => Broken::BeforeFirstByte { reused },
            Self::Unconvinced(error) => {
                error.log(address);
                Broken::Unreached(error.refusal())
            }
            Self::Midway => Broken::Midway,
            Self::Invalid(error) => Broken::Invalid(error),
            Self::Client(stopped) => Broken::Client(stopped),
        }
    }
}

/// What a response's head is judged and patched by.
#[derive(Clone, Copy)]
struct Rules<'c> {
    asked: Asked,
    /// Whether the response comes from the app beside this proxy.
    is_from_app: bool,
    keep_alive: bool,
    draining: &'c Draining,
    /// Changes of fields that the route makes.
    changes: Option<&'c FieldChanges>,
}

type ResponseRead = (Response, Keep, Buffer, Buffer);

/// Reads the response's head and patches it; interim responses go to the client as they come.
async fn read_response(io: &Io, client: &Io, rules: Rules<'_>, buffers: &Rc<Buffers>) -> Result<ResponseRead, Unread> {
    io.readable().await.map_err(Unread::before_first_byte)?;
    let mut inbox = buffers.take();
    let mut out = buffers.take();
    let mut heads_bytes = 0;
    loop {
        let mut scanned = 0;
        let length = loop {
            if let Some(length) = head::find_end(inbox.filled(), &mut scanned).map_err(Unread::Invalid)? {
                break length;
            }
            match io.read(inbox.spare()).await {
                Ok(read @ 1..) => inbox.fill(read),
                Err(error) if heads_bytes == 0 && inbox.is_empty() => return Err(Unread::before_first_byte(error)),
                Ok(0) if heads_bytes == 0 && inbox.is_empty() => return Err(Unread::Closed),
                Ok(0) | Err(_) => return Err(Unread::Midway),
            }
        };
        // Interim responses count as well, or an endless row of them would keep the client for ever.
        heads_bytes += length;
        if heads_bytes > HEAD_BYTES_MAX {
            return Err(Unread::Invalid(HeadError::TooLarge));
        }
        let start = inbox.start();
        let (response, keep) = take_head(inbox.block(), start..start + length, rules, &mut out).map_err(Unread::Invalid)?;
        inbox.consume(length);
        if !response.is_interim() {
            return Ok((response, keep, inbox, out));
        }
        if !rules.asked.is_old {
            client.write_all(out.filled()).await.map_err(|error| Unread::Client(Stopped::Receiver(error)))?;
        }
        out.clear();
    }
}

fn take_head(block: &[u8], range: Range<usize>, rules: Rules<'_>, out: &mut Buffer) -> Result<(Response, Keep), HeadError> {
    let head = Head::parse(block, range)?;
    if rules.is_from_app {
        head.within_app_limits()?;
    }
    let response = Response::judge(&head, rules.asked)?;
    let ends_by_close = response.body == Framing::Close || (rules.asked.is_old && response.body == Framing::Chunked);
    let keep = match (rules.keep_alive && !ends_by_close && !rules.draining.has_started(), rules.asked.is_old) {
        (false, _) => Keep::No,
        (true, true) => Keep::Told,
        (true, false) => Keep::Silently,
    };
    response::patch(&head, &response, rules.asked, keep, rules.changes, out);
    Ok((response, keep))
}
