//! The directory: what a worker knows of services and endpoints, and how it comes to know more.
//!
//! Every worker has its own, fed by [`Update`]s; nothing here is shared between threads. What traffic needs and the
//! directory does not know it asks the control thread for ([`Ask`]), once, and waits a bounded time.
//!
//! Reading order: [`Directory::resolve`], [`ServiceState`], [`Directory::apply`], [`Directory::sweep`]. Endpoints are in [`crate::endpoints`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use leno_core::authorize::Guard;
use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::{Name, ServiceId};
use leno_core::rate_limit::Limiter;
use leno_core::route::Rule;
use leno_core::service::Service;
use leno_core::workload::{InboundPort, Workload};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::concurrency;
use crate::control::{Alias, Ask, Update};
use crate::endpoints::{EndpointIndex, EndpointSet};
use crate::pool::Peers;
use crate::resilience::SetHealth;
use crate::resilience::health::Checks;
use crate::resilience::limits::Budgets;
use crate::telemetry::Destination;
use crate::worker::Settings;

/// How long traffic waits for an answer of the controller before it goes on without one.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// What nobody has used for this long is dropped.
const UNUSED_TIME_MAX: Duration = Duration::from_secs(600);
/// Addresses that are known to be no service are forgotten beyond this many: an app may dial the whole internet.
const ALIASES_MAX: usize = 16 * 1024;

type Map<K, V> = HashMap<K, V, RandomState>;

/// What one worker knows.
pub struct Directory {
    asks: UnboundedSender<Ask>,
    /// Whether endpoints of which it is known who must answer have to prove it.
    pub(crate) identity: bool,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) checks: Arc<Checks>,
    concurrency: Arc<concurrency::Limiters>,
    /// What the worker sends to, shared by all services.
    pub peers: Peers,
    aliases: RefCell<Map<Alias, Meaning>>,
    services: RefCell<Map<ServiceId, Rc<ServiceState>>>,
    endpoints: RefCell<Map<EndpointsId, Rc<EndpointSet>>>,
    workload: RefCell<Option<Arc<Workload>>>,
    /// Of those of the app's ports that have one.
    limiters: RefCell<Vec<(u16, Arc<concurrency::Limiter>)>>,
    /// `None`: not told yet, so that traffic at the very start waits for the controller.
    connected: Cell<Option<bool>>,
    changed: Notify,
}

struct Meaning {
    /// `None`: not answered yet.
    answer: Option<Option<ServiceId>>,
    used: Instant,
}

/// One service as a worker holds it. Connections keep it; its content changes beneath them.
pub struct ServiceState {
    /// Which service.
    pub id: ServiceId,
    current: RefCell<Current>,
    used: Cell<Instant>,
}

#[derive(Clone)]
enum Current {
    Unknown,
    Gone,
    Known(Rc<ServiceView>),
}

/// A service at one moment, with what is derived from it.
pub struct ServiceView {
    /// The service.
    pub service: Arc<Service>,
    labels: RefCell<Vec<Rc<Destination>>>,
    /// The buckets of its rules' limits, as far as requests have needed them.
    limiters: RefCell<Vec<(Name, Arc<Limiter>)>>,
    /// The endpoint sets its requests have needed, so that no request hashes a name.
    sets: RefCell<Vec<Rc<EndpointSet>>>,
}

impl Directory {
    /// Knows nothing yet; asks go to `asks`.
    ///
    /// `settings` say whether endpoints of which it is known who must answer have to prove it (without, all are spoken to in plain
    /// text), and have what all workers share.
    pub fn new(asks: UnboundedSender<Ask>, settings: &Settings) -> Self {
        Self {
            asks,
            identity: settings.identity,
            budgets: Arc::clone(&settings.budgets),
            checks: Arc::clone(&settings.checks),
            concurrency: Arc::clone(&settings.concurrency),
            peers: Peers::default(),
            aliases: RefCell::default(),
            services: RefCell::default(),
            endpoints: RefCell::default(),
            workload: RefCell::default(),
            limiters: RefCell::default(),
            connected: Cell::new(None),
            changed: Notify::new(),
        }
    }

    /// The service that `alias` means, asked for where it is not known.
    ///
    /// `None`: no service of the mesh, or nobody could say in time. Waits at most a second, and only while the control
    /// stream is up, so that traffic goes on without a controller.
    pub async fn resolve(&self, alias: &Alias) -> Option<Rc<ServiceState>> {
        if let Some(answer) = self.known(alias) {
            return answer;
        }
        let wait = async {
            loop {
                let changed = self.changed.notified();
                match self.known(alias) {
                    Some(answer) => return answer,
                    None if self.connected.get() == Some(false) => return None,
                    None => changed.await,
                }
            }
        };
        tokio::time::timeout(ANSWER_TIME_MAX, wait).await.unwrap_or_default()
    }

    /// The answer, if it is known; asks for it otherwise.
    fn known(&self, alias: &Alias) -> Option<Option<Rc<ServiceState>>> {
        let now = Instant::now();
        let mut aliases = self.aliases.borrow_mut();
        let Some(meaning) = aliases.get_mut(alias) else {
            if aliases.len() >= ALIASES_MAX {
                self.forget_strangers(&mut aliases, now);
            }
            aliases.insert(alias.clone(), Meaning { answer: None, used: now });
            self.ask(Ask::Service(alias.clone()));
            return None;
        };
        meaning.used = now;
        match meaning.answer.as_ref()? {
            None => Some(None),
            Some(id) => {
                let state = Rc::clone(self.services.borrow().get(id)?);
                state.used.set(now);
                match &*state.current.borrow() {
                    Current::Unknown => return None,
                    Current::Gone => return Some(None),
                    Current::Known(_) => {}
                }
                Some(Some(state))
            }
        }
    }

    /// The endpoints of `port` of `service`, asked for where they are not known. Never waits.
    pub fn endpoints(&self, service: &ServiceId, port: u16) -> Rc<EndpointSet> {
        let id = EndpointsId::new(service.clone(), port);
        let mut sets = self.endpoints.borrow_mut();
        if let Some(set) = sets.get(&id) {
            return Rc::clone(set);
        }
        self.ask(Ask::Endpoints(id.clone()));
        let set = Rc::new(EndpointSet::new(id.clone(), Instant::now()));
        sets.insert(id, Rc::clone(&set));
        set
    }

    /// The endpoints in `set` now; waits a bounded time where the controller has not told them yet.
    pub async fn index(&self, set: &EndpointSet) -> Rc<EndpointIndex> {
        if let Some(index) = set.current() {
            return index;
        }
        let wait = async {
            loop {
                let changed = self.changed.notified();
                match set.current() {
                    Some(index) => return index,
                    None if self.connected.get() == Some(false) => return Rc::default(),
                    None => changed.await,
                }
            }
        };
        tokio::time::timeout(ANSWER_TIME_MAX, wait).await.unwrap_or_default()
    }

    /// Waits a bounded time until the controller has said what this proxy is.
    pub async fn wait_for_workload(&self) {
        if self.workload.borrow().is_some() {
            return;
        }
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if self.workload.borrow().is_some() || self.connected.get() == Some(false) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(ANSWER_TIME_MAX, wait).await.is_err() {
            tracing::debug!("the controller has not said yet what this proxy is");
        }
    }

    /// What this proxy itself is, once the controller has said it.
    pub fn workload(&self) -> Option<Arc<Workload>> {
        self.workload.borrow().clone()
    }

    /// The zone this proxy is in, where that is known.
    pub(crate) fn zone(&self) -> Option<Name> {
        self.workload.borrow().as_ref().and_then(|workload| workload.zone.clone())
    }

    /// Lets `look` see what holds for connections to the app's `port` now; `None` while the controller has not said it.
    pub fn with_guard<T>(&self, port: u16, look: impl FnOnce(Option<&Guard>) -> T) -> T {
        look(self.workload.borrow().as_ref().map(|workload| workload.guard(port)))
    }

    /// What limits the requests that the app's `port` is given at once, where anything does.
    pub(crate) fn limiter(&self, port: u16) -> Option<Arc<concurrency::Limiter>> {
        self.limiters.borrow().iter().find(|(limited, _)| *limited == port).map(|(_, limiter)| Arc::clone(limiter))
    }

    /// All of them, by port.
    pub(crate) fn limiters(&self) -> Vec<(u16, Arc<concurrency::Limiter>)> {
        self.limiters.borrow().clone()
    }

    /// Takes in one update.
    pub fn apply(&self, update: Update) {
        match update {
            Update::Alias(alias, answer) => {
                if let Some(id) = &answer {
                    self.service_state(id);
                }
                let mut aliases = self.aliases.borrow_mut();
                let meaning = aliases.entry(alias).or_insert_with(|| Meaning { answer: None, used: Instant::now() });
                meaning.answer = Some(answer);
            }
            Update::Service(id, service) => {
                let current = service.map_or(Current::Gone, |service| Current::Known(Rc::new(ServiceView::new(service))));
                self.service_state(&id).current.replace(current);
            }
            Update::Endpoints(id, endpoints) => {
                // Endpoints nobody here asked for belong to another worker's traffic.
                if let Some(set) = self.endpoints.borrow().get(&id) {
                    let before = set.current();
                    let next = |endpoints: Arc<Endpoints>| EndpointIndex::new(&endpoints, self, before.as_deref());
                    let index = endpoints.map_or_else(EndpointIndex::default, next);
                    set.current.replace(Some(Rc::new(index)));
                }
            }
            Update::Workload(workload) => {
                let limited = workload.inbound.iter().filter_map(|port| Some((port, port.concurrency.as_ref()?)));
                let limiter = |port: &InboundPort, settings| self.concurrency.of(port.port, &port.service, settings, Instant::now());
                self.limiters.replace(limited.map(|(port, settings)| (port.port, limiter(port, settings))).collect());
                let before = self.zone();
                self.workload.replace(Some(workload));
                let zone = self.zone();
                if zone != before {
                    self.endpoints.borrow().values().for_each(|set| set.move_to(zone.as_deref()));
                }
            }
            // What connections are secured with is not the directory's business.
            // The worker's own.
            Update::Trust(_) | Update::Credentials(_) => {}
            Update::Connected(connected) => self.connected.set(Some(connected)),
        }
        self.changed.notify_waiters();
    }

    /// What is remembered of the endpoints of `id`, where they are known and guarded.
    pub(crate) fn health(&self, id: &EndpointsId) -> Option<Rc<SetHealth>> {
        self.endpoints.borrow().get(id)?.current()?.health().cloned()
    }

    fn service_state(&self, id: &ServiceId) -> Rc<ServiceState> {
        let mut services = self.services.borrow_mut();
        let state = services.entry(id.clone()).or_insert_with(|| {
            Rc::new(ServiceState { id: id.clone(), current: RefCell::new(Current::Unknown), used: Cell::new(Instant::now()) })
        });
        Rc::clone(state)
    }

    /// Drops what nobody has used for ten minutes and no connection holds.
    pub fn sweep(&self, now: Instant) {
        let unused = |used: Instant| now.saturating_duration_since(used) >= UNUSED_TIME_MAX;
        let mut services = self.services.borrow_mut();
        for state in services.values().filter(|state| Rc::strong_count(state) > 1) {
            state.used.set(now);
        }
        self.aliases.borrow_mut().retain(|alias, meaning| {
            let service = meaning.answer.as_ref().and_then(Option::as_ref).and_then(|id| services.get(id));
            let drop = unused(meaning.used) && service.is_none_or(|service| unused(service.used.get()));
            if drop {
                self.ask(Ask::DropService(alias.clone()));
            }
            !drop
        });
        services.retain(|_, state| !unused(state.used.get()));
        drop(services);
        self.endpoints.borrow_mut().retain(|id, set| {
            if Rc::strong_count(set) > 1 {
                set.used.set(now);
            }
            let drop = unused(set.used.get());
            if drop {
                self.ask(Ask::DropEndpoints(id.clone()));
            }
            !drop
        });
    }

    /// Makes room by forgetting aliases that mean no service.
    fn forget_strangers(&self, aliases: &mut Map<Alias, Meaning>, now: Instant) {
        for least in [Duration::from_secs(60), Duration::ZERO] {
            aliases.retain(|alias, meaning| {
                let stranger = !matches!(meaning.answer, Some(Some(_)));
                let forget = stranger && now.saturating_duration_since(meaning.used) >= least;
                if forget {
                    self.ask(Ask::DropService(alias.clone()));
                }
                !forget
            });
            if aliases.len() < ALIASES_MAX {
                return;
            }
        }
    }

    /// The control thread may be gone while the process ends: then nobody answers, and nothing is lost.
    fn ask(&self, ask: Ask) {
        self.asks.send(ask).unwrap_or_else(|error| tracing::debug!(%error, "nobody to ask"));
    }
}

impl ServiceState {
    /// The service as it is now; `None` when it is gone.
    pub fn view(&self) -> Option<Rc<ServiceView>> {
        match &*self.current.borrow() {
            Current::Known(view) => Some(Rc::clone(view)),
            Current::Unknown | Current::Gone => None,
        }
    }
}

impl ServiceView {
    fn new(service: Arc<Service>) -> Self {
        Self { service, labels: RefCell::default(), limiters: RefCell::default(), sets: RefCell::default() }
    }

    /// The endpoints of `port` of `service`, which is this service or one that its routes name.
    pub fn endpoints(&self, directory: &Directory, service: &ServiceId, port: u16) -> Rc<EndpointSet> {
        let mut sets = self.sets.borrow_mut();
        if let Some(set) = sets.iter().find(|set| set.id.port == port && set.id.service == *service) {
            return Rc::clone(set);
        }
        let set = directory.endpoints(service, port);
        sets.push(Rc::clone(&set));
        set
    }

    /// The buckets of this rule's limit, asked for once.
    pub fn limiter(&self, rule: &Rule, get: impl FnOnce() -> Arc<Limiter>) -> Arc<Limiter> {
        let mut limiters = self.limiters.borrow_mut();
        if let Some((_, limiter)) = limiters.iter().find(|(name, _)| *name == rule.name) {
            return Arc::clone(limiter);
        }
        let limiter = get();
        limiters.push((rule.name.clone(), Arc::clone(&limiter)));
        limiter
    }

    /// Metric labels, made once for each combination.
    pub fn labels(&self, service: &ServiceId, version: Option<&Name>, route: Option<&Name>) -> Rc<Destination> {
        let mut labels = self.labels.borrow_mut();
        let same = |known: &&Rc<Destination>| {
            known.service.as_ref() == Some(service) && known.version.as_ref() == version && known.route.as_ref() == route
        };
        if let Some(known) = labels.iter().find(same) {
            return Rc::clone(known);
        }
        let made = Rc::new(Destination { service: Some(service.clone()), version: version.cloned(), route: route.cloned() });
        labels.push(Rc::clone(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leno_core::endpoints::Endpoint;
    use leno_core::names::WorkloadId;
    use std::net::SocketAddr;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn directory() -> (Directory, UnboundedReceiver<Ask>) {
        let (asks, asked) = unbounded_channel();
        (Directory::new(asks, &Settings { identity: true, ..Settings::new(WorkloadId::new("shop", "web-1")) }), asked)
    }

    fn payment() -> ServiceId {
        ServiceId::new("shop", "payment")
    }

    fn known() -> Update {
        Update::Service(payment(), Some(Arc::new(Service::new(payment()))))
    }

    fn endpoints(ports: &[u16]) -> Update {
        let endpoint =
            |port: &u16| Endpoint { workload: "p".into(), versions: vec!["v1".into()], ..Endpoint::at(([127, 0, 0, 1], *port).into()) };
        let id = EndpointsId::new(payment(), 80);
        Update::Endpoints(id.clone(), Some(Arc::new(Endpoints { endpoints: ports.iter().map(endpoint).collect(), ..Endpoints::new(id) })))
    }

    fn vip() -> Alias {
        Alias::Address(SocketAddr::from(([10, 0, 0, 1], 80)))
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_unknown_service_is_asked_for_once_and_waited_for() {
        let (directory, mut asked) = directory();
        directory.apply(Update::Connected(true));
        let answer = async {
            assert_eq!(asked.recv().await, Some(Ask::Service(vip())));
            directory.apply(Update::Alias(vip(), Some(payment())));
            directory.apply(known());
        };
        let alias = vip();
        let (first, second, ()) = tokio::join!(directory.resolve(&alias), directory.resolve(&alias), answer);
        assert!(first.is_some_and(|state| state.id == payment()) && second.is_some());
        assert!(asked.try_recv().is_err(), "asked once");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn nobody_waits_without_a_controller_or_longer_than_a_second_with_one() {
        let (directory, _asked) = directory();
        let start = tokio::time::Instant::now();
        assert!(directory.resolve(&vip()).await.is_none());
        assert_eq!(start.elapsed(), ANSWER_TIME_MAX, "at the start the controller is given its time");
        directory.apply(Update::Connected(false));
        assert!(directory.resolve(&vip()).await.is_none());
        assert_eq!(start.elapsed(), ANSWER_TIME_MAX);
        directory.apply(Update::Alias(vip(), Some(payment())));
        directory.apply(known());
        assert!(directory.resolve(&vip()).await.is_some(), "what is known serves without a controller");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_negative_answer_is_kept_until_it_changes() {
        let (directory, mut asked) = directory();
        directory.apply(Update::Connected(true));
        directory.apply(Update::Alias(vip(), None));
        assert!(directory.resolve(&vip()).await.is_none());
        assert!(asked.try_recv().is_err(), "the answer was known");
        directory.apply(Update::Alias(vip(), Some(payment())));
        directory.apply(known());
        let state = directory.resolve(&vip()).await.unwrap();
        directory.apply(Update::Service(payment(), None));
        assert!(state.view().is_none() && directory.resolve(&vip()).await.is_none(), "gone");
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_load_and_one_that_leaves_is_let_go() {
        let (directory, _asked) = directory();
        let set = directory.endpoints(&payment(), 80);
        directory.apply(endpoints(&[1, 2]));
        let index = set.current().unwrap();
        let stays = index.serving(None)[0].peer.begin();
        let leaves = Rc::downgrade(&index.serving(None)[1].peer);
        drop(index);
        directory.apply(endpoints(&[1, 3]));
        let index = set.current().unwrap();
        assert_eq!(index.serving(None)[0].peer.in_flight(), 1);
        assert!(Rc::ptr_eq(&index.serving(None)[0].peer, stays.peer()));
        assert!(leaves.upgrade().is_none());
        assert_eq!((index.serving(Some(&"v1".into())).len(), index.serving(Some(&"v2".into())).len()), (2, 0));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_nobody_used_for_ten_minutes_is_dropped_and_what_is_held_stays() {
        let (directory, mut asked) = directory();
        directory.apply(Update::Connected(true));
        for update in [Update::Alias(vip(), Some(payment())), known()] {
            directory.apply(update);
        }
        let held = directory.resolve(&vip()).await.unwrap();
        let set = directory.endpoints(&payment(), 80);
        assert_eq!(asked.try_recv().unwrap(), Ask::Endpoints(set.id.clone()));
        let later = Instant::now() + UNUSED_TIME_MAX + Duration::from_secs(1);
        directory.sweep(later);
        assert!(asked.try_recv().is_err(), "a connection holds them");
        drop((held, set));
        directory.sweep(later + UNUSED_TIME_MAX);
        let dropped = [asked.try_recv().unwrap(), asked.try_recv().unwrap()];
        assert_eq!(dropped, [Ask::DropService(vip()), Ask::DropEndpoints(EndpointsId::new(payment(), 80))]);
    }

    #[test]
    fn addresses_that_are_no_service_are_forgotten_beyond_the_bound() {
        let (directory, mut asked) = directory();
        for number in 0..=u32::try_from(ALIASES_MAX).unwrap() {
            assert!(directory.known(&Alias::Address((std::net::Ipv4Addr::from(number), 1).into())).is_none());
        }
        assert!(directory.aliases.borrow().len() <= ALIASES_MAX);
        let mut dropped = 0;
        while let Ok(ask) = asked.try_recv() {
            dropped += usize::from(matches!(ask, Ask::DropService(_)));
        }
        assert_eq!(dropped, ALIASES_MAX);
    }
}
