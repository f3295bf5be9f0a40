//! The life of one request: read, judged, routed, sent, answered, recorded.
//!
//! Reading order: [`run`], `prepare`, [`Exchange::drive`], [`attempts`], [`deliver`].

mod attempts;
mod deliver;
mod filters;
mod mirrors;

use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_core::request::Headers;
use tokio::time::{timeout, timeout_at};

use self::attempts::Failure;
use self::deliver::{refuse, refuse_with};
use super::body::{Body, Plain};
use super::explicit::{self, Whom};
use super::flow::{Flow, Patience, Stopped, Upload};
use super::head::{self, Head, HeadError};
use super::is_not_yet;
use super::record::{RequestId, TunnelRecord};
use super::request::{self, Additions, Form, Framing, Request};
use super::response::Asked;
use crate::admit::{self, Asks};
use crate::authorization::{self, Decided, Visitor};
use crate::buffers::Buffer;
use crate::concurrency::{self, Limiter};
use crate::connection::{Connection, Side};
use crate::filters::Filtered;
use crate::idle::Idle;
use crate::io::Io;
use crate::pool::InFlight;
use crate::retry::Tries;
use crate::target::{self, Refusal, Target};
use crate::tcp::{self, Carried};
use crate::telemetry::{Destination, Trace};
use crate::tls::Secured;

/// What becomes of the connection after its last request.
pub(super) enum After {
    /// It closes.
    Close,
    /// It closes, but the client must see the answer first.
    Linger,
    /// It closes: the client waits for nothing else, and sends nothing.
    Part,
    /// It carries another protocol from now on.
    Tunnel(Box<Tunnel>),
    /// It was a `CONNECT` to this proxy.
    Connected(Box<explicit::Next>),
}

/// How a request has ended, for its connection.
enum End {
    /// The next one may follow.
    Again,
    /// The connection closes.
    Close,
    /// It closes, but the client must see the answer first.
    Linger,
    /// It closes: the client waits for nothing else, and sends nothing.
    Part,
    /// It carries another protocol from now on, to this other end.
    Tunnel(Io),
}

/// The other end of a connection that changed its protocol.
pub(super) struct Tunnel {
    pub(super) io: Io,
    pub(super) record: TunnelRecord,
    _in_flight: Option<InFlight>,
    idle_timeout: Option<Duration>,
}

impl Tunnel {
    /// Carries it to its end.
    pub(super) async fn carry(&self, connection: &Connection) -> Carried {
        let idle = self.idle_timeout.map(Idle::new);
        tcp::tunnel(&connection.io, None, &self.io, None, &connection.context.buffers, idle.as_ref()).await
    }
}

/// One request on its way.
struct Exchange<'c> {
    connection: &'c Connection,
    request: Request,
    asked: Asked,
    is_idempotent: bool,
    id: RequestId,
    trace: Option<Box<Trace>>,
    target: Target,
    /// The request's way up; its inbox holds the head's bytes to the end.
    up: Flow,
    upload: Upload,
    in_flight: Option<InFlight>,
    tries: Tries,
    outcome: Outcome,
    started: Instant,
    /// When the request's own time is over.
    deadline: Option<Instant>,
}

/// What its record says in the end.
struct Outcome {
    labels: Rc<Destination>,
    decided: Decided,
    upstream: Option<SocketAddr>,
    secured: Option<Rc<Secured>>,
    status: u16,
    grpc_status: Option<u16>,
    reason: Option<&'static str>,
    bytes_out: u64,
}

/// Serves one request that has begun to arrive. If the next one may follow, gives what is there of it.
pub(super) async fn run(connection: &Connection, mut inbox: Buffer) -> Result<Buffer, After> {
    inbox.compact();
    let length = match read_head(connection, &mut inbox).await {
        Ok(Begun::Whole(length)) => length,
        Ok(Begun::Not) => return Ok(inbox),
        Ok(Begun::Gone) => return Err(After::Close),
        Err(error) => return Err(refuse(connection, error).await),
    };
    let started = Instant::now();
    let range = inbox.keep(length);
    let whom = match &connection.side {
        Side::Outbound { service, port } => Whom::Service(Rc::clone(service), *port),
        Side::Inbound { app, labels, .. } => Whom::Address(Rc::clone(app), Rc::clone(labels)),
        Side::Outside { port } => match Box::pin(explicit::outside(connection, *port, inbox.block(), range.clone())).await {
            Ok(whom) => whom,
            Err(error) => return Err(refuse(connection, error).await),
        },
        Side::Explicit => match Box::pin(explicit::whom(connection, inbox.block(), range.clone())).await {
            Ok((whom, Form::Authority)) => {
                inbox.release();
                return Err(match Box::pin(explicit::connect(connection, whom, inbox)).await {
                    Ok(next) => After::Connected(next),
                    Err(refusal) => refuse_with(connection, refusal.status(), refusal.text(), refusal.reason()).await,
                });
            }
            Ok((whom, Form::Origin | Form::Absolute | Form::Asterisk)) => whom,
            Err(error) => return Err(refuse(connection, error).await),
        },
    };
    match prepare(connection, &whom, inbox, range, started) {
        // It is never moved again: it is large.
        Ok(mut exchange) => match exchange.drive().await {
            End::Again => Ok(exchange.into_inbox()),
            End::Close => Err(After::Close),
            End::Linger => Err(After::Linger),
            End::Part => Err(After::Part),
            End::Tunnel(io) => Err(exchange.into_tunnel(io)),
        },
        Err(Unfit::Head(error)) => Err(refuse(connection, error).await),
        Err(Unfit::Unproven) => {
            admit::refuse(&connection.side, connection.peer, connection.since, &connection.context);
            connection.io.abort_on_close();
            Err(After::Close)
        }
    }
}

/// Why a request is not even routed.
enum Unfit {
    /// Its head is refused.
    Head(HeadError),
    /// Its connection proves nothing, and has to.
    Unproven,
}

impl From<HeadError> for Unfit {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

/// What came of reading a head.
enum Begun {
    /// It is there, this long.
    Whole(usize),
    /// Nothing has come yet: the connection was said to be readable by what was read before. It goes on resting.
    Not,
    /// The client is gone.
    Gone,
}

/// Reads up to the end of the head.
async fn read_head(connection: &Connection, inbox: &mut Buffer) -> Result<Begun, HeadError> {
    let mut scanned = 0;
    match connection.io.try_read(inbox.spare()) {
        Ok(0) if inbox.is_empty() => return Ok(Begun::Gone),
        Ok(read) => inbox.fill(read),
        Err(error) if is_not_yet(&error) && inbox.is_empty() => return Ok(Begun::Not),
        Err(error) if is_not_yet(&error) => {}
        Err(_) => return Ok(Begun::Gone),
    }
    if let Some(length) = find_end(inbox, &mut scanned)? {
        return Ok(Begun::Whole(length));
    }
    let rest = async {
        loop {
            match connection.io.read(inbox.spare()).await {
                Ok(0) | Err(_) => return Ok(Begun::Gone),
                Ok(read) => inbox.fill(read),
            }
            if let Some(length) = find_end(inbox, &mut scanned)? {
                return Ok(Begun::Whole(length));
            }
        }
    };
    match timeout(connection.context.settings.head_timeout, rest).await {
        Ok(result) => result,
        Err(_) => Err(HeadError::TooSlow),
    }
}

/// Where the head ends; an empty line before it is skipped (RFC 9112 section 2.2).
fn find_end(inbox: &mut Buffer, scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    while *scanned == 0 && inbox.filled().starts_with(b"\r\n") {
        inbox.consume(2);
    }
    head::find_end(inbox.filled(), scanned)
}

/// Judges, routes and patches the head: everything that is decided before anything is sent.
fn prepare<'c>(
    connection: &'c Connection,
    whom: &Whom,
    inbox: Buffer,
    range: Range<usize>,
    started: Instant,
) -> Result<Exchange<'c>, Unfit> {
    let context = &*connection.context;
    let mut out = context.buffers.take();
    let (head, request) = judge(connection, inbox.block(), range)?;
    let asks = asks(&head, &request);
    if admit::is_refused(&connection.side, connection.tls.as_ref(), &asks, context) {
        return Err(Unfit::Unproven);
    }
    let id = match head.get("x-request-id") {
        Some(_) => RequestId::Sent(request.request_id),
        None => RequestId::make([context.draw(), context.draw()]),
    };
    let trace = context.trace(&head);
    let visitor = Visitor { side: &connection.side, tls: connection.tls.as_ref(), address: connection.peer.ip(), context };
    let admission = authorization::of_request(&visitor, &request.view(&head, &connection.caller), &asks);
    let limiter = concurrency::limiter(&visitor, &asks);
    let (target, labels) = aim(whom, &head, &request, limiter, connection);
    let target = admission.refusal.map_or(target, Target::Nobody);
    let filtered = target.filtered();
    let additions = Additions {
        peer: connection.peer.ip(),
        tells: !matches!(&target, Target::Service(route) if route.leads_outside()),
        is_outbound: !matches!(connection.side, Side::Inbound { .. }),
        request_id: id.text(inbox.block()),
        shorten: matches!(connection.side, Side::Explicit),
        host: match &target {
            Target::Address(peer, _) => peer.address(),
            Target::Service(_) | Target::Nobody(_) => connection.peer,
        },
        path: admission.path.as_deref().or(filtered.and_then(|filtered| filtered.path.as_deref())),
        authority: filtered.and_then(Filtered::authority),
        changes: filtered.and_then(Filtered::request),
        trace: trace.as_deref().map(Trace::outgoing),
    };
    request::patch(&head, &request, &additions, &mut out);
    let is_head = request.is_head(inbox.block());
    let asked = Asked { is_head, is_connect: request.form == Form::Authority, upgrade: request.upgrade, is_old: request.is_old };
    let is_idempotent = request.is_idempotent(inbox.block());
    let patience = Patience::WithSender(context.settings.stall_timeout);
    let up = Flow::new(Body::new(request.body, Plain::No), inbox, out, true, patience);
    let (decided, secured) = (admission.decided, connection.secured().cloned());
    let outcome = Outcome { labels, decided, upstream: None, secured, status: 0, grpc_status: None, reason: None, bytes_out: 0 };
    let deadline = target.route().and_then(|route| route.timeout).map(|limit| started + limit);
    let (upload, tries) = (Upload::default(), Tries::default());
    Ok(Exchange {
        connection,
        request,
        asked,
        is_idempotent,
        id,
        trace,
        target,
        up,
        upload,
        in_flight: None,
        tries,
        outcome,
        started,
        deadline,
    })
}

/// The head and what it says, if it is one that may go on.
fn judge<'b>(connection: &Connection, block: &'b [u8], range: Range<usize>) -> Result<(Head<'b>, Request), Unfit> {
    let head = Head::parse(block, range)?;
    if !matches!(connection.side, Side::Inbound { .. }) {
        head.within_app_limits()?;
    }
    let request = Request::judge(&head)?;
    Ok((head, request))
}

/// What it is asked for, as far as a probe could ask for it.
fn asks<'h>(head: &Head<'h>, request: &Request) -> Asks<'h> {
    let is_bare = request.form == Form::Origin && request.body == Framing::None && !request.upgrade;
    if is_bare { Asks::Http(request.method.text(head.bytes), request.target.text(head.bytes)) } else { Asks::Other }
}

/// Who gets the request, and the labels known so far.
fn aim(
    whom: &Whom,
    head: &Head<'_>,
    request: &Request,
    limiter: Option<Arc<Limiter>>,
    connection: &Connection,
) -> (Target, Rc<Destination>) {
    let context = &*connection.context;
    let nobody = || Rc::new(Destination { service: None, version: None, route: None });
    match whom {
        Whom::Address(peer, labels) => (Target::Address(Rc::clone(peer), limiter), Rc::clone(labels)),
        Whom::Nobody(refusal) => (Target::Nobody(*refusal), nobody()),
        Whom::Service(service, port) => {
            let Some(view) = service.view() else { return (Target::Nobody(Refusal::UnknownService), nobody()) };
            match target::route(&view, *port, &request.view(head, &context.own), connection.peer.ip(), context) {
                Ok(route) => {
                    let labels = route.labels(None);
                    (Target::Service(route), labels)
                }
                Err((refusal, labels)) => (Target::Nobody(refusal), labels),
            }
        }
    }
}

impl Exchange<'_> {
    /// From the prepared request to the connection's next state.
    async fn drive(&mut self) -> End {
        if self.up.take_in().is_err() {
            return self.answer(400, "the chunked framing of the body is malformed\n", "bad-chunk").await;
        }
        let arrived = match self.deadline {
            None => self.filtered_attempts().await,
            Some(deadline) => {
                timeout_at(deadline.into(), self.filtered_attempts()).await.unwrap_or(Err(Failure::Refused(Refusal::Timeout)))
            }
        };
        self.tries.end();
        match arrived {
            Ok(arrived) => self.deliver(arrived).await,
            Err(Failure::Refused(refusal)) => self.answer(refusal.status(), refusal.text(), refusal.reason()).await,
            Err(Failure::Replied) => self.reply().await,
            Err(Failure::Client(Stopped::Malformed(_))) => {
                self.answer(400, "the chunked framing of the body is malformed\n", "bad-chunk").await
            }
            Err(Failure::Client(Stopped::Stalled)) => self.answer(408, "the body did not arrive in time\n", "body-too-slow").await,
            Err(Failure::Client(Stopped::Sender(_) | Stopped::Receiver(_) | Stopped::Idle)) => {
                self.outcome.reason = Some("client-gone");
                self.record(Instant::now());
                End::Close
            }
        }
    }

    /// What is there of the next request.
    fn into_inbox(self) -> Buffer {
        let mut inbox = self.up.inbox;
        inbox.release();
        inbox
    }

    /// The connection carries another protocol.
    fn into_tunnel(self, io: Io) -> After {
        let bytes = self.up.inbox.block();
        let record = TunnelRecord {
            method: self.request.method.text(bytes).into(),
            path: self.request.target.text(bytes).into(),
            authority: self.request.authority.text(bytes).into(),
            request_id: self.id.text(bytes).into(),
            trace: self.trace,
            labels: self.outcome.labels,
            decided: self.outcome.decided,
            status: self.outcome.status,
            upstream: self.outcome.upstream,
            secured: self.outcome.secured,
            tries: self.tries,
            started: self.started,
        };
        let idle_timeout = self.target.route().and_then(|route| route.idle_timeout);
        After::Tunnel(Box::new(Tunnel { io, record, _in_flight: self.in_flight, idle_timeout }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is allocated, and moved there, for every request.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<'c, F>(_: fn(&'c Connection, Buffer) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(run) <= 5000, "{}", size(run));
    }
}
