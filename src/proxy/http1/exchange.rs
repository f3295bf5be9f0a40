//! The life of one request: read, judged, routed, sent, answered, recorded.
//!
//! Reading order: [`run`], `prepare`, [`Exchange::attempts`], [`Exchange::attempt`], [`Exchange::deliver`], [`Exchange::answer`].

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use leno_core::request::Headers;
use tokio::time::{timeout, timeout_at};

use super::answer::Answer;
use super::body::{Body, Plain};
use super::explicit::{self, Whom};
use super::flow::{Flow, Stopped, Upload, beside};
use super::head::{self, HEAD_BYTES_MAX, Head, HeadError};
use super::is_not_yet;
use super::record::{RequestId, TunnelRecord};
use super::request::{self, Additions, Form, Framing, Request};
use super::response::{self, Asked, Keep, Response};
use crate::admit::{self, Asks};
use crate::authorization::{self, Decided, Visitor};
use crate::buffers::{Buffer, Buffers};
use crate::connection::{Connection, Side};
use crate::dial::{DialError, dial_peer, may_use};
use crate::drain::Draining;
use crate::io::Io;
use crate::pool::{InFlight, Peer, Sure};
use crate::target::{self, OTHERS_MAX, Refusal, Route};
use crate::telemetry::{Access, Destination, RequestRecord, Spoken};
use crate::tls::{self, Carries, Secured};
use crate::worker::Context;

/// What becomes of the connection after a request.
pub(super) enum After {
    /// The next request follows; the buffer holds what is there of it.
    Again(Buffer),
    /// It closes.
    Close,
    /// It closes, but the client must see the answer first.
    Linger,
    /// It carries another protocol from now on.
    Tunnel(Box<Tunnel>),
    /// It was a `CONNECT` to this proxy.
    Connected(Box<explicit::Next>),
}

/// The other end of a connection that changed its protocol.
pub(super) struct Tunnel {
    pub(super) io: Io,
    pub(super) record: TunnelRecord,
    _in_flight: Option<InFlight>,
}

/// One request on its way.
struct Exchange<'c> {
    connection: &'c Connection,
    request: Request,
    asked: Asked,
    is_idempotent: bool,
    id: RequestId,
    target: Target,
    /// The request's way up; its inbox holds the head's bytes to the end.
    up: Flow,
    upload: Upload,
    in_flight: Option<InFlight>,
    outcome: Outcome,
    started: Instant,
}

/// Who is to get it.
enum Target {
    Service(Route),
    Address(Rc<Peer>),
    Nobody(Refusal),
}

/// What its record says in the end.
struct Outcome {
    labels: Rc<Destination>,
    decided: Decided,
    upstream: Option<SocketAddr>,
    secured: Option<Secured>,
    status: u16,
    grpc_status: Option<u16>,
    reason: Option<&'static str>,
    bytes_out: u64,
}

/// A response whose head is there and patched.
struct Arrived {
    io: Io,
    response: Response,
    keep: Keep,
    inbox: Buffer,
    out: Buffer,
}

/// Why there is no response.
enum Failure {
    Refused(Refusal),
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

/// Serves one request that has begun to arrive.
pub(super) async fn run(connection: &Connection, mut inbox: Buffer) -> After {
    inbox.compact();
    let length = match read_head(connection, &mut inbox).await {
        Ok(Begun::Whole(length)) => length,
        Ok(Begun::Not) => return After::Again(inbox),
        Ok(Begun::Gone) => return After::Close,
        Err(error) => return refuse(connection, error).await,
    };
    let started = Instant::now();
    let range = inbox.keep(length);
    let whom = match &connection.side {
        Side::Outbound { service, port } => Whom::Service(Rc::clone(service), *port),
        Side::Inbound { app, labels, .. } => Whom::Address(Rc::clone(app), Rc::clone(labels)),
        Side::Outside { port } => match Box::pin(explicit::outside(connection, *port, inbox.block(), range.clone())).await {
            Ok(whom) => whom,
            Err(error) => return refuse(connection, error).await,
        },
        Side::Explicit => match Box::pin(explicit::whom(connection, inbox.block(), range.clone())).await {
            Ok((whom, Form::Authority)) => {
                inbox.release();
                return match Box::pin(explicit::connect(connection, whom, inbox)).await {
                    Ok(next) => After::Connected(next),
                    Err(refusal) => refuse_with(connection, refusal.status(), refusal.text(), refusal.reason()).await,
                };
            }
            Ok((whom, Form::Origin | Form::Absolute | Form::Asterisk)) => whom,
            Err(error) => return refuse(connection, error).await,
        },
    };
    match prepare(connection, &whom, inbox, range, started) {
        Ok(exchange) => exchange.drive().await,
        Err(Unfit::Head(error)) => refuse(connection, error).await,
        Err(Unfit::Unproven) => {
            admit::refuse(&connection.side, connection.peer, connection.since, &connection.context);
            connection.io.abort_on_close();
            After::Close
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
    let head = Head::parse(inbox.block(), range)?;
    if !matches!(connection.side, Side::Inbound { .. }) {
        head.within_app_limits()?;
    }
    let request = Request::judge(&head)?;
    let is_bare = request.form == Form::Origin && request.body == Framing::None && !request.upgrade;
    let asks = if is_bare { Asks::Http(request.method.text(head.bytes), request.target.text(head.bytes)) } else { Asks::Other };
    if admit::is_refused(&connection.side, connection.tls.as_ref(), &asks, context) {
        return Err(Unfit::Unproven);
    }
    let id = match head.get("x-request-id") {
        Some(_) => RequestId::Sent(request.request_id),
        None => RequestId::make([context.draw(), context.draw()]),
    };
    let visitor = Visitor { side: &connection.side, tls: connection.tls.as_ref(), address: connection.peer.ip(), context };
    let admission = authorization::of_request(&visitor, &request.view(&head, &connection.caller), &asks);
    let (target, labels) = aim(whom, &head, &request, context);
    let target = admission.refusal.map_or(target, Target::Nobody);
    let additions = Additions {
        peer: connection.peer.ip(),
        tells: !matches!(&target, Target::Service(route) if route.leads_outside()),
        is_outbound: !matches!(connection.side, Side::Inbound { .. }),
        request_id: id.text(inbox.block()),
        shorten: matches!(connection.side, Side::Explicit),
        host: match &target {
            Target::Address(peer) => peer.address(),
            Target::Service(_) | Target::Nobody(_) => connection.peer,
        },
        path: admission.path.as_deref(),
    };
    request::patch(&head, &request, &additions, &mut out);
    let asked = Asked {
        is_head: request.is_head(inbox.block()),
        is_connect: request.form == Form::Authority,
        upgrade: request.upgrade,
        is_old: request.is_old,
    };
    let is_idempotent = request.is_idempotent(inbox.block());
    let up = Flow::new(Body::new(request.body, Plain::No), inbox, out, true);
    let (decided, secured) = (admission.decided, connection.secured());
    let outcome = Outcome { labels, decided, upstream: None, secured, status: 0, grpc_status: None, reason: None, bytes_out: 0 };
    Ok(Exchange { connection, request, asked, is_idempotent, id, target, up, upload: Upload::default(), in_flight: None, outcome, started })
}

/// Who gets the request, and the labels known so far.
fn aim(whom: &Whom, head: &Head<'_>, request: &Request, context: &Context) -> (Target, Rc<Destination>) {
    let nobody = || Rc::new(Destination { service: None, version: None, route: None });
    match whom {
        Whom::Address(peer, labels) => (Target::Address(Rc::clone(peer)), Rc::clone(labels)),
        Whom::Nobody(refusal) => (Target::Nobody(*refusal), nobody()),
        Whom::Service(service, port) => {
            let Some(view) = service.view() else { return (Target::Nobody(Refusal::UnknownService), nobody()) };
            match target::route(&view, *port, &request.view(head, &context.own), context) {
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
    async fn drive(mut self) -> After {
        if self.up.take_in().is_err() {
            return self.answer(400, "the chunked framing of the body is malformed\n", "bad-chunk").await;
        }
        let limit = match &self.target {
            Target::Service(route) => route.timeout,
            Target::Address(_) | Target::Nobody(_) => None,
        };
        let arrived = match limit {
            None => self.attempts().await,
            Some(limit) => {
                let deadline = self.started + limit;
                timeout_at(deadline.into(), self.attempts()).await.unwrap_or(Err(Failure::Refused(Refusal::Timeout)))
            }
        };
        match arrived {
            Ok(arrived) => self.deliver(arrived).await,
            Err(Failure::Refused(refusal)) => self.answer(refusal.status(), refusal.text(), refusal.reason()).await,
            Err(Failure::Client(Stopped::Malformed(_))) => {
                self.answer(400, "the chunked framing of the body is malformed\n", "bad-chunk").await
            }
            Err(Failure::Client(Stopped::Sender(_) | Stopped::Receiver(_))) => {
                self.outcome.reason = Some("client-gone");
                self.record(Instant::now());
                After::Close
            }
        }
    }

    /// Sends the request until somebody answers: elsewhere when an endpoint cannot be reached or never got it, and once
    /// more when a connection that had rested was closed before it answered.
    async fn attempts(&mut self) -> Result<Arrived, Failure> {
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
                Ok(arrived) if arrived.response.undelivered && self.may_go_elsewhere(&tried) => tried.push(peer.address()),
                Ok(arrived) => return Ok(arrived),
                Err(Broken::BeforeFirstByte) if reused && self.up.kept && (self.is_idempotent || self.up.sent == 0) => may_reuse = false,
                Err(Broken::Unconvinced(error)) => {
                    error.log(peer.address());
                    unreached = error.refusal();
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

    /// The next peer to try.
    async fn pick(&mut self, tried: &[SocketAddr]) -> Result<Rc<Peer>, Refusal> {
        let (peer, in_flight) = match &self.target {
            Target::Nobody(refusal) => return Err(*refusal),
            Target::Address(peer) => (Rc::clone(peer), peer.begin()),
            Target::Service(route) => {
                let (endpoint, in_flight) = route.pick(tried, &self.connection.context).await.ok_or(Refusal::NoEndpoint)?;
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
        let rules = Rules { asked: self.asked, is_from_app, keep_alive: self.request.keep_alive, draining: &context.draining };
        let response = read_response(&io, client, rules, &context.buffers);
        let up = self.up.run(client, &io, &context.buffers);
        let (response, keep, inbox, out) = beside(client, &mut self.upload, up, response).await.map_err(Broken::Client)??;
        Ok(Arrived { io, response, keep, inbox, out })
    }

    /// Sends the response to the client, with the rest of the request still going up where there is any.
    async fn deliver(mut self, arrived: Arrived) -> After {
        let Arrived { io, response, keep, inbox, out } = arrived;
        self.outcome.status = response.status;
        self.outcome.grpc_status = response.grpc_status;
        self.outcome.reason = response.undelivered.then(|| Refusal::ConnectFailed.reason());
        if response.tunnel {
            return self.become_tunnel(io, &inbox, out).await;
        }
        let plain = if self.asked.is_old { Plain::Yes } else { Plain::No };
        let mut down = Flow::new(Body::new(response.body, plain), inbox, out, false);
        let (client, buffers) = (&self.connection.io, &self.connection.context.buffers);
        let carried = match down.take_in() {
            Err(bad) => Ok(Err(Stopped::Malformed(bad))),
            Ok(()) => beside(client, &mut self.upload, self.up.run(client, &io, buffers), down.run(&io, client, buffers)).await,
        };
        let now = Instant::now();
        self.outcome.bytes_out = down.body.bytes;
        self.outcome.reason = match carried {
            Ok(Ok(())) => self.outcome.reason,
            Ok(Err(Stopped::Sender(_) | Stopped::Malformed(_))) => Some("response-cut"),
            Ok(Err(Stopped::Receiver(_))) | Err(_) => Some("client-gone"),
        };
        self.record(now);
        if !matches!(carried, Ok(Ok(()))) {
            client.abort_on_close();
            return After::Close;
        }
        let whole = self.up.is_done() && !self.upload.refused;
        if whole
            && response.keep_alive
            && down.inbox.is_empty()
            && let Some(in_flight) = &self.in_flight
        {
            in_flight.peer().rest(io, now, self.connection.context.settings.rest);
        }
        if keep == Keep::No || !whole {
            return After::Linger;
        }
        let mut inbox = self.up.inbox;
        inbox.release();
        After::Again(inbox)
    }

    /// The protocol changes: what either side has sent already goes on first.
    async fn become_tunnel(mut self, io: Io, from_server: &Buffer, mut out: Buffer) -> After {
        out.append(from_server.filled());
        let sent = self.connection.io.write_all(out.filled()).await;
        if sent.is_err() || io.write_all(self.up.inbox.filled()).await.is_err() {
            self.outcome.reason = Some("cut");
            self.record(Instant::now());
            return After::Close;
        }
        let bytes = self.up.inbox.block();
        let record = TunnelRecord {
            method: self.request.method.text(bytes).into(),
            path: self.request.target.text(bytes).into(),
            authority: self.request.authority.text(bytes).into(),
            request_id: self.id.text(bytes).into(),
            labels: self.outcome.labels,
            decided: self.outcome.decided,
            status: self.outcome.status,
            upstream: self.outcome.upstream,
            secured: self.outcome.secured,
            started: self.started,
        };
        After::Tunnel(Box::new(Tunnel { io, record, _in_flight: self.in_flight }))
    }

    /// The proxy answers itself.
    async fn answer(mut self, status: u16, text: &str, reason: &'static str) -> After {
        let context = &self.connection.context;
        let whole = self.up.body.is_done();
        let close = !whole || !self.request.keep_alive || context.draining.has_started();
        let is_inbound = matches!(self.connection.side, Side::Inbound { .. });
        let answer = Answer {
            status,
            text,
            close,
            tell_kept: self.request.is_old,
            is_head: self.asked.is_head,
            undelivered: is_inbound && reason == Refusal::ConnectFailed.reason(),
        };
        let mut out = context.buffers.take();
        answer.write(&mut out);
        let written = self.connection.io.write_all(out.filled()).await;
        self.outcome.status = status;
        self.outcome.reason = Some(reason);
        self.outcome.bytes_out = text.len() as u64;
        self.record(Instant::now());
        match (written, close) {
            (Err(_), _) => After::Close,
            (Ok(()), true) => After::Linger,
            (Ok(()), false) => {
                let mut inbox = self.up.inbox;
                inbox.release();
                After::Again(inbox)
            }
        }
    }

    /// One record per request.
    fn record(&self, now: Instant) {
        let bytes = self.up.inbox.block();
        self.connection.context.recorder.request(&RequestRecord {
            direction: self.connection.side.direction(),
            spoken: Spoken::Http1,
            destination: &self.outcome.labels,
            access: self.outcome.decided.access(),
            method: self.request.method.text(bytes),
            path: self.request.target.text(bytes),
            authority: self.request.authority.text(bytes),
            request_id: self.id.text(bytes),
            status: self.outcome.status,
            grpc_status: self.outcome.grpc_status,
            reason: self.outcome.reason,
            peer: self.connection.peer,
            upstream: self.outcome.upstream,
            secured: self.outcome.secured.as_ref(),
            bytes_in: self.up.body.bytes,
            bytes_out: self.outcome.bytes_out,
            duration: now.saturating_duration_since(self.started),
        });
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
    response::patch(&head, &response, rules.asked, keep, out);
    Ok((response, keep))
}

/// Answers a head that is refused, and closes: nothing after it can be trusted.
async fn refuse(connection: &Connection, error: HeadError) -> After {
    let text = format!("{error}\n");
    refuse_with(connection, error.status(), &text, error.reason()).await
}

async fn refuse_with(connection: &Connection, status: u16, text: &str, reason: &'static str) -> After {
    let labels = match &connection.side {
        Side::Inbound { labels, .. } => Rc::clone(labels),
        Side::Outbound { service, .. } => Rc::new(Destination { service: Some(service.id.clone()), version: None, route: None }),
        Side::Explicit | Side::Outside { .. } => Rc::new(Destination { service: None, version: None, route: None }),
    };
    let mut out = connection.context.buffers.take();
    Answer { status, text, close: true, tell_kept: false, is_head: false, undelivered: false }.write(&mut out);
    let written = connection.io.write_all(out.filled()).await;
    connection.context.recorder.request(&RequestRecord {
        direction: connection.side.direction(),
        spoken: Spoken::Http1,
        destination: &labels,
        access: Access::default(),
        method: "",
        path: "",
        authority: "",
        request_id: "",
        status,
        grpc_status: None,
        reason: Some(reason),
        peer: connection.peer,
        upstream: None,
        secured: connection.secured().as_ref(),
        bytes_in: 0,
        bytes_out: text.len() as u64,
        duration: Duration::ZERO,
    });
    match written {
        Ok(()) => After::Linger,
        Err::<(), io::Error>(_) => After::Close,
    }
}
