//! Rate limits, shared by the workers of a proxy.
//!
//! A limit belongs to a rule of a service. It is enforced where the rule is decided: in the proxy that sends the request, before any
//! destination is looked for. Its buckets outlive changes of the service that leave the limit as it is.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use leno_core::names::{Name, ServiceId};
use leno_core::rate_limit::{Limiter, RateKey, RateLimit};
use leno_core::request::RequestHead;
use leno_core::route::Rule;

use crate::directory::ServiceView;
use crate::target::Refusal;
use crate::worker::Context;

/// The buckets of a proxy. Locked when a worker first meets a limit, and each minute for cleaning.
#[derive(Debug)]
pub struct Limiters {
    started: Instant,
    /// Hashes keys; nobody outside can make two of them fall together.
    hasher: RandomState,
    known: Mutex<HashMap<(ServiceId, Name), Arc<Limiter>>>,
}

impl Default for Limiters {
    fn default() -> Self {
        Self { started: Instant::now(), hasher: RandomState::default(), known: Mutex::default() }
    }
}

impl Limiters {
    /// The buckets of the limit of this rule; those that are there where it is the same limit.
    pub fn get(&self, service: &ServiceId, rule: &Name, limit: &RateLimit) -> Arc<Limiter> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let limiter = known.entry((service.clone(), rule.clone())).or_insert_with(|| Arc::new(Limiter::new(limit.clone())));
        if limiter.limit() != limit {
            *limiter = Arc::new(Limiter::new(limit.clone()));
        }
        Arc::clone(limiter)
    }

    /// Forgets limits that nobody holds and whose buckets are full, so that nothing is lost with them.
    pub fn sweep(&self, now: Instant) {
        let now = self.since_start(now);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, limiter| Arc::strong_count(limiter) > 1 || !limiter.is_full(now));
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// What the limit tells this request apart by.
    fn key(&self, key: &RateKey, head: &RequestHead<'_>, source: IpAddr) -> u64 {
        match key {
            RateKey::Route => 0,
            RateKey::Source => match &head.caller.identity {
                Some(identity) => self.hasher.hash_one(identity),
                None => self.hasher.hash_one(source.to_canonical()),
            },
            RateKey::Header(name) => self.hasher.hash_one(head.headers.get(name).as_deref()),
        }
    }
}

/// Whether `rule` lets one more request pass now, which comes from `source`.
pub(crate) fn check(view: &ServiceView, rule: &Rule, head: &RequestHead<'_>, source: IpAddr, context: &Context) -> Result<(), Refusal> {
    let Some(limit) = &rule.rate_limit else { return Ok(()) };
    let limiters = &*context.settings.limiters;
    let limiter = view.limiter(rule, || limiters.get(&view.service.id, &rule.name, limit));
    let key = limiters.key(&limit.key, head, source);
    limiter.admit(key, limiters.since_start(Instant::now())).map_err(|wait| Refusal::RateLimited { retry_after_s: whole_seconds(wait) })
}

/// `Retry-After` counts whole seconds; who waits that long has waited long enough.
fn whole_seconds(wait: Duration) -> u32 {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32) -> RateLimit {
        RateLimit { requests, per: Duration::from_secs(1), burst: 1, key: RateKey::Route }
    }

    #[test]
    fn buckets_outlive_those_who_hold_them_until_they_are_full_and_the_limit_is_another() {
        let limiters = Limiters::default();
        let (service, rule) = (ServiceId::new("shop", "payment"), Name::from("all"));
        let get = |requests| limiters.get(&service, &rule, &limit(requests));
        let start = limiters.started;
        assert!(get(1).admit(0, Duration::ZERO).is_ok());
        limiters.sweep(start);
        assert!(get(1).admit(0, Duration::ZERO).is_err(), "the same bucket, though nobody held it");
        assert!(get(2).admit(0, Duration::ZERO).is_ok(), "another limit has a bucket of its own");
        limiters.sweep(start + Duration::from_secs(2));
        assert!(limiters.known.lock().unwrap().is_empty());
        let held = get(1);
        limiters.sweep(start + Duration::from_secs(2));
        assert!(Arc::ptr_eq(&held, &get(1)));
    }

    #[test]
    fn who_waits_for_retry_after_has_waited_long_enough() {
        for (wait, seconds) in [(1, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_nanos(wait)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), u32::MAX);
    }
}
