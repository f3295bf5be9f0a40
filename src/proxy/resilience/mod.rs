//! Resilience: what a worker remembers of endpoints that fail, and who is called because of it.
//!
//! The decisions are in [`leno_core::outlier`] and [`leno_core::breaker`]; this room keeps their state beside
//! the endpoints of a set, for as long as they are in it, and tells metrics and logs what has changed. Each worker learns for
//! itself, from its own traffic, so that no request takes a lock.
//!
//! What health checks say of endpoints is the proxy's as a whole ([`health`]); one worker asks ([`checker`]).
//!
//! Reading order: [`SetHealth`], [`EndpointHealth`], [`Attempt`].

pub(crate) mod checker;
pub mod health;
pub mod limits;
pub(crate) mod probe;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_core::breaker::{Breaker, Permit, Phase};
use leno_core::endpoints::EndpointsId;
use leno_core::health::HealthCheck;
use leno_core::limits::{Limit, Limits};
use leno_core::outlier::{Ejection, Outliers};
use leno_core::resilience::{Outcome, Resilience};

use crate::pool::Peer;
use crate::target::Refusal;
use crate::telemetry::Event;
use crate::worker::Context;
use checker::Checker;
use health::{CheckedEndpoint, CheckedSet, Checks};
use limits::{Budget, Budgets, ConnectionPlace, Place};
use probe::Unwell;

/// What a worker remembers of the endpoints of one service port.
pub struct SetHealth {
    id: EndpointsId,
    policy: RefCell<Arc<Resilience>>,
    outliers: RefCell<Outliers>,
    /// Who has which slot in `outliers`.
    slots: RefCell<Vec<SocketAddr>>,
    /// Endpoints whose breaker is not closed.
    troubled: Cell<usize>,
    /// What is under way from all workers.
    budget: Arc<Budget>,
    /// Who is in it.
    members: RefCell<Vec<Weak<EndpointHealth>>>,
    checks: Arc<Checks>,
    /// What checks say, where there are any.
    checked: RefCell<Option<Arc<CheckedSet>>>,
    checker: RefCell<Option<Checker>>,
}

/// What a worker remembers of one endpoint of a set.
pub struct EndpointHealth {
    set: Rc<SetHealth>,
    peer: Weak<Peer>,
    slot: usize,
    breaker: RefCell<Breaker>,
    /// Whether it is counted in [`SetHealth::troubled`].
    is_troubled: Cell<bool>,
    /// What checks say, where there are any.
    checked: RefCell<Option<Arc<CheckedEndpoint>>>,
    /// Whether this worker's checker knows of it.
    is_scheduled: Cell<bool>,
}

/// What the end of a request says of the endpoint that it was sent to last.
///
/// `reason` is why the proxy itself answered or gave up. `None`: nothing, since the client has gone, or no endpoint was asked.
pub(crate) fn outcome(reason: Option<&'static str>, status: u16, grpc_status: Option<u16>) -> Option<Outcome> {
    match reason {
        None => Some(Outcome::of(status, grpc_status)),
        Some("response-cut" | "disconnected" | "bad-response") => Some(Outcome::Reset),
        Some("timeout") => Some(Outcome::Timeout),
        Some("connect-failed" | "identity-mismatch" | "tls-failed") => Some(Outcome::Connect),
        Some(_) => None,
    }
}

/// One attempt to have a request answered, of which it is to be told how it ended.
///
/// Dropped without that (the client has gone, say), it counts nothing and takes up nothing any more.
pub struct Attempt {
    endpoint: Rc<EndpointHealth>,
    permit: Option<Permit>,
    /// Whether it still takes up a place for trials.
    waits: Cell<bool>,
    is_told: Cell<bool>,
    connection: RefCell<Option<ConnectionPlace>>,
}

impl SetHealth {
    /// Nothing remembered yet.
    pub(crate) fn new(id: EndpointsId, policy: Arc<Resilience>, budgets: &Budgets, checks: &Arc<Checks>) -> Rc<Self> {
        let budget = budgets.of(&id);
        budget.set(&policy.limits);
        Rc::new(Self {
            id,
            policy: RefCell::new(policy),
            outliers: RefCell::default(),
            slots: RefCell::default(),
            troubled: Cell::new(0),
            budget,
            members: RefCell::default(),
            checks: Arc::clone(checks),
            checked: RefCell::default(),
            checker: RefCell::default(),
        })
    }

    /// The settings in force.
    pub(crate) fn policy(&self) -> Arc<Resilience> {
        Arc::clone(&self.policy.borrow())
    }

    /// Other settings are in force; what is remembered stays.
    pub(crate) fn set_policy(&self, policy: Arc<Resilience>) {
        self.budget.set(&policy.limits);
        self.policy.replace(policy);
    }

    /// One more endpoint is in the set.
    pub(crate) fn join(self: &Rc<Self>, peer: &Rc<Peer>) -> Rc<EndpointHealth> {
        let address = peer.address();
        let slot = self.outliers.borrow_mut().join();
        let mut slots = self.slots.borrow_mut();
        if slot < slots.len() {
            slots[slot] = address
        } else {
            slots.push(address)
        }
        let (breaker, is_troubled, checked, is_scheduled) = (RefCell::default(), Cell::new(false), RefCell::default(), Cell::new(false));
        let peer = Rc::downgrade(peer);
        Rc::new(EndpointHealth { set: Rc::clone(self), peer, slot, breaker, is_troubled, checked, is_scheduled })
    }

    /// Whether anything is wrong with any endpoint; `false` is certain. O(1).
    pub(crate) fn is_troubled(&self, now: Instant) -> bool {
        let is_unhealthy = |checked: &Arc<CheckedSet>| checked.unhealthy() > 0;
        self.troubled.get() > 0
            || self.outliers.borrow().may_any_be_ejected(now)
            || self.checked.borrow().as_ref().is_some_and(is_unhealthy)
    }

    /// Who is in the set, and is checked where its settings say so.
    pub(crate) fn set_members(&self, members: Vec<Weak<EndpointHealth>>) {
        let has_checks = self.policy.borrow().health_check.is_some();
        let checked = has_checks.then(|| self.checked().unwrap_or_else(|| self.checks.of(&self.id)));
        for member in members.iter().filter_map(Weak::upgrade) {
            let Some(peer) = member.peer.upgrade() else { continue };
            member.checked.replace(checked.as_ref().map(|checked| checked.endpoint(peer.address(), peer.proof())));
        }
        self.checked.replace(checked);
        self.members.replace(members);
    }

    /// What checks say, where there are any.
    fn checked(&self) -> Option<Arc<CheckedSet>> {
        self.checked.borrow().clone()
    }

    /// What may be under way.
    fn limits(&self) -> Limits {
        self.policy.borrow().limits
    }

    /// A request begins, or is sent once more; `None` where there is no limit.
    pub(crate) fn begin(&self, limit: Limit, context: &Context) -> Result<Option<Place>, Refusal> {
        let limits = self.limits();
        let is_limited = match limit {
            Limit::Requests => limits.requests.is_some(),
            Limit::Retries => limits.retries.is_some(),
            Limit::Pending => limits.connections.is_some(),
        };
        if !is_limited {
            return Ok(None);
        }
        self.budget.take(limit, &limits).map(Some).ok_or_else(|| self.overflow(limit, context))
    }

    fn overflow(&self, limit: Limit, context: &Context) -> Refusal {
        context.recorder.event(Event::Overflow(limit), &self.id.service);
        Refusal::Overflow
    }

    /// Closes connections that rest, until there may be one more beside those in use.
    fn make_room(&self, most: u32) {
        let members = self.members.borrow();
        let resting = |peer: &Rc<Peer>| peer.resting();
        let mut all: Vec<_> =
            members.iter().filter_map(|member| member.upgrade()?.peer.upgrade()).filter(|peer| resting(peer) > 0).collect();
        let mut count: usize = all.iter().map(resting).sum();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let in_use = self.budget.connections();
        while count > 0 && in_use + count > most {
            all.sort_unstable_by_key(resting);
            count -= all.last().map_or(count, |peer| peer.close_oldest());
        }
    }

    fn ejected(&self, ejection: Ejection, now: Instant, context: &Context) {
        let address = self.slots.borrow().get(ejection.slot).copied();
        let (cause, for_ms) = (ejection.cause.as_str(), ejection.until.saturating_duration_since(now).as_millis());
        tracing::info!(endpoints = %self.id, ?address, cause, for_ms, "an endpoint that fails is left out for a time");
        context.recorder.event(Event::Ejected(ejection.cause), &self.id.service);
    }
}

impl EndpointHealth {
    /// Whether requests may go there at `now`, as health checks and outlier detection see it.
    pub(crate) fn is_healthy(&self, now: Instant) -> bool {
        let policy = self.set.policy.borrow();
        let is_ejected = policy.outliers.is_some() && self.set.outliers.borrow().is_ejected(self.slot, now);
        !is_ejected && self.checked.borrow().as_ref().is_none_or(|checked| checked.is_healthy())
    }

    /// It was asked whether it is well.
    fn asked(&self, check: &HealthCheck, unwell: Option<&Unwell>, context: &Context) {
        let service = &self.set.id.service;
        context.recorder.event(Event::Checked { is_well: unwell.is_none() }, service);
        let Some(checked) = self.checked.borrow().clone() else { return };
        let Some(became) = checked.record(check, unwell.is_none()) else { return };
        let address = self.set.slots.borrow().get(self.slot).copied();
        let why = unwell.map(ToString::to_string);
        tracing::info!(endpoints = %self.set.id, ?address, state = became.as_str(), why, "health checks of an endpoint have changed its state");
        context.recorder.event(Event::Health(became), service);
    }

    /// Whether its breaker lets a request pass at `now`.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        let policy = self.set.policy.borrow();
        policy.breaker.as_ref().is_none_or(|breaker| self.breaker.borrow().admits(breaker, now))
    }

    /// A request goes there.
    pub(crate) fn attempt(self: &Rc<Self>, context: &Context) -> Attempt {
        let policy = self.set.policy.borrow();
        let mut permit = None;
        if let Some(breaker) = &policy.breaker {
            let admitted = self.breaker.borrow_mut().admit(breaker, Instant::now());
            if let Some((given, entered)) = admitted {
                permit = Some(given);
                self.entered(entered, context);
            }
        }
        let (waits, is_told, connection) = (Cell::new(true), Cell::new(false), RefCell::default());
        Attempt { endpoint: Rc::clone(self), permit, waits, is_told, connection }
    }

    fn entered(&self, phase: Option<Phase>, context: &Context) {
        let Some(phase) = phase else { return };
        let address = self.set.slots.borrow().get(self.slot).copied();
        tracing::info!(endpoints = %self.set.id, ?address, state = phase.as_str(), "an endpoint's circuit breaker has changed");
        context.recorder.event(Event::Breaker(phase), &self.set.id.service);
        self.count();
    }

    /// Keeps [`SetHealth::troubled`] right.
    fn count(&self) {
        let is_troubled = self.breaker.borrow().phase() != Phase::Closed;
        let was = self.is_troubled.replace(is_troubled);
        let troubled = &self.set.troubled;
        troubled.set(troubled.get() + usize::from(is_troubled) - usize::from(was));
    }
}

impl Drop for EndpointHealth {
    fn drop(&mut self) {
        self.set.outliers.borrow_mut().leave(self.slot);
        self.set.troubled.set(self.set.troubled.get() - usize::from(self.is_troubled.get()));
    }
}

impl Attempt {
    /// Whether there is a limit to connections.
    pub(crate) fn limits_connections(&self) -> bool {
        self.endpoint.set.limits().connections.is_some()
    }

    /// Takes a place for a connection where there is a limit: waits for it in turn, for as long as it is polled.
    pub(crate) async fn connection(&self, context: &Context) -> Result<(), Refusal> {
        let set = &self.endpoint.set;
        let limits = set.limits();
        let place = set.budget.connection(&limits).await.map_err(|limit| set.overflow(limit, context))?;
        self.connection.replace(Some(place));
        Ok(())
    }

    /// A connection is to be made: those that rest make room for it, where there is a limit.
    pub(crate) fn make_room(&self) {
        if let Some(most) = self.endpoint.set.limits().connections {
            self.endpoint.set.make_room(most);
        }
    }

    /// A place for one more connection beside those to the same endpoint; `None` inside means that there is no limit.
    pub(crate) fn another_connection(&self) -> Option<Option<ConnectionPlace>> {
        let set = &self.endpoint.set;
        if set.limits().connections.is_none() { Some(None) } else { set.budget.free_connection().map(Some) }
    }

    /// A request waits for others on a connection that is full.
    pub(crate) fn pending(&self, context: &Context) -> Result<Option<Place>, Refusal> {
        self.endpoint.set.begin(Limit::Pending, context)
    }

    /// How long an endpoint may take to accept a connection, where the service says it.
    pub(crate) fn connect_timeout(&self) -> Option<Duration> {
        self.endpoint.set.limits().connect_timeout
    }

    /// How long a connection is kept without anything to carry, where the service says it.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.endpoint.set.limits().idle_timeout
    }

    /// The head of an answer is there: the request makes room for another trial, how long its body may ever take.
    pub(crate) fn answered(&self) {
        if let Some(permit) = self.permit
            && self.waits.replace(false)
        {
            self.endpoint.breaker.borrow_mut().release(permit);
        }
    }

    /// How it ended. What is told first counts.
    pub(crate) fn report(&self, outcome: Outcome, context: &Context) {
        if self.is_told.replace(true) {
            return;
        }
        self.answered();
        let endpoint = &self.endpoint;
        let (policy, now) = (endpoint.set.policy(), Instant::now());
        if let (Some(breaker), Some(permit)) = (&policy.breaker, self.permit) {
            let entered = endpoint.breaker.borrow_mut().record(breaker, permit, outcome.is_failure(), now);
            endpoint.entered(entered, context);
        }
        if let Some(outliers) = &policy.outliers {
            let ejections = endpoint.set.outliers.borrow_mut().report(outliers, endpoint.slot, outcome, now);
            for ejection in ejections {
                endpoint.set.ejected(ejection, now, context);
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.answered();
    }
}
