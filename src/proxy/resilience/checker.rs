//! The checker: asks the endpoints of one service port whether they are well, again and again, while a worker uses them.
//!
//! Every worker that uses a service port with checks has one; the one whose turn it is asks, for all of them. When its worker
//! stops using the service port, the turn goes to another.
//!
//! Reading order: [`start`], `run`, `Schedule`, `ask`.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use leno_core::resilience::Resilience;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};

use super::{EndpointHealth, SetHealth, probe};
use crate::pool::Peer;
use crate::worker::Context;

/// Endpoints of one service port that are asked at once.
const AT_ONCE_MAX: usize = 32;

/// A checker, until dropped.
pub(super) struct Checker {
    task: AbortHandle,
    /// Told when endpoints or settings have changed.
    pub(super) changed: Rc<Notify>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Has the endpoints of `set` checked for as long as it is there, where its settings say so.
pub(crate) fn start(set: &Rc<SetHealth>, context: &Rc<Context>) {
    let mut checker = set.checker.borrow_mut();
    if set.policy().health_check.is_none() {
        *checker = None;
    } else if let Some(checker) = &*checker {
        checker.changed.notify_one();
    } else {
        let changed = Rc::new(Notify::new());
        let task = tokio::task::spawn_local(run(Rc::downgrade(set), Rc::clone(&changed), Rc::clone(context))).abort_handle();
        *checker = Some(Checker { task, changed });
    }
}

/// Checks until the set is gone or its settings want no more checks.
async fn run(set: Weak<SetHealth>, changed: Rc<Notify>, context: Rc<Context>) {
    let Some((id, checked)) = set.upgrade().and_then(|set| Some((set.id.clone(), set.checked()?))) else { return };
    let Ok(_turn) = checked.turn().acquire_owned().await else { return };
    context.recorder.checks(&id, &checked);
    drop(checked);
    let mut schedule = Schedule::default();
    loop {
        let Some(next) = set.upgrade().and_then(|set| schedule.advance(&set, &context)) else { return };
        tokio::select! {
            () = changed.notified() => {}
            Some(ended) = schedule.asked.join_next(), if !schedule.asked.is_empty() => schedule.ended(ended.ok(), &context),
            () = async { match next { Some(at) => sleep_until(at.into()).await, None => std::future::pending().await } } => {}
        }
    }
}

/// Which endpoint is asked when.
#[derive(Default)]
struct Schedule {
    /// The settings it was made by.
    policy: Option<Arc<Resilience>>,
    /// In the order of their times; the number tells those of one time apart.
    due: BTreeMap<(Instant, u64), Weak<EndpointHealth>>,
    count: u64,
    /// Those that are being asked; each gives back who it was.
    asked: JoinSet<Weak<EndpointHealth>>,
}

impl Schedule {
    /// Asks whom it is time to ask. Gives when it is time for the next one, if that is known; `None` when nobody is to be asked any more.
    fn advance(&mut self, set: &Rc<SetHealth>, context: &Rc<Context>) -> Option<Option<Instant>> {
        let (policy, now) = (set.policy(), Instant::now());
        let check = policy.health_check.as_ref()?;
        let is_new = self.policy.as_ref().is_none_or(|before| before.health_check.as_ref() != Some(check));
        if is_new {
            // Whoever is being asked is asked anew.
            *self = Self { policy: Some(Arc::clone(&policy)), count: self.count, ..Self::default() };
        }
        let members = set.members.borrow();
        if self.due.len() > 2 * members.len() {
            // Those that have left before their time has come.
            self.due.retain(|_, endpoint| endpoint.strong_count() > 0);
        }
        for endpoint in members.iter().filter_map(Weak::upgrade) {
            if !endpoint.is_scheduled.replace(true) || is_new {
                self.add(now + check.first_after(context.draw()), Rc::downgrade(&endpoint));
            }
        }
        while self.asked.len() < AT_ONCE_MAX
            && let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now)
        {
            let endpoint = first.remove();
            // Those that have left the set are asked no more.
            if let Some(peer) = endpoint.upgrade().and_then(|endpoint| endpoint.peer.upgrade()) {
                self.asked.spawn_local(ask(endpoint, peer, Arc::clone(&policy), Rc::clone(context)));
            }
        }
        let has_room = self.asked.len() < AT_ONCE_MAX;
        Some(self.due.first_key_value().map(|((at, _), _)| *at).filter(|_| has_room))
    }

    fn add(&mut self, at: Instant, endpoint: Weak<EndpointHealth>) {
        self.count += 1;
        self.due.insert((at, self.count), endpoint);
    }

    /// An endpoint has been asked; it will be again.
    fn ended(&mut self, ended: Option<Weak<EndpointHealth>>, context: &Context) {
        let (Some(endpoint), Some(policy)) = (ended, self.policy.clone()) else { return };
        if let Some(check) = policy.health_check.as_ref().filter(|_| endpoint.strong_count() > 0) {
            self.add(Instant::now() + check.again_after(context.draw()), endpoint);
        }
    }
}

/// Asks one endpoint and remembers what came of it.
async fn ask(endpoint: Weak<EndpointHealth>, peer: Rc<Peer>, policy: Arc<Resilience>, context: Rc<Context>) -> Weak<EndpointHealth> {
    if let Some(check) = &policy.health_check {
        let answer = timeout(check.timeout, probe::ask(&check.probe, &peer, check.timeout, &context)).await;
        let answer = answer.unwrap_or(Err(probe::Unwell::Slow));
        if let Some(endpoint) = endpoint.upgrade() {
            endpoint.asked(check, answer.as_ref().err(), &context);
        }
    }
    endpoint
}
