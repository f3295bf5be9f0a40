//! Targets: from a request head to the endpoint that takes it.
//!
//! [`leno_core::route::decide`] says where a request goes and [`leno_core::balance::pick`] which endpoint takes it; this
//! file only looks up what they name. HTTP/1, HTTP/2 and opaque connections all come through here.
//!
//! Reading order: [`route()`], [`Route::pick`], [`Refusal`].

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_core::balance;
use leno_core::balance::key::{Key, endpoint_id};
use leno_core::filters::{Asked, FieldChanges};
use leno_core::limits::Limit;
use leno_core::names::{Name, ServiceId};
use leno_core::request::RequestHead;
use leno_core::retry::{Budget, Retry};
use leno_core::route::{self, Backend, Rule, Silent};

use crate::concurrency::Limiter;
use crate::directory::{Directory, ServiceView};
use crate::endpoints::{EndpointIndex, EndpointSet, EndpointState, Owner};
use crate::filters::Filtered;
use crate::http1::response::Undelivered;
use crate::jwt::TokenError;
use crate::mirror;
use crate::pool::{InFlight, Peer};
use crate::rate_limit;
use crate::resilience::limits::Place;
use crate::telemetry::{Destination, Origin};
use crate::worker::Context;

/// Other endpoints tried when one cannot be reached.
pub const OTHERS_MAX: usize = 2;

/// Where one request goes: everything that was decided, nothing borrowed from the head.
pub struct Route {
    view: Rc<ServiceView>,
    set: Rc<EndpointSet>,
    version: Option<Name>,
    rule: Option<Name>,
    /// Whom the request belongs to, as far as that decides which endpoint takes it.
    owner: Owner,
    source: IpAddr,
    /// What the answer tells the caller of its session, by the endpoint that was picked last.
    session: RefCell<Option<Box<FieldChanges>>>,
    retry: Option<Arc<Retry>>,
    /// Time until the response's head; `None` is unlimited.
    pub timeout: Option<Duration>,
    /// Who gets a copy of the request.
    pub mirrors: Vec<Self>,
    /// What the rule does besides; `None` is nothing.
    pub filtered: Option<Box<Filtered>>,
    /// Time in which, once a response has begun, a byte must come or go; `None` is unlimited.
    pub idle_timeout: Option<Duration>,
    /// Its place among the requests that may be under way, once it has one.
    place: OnceCell<Option<Place>>,
    /// Its place among those that may be sent once more, once it has one.
    retry_place: OnceCell<Option<Place>>,
}

/// Who is to get a request.
pub enum Target {
    /// An endpoint of a service.
    Service(Route),
    /// This one, and nobody else; it is the app, which gets no more requests at once than it bears, where there is a limiter.
    Address(Rc<Peer>, Option<Arc<Limiter>>),
    /// The proxy answers itself.
    Nobody(Refusal),
}

impl Target {
    /// The way to a service, where it is for one.
    pub fn route(&self) -> Option<&Route> {
        match self {
            Self::Service(route) => Some(route),
            Self::Address(..) | Self::Nobody(_) => None,
        }
    }

    /// What its route does besides, where it does anything.
    pub fn filtered(&self) -> Option<&Filtered> {
        self.route().and_then(|route| route.filtered.as_deref())
    }

    /// Changes of the response's fields, where there are any.
    pub fn response_changes(&self) -> Option<Cow<'_, FieldChanges>> {
        self.route().and_then(Route::response_changes)
    }

    /// Seconds after which the request may be tried again, where it is refused for a time that is known.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Nobody(refusal) => refusal.retry_after_s(),
            Self::Service(_) | Self::Address(..) => None,
        }
    }
}

/// Why the proxy answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The service is gone, or no name of the mesh.
    UnknownService,
    /// The destination the policy names does not exist.
    MissingDestination,
    /// Every destination of the rule has weight 0.
    NoWeight,
    /// Nobody registers what is asked for, and the app may only connect to what is registered.
    NotRegistered,
    /// Nothing that could answer is there.
    NoEndpoint,
    /// The circuit breaker of every endpoint is open.
    CircuitOpen,
    /// As much is under way to the service as may be.
    Overflow,
    /// No endpoint is healthy, and unhealthy ones are not to be used.
    Unhealthy,
    /// Nobody accepted the connection.
    ConnectFailed,
    /// This proxy has no valid certificate to prove itself with.
    NoCertificate,
    /// Somebody else answers at the endpoint's address.
    IdentityMismatch,
    /// The endpoint cannot prove who it is, or refused this proxy.
    TlsFailed,
    /// The rules of the app's port do not let the caller pass.
    Denied,
    /// The rules of the app's port look at paths, and servers could read this one in more than one way.
    AmbiguousPath,
    /// A token that came with the request is not valid.
    Token(TokenError),
    /// The route lets no more such requests pass now.
    RateLimited {
        /// After how many seconds there is room again.
        retry_after_s: u32,
    },
    /// What holds for the app's port is not known yet.
    NoRules,
    /// The connection broke before a response.
    Disconnected,
    /// What came back was no valid response.
    BadResponse,
    /// No response in the time the route gives.
    Timeout,
}

impl Refusal {
    /// Status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::AmbiguousPath => 400,
            Self::Token(_) => 401,
            Self::Denied => 403,
            Self::UnknownService => 404,
            Self::RateLimited { .. } => 429,
            Self::MissingDestination | Self::NoWeight => 500,
            Self::NoEndpoint | Self::CircuitOpen | Self::Overflow | Self::Unhealthy | Self::NoCertificate | Self::NoRules => 503,
            Self::NotRegistered
            | Self::ConnectFailed
            | Self::IdentityMismatch
            | Self::TlsFailed
            | Self::Disconnected
            | Self::BadResponse => 502,
            Self::Timeout => 504,
        }
    }

    /// Metric label and log field: a closed set.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownService => "unknown-service",
            Self::MissingDestination => "missing-destination",
            Self::NoWeight => "no-weight",
            Self::NotRegistered => "not-registered",
            Self::NoEndpoint => "no-endpoint",
            Self::CircuitOpen => "circuit-open",
            Self::Overflow => "overflow",
            Self::Unhealthy => "unhealthy",
            Self::ConnectFailed => "connect-failed",
            Self::NoCertificate => "no-certificate",
            Self::IdentityMismatch => "identity-mismatch",
            Self::TlsFailed => "tls-failed",
            Self::Denied => "denied",
            Self::AmbiguousPath => "ambiguous-path",
            Self::Token(error) => error.reason(),
            Self::RateLimited { .. } => "rate-limited",
            Self::NoRules => "no-rules",
            Self::Disconnected => "disconnected",
            Self::BadResponse => "bad-response",
            Self::Timeout => "timeout",
        }
    }

    /// Where it comes from: who has to look.
    pub fn origin(self) -> Origin {
        Origin::of(self.reason())
    }

    /// Seconds after which the caller may try again, where that is known.
    pub fn retry_after_s(self) -> Option<u32> {
        if let Self::RateLimited { retry_after_s } = self { Some(retry_after_s) } else { None }
    }

    /// What the caller is told: what happened, and nothing about policies.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownService => "no service of the mesh has this name\n",
            Self::MissingDestination => "the chosen destination does not exist\n",
            Self::NoWeight => "no destination may receive this request\n",
            Self::NotRegistered => "nothing outside is registered by this name or address, and only what is registered may be called\n",
            Self::NoEndpoint => "the service has no endpoint that is ready\n",
            // Limits and how endpoints are doing are nobody's business but the operators'.
            Self::CircuitOpen | Self::Overflow | Self::Unhealthy => "the service cannot take this request now\n",
            Self::ConnectFailed => "no endpoint of the service accepted the connection\n",
            Self::NoCertificate => "this workload has no valid certificate to prove itself with\n",
            Self::IdentityMismatch => "another workload answers at the endpoint's address\n",
            Self::TlsFailed => "no secure connection to the endpoint could be made\n",
            Self::Denied => "access denied\n",
            Self::AmbiguousPath => "servers could read this path in more than one way\n",
            Self::Token(_) => "the token is not valid here\n",
            Self::RateLimited { .. } => "too many requests\n",
            Self::NoRules => "it is not known yet who may call this workload\n",
            Self::Disconnected => "the endpoint closed the connection before it answered\n",
            Self::BadResponse => "the endpoint sent an answer that is no valid HTTP\n",
            Self::Timeout => "the service did not answer in the time the route allows\n",
        }
    }
}

impl Undelivered {
    /// What the inbound side says where it answers for this `reason`; `None`: the app may have got the request.
    pub(crate) fn by_reason(reason: &str) -> Option<Self> {
        [Self::Connect, Self::Overflow].into_iter().find(|it| it.refusal().reason() == reason)
    }

    /// What it is called where no other endpoint takes the request either.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Connect => Refusal::ConnectFailed,
            Self::Overflow => Refusal::Overflow,
        }
    }
}

/// Decides where a request for `port` of the service goes, which comes from `source`. What it needs of the head is copied out.
///
/// The labels tell what is known of the destination even where the request is refused.
pub fn route(
    view: &Rc<ServiceView>,
    port: u16,
    head: &RequestHead<'_>,
    source: IpAddr,
    context: &Context,
) -> Result<Route, (Refusal, Rc<Destination>)> {
    let service = &view.service;
    let decision = route::decide(service, port, head, context.draw(), &mut Silent);
    let asked_port = port;
    let filters = decision.rule.and_then(|rule| rule.filters.as_ref());
    let rule = decision.rule.map(|rule| &rule.name);
    let refused = |refusal| Err((refusal, view.labels(&service.id, None, rule)));
    if let Some(rule) = decision.rule
        && let Err(refusal) = rate_limit::check(view, rule, head, source, context)
    {
        return refused(refusal);
    }
    match decision.backend {
        Backend::Missing(_) => refused(Refusal::MissingDestination),
        Backend::NoWeight => refused(Refusal::NoWeight),
        Backend::Endpoints { service: backend, port, version } => {
            let set = view.endpoints(&context.directory, backend, port);
            Ok(Route {
                view: Rc::clone(view),
                owner: set.owner(Some(head), source),
                source,
                session: RefCell::default(),
                set,
                version: version.cloned(),
                rule: rule.cloned(),
                retry: decision.retry.cloned(),
                timeout: decision.timeout,
                mirrors: match decision.rule {
                    Some(rule) if !rule.mirrors.is_empty() => mirror::routes(view, rule, port, context),
                    Some(_) | None => Vec::new(),
                },
                idle_timeout: decision.idle_timeout,
                place: OnceCell::new(),
                retry_place: OnceCell::new(),
                filtered: filters.map(|filters| {
                    let draws = [context.draw(), context.draw()];
                    Filtered::judge(
                        filters,
                        &Asked { request: head, matched: decision.matched, service: &service.id, port: asked_port, draws },
                    )
                }),
            })
        }
    }
}

/// Decides where a connection from `source` whose bytes are not looked at goes.
pub fn route_connection(view: &Rc<ServiceView>, port: u16, source: IpAddr, directory: &Directory) -> Result<Route, Refusal> {
    match route::decide_connection(&view.service, port) {
        Backend::Missing(_) => Err(Refusal::MissingDestination),
        Backend::NoWeight => Err(Refusal::NoWeight),
        Backend::Endpoints { service, port, version } => {
            let set = view.endpoints(directory, service, port);
            Ok(Route {
                view: Rc::clone(view),
                owner: set.owner(None, source),
                source,
                session: RefCell::default(),
                set,
                version: version.cloned(),
                rule: None,
                retry: None,
                timeout: None,
                mirrors: Vec::new(),
                filtered: None,
                idle_timeout: None,
                // A connection is no request.
                place: OnceCell::from(None),
                retry_place: OnceCell::new(),
            })
        }
    }
}

impl Route {
    /// Where copies of the requests that `rule` holds for go: to this port of a service, and this version where one is named.
    pub(crate) fn mirror(view: &Rc<ServiceView>, rule: &Rule, to: (&ServiceId, u16, Option<&Name>), context: &Context) -> Self {
        let (service, port, version) = to;
        Self {
            view: Rc::clone(view),
            set: view.endpoints(&context.directory, service, port),
            version: version.cloned(),
            rule: Some(rule.name.clone()),
            owner: Owner::Known(Key::Any),
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            session: RefCell::default(),
            retry: None,
            timeout: None,
            idle_timeout: None,
            mirrors: Vec::new(),
            filtered: None,
            place: OnceCell::new(),
            retry_place: OnceCell::new(),
        }
    }

    /// The endpoint that takes the request, other than those already `tried`; [`Refusal::NoEndpoint`] when there is none left.
    pub async fn pick(&self, tried: &[SocketAddr], context: &Context) -> Result<(Rc<EndpointState>, InFlight), Refusal> {
        let index = match self.set.current() {
            Some(index) => index,
            None => context.directory.index(&self.set).await,
        };
        if self.place.get().is_none() {
            let place = index.begin(Limit::Requests, context)?;
            self.place.get_or_init(|| place);
        }
        let none = || {
            let all = index.serving(self.version.as_ref());
            if tried.is_empty() { index.why_none(all, Instant::now()) } else { Refusal::NoEndpoint }
        };
        let endpoint = self.pick_from(&index, tried, context).ok_or_else(none)?;
        let in_flight = endpoint.begin(context);
        Ok((endpoint, in_flight))
    }

    fn pick_from(&self, index: &EndpointIndex, tried: &[SocketAddr], context: &Context) -> Option<Rc<EndpointState>> {
        let group = index.group(self.version.as_ref())?;
        let (open, key) = (index.open(group, tried, Instant::now), self.key(index));
        let place = group.owners().find(key, |place| open.has(place)).or_else(|| {
            let mut scratch = self.set.scratch.borrow_mut();
            let (among, now) = (open.among(Instant::now, &mut scratch), OnceCell::new());
            let cost = |place: usize| group.all[place].cost(|| *now.get_or_init(Instant::now));
            let mut turn = self.set.turn.get();
            let place = balance::pick(&index.balancing.algorithm, among, cost, &mut turn, context.draw());
            self.set.turn.set(turn);
            place
        })?;
        let endpoint = Rc::clone(&group.all[place]);
        if let Some(affinity) = &index.balancing.affinity {
            self.session.replace(affinity.tells(key, endpoint_id(endpoint.endpoint.address)).map(Box::new));
        }
        Some(endpoint)
    }

    /// Whom the request belongs to.
    fn key(&self, index: &EndpointIndex) -> Key {
        match &self.owner {
            Owner::Known(key) => *key,
            Owner::Later(None) => index.balancing.key(None, self.source),
            Owner::Later(Some(kept)) => kept.with_head(|head| index.balancing.key(Some(head), self.source)),
        }
    }

    /// Changes of the response's fields, where there are any: those of the rule, and what the caller is told of its session.
    pub fn response_changes(&self) -> Option<Cow<'_, FieldChanges>> {
        let of_rule = self.filtered.as_ref().and_then(|filtered| filtered.response());
        match (&*self.session.borrow(), of_rule) {
            (None, of_rule) => of_rule.map(Cow::Borrowed),
            (Some(session), None) => Some(Cow::Owned(FieldChanges::clone(session))),
            (Some(session), Some(of_rule)) => Some(Cow::Owned(of_rule.then(session))),
        }
    }

    /// What is tried again, where a policy says it.
    pub(crate) fn retry(&self) -> Option<&Retry> {
        self.retry.as_deref()
    }

    /// What the service may get of retries from this worker.
    pub(crate) fn budget(&self) -> &RefCell<Budget> {
        &self.set.budget
    }

    /// Whether the request may be sent once more, as far as the limit on such requests goes.
    pub(crate) fn may_retry(&self, context: &Context) -> bool {
        if self.retry_place.get().is_some() {
            return true;
        }
        let Some(index) = self.set.current() else { return true };
        match index.begin(Limit::Retries, context) {
            Ok(place) => self.retry_place.set(place).is_ok(),
            Err(_) => false,
        }
    }

    /// Whether the request leaves the cluster.
    pub fn leads_outside(&self) -> bool {
        self.view.service.outside
    }

    /// Metric labels once `endpoint` has been picked, or without one.
    pub fn labels(&self, endpoint: Option<&EndpointState>) -> Rc<Destination> {
        let version = self.version.as_ref().or_else(|| endpoint.and_then(|endpoint| endpoint.endpoint.versions.first()));
        self.view.labels(&self.set.id.service, version, self.rule.as_ref())
    }
}
