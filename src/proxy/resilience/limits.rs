//! Limits: how much is under way to a service port, counted for the whole proxy.
//!
//! Workers share one [`Budget`] for each service port that has limits, so that limits hold exactly however many workers there are:
//! atomic counters, and a fair queue for those who wait for a connection. Whatever is taken is given back by dropping it.
//!
//! Reading order: [`Budget::take`], [`Budget::connection`], [`Budgets`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use leno_core::endpoints::EndpointsId;
use leno_core::limits::{Limit, Limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many may wait for a connection where nothing is said.
const PENDING_MAX: u32 = 1024;

/// The budgets of a proxy. Locked only when the endpoints of a service port come or change.
#[derive(Debug, Default)]
pub struct Budgets {
    by_id: Mutex<BTreeMap<EndpointsId, Weak<Budget>>>,
}

/// What is under way to one service port.
#[derive(Debug)]
pub struct Budget {
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
    connections: Arc<Semaphore>,
    /// How many connections there may be.
    connections_max: Mutex<usize>,
    /// How many that are in use are to be forgotten when they are given back, because there may be fewer now.
    excess: AtomicUsize,
}

/// A place that was taken, until dropped.
#[derive(Debug)]
pub struct Place {
    budget: Arc<Budget>,
    limit: Limit,
}

/// A connection's place, until dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    budget: Arc<Budget>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budgets {
    /// The budget of `id`, the same for every worker.
    pub(crate) fn of(&self, id: &EndpointsId) -> Arc<Budget> {
        let mut budgets = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = budgets.get(id).and_then(Weak::upgrade) {
            return budget;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::new());
        budgets.insert(id.clone(), Arc::downgrade(&budget));
        budget
    }
}

impl Budget {
    fn new() -> Self {
        Self {
            pending: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            connections: Arc::new(Semaphore::new(0)),
            connections_max: Mutex::new(0),
            excess: AtomicUsize::new(0),
        }
    }

    /// Other limits are in force. Every worker says so; the first one counts.
    pub(crate) fn set(&self, limits: &Limits) {
        let wanted = limits.connections.and_then(|most| usize::try_from(most).ok()).unwrap_or(0).min(Semaphore::MAX_PERMITS);
        let mut most = self.connections_max.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted > *most {
            let more = wanted - *most;
            let forgiven = self.excess.fetch_update(Ordering::AcqRel, Ordering::Acquire, |excess| Some(excess.saturating_sub(more)));
            self.connections.add_permits(more - forgiven.unwrap_or(0).min(more));
        } else if wanted < *most {
            let fewer = *most - wanted;
            let forgotten = self.connections.forget_permits(fewer);
            self.excess.fetch_add(fewer - forgotten, Ordering::AcqRel);
        }
        *most = wanted;
    }

    /// Takes a place, where there is one.
    pub(crate) fn take(self: &Arc<Self>, limit: Limit, limits: &Limits) -> Option<Place> {
        let most = match limit {
            Limit::Pending => limits.pending.unwrap_or(PENDING_MAX),
            Limit::Requests => limits.requests.unwrap_or(u32::MAX),
            Limit::Retries => limits.retries.unwrap_or(u32::MAX),
        };
        let more = |count: u32| (count < most).then_some(count + 1);
        self.counter(limit).fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place { budget: Arc::clone(self), limit })
    }

    fn counter(&self, limit: Limit) -> &AtomicU32 {
        match limit {
            Limit::Pending => &self.pending,
            Limit::Requests => &self.requests,
            Limit::Retries => &self.retries,
        }
    }

    /// A connection's place, where one is free and nobody waits for it.
    pub(crate) fn free_connection(self: &Arc<Self>) -> Option<ConnectionPlace> {
        let permit = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        Some(ConnectionPlace { budget: Arc::clone(self), permit: Some(permit) })
    }

    /// A connection's place: waits for one in turn, unless as many wait as may. Dropped, it waits no more.
    pub(crate) async fn connection(self: &Arc<Self>, limits: &Limits) -> Result<ConnectionPlace, Limit> {
        if let Some(place) = self.free_connection() {
            return Ok(place);
        }
        let _waiting = self.take(Limit::Pending, limits).ok_or(Limit::Pending)?;
        match Arc::clone(&self.connections).acquire_owned().await {
            Ok(permit) => Ok(ConnectionPlace { budget: Arc::clone(self), permit: Some(permit) }),
            // Nobody closes it.
            Err(_closed) => Err(Limit::Pending),
        }
    }

    /// Connections that are in use.
    pub(crate) fn connections(&self) -> usize {
        let most = *self.connections_max.lock().unwrap_or_else(PoisonError::into_inner);
        (most + self.excess.load(Ordering::Acquire)).saturating_sub(self.connections.available_permits())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.budget.counter(self.limit).fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let fewer = |excess: usize| excess.checked_sub(1);
        if self.budget.excess.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer).is_ok()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn limits(connections: u32, pending: u32) -> Limits {
        Limits { connections: Some(connections), pending: Some(pending), requests: Some(2), ..Limits::default() }
    }

    fn budget(limits: &Limits) -> Arc<Budget> {
        let budget = Arc::new(Budget::new());
        budget.set(limits);
        budget
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn places_are_taken_up_to_the_limit_and_given_back() {
        let limits = limits(1, 1);
        let budget = budget(&limits);
        let (first, second) = (budget.take(Limit::Requests, &limits), budget.take(Limit::Requests, &limits));
        assert!(first.is_some() && second.is_some() && budget.take(Limit::Requests, &limits).is_none());
        drop(first);
        assert!(budget.take(Limit::Requests, &limits).is_some());
    }

    #[test]
    fn who_waits_for_a_connection_is_served_in_turn_and_no_more_than_may_wait() {
        let limits = limits(1, 2);
        let budget = budget(&limits);
        let held = budget.free_connection().unwrap();
        let (mut first, mut second) = (pin!(budget.connection(&limits)), pin!(budget.connection(&limits)));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        assert!(matches!(poll(pin!(budget.connection(&limits))), Poll::Ready(Err(Limit::Pending))), "as many wait as may");
        drop(held);
        assert!(budget.free_connection().is_none(), "nobody overtakes who waits");
        assert!(poll(second.as_mut()).is_pending());
        let Poll::Ready(Ok(place)) = poll(first.as_mut()) else { panic!("it is the first one's turn") };
        drop(place);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Ok(_))));
    }

    #[test]
    fn who_stops_waiting_makes_room_and_keeps_nobody_from_a_connection() {
        let limits = limits(1, 1);
        let budget = budget(&limits);
        let held = budget.free_connection().unwrap();
        {
            let mut gone = pin!(budget.connection(&limits));
            assert!(poll(gone.as_mut()).is_pending());
        }
        let mut next = pin!(budget.connection(&limits));
        assert!(poll(next.as_mut()).is_pending(), "there is room to wait");
        drop(held);
        assert!(matches!(poll(next.as_mut()), Poll::Ready(Ok(_))));
    }

    #[test]
    fn a_limit_may_change_while_connections_are_in_use() {
        let budget = budget(&limits(3, 1));
        let mut held: Vec<_> = (0..3).map(|_| budget.free_connection().unwrap()).collect();
        budget.set(&limits(1, 1));
        assert_eq!(budget.connections(), 3);
        held.pop();
        held.pop();
        assert!(budget.free_connection().is_none(), "one is in use, and one there may be");
        budget.set(&limits(2, 1));
        assert!(budget.free_connection().is_some());
        held.pop();
        assert_eq!(budget.connections(), 0);
        let both = (budget.free_connection(), budget.free_connection());
        assert!(both.0.is_some() && both.1.is_some() && budget.free_connection().is_none());
    }

    #[test]
    fn workers_share_a_budget_as_long_as_one_holds_it() {
        let (budgets, limits) = (Budgets::default(), limits(1, 1));
        let id: EndpointsId = "shop/payment:80".parse().unwrap();
        let one = budgets.of(&id);
        one.set(&limits);
        assert!(Arc::ptr_eq(&one, &budgets.of(&id)));
        drop(one);
        assert_eq!(budgets.of(&id).connections(), 0);
    }
}
