//! The life of one request: judged, routed, sent, answered, recorded.
//!
//! Reading order: [`run`], [`Exchange::drive`], [`attempts`], [`deliver`].

mod attempts;
mod deliver;
mod filters;
mod mirrors;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use h2::server::SendResponse;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use leno_core::names::split_authority;
use tokio::time::timeout_at;

use self::attempts::Failure;
use self::deliver::refuse;
use super::flow::Flow;
use super::{Client, asks, head};
use crate::authorization::{self, Decided, Visitor};
use crate::concurrency::{self, Limiter};
use crate::connection::{Side, host_alias};
use crate::control::Alias;
use crate::directory::ServiceState;
use crate::egress;
use crate::filters::Filtered;
use crate::pool::InFlight;
use crate::retry::Tries;
use crate::target::{self, Refusal, Target};
use crate::telemetry::{Destination, Spoken, Trace};
use crate::tls::Secured;

/// The port of an authority that names none.
const HTTP_PORT: u16 = 80;

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
    tries: Tries,
    outcome: Outcome,
    started: Instant,
    /// When the request's own time is over.
    deadline: Option<Instant>,
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
    trace: Option<Box<Trace>>,
    is_grpc: bool,
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
    let limiter = concurrency::limiter(&visitor, &asks);
    let (target, labels) = aim(&client, &parts, limiter).await;
    let target = admission.refusal.map_or(target, Target::Nobody);
    let mut asked = None;
    let filtered = target.filtered();
    let path = admission.path.as_deref().or(filtered.and_then(|filtered| filtered.path.as_deref()));
    let authority = filtered.and_then(Filtered::authority);
    if path.is_some() || authority.is_some() {
        match head::rewritten(&parts.uri, path, authority) {
            Ok(uri) => asked = Some(std::mem::replace(&mut parts.uri, uri)),
            Err(error) => return refuse(&client, &parts, error, is_grpc, &mut respond),
        }
    }
    let context = &client.context;
    let leads_outside = matches!(&target, Target::Service(route) if route.leads_outside());
    let tells = if leads_outside { None } else { Some(&client.address) };
    let id = head::patch(&mut parts.headers, &client.side, tells, || [context.draw(), context.draw()]);
    let trace = head::trace(&mut parts.headers, context);
    if let Some(changes) = filtered.and_then(Filtered::request) {
        head::change(&mut parts.headers, changes);
    }
    let protocol = parts.extensions.remove::<Protocol>();
    let head = Head { method: parts.method, uri: parts.uri, asked, headers: parts.headers, protocol, id, trace, is_grpc };
    let (decided, secured) = (admission.decided, client.secured().cloned());
    let outcome = Outcome { labels, decided, upstream: None, secured, status: 0, grpc_status: None, reason: None, bytes_out: 0 };
    let deadline = target.route().and_then(|route| route.timeout).map(|limit| started + limit);
    let (up, tries) = (Flow::replayable(body), Tries::default());
    let mut exchange = Exchange { client, target, head, up, respond, in_flight: None, interim: 0, tries, outcome, started, deadline };
    exchange.drive().await;
    exchange.record();
}

/// Who gets the request, and the labels known so far.
async fn aim(client: &Client, parts: &Parts, limiter: Option<Arc<Limiter>>) -> (Target, Rc<Destination>) {
    let nobody = || Rc::new(Destination { service: None, version: None, route: None });
    let context = &*client.context;
    let asked;
    let (service, port) = match &client.side {
        Side::Inbound { app, labels, .. } => return (Target::Address(Rc::clone(app), limiter), Rc::clone(labels)),
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
    match head::view(parts, &context.own, |head| target::route(&view, port, head, client.peer.ip(), context)) {
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
        let arrived = match self.deadline {
            None => self.filtered_attempts().await,
            Some(deadline) => {
                timeout_at(deadline.into(), self.filtered_attempts()).await.unwrap_or(Err(Failure::Refused(Refusal::Timeout)))
            }
        };
        self.tries.end();
        match arrived {
            Ok(arrived) => self.deliver(arrived).await,
            Err(Failure::Refused(refusal)) => self.answer(refusal.status(), refusal.text(), refusal.reason()),
            Err(Failure::Replied) => self.reply(),
            Err(Failure::NoProtocol) => self.answer(501, "the endpoint cannot change to this protocol\n", "no-protocol"),
            Err(Failure::Reset(reason)) => {
                self.outcome.reason = Some("response-cut");
                self.respond.send_reset(reason);
            }
            Err(Failure::ClientGone) => self.outcome.reason = Some("client-gone"),
        }
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
}

fn spoken(is_grpc: bool) -> Spoken {
    if is_grpc { Spoken::Grpc } else { Spoken::Http2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is allocated, and moved there, for every request.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(run) <= 3584, "{}", size(run));
    }
}
