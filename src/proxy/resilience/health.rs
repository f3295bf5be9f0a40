//! Health checks: what is known of endpoints that are asked whether they are well, shared by the workers of a proxy.
//!
//! One worker asks ([`crate::resilience::checker`]); all of them read. Whether an endpoint is well is one atomic flag, and whether any
//! is not, one counter, so that no request takes a lock.
//!
//! Reading order: [`CheckedEndpoint`], [`CheckedSet`], [`Checks`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use foldhash::fast::RandomState;
use leno_core::endpoints::EndpointsId;
use leno_core::health::{Became, Health, HealthCheck};
use tokio::sync::Semaphore;

use crate::pool::Proof;

/// The checked sets of a proxy. Locked only when the endpoints of a service port come or change.
#[derive(Debug, Default)]
pub struct Checks {
    by_id: Mutex<BTreeMap<EndpointsId, Weak<CheckedSet>>>,
}

/// The endpoints of one service port that are checked.
#[derive(Debug)]
pub struct CheckedSet {
    unhealthy: AtomicUsize,
    endpoints: Mutex<HashMap<(SocketAddr, Proof), Weak<CheckedEndpoint>, RandomState>>,
    /// Held by the worker that asks.
    turn: Arc<Semaphore>,
}

/// One endpoint that is checked.
#[derive(Debug)]
pub struct CheckedEndpoint {
    set: Arc<CheckedSet>,
    is_unhealthy: AtomicBool,
    /// Locked by the worker that asks.
    health: Mutex<Health>,
}

impl Checks {
    /// What is known of the endpoints of `id`, the same for every worker.
    pub(crate) fn of(&self, id: &EndpointsId) -> Arc<CheckedSet> {
        let mut sets = locked(&self.by_id);
        if let Some(set) = sets.get(id).and_then(Weak::upgrade) {
            return set;
        }
        sets.retain(|_, set| set.strong_count() > 0);
        let set = Arc::new(CheckedSet { unhealthy: AtomicUsize::new(0), endpoints: Mutex::default(), turn: Arc::new(Semaphore::new(1)) });
        sets.insert(id.clone(), Arc::downgrade(&set));
        set
    }
}

impl CheckedSet {
    /// What is known of the endpoint at `address` that must give `proof`; healthy where nothing is.
    pub(crate) fn endpoint(self: &Arc<Self>, address: SocketAddr, proof: &Proof) -> Arc<CheckedEndpoint> {
        let mut endpoints = locked(&self.endpoints);
        let place = (address, proof.clone());
        if let Some(endpoint) = endpoints.get(&place).and_then(Weak::upgrade) {
            return endpoint;
        }
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        let endpoint = Arc::new(CheckedEndpoint { set: Arc::clone(self), is_unhealthy: AtomicBool::new(false), health: Mutex::default() });
        endpoints.insert(place, Arc::downgrade(&endpoint));
        endpoint
    }

    /// How many endpoints are unhealthy. O(1).
    pub(crate) fn unhealthy(&self) -> usize {
        self.unhealthy.load(Ordering::Relaxed)
    }

    /// Whose turn it is to ask: one holds it, others wait for it.
    pub(crate) fn turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turn)
    }
}

impl CheckedEndpoint {
    /// Whether it is to be used.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.is_unhealthy.load(Ordering::Relaxed)
    }

    /// A check has ended. Gives what the endpoint has become, if that is another.
    pub(crate) fn record(&self, check: &HealthCheck, is_well: bool) -> Option<Became> {
        let became = locked(&self.health).record(check, is_well)?;
        let is_unhealthy = became == Became::Unhealthy;
        self.is_unhealthy.store(is_unhealthy, Ordering::Relaxed);
        if is_unhealthy {
            self.set.unhealthy.fetch_add(1, Ordering::Relaxed);
        } else {
            self.set.unhealthy.fetch_sub(1, Ordering::Relaxed);
        }
        Some(became)
    }
}

impl Drop for CheckedEndpoint {
    fn drop(&mut self) {
        if *self.is_unhealthy.get_mut() {
            self.set.unhealthy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leno_core::health::Probe;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn workers_see_the_same_of_an_endpoint_and_it_is_forgotten_with_the_last_of_them() {
        let (checks, check) = (Checks::default(), HealthCheck::new(Probe::Tcp));
        let id: EndpointsId = "shop/payment:80".parse().unwrap();
        let (one, other) = (checks.of(&id), checks.of(&id));
        let (first, again) = (one.endpoint(address(1), &Proof::None), other.endpoint(address(1), &Proof::None));
        assert_eq!(first.record(&check, false), Some(Became::Unhealthy));
        assert!(!again.is_healthy() && one.unhealthy() == 1);
        drop(first);
        assert_eq!(other.unhealthy(), 1, "the other worker still has it");
        drop(again);
        assert_eq!(other.unhealthy(), 0);
        assert!(other.endpoint(address(1), &Proof::None).is_healthy(), "it is a new one");
    }

    #[test]
    fn endpoints_that_are_gone_take_no_room() {
        let set = Checks::default().of(&"shop/payment:80".parse().unwrap());
        for port in 1..100 {
            set.endpoint(address(port), &Proof::None);
        }
        assert_eq!(locked(&set.endpoints).len(), 1);
    }

    #[test]
    fn an_endpoint_that_must_prove_something_else_is_another() {
        let set = Checks::default().of(&"shop/payment:80".parse().unwrap());
        let identity = Proof::Identity(Arc::new("spiffe://mesh/ns/shop/sa/payment".parse().unwrap()));
        let (plain, proven) = (set.endpoint(address(1), &Proof::None), set.endpoint(address(1), &identity));
        plain.record(&HealthCheck::new(Probe::Tcp), false);
        assert!(!plain.is_healthy() && proven.is_healthy());
    }
}
