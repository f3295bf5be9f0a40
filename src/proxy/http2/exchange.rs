//! The life of one request: judged, routed, sent, answered, recorded.
//!
//! Reading order: [`run`], [`Exchange::attempts`], [`Exchange::attempt`], [`Exchange::deliver`], [`Exchange::answer`].

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use leno_core::names::split_authority;
use tokio::time::timeout_at;

use super::answer::Answer;
use super::flow::{Flow, Stopped};
use super::head;
use super::upstream::Lease;
use super::{Client, asks};
use crate::authorization::{self, Decided, Visitor};
use crate::connection::{Side, host_alias};
use crate::control::Alias;
use crate::directory::ServiceState;
use crate::egress;
use crate::http1::head::HeadError;
use crate::http1::response::UNDELIVERED;
use crate::pool::{InFlight, Peer};
use crate::target::{self, OTHERS_MAX, Refusal, Route};
use crate::telemetry::{Access, Destination, RequestRecord, Spoken};
use crate::tls::Secured;

/// How often a request that no app has seen is sent again.
const AGAIN_MAX: usize = 3;
/// Interim responses that are passed on for one request. They are under no flow control, so a row of them without an end
/// would be kept for a client that does not read.
const INTERIM_MAX: usize = 100;
/// The port of an authority that names none.
const HTTP_PORT: u16 = 80;

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

/// One request on its way.
struct Exchange {
    client: Rc<Client>,
    target: Target,
    head: Head,
    up: Flow,
    respond: SendResponse<Bytes>,
    in_flight: Option<InFlight>,
    /// Interim responses passed on so far.
    interim: usize,
    outcome: Outcome,
    started: Instant,
}

/// The head that is sent on; it is kept, because it may be sent more than once and is recorded in the end.
struct Head {
    method: Method,
    uri: Uri,
    /// The target as it came, where another is sent on.
    asked: Option<Uri>,
    headers: HeaderMap,
    protocol: Option<Protocol>,
    id: HeaderValue,
    is_grpc: bool,
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

/// A response whose head is there.
struct Arrived {
    response: Response<RecvStream>,
    send: SendStream<Bytes>,
    undelivered: bool,
    _lease: Lease,
}

/// Why there is no response.
enum Failure {
    Refused(Refusal),
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

/// Serves one request.
pub(super) async fn run(client: Rc<Client>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let is_grpc = head::is_grpc(&parts.headers);
    if let Err(error) = head::settle_authority(&mut parts) {
        return refuse(&client, &parts, error, is_grpc, &mut respond);
    }
    let visitor = Visitor { side: &client.side, tls: client.tls.as_ref(), address: client.peer.ip(), context: &client.context };
    let asks = asks(&parts.headers, &parts.uri);
    let admission = head::view(&parts, &client.caller, |head| authorization::of_request(&visitor, head, &asks));
    let (target, labels) = aim(&client, &parts).await;
    let target = admission.refusal.map_or(target, Target::Nobody);
    let mut asked = None;
    if let Some(path) = &admission.path {
        match head::with_path(&parts.uri, path) {
            Ok(uri) => asked = Some(std::mem::replace(&mut parts.uri, uri)),
            Err(error) => return refuse(&client, &parts, error, is_grpc, &mut respond),
        }
    }
    let context = &client.context;
    let leads_outside = matches!(&target, Target::Service(route) if route.leads_outside());
    let tells = if leads_outside { None } else { Some(&client.address) };
    let id = head::patch(&mut parts.headers, &client.side, tells, || [context.draw(), context.draw()]);
    let protocol = parts.extensions.remove::<Protocol>();
    let head = Head { method: parts.method, uri: parts.uri, asked, headers: parts.headers, protocol, id, is_grpc };
    let (decided, secured) = (admission.decided, client.secured());
    let outcome = Outcome { labels, decided, upstream: None, secured, status: 0, grpc_status: None, reason: None, bytes_out: 0 };
    let mut exchange =
        Exchange { client, target, head, up: Flow::replayable(body), respond, in_flight: None, interim: 0, outcome, started };
    exchange.drive().await;
    exchange.record();
}

/// Who gets the request, and the labels known so far.
async fn aim(client: &Client, parts: &Parts) -> (Target, Rc<Destination>) {
    let nobody = || Rc::new(Destination { service: None, version: None, route: None });
    let context = &*client.context;
    let asked;
    let (service, port) = match &client.side {
        Side::Inbound { app, labels, .. } => return (Target::Address(Rc::clone(app)), Rc::clone(labels)),
        Side::Outbound { service, port } => (service, *port),
        Side::Explicit => match whom(client, parts).await {
            Some((service, port)) => {
                asked = service;
                (&asked, port)
            }
            None => return (Target::Nobody(Refusal::UnknownService), nobody()),
        },
        Side::Outside { port } => match outside(client, *port, parts).await {
            Some(service) => {
                asked = service;
                (&asked, *port)
            }
            None => return (Target::Nobody(Refusal::NotRegistered), nobody()),
        },
    };
    let Some(view) = service.view() else { return (Target::Nobody(Refusal::UnknownService), nobody()) };
    match head::view(parts, &context.own, |head| target::route(&view, port, head, context)) {
        Ok(route) => {
            let labels = route.labels(None);
            (Target::Service(route), labels)
        }
        Err((refusal, labels)) => (Target::Nobody(refusal), labels),
    }
}

/// What is registered outside by the host that the authority names.
async fn outside(client: &Client, port: u16, parts: &Parts) -> Option<Rc<ServiceState>> {
    let (host, _) = split_authority(parts.uri.authority()?.as_str())?;
    egress::registered(host, port, &client.context).await
}

/// The service that the authority names, at its port; waits for the controller.
async fn whom(client: &Client, parts: &Parts) -> Option<(Rc<ServiceState>, u16)> {
    let (host, port) = split_authority(parts.uri.authority()?.as_str())?;
    let alias = match host.parse() {
        Ok(ip) => Alias::Address(SocketAddr::new(ip, port.unwrap_or(HTTP_PORT))),
        Err(_) => host_alias(host),
    };
    let service = Box::pin(client.context.directory.resolve(&alias)).await?;
    let port = port.unwrap_or_else(|| {
        let view = service.view();
        let ports = view.as_ref().map(|view| view.service.ports.as_slice()).unwrap_or_default();
        let is_usual = ports.is_empty() || ports.iter().any(|port| port.port == HTTP_PORT);
        if is_usual { HTTP_PORT } else { ports[0].port }
    });
    Some((service, port))
}

impl Exchange {
    /// From the prepared request to the last byte of its response.
    async fn drive(&mut self) {
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
            Err(Failure::Refused(refusal)) => self.answer(refusal.status(), refusal.text(), refusal.reason()),
            Err(Failure::NoProtocol) => self.answer(501, "the endpoint cannot change to this protocol\n", "no-protocol"),
            Err(Failure::Reset(reason)) => {
                self.outcome.reason = Some("response-cut");
                self.respond.send_reset(reason);
            }
            Err(Failure::ClientGone) => self.outcome.reason = Some("client-gone"),
        }
    }

    /// Sends the request until somebody answers: elsewhere when an endpoint cannot be reached or says that no app has
    /// seen it, and once more when a connection broke under a request that may be repeated.
    async fn attempts(&mut self) -> Result<Arrived, Failure> {
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
            let lease = match peer.http2.lease(&peer, &self.client.context).await {
                Ok(lease) => lease,
                Err(refusal) => {
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
                    tries.unreachable += 1;
                }
                Ok(arrived) => return Ok(arrived),
                Err(broken) => {
                    self.after(broken, tries.again)?;
                    tries.again += 1;
                }
            }
            tries.avoid.push(peer.address());
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
                let (endpoint, in_flight) = route.pick(avoid, &self.client.context).await.ok_or(Refusal::NoEndpoint)?;
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
        Ok(Arrived { response, send, undelivered, _lease: lease })
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
                Ok(()) | Err(Stopped::Receiver(_)) => {}
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

    /// Sends the response to the client, with the rest of the request still going up where there is any.
    async fn deliver(&mut self, arrived: Arrived) {
        let Arrived { response, mut send, undelivered, _lease } = arrived;
        let (mut parts, body) = response.into_parts();
        self.outcome.status = parts.status.as_u16();
        self.outcome.grpc_status = head::grpc_status(&parts.headers);
        self.outcome.reason = undelivered.then(|| Refusal::ConnectFailed.reason());
        head::strip(&mut parts.headers);
        self.up.settle();
        let mut down = Flow::once(body);
        let ends = down.is_empty();
        let mut to = match self.respond.send_response(Response::from_parts(parts, ()), ends) {
            Ok(to) => to,
            Err(error) => {
                send.send_reset(error.reason().unwrap_or(Reason::CANCEL));
                self.outcome.reason = Some("client-gone");
                return;
            }
        };
        if ends {
            down.skip();
        }
        let mut is_going_up = !self.up.is_done();
        let carried = poll_fn(|cx| self.poll_both(&mut down, &mut to, &mut send, &mut is_going_up, cx)).await;
        self.outcome.bytes_out = down.bytes;
        self.outcome.grpc_status = down.grpc_status.or(self.outcome.grpc_status);
        match carried {
            Ok(()) => {}
            Err(Stopped::Receiver(error)) => {
                send.send_reset(error.reason().unwrap_or(Reason::CANCEL));
                self.outcome.reason = Some("client-gone");
            }
            Err(Stopped::Sender(error)) => {
                self.outcome.reason = Some("response-cut");
                self.cut(&error, &mut to);
            }
        }
    }

    /// Both ways until both are done. [`Stopped`] is told from the response's point of view.
    fn poll_both(
        &mut self,
        down: &mut Flow,
        to: &mut SendStream<Bytes>,
        send: &mut SendStream<Bytes>,
        is_going_up: &mut bool,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<(), Stopped>> {
        if *is_going_up && let Poll::Ready(result) = self.up.poll(send, cx) {
            *is_going_up = false;
            match result {
                // An endpoint that has answered may refuse the rest of the body (RFC 9113 section 8.1).
                Ok(()) | Err(Stopped::Receiver(_)) => {}
                Err(Stopped::Sender(error)) => return Poll::Ready(Err(Stopped::Receiver(error))),
            }
        }
        ready!(down.poll(to, cx))?;
        if *is_going_up { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// The response broke off: the client hears it in the endpoint's words, or in words of its own protocol.
    fn cut(&mut self, error: &h2::Error, to: &mut SendStream<Bytes>) {
        if !error.is_reset() && self.head.is_grpc {
            let mut trailers = HeaderMap::with_capacity(2);
            trailers.insert("grpc-status", HeaderValue::from_static("14"));
            trailers.insert("grpc-message", HeaderValue::from_static(Refusal::Disconnected.text().trim_ascii_end()));
            self.outcome.grpc_status = Some(14);
            if to.send_trailers(trailers).is_ok() {
                return;
            }
        }
        let reason = if error.is_reset() { error.reason() } else { None };
        to.send_reset(reason.unwrap_or(Reason::INTERNAL_ERROR));
    }

    /// The proxy answers itself.
    fn answer(&mut self, status: u16, text: &'static str, reason: &'static str) {
        let is_inbound = matches!(self.client.side, Side::Inbound { .. });
        let answer = Answer {
            status,
            text,
            is_grpc: self.head.is_grpc,
            is_head: self.head.method == Method::HEAD,
            undelivered: is_inbound && reason == Refusal::ConnectFailed.reason(),
        };
        self.outcome.reason = Some(reason);
        match answer.send(&mut self.respond) {
            Ok(sent) => {
                self.outcome.status = sent.status;
                self.outcome.grpc_status = sent.grpc_status;
                self.outcome.bytes_out = sent.bytes;
            }
            Err(error) => tracing::debug!(%error, "the client takes no answer"),
        }
    }

    /// One record per request.
    fn record(&self) {
        self.client.context.recorder.request(&RequestRecord {
            direction: self.client.side.direction(),
            spoken: spoken(self.head.is_grpc),
            destination: &self.outcome.labels,
            access: self.outcome.decided.access(),
            method: self.head.method.as_str(),
            path: self.head.asked.as_ref().unwrap_or(&self.head.uri).path_and_query().map_or("", |path| path.as_str()),
            authority: self.head.uri.authority().map_or("", |authority| authority.as_str()),
            request_id: self.head.id.to_str().unwrap_or_default(),
            status: self.outcome.status,
            grpc_status: self.outcome.grpc_status,
            reason: self.outcome.reason,
            peer: self.client.peer,
            upstream: self.outcome.upstream,
            secured: self.outcome.secured.as_ref(),
            bytes_in: self.up.bytes,
            bytes_out: self.outcome.bytes_out,
            duration: self.started.elapsed(),
        });
    }
}

impl Head {
    /// The head once more.
    fn request(&self, is_https: bool) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = if is_https { head::with_https(&self.uri) } else { self.uri.clone() };
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        if let Some(protocol) = &self.protocol {
            request.extensions_mut().insert(protocol.clone());
        }
        request
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 section 9.2.2).
    fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }
}

fn spoken(is_grpc: bool) -> Spoken {
    if is_grpc { Spoken::Grpc } else { Spoken::Http2 }
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

/// Answers a head that is refused.
fn refuse(client: &Client, parts: &Parts, error: HeadError, is_grpc: bool, respond: &mut SendResponse<Bytes>) {
    let is_host = error == HeadError::BadHost;
    let text = if is_host { "the authority is missing, invalid or contradicts Host\n" } else { "the request target is invalid\n" };
    let answer = Answer { status: error.status(), text, is_grpc, is_head: parts.method == Method::HEAD, undelivered: false };
    let sent = answer.send(respond).unwrap_or_default();
    let labels = match &client.side {
        Side::Inbound { labels, .. } => Rc::clone(labels),
        Side::Outbound { service, .. } => Rc::new(Destination { service: Some(service.id.clone()), version: None, route: None }),
        Side::Explicit | Side::Outside { .. } => Rc::default(),
    };
    client.context.recorder.request(&RequestRecord {
        direction: client.side.direction(),
        spoken: spoken(is_grpc),
        destination: &labels,
        access: Access::default(),
        method: parts.method.as_str(),
        path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
        authority: "",
        request_id: "",
        status: sent.status,
        grpc_status: sent.grpc_status,
        reason: Some(error.reason()),
        peer: client.peer,
        upstream: None,
        secured: client.secured().as_ref(),
        bytes_in: 0,
        bytes_out: sent.bytes,
        duration: std::time::Duration::ZERO,
    });
}
