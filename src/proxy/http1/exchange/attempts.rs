//! Trying: a request goes to one endpoint, and to another where that is safe.
//!
//! Reading order: [`Exchange::attempts`], [`Exchange::attempt`], [`read_response`].

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use leno_core::filters::FieldChanges;
use leno_core::resilience::Outcome;

use super::super::flow::{Stopped, Upload, beside};
use super::super::head::{self, HEAD_BYTES_MAX, Head, HeadError};
use super::super::request::Framing;
use super::super::response::{self, Asked, Keep, Response};
use super::{Exchange, Target};
use crate::buffers::{Buffer, Buffers};
use crate::connection::Side;
use crate::dial::{DialError, dial_peer, may_use};
use crate::drain::Draining;
use crate::filters::Filtered;
use crate::io::Io;
use crate::pool::{Peer, Sure};
use crate::target::{OTHERS_MAX, Refusal};
use crate::tls::{self, Carries, Secured};

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

/// Why an attempt failed.
enum Broken {
    /// The connection closed before the response's first byte.
    BeforeFirstByte,
    /// The endpoint's proxy did not take this one's certificate: no app has seen the request.
    Unconvinced(DialError),
    /// It closed within the response's head.
    Midway,
    /// What came is no valid response.
    Invalid(HeadError),
    /// The client broke off.
    Client(Stopped),
}

impl Broken {
    fn before_first_byte(error: io::Error) -> Self {
        if tls::is_refusal(&error) { Self::Unconvinced(DialError::Tls(error.into())) } else { Self::BeforeFirstByte }
    }
}

impl Exchange<'_> {
    /// Sends the request until somebody answers: elsewhere when an endpoint cannot be reached or never got it, and once
    /// more when a connection that had rested was closed before it answered.
    pub(super) async fn attempts(&mut self) -> Result<Arrived, Failure> {
        let mut tried = Vec::new();
        let mut may_reuse = true;
        let mut unreached = Refusal::ConnectFailed;
        loop {
            let peer = match self.pick(&tried).await {
                Ok(peer) => peer,
                Err(Refusal::NoEndpoint) if !tried.is_empty() => return Err(Failure::Refused(unreached)),
                Err(refusal) => return Err(Failure::Refused(refusal)),
            };
            let (io, reused) = match self.connect(&peer, may_reuse).await {
                Ok(connected) => connected,
                Err(refusal) => {
                    self.report(Outcome::Connect);
                    unreached = refusal;
                    tried.push(peer.address());
                    if tried.len() > OTHERS_MAX || matches!(self.target, Target::Address(_)) {
                        return Err(Failure::Refused(unreached));
                    }
                    continue;
                }
            };
            if let Some(secured) = Secured::outbound(peer.identity(), io.agreed(), &self.connection.context.security) {
                self.outcome.secured = Some(secured);
            }
            match self.attempt(io).await {
                Ok(arrived) if arrived.response.undelivered && self.may_go_elsewhere(&tried) => {
                    self.report(Outcome::Connect);
                    tried.push(peer.address());
                }
                Ok(arrived) => {
                    self.answered();
                    return Ok(arrived);
                }
                Err(Broken::BeforeFirstByte) if reused && self.up.kept && (self.is_idempotent || self.up.sent == 0) => may_reuse = false,
                Err(Broken::Unconvinced(error)) => {
                    error.log(peer.address());
                    unreached = error.refusal();
                    self.report(Outcome::Connect);
                    if !self.may_go_elsewhere(&tried) {
                        return Err(Failure::Refused(unreached));
                    }
                    tried.push(peer.address());
                }
                Err(Broken::BeforeFirstByte | Broken::Midway) => return Err(Failure::Refused(Refusal::Disconnected)),
                Err(Broken::Invalid(error)) => {
                    tracing::info!(%error, endpoint = %peer.address(), "refused a response");
                    return Err(Failure::Refused(Refusal::BadResponse));
                }
                Err(Broken::Client(stopped)) => return Err(Failure::Client(stopped)),
            }
            self.up.rewind();
            self.upload = Upload::default();
        }
    }

    fn may_go_elsewhere(&self, tried: &[SocketAddr]) -> bool {
        self.up.kept && tried.len() < OTHERS_MAX && matches!(self.target, Target::Service(_))
    }

    /// How the present try has ended.
    fn report(&self, outcome: Outcome) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.report(outcome, &self.connection.context);
        }
    }

    fn answered(&self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.answered();
        }
    }

    /// The next peer to try.
    async fn pick(&mut self, tried: &[SocketAddr]) -> Result<Rc<Peer>, Refusal> {
        let (peer, in_flight) = match &self.target {
            Target::Nobody(refusal) => return Err(*refusal),
            Target::Address(peer) => (Rc::clone(peer), peer.begin()),
            Target::Service(route) => {
                let (endpoint, in_flight) = route.pick(tried, &self.connection.context).await?;
                self.outcome.labels = route.labels(Some(&endpoint));
                (Rc::clone(&endpoint.peer), in_flight)
            }
        };
        self.outcome.upstream = Some(peer.address());
        self.in_flight = Some(in_flight);
        Ok(peer)
    }

    /// A connection to `peer`, and whether it has been used before.
    async fn connect(&self, peer: &Peer, may_reuse: bool) -> Result<(Io, bool), Refusal> {
        let context = &*self.connection.context;
        let refused = |error: DialError| {
            error.log(peer.address());
            error.refusal()
        };
        may_use(peer, context).map_err(refused)?;
        if may_reuse {
            let sure = if self.is_idempotent { Sure::AsKnown } else { Sure::AskKernel };
            if let Some(io) = peer.reuse(Instant::now(), context.settings.rest, sure) {
                return Ok((io, true));
            }
        }
        Box::pin(dial_peer(peer, Carries::Http1, context)).await.map(|io| (io, false)).map_err(refused)
    }

    /// Sends the request on `io` and waits for the response's head.
    async fn attempt(&mut self, io: Io) -> Result<Arrived, Broken> {
        let (client, context) = (&self.connection.io, &self.connection.context);
        let is_from_app = matches!(self.connection.side, Side::Inbound { .. });
        let changes = self.target.filtered().and_then(Filtered::response);
        let rules = Rules { asked: self.asked, is_from_app, keep_alive: self.request.keep_alive, draining: &context.draining, changes };
        let response = read_response(&io, client, rules, &context.buffers);
        let up = self.up.run(client, &io, &context.buffers);
        let (response, keep, inbox, out) = beside(client, &mut self.upload, up, response).await.map_err(Broken::Client)??;
        Ok(Arrived { io, response, keep, inbox, out })
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
async fn read_response(io: &Io, client: &Io, rules: Rules<'_>, buffers: &Rc<Buffers>) -> Result<ResponseRead, Broken> {
    io.readable().await.map_err(Broken::before_first_byte)?;
    let mut inbox = buffers.take();
    let mut out = buffers.take();
    let mut heads_bytes = 0;
    loop {
        let mut scanned = 0;
        let length = loop {
            if let Some(length) = head::find_end(inbox.filled(), &mut scanned).map_err(Broken::Invalid)? {
                break length;
            }
            match io.read(inbox.spare()).await {
                Ok(read @ 1..) => inbox.fill(read),
                Err(error) if heads_bytes == 0 && inbox.is_empty() => return Err(Broken::before_first_byte(error)),
                Ok(0) if heads_bytes == 0 && inbox.is_empty() => return Err(Broken::BeforeFirstByte),
                Ok(0) | Err(_) => return Err(Broken::Midway),
            }
        };
        // Interim responses count as well, or an endless row of them would keep the client for ever.
        heads_bytes += length;
        if heads_bytes > HEAD_BYTES_MAX {
            return Err(Broken::Invalid(HeadError::TooLarge));
        }
        let start = inbox.start();
        let (response, keep) = take_head(inbox.block(), start..start + length, rules, &mut out).map_err(Broken::Invalid)?;
        inbox.consume(length);
        if !response.is_interim() {
            return Ok((response, keep, inbox, out));
        }
        if !rules.asked.is_old {
            client.write_all(out.filled()).await.map_err(|error| Broken::Client(Stopped::Receiver(error)))?;
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
