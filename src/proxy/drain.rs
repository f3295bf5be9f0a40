//! Draining: how a worker ends without breaking what it carries.
//!
//! A sidecar keeps accepting until its end, because the app beside it may still need the network to shut down. From the
//! first signal on, HTTP/1 responses say `Connection: close` and connections at rest are closed at once; what is being
//! carried goes on. The worker ends when nothing is open any more, or when the bound has passed.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

/// What a worker is told from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// Carry traffic.
    #[default]
    Running,
    /// End politely, and in any case after this time.
    Draining {
        /// The time given to what is being carried.
        bound: Duration,
    },
}

/// A worker's own view of it: no lock, and a resting connection costs one waker.
#[derive(Default)]
pub struct Draining {
    started: Cell<bool>,
    resting: RefCell<Slab<Waker>>,
}

struct Place<'d> {
    draining: &'d Draining,
    key: Option<usize>,
}

impl Place<'_> {
    /// Leaves a waker, once.
    fn take(&mut self, cx: &Context<'_>) {
        if self.key.is_none() {
            self.key = Some(self.draining.resting.borrow_mut().insert(cx.waker().clone()));
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.draining.resting.borrow_mut().remove(key);
        }
    }
}

impl Draining {
    /// Whether draining has begun.
    pub fn has_started(&self) -> bool {
        self.started.get()
    }

    /// Draining begins: everyone who waits in [`Draining::or_else`] is woken.
    pub fn start(&self) {
        self.started.set(true);
        for (_, waker) in self.resting.borrow().iter() {
            waker.wake_by_ref();
        }
    }

    /// What `rest` gives, or `None` once draining has begun and `rest` has nothing yet.
    pub async fn or_else<T>(&self, rest: impl Future<Output = T>) -> Option<T> {
        let mut rest = pin!(rest);
        self.or_ready(|cx| rest.as_mut().poll(cx)).await
    }

    /// The same of what is asked by a function: thousands of connections rest in this, and it is as small as can be.
    pub fn or_ready<T>(&self, mut rest: impl FnMut(&mut Context<'_>) -> Poll<T>) -> impl Future<Output = Option<T>> {
        let mut place = Place { draining: self, key: None };
        poll_fn(move |cx| {
            if let Poll::Ready(value) = rest(cx) {
                return Poll::Ready(Some(value));
            }
            if self.has_started() {
                return Poll::Ready(None);
            }
            place.take(cx);
            Poll::Pending
        })
    }

    /// Completes once draining has begun.
    pub async fn started(&self) {
        self.or_else(std::future::pending::<()>()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_resting_connection_is_woken_when_draining_starts_and_leaves_no_waker_behind() {
        let draining = Draining::default();
        let wait = draining.or_else(std::future::pending::<()>());
        let (outcome, ()) = tokio::join!(wait, async { draining.start() });
        assert_eq!(outcome, None);
        assert!(draining.resting.borrow().is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_ready_is_taken_even_while_draining() {
        let draining = Draining::default();
        draining.start();
        assert_eq!(draining.or_else(async { 1 }).await, Some(1));
    }
}
