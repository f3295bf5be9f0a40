//! Adaptive concurrency: how many requests the app is given at once, for all workers together.
//!
//! [`leno_core::concurrency`] learns the limit; this file counts. A request takes up a place from when it may go to the app until the
//! head of the answer is there, so that streams and downloads which go on for hours take up none. Places are an atomic counter;
//! whoever learns does so only where nobody else is just at it, so that no request waits for another.
//!
//! Reading order: [`Limiter::enter`], [`Place`], [`Limiters`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use leno_core::concurrency::{AdaptiveConcurrency, Gradient};
use leno_core::names::ServiceId;
use leno_core::resilience::Outcome;

use crate::admit::{Asks, is_probe};
use crate::authorization::Visitor;
use crate::connection::Side;
use crate::pool::{InFlight, Peer};
use crate::target::Refusal;
use crate::telemetry::Event;
use crate::worker::Context;

/// The limiters of a proxy, by port of the app. Locked only when it is told what the workload is.
#[derive(Debug, Default)]
pub struct Limiters {
    by_port: Mutex<BTreeMap<u16, Weak<Limiter>>>,
}

/// How many requests one port of the app is given at once.
#[derive(Debug)]
pub struct Limiter {
    /// The service that leads to the port.
    pub(crate) service: ServiceId,
    settings: AdaptiveConcurrency,
    limit: AtomicU32,
    in_flight: AtomicU32,
    gradient: Mutex<Gradient>,
}

/// A request's place, until its answer's head is there or it is dropped.
#[derive(Debug)]
pub struct Place {
    limiter: Arc<Limiter>,
    since: Instant,
    /// How many were under way when it began.
    in_flight: u32,
}

/// A place that may still be taken up; nothing where there is no limit.
#[derive(Default)]
pub(crate) struct Held(Cell<Option<Place>>);

/// The limiter of the port that a request came to, where there is one. Probes of the app's own kubelet are no load: were they refused, an
/// app that has much to do would be restarted.
pub(crate) fn limiter(visitor: &Visitor<'_>, asks: &Asks<'_>) -> Option<Arc<Limiter>> {
    let Side::Inbound { port, .. } = *visitor.side else { return None };
    let limiter = visitor.context.directory.limiter(port)?;
    (!is_probe(visitor.side, visitor.tls, asks, visitor.context)).then_some(limiter)
}

/// Takes a place for one request, where there is a limit.
pub(crate) fn enter(limiter: Option<&Arc<Limiter>>, context: &Context) -> Result<Held, Refusal> {
    let Some(limiter) = limiter else { return Ok(Held::default()) };
    match limiter.enter(Instant::now()) {
        Some(place) => Ok(Held(Cell::new(Some(place)))),
        None => {
            context.recorder.event(Event::Full, &limiter.service);
            Err(Refusal::Overflow)
        }
    }
}

impl Limiters {
    /// The limiter of the app's `port`, the same for every worker; another one where `settings` are others.
    pub(crate) fn of(&self, port: u16, service: &ServiceId, settings: &AdaptiveConcurrency, now: Instant) -> Arc<Limiter> {
        let mut limiters = self.by_port.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |limiter: &Arc<Limiter>| limiter.settings == *settings && limiter.service == *service;
        if let Some(limiter) = limiters.get(&port).and_then(Weak::upgrade).filter(is_same) {
            return limiter;
        }
        limiters.retain(|_, limiter| limiter.strong_count() > 0);
        let limiter = Arc::new(Limiter::new(service.clone(), *settings, now));
        limiters.insert(port, Arc::downgrade(&limiter));
        limiter
    }
}

impl Limiter {
    fn new(service: ServiceId, settings: AdaptiveConcurrency, now: Instant) -> Self {
        let gradient = Gradient::new(now);
        let limit = AtomicU32::new(gradient.limit(&settings));
        Self { service, settings, limit, in_flight: AtomicU32::new(0), gradient: Mutex::new(gradient) }
    }

    /// Takes a place for a request that begins at `now`, where there is one.
    pub(crate) fn enter(self: &Arc<Self>, now: Instant) -> Option<Place> {
        let limit = self.limit();
        let more = |count: u32| (count < limit).then_some(count + 1);
        let before = self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place { limiter: Arc::clone(self), since: now, in_flight: before + 1 })
    }

    /// How many requests may be under way.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Place {
    /// The head of the answer is there at `now`. Failures say nothing of how long the app takes.
    fn answered(self, outcome: Outcome, now: Instant) {
        if outcome.is_failure() {
            return;
        }
        let limiter = &*self.limiter;
        // Who comes while another one is at it is not looked at: samples are many.
        if let Ok(mut gradient) = limiter.gradient.try_lock() {
            let in_flight = self.in_flight.max(limiter.in_flight());
            gradient.sample(&limiter.settings, now.saturating_duration_since(self.since), in_flight, now);
            limiter.limit.store(gradient.limit(&limiter.settings), Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Held {
    /// The request goes to `app`.
    pub(crate) fn begin(self, app: &Rc<Peer>) -> InFlight {
        app.begin().holding(self)
    }

    /// The head of the answer is there: the place is free for another request.
    pub(crate) fn answered(&self, outcome: Outcome) {
        if let Some(place) = self.0.take() {
            place.answered(outcome, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn settings(max_limit: u32) -> AdaptiveConcurrency {
        AdaptiveConcurrency { min_limit: 1, max_limit, ..AdaptiveConcurrency::default() }
    }

    fn limiter(max_limit: u32) -> (Arc<Limiter>, Instant) {
        let now = Instant::now();
        (Limiters::default().of(80, &ServiceId::new("shop", "payment"), &settings(max_limit), now), now)
    }

    #[test]
    fn places_are_taken_up_to_the_limit_and_given_back_when_the_answer_is_there_or_nobody_waits_for_it() {
        let (limiter, now) = limiter(2);
        let (first, second) = (limiter.enter(now).unwrap(), limiter.enter(now).unwrap());
        assert!(limiter.enter(now).is_none());
        drop(first);
        let third = Held(Cell::new(limiter.enter(now)));
        assert!(limiter.enter(now).is_none());
        third.answered(Outcome::Success);
        third.answered(Outcome::Success);
        assert_eq!(limiter.in_flight(), 1);
        second.answered(Outcome::Error, now);
        assert_eq!(limiter.in_flight(), 0);
    }

    #[test]
    fn the_limit_follows_what_is_learnt_and_failures_teach_nothing() {
        let (limiter, now) = limiter(10);
        let (slow, later) = (Duration::from_secs(1), now + Duration::from_secs(2));
        for outcome in [Outcome::Error, Outcome::Success] {
            for _ in 0..20 {
                limiter.enter(now + slow).unwrap().answered(outcome, later);
            }
            let baseline = limiter.gradient.lock().unwrap().baseline();
            assert_eq!(baseline, (outcome == Outcome::Success).then_some(slow));
        }
    }

    #[test]
    fn workers_share_a_limiter_until_its_settings_are_others() {
        let (limiters, now, service) = (Limiters::default(), Instant::now(), ServiceId::new("shop", "payment"));
        let one = limiters.of(80, &service, &settings(5), now);
        assert!(Arc::ptr_eq(&one, &limiters.of(80, &service, &settings(5), now)));
        assert!(!Arc::ptr_eq(&one, &limiters.of(81, &service, &settings(5), now)));
        assert!(!Arc::ptr_eq(&one, &limiters.of(80, &service, &settings(6), now)));
        let gone = Arc::downgrade(&limiters.of(82, &service, &settings(5), now));
        assert!(gone.upgrade().is_none());
        limiters.of(83, &service, &settings(5), now);
        assert!(limiters.by_port.lock().unwrap().len() <= 3, "those that nobody holds are forgotten");
    }
}
