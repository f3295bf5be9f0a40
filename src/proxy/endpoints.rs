//! Endpoints: those of one service port as a worker holds them, with what it remembers of each.
//!
//! Which of them takes a request is decided in [`crate::target`]; this file keeps what that needs, made once for each set of endpoints, so that
//! a pick in the usual case (equal weights, nothing wrong with anybody) looks at nothing but two endpoints.
//!
//! Reading order: [`EndpointSet`], [`EndpointIndex`], [`Group`], [`EndpointIndex::open`], [`Open::among`].

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use leno_core::balance::key::{Key, endpoint_id};
use leno_core::balance::latency::Latency;
use leno_core::balance::owners::Owners;
use leno_core::balance::shares::Shares;
use leno_core::balance::weighing::{Standing, warmth, weigh};
use leno_core::balance::zones::Zones;
use leno_core::balance::{Algorithm, Among, Balancing};
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
use leno_core::limits::Limit;
use leno_core::names::Name;
use leno_core::request::{KeptHead, RequestHead};
use leno_core::resilience::Resilience;
use leno_core::retry::Budget;

use crate::directory::Directory;
use crate::pool::{InFlight, Peer, Proof};
use crate::resilience::limits::Place;
use crate::resilience::{EndpointHealth, SetHealth};
use crate::target::Refusal;
use crate::worker::Context;

/// The endpoints of one service port as a worker holds them.
pub struct EndpointSet {
    /// Which service port.
    pub id: EndpointsId,
    /// `None`: not told yet.
    pub(crate) current: RefCell<Option<Rc<EndpointIndex>>>,
    /// Where the row of picks is, for round-robin.
    pub turn: Cell<u64>,
    /// How many retries it may get.
    pub budget: RefCell<Budget>,
    /// Room for shares that hold for one pick only.
    pub(crate) scratch: RefCell<Shares>,
    pub(crate) used: Cell<Instant>,
}

/// The endpoints of one service port at one moment, by version.
#[derive(Default)]
pub struct EndpointIndex {
    all: Group,
    versions: Vec<(Name, Group)>,
    health: Option<Rc<SetHealth>>,
    /// How one of them is chosen.
    pub balancing: Arc<Balancing>,
    /// Until when some are new; `None`: none is.
    cold_until: Cell<Option<Instant>>,
}

/// Those endpoints among which one is chosen.
#[derive(Default)]
pub struct Group {
    /// The endpoints, ordered by address.
    pub all: Vec<Rc<EndpointState>>,
    /// What share each has while nothing is wrong with any; `None`: all the same.
    shares: Option<Shares>,
    /// Which of them owns which key, where that matters.
    owners: Owners,
    /// Who is in the zone of this proxy, where that matters.
    zones: Option<Zones>,
}

/// One endpoint.
pub struct EndpointState {
    /// What the controller says of it.
    pub endpoint: Endpoint,
    /// Where it is, with its load and its connections.
    pub peer: Rc<Peer>,
    /// What is remembered of it, where the service is guarded.
    pub(crate) health: Option<Rc<EndpointHealth>>,
    /// How long it takes to answer, where that matters.
    pub(crate) latency: Option<Rc<Cell<Latency>>>,
    /// When it came to others; `None`: it was there from the beginning.
    since: Option<Instant>,
}

/// Whom a request belongs to, as far as it is known when it is routed.
pub enum Owner {
    /// This is known.
    Known(Key),
    /// It is not known yet how endpoints are chosen: what the request says is kept. Without a head, a connection that is not looked into.
    Later(Option<Box<KeptHead>>),
}

impl EndpointSet {
    /// Nothing is known of them yet.
    pub(crate) fn new(id: EndpointsId, now: Instant) -> Self {
        let (turn, used, budget) = (Cell::new(0), Cell::new(now), RefCell::new(Budget::new(now)));
        Self { id, current: RefCell::default(), turn, budget, scratch: RefCell::default(), used }
    }

    /// The endpoints as they are now; `None` when the controller has not told them yet.
    pub fn current(&self) -> Option<Rc<EndpointIndex>> {
        self.current.borrow().clone()
    }

    /// This proxy is in another zone than before.
    pub(crate) fn move_to(&self, zone: Option<&str>) {
        let mut current = self.current.borrow_mut();
        if let Some(index) = current.as_mut().filter(|index| index.balancing.prefers_zone) {
            *index = Rc::new(index.seen_from(zone));
        }
    }

    /// Whom a request belongs to that comes from `source`; without `head`, a connection that is not looked into.
    pub fn owner(&self, head: Option<&RequestHead<'_>>, source: IpAddr) -> Owner {
        match &*self.current.borrow() {
            Some(index) if !index.balancing.has_keys() => Owner::Known(Key::Any),
            Some(index) => Owner::Known(index.balancing.key(head, source)),
            None => Owner::Later(head.map(|head| Box::new(KeptHead::of(head)))),
        }
    }
}

impl EndpointState {
    /// Whether a request may go there at `now`.
    pub fn is_usable(&self, now: Instant) -> bool {
        self.is_healthy(now) && self.admits(now)
    }

    fn is_healthy(&self, now: Instant) -> bool {
        self.health.as_ref().is_none_or(|health| health.is_healthy(now))
    }

    fn admits(&self, now: Instant) -> bool {
        self.health.as_ref().is_none_or(|health| health.admits(now))
    }

    /// What one more request costs there. Without a measure of time that is how many are under way.
    pub fn cost(&self, now: impl FnOnce() -> Instant) -> f64 {
        match &self.latency {
            Some(latency) => latency.get().cost(self.peer.in_flight(), now()),
            None => f64::from(self.peer.in_flight()),
        }
    }

    /// How it stands at `now` while it may be picked.
    fn standing(&self, balancing: &Balancing, now: impl FnOnce() -> Instant) -> Standing {
        let weight = self.endpoint.weight;
        match (balancing.slow_start, self.since) {
            (Some(slow_start), Some(since)) => Standing::In { weight, warmth: warmth(now().saturating_duration_since(since), slow_start) },
            (_, _) => Standing::of(weight),
        }
    }

    /// A request goes there.
    pub fn begin(&self, context: &Context) -> InFlight {
        let attempt = self.health.as_ref().map(|health| health.attempt(context));
        self.peer.begin().watched(attempt).measured(self.latency.as_ref())
    }
}

impl Group {
    fn new(all: Vec<Rc<EndpointState>>, balancing: &Balancing, zone: Option<&str>, before: Option<&Self>) -> Self {
        let zone = zone.filter(|_| balancing.prefers_zone);
        let zones = zone.map(|own| Zones::new(own, all.iter().map(|endpoint| endpoint.endpoint.zone.as_deref())));
        let mut shares = Shares::default();
        let standings = all.iter().map(|endpoint| Standing::of(endpoint.endpoint.weight));
        weigh(&balancing.algorithm, zones.as_ref(), standings, &mut shares);
        let shares = Some(shares).filter(|shares| !shares.are_equal());
        let ids = all.iter().map(|endpoint| (endpoint_id(endpoint.endpoint.address), endpoint.endpoint.weight));
        let owners = Owners::new(balancing, ids, before.map(|before| &before.owners));
        Self { all, shares, owners, zones }
    }

    /// Which of them owns which key.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// What share each has while nothing is wrong with any.
    fn among(&self) -> Among<'_> {
        match &self.shares {
            Some(shares) if !self.all.is_empty() => Among::Shares(shares),
            Some(_) | None => Among::Equal(self.all.len()),
        }
    }
}

/// Those of a group that may be picked at one moment.
pub struct Open<'i> {
    index: &'i EndpointIndex,
    group: &'i Group,
    tried: &'i [SocketAddr],
    /// Where something is wrong with some endpoint: the moment, and whether so much is wrong that health does not count.
    trouble: Option<(Instant, bool)>,
}

impl Open<'_> {
    /// Whether the endpoint at `place` may be picked.
    pub fn has(&self, place: usize) -> bool {
        let endpoint = &self.group.all[place];
        let is_well = |(now, is_panic)| (is_panic || endpoint.is_healthy(now)) && endpoint.admits(now);
        !self.tried.contains(&endpoint.peer.address()) && self.trouble.is_none_or(is_well)
    }

    /// What share each has at `now`, in `scratch` where that holds for this pick only. It costs nothing where all may be picked and none is new.
    pub fn among<'s>(&'s self, now: impl Fn() -> Instant, scratch: &'s mut Shares) -> Among<'s> {
        let Self { index, group, .. } = self;
        if self.tried.is_empty() && self.trouble.is_none() && !index.is_cold(&now) {
            return group.among();
        }
        let standing = |(place, endpoint): (usize, &Rc<EndpointState>)| {
            if self.has(place) { endpoint.standing(&index.balancing, &now) } else { Standing::Out }
        };
        weigh(&index.balancing.algorithm, group.zones.as_ref(), group.all.iter().enumerate().map(standing), scratch);
        Among::Shares(scratch)
    }
}

impl EndpointIndex {
    /// What `before` remembers of endpoints that stay is kept.
    pub(crate) fn new(endpoints: &Endpoints, directory: &Directory, before: Option<&Self>) -> Self {
        let (balancing, now) = (endpoints.balancing.clone().unwrap_or_default(), Instant::now());
        let health = endpoints.resilience.as_ref().map(|policy| Self::guarded(&endpoints.id, policy, before, directory));
        let state = |endpoint: &Endpoint| {
            let proof = match (&endpoints.origination, &endpoint.identity) {
                (Some(origination), _) => Proof::Outside(Arc::clone(origination)),
                (None, Some(expected)) if directory.identity => Proof::Identity(Arc::clone(expected)),
                (None, Some(_) | None) => Proof::None,
            };
            let peer = directory.peers.get(endpoint.address, proof);
            let known = before.and_then(|before| before.remembered(&peer));
            // Those that come where there is nobody take everything at once.
            let others = before.filter(|before| !before.all.all.is_empty());
            let since = others.and_then(|_| known.map_or(Some(now), |known| known.since));
            let health = health.as_ref().map(|set| known.and_then(|it| it.health.clone()).unwrap_or_else(|| set.join(&peer)));
            let is_measured = balancing.algorithm == Algorithm::PeakEwma;
            let latency = is_measured.then(|| known.and_then(|known| known.latency.clone()).unwrap_or_default());
            Rc::new(EndpointState { endpoint: endpoint.clone(), peer, health, latency, since })
        };
        let all: Vec<_> = endpoints.endpoints.iter().map(state).collect();
        let mut versions: Vec<(Name, Vec<Rc<EndpointState>>)> = Vec::new();
        for endpoint in &all {
            for version in &endpoint.endpoint.versions {
                match versions.iter_mut().find(|(name, _)| name == version) {
                    Some((_, list)) => list.push(Rc::clone(endpoint)),
                    None => versions.push((Name::clone(version), vec![Rc::clone(endpoint)])),
                }
            }
        }
        if let Some(set) = &health {
            set.set_members(all.iter().filter_map(|endpoint| endpoint.health.as_ref().map(Rc::downgrade)).collect());
        }
        let last = all.iter().filter_map(|endpoint| endpoint.since).max();
        let cold_until = balancing.slow_start.zip(last).and_then(|(slow_start, last)| last.checked_add(slow_start));
        let zone = directory.zone();
        let group = |all, before: Option<&Group>| Group::new(all, &balancing, zone.as_deref(), before);
        let known = |version: Option<&Name>| before.and_then(|before| before.group(version));
        let versions = versions.into_iter().map(|(name, list)| {
            let group = group(list, known(Some(&name)));
            (name, group)
        });
        let versions = versions.collect();
        Self { all: group(all, known(None)), versions, health, balancing, cold_until: Cell::new(cold_until) }
    }

    /// The same for a proxy in another zone than before.
    pub(crate) fn seen_from(&self, zone: Option<&str>) -> Self {
        let group = |group: &Group| Group::new(group.all.clone(), &self.balancing, zone, Some(group));
        Self {
            all: group(&self.all),
            versions: self.versions.iter().map(|(name, list)| (Name::clone(name), group(list))).collect(),
            health: self.health.clone(),
            balancing: Arc::clone(&self.balancing),
            cold_until: self.cold_until.clone(),
        }
    }

    /// Whether some endpoint is new at `now`.
    fn is_cold(&self, now: impl FnOnce() -> Instant) -> bool {
        let Some(until) = self.cold_until.get() else { return false };
        let is_cold = now() < until;
        if !is_cold {
            self.cold_until.set(None);
        }
        is_cold
    }

    fn guarded(id: &EndpointsId, policy: &Arc<Resilience>, before: Option<&Self>, directory: &Directory) -> Rc<SetHealth> {
        match before.and_then(|before| before.health.as_ref()) {
            Some(set) => {
                set.set_policy(Arc::clone(policy));
                Rc::clone(set)
            }
            None => SetHealth::new(id.clone(), Arc::clone(policy), &directory.budgets, &directory.checks),
        }
    }

    /// What is remembered of all of them together, where the service is guarded.
    pub(crate) fn health(&self) -> Option<&Rc<SetHealth>> {
        self.health.as_ref()
    }

    /// What is remembered of the endpoint at `peer`.
    fn remembered(&self, peer: &Rc<Peer>) -> Option<&Rc<EndpointState>> {
        let all = &self.all.all;
        let place = all.binary_search_by_key(&peer.address(), |endpoint| endpoint.peer.address()).ok()?;
        Some(&all[place]).filter(|endpoint| Rc::ptr_eq(&endpoint.peer, peer))
    }

    /// Those of `group` that may be picked at `now`: others than those already `tried`, and none that fails.
    ///
    /// Where too few are healthy, health does not count ([`Resilience::panic_percent`]); an open breaker always does.
    pub fn open<'i>(&'i self, group: &'i Group, tried: &'i [SocketAddr], now: impl Fn() -> Instant) -> Open<'i> {
        let trouble = self.health.as_ref().map(|set| (set, now())).filter(|(set, now)| set.is_troubled(*now));
        let trouble = trouble.map(|(set, now)| {
            let healthy = group.all.iter().filter(|endpoint| endpoint.is_healthy(now)).count();
            (now, set.policy().is_panic(healthy, group.all.len()))
        });
        Open { index: self, group, tried, trouble }
    }

    /// A request begins, or is sent once more: its place, where that is limited.
    pub(crate) fn begin(&self, limit: Limit, context: &Context) -> Result<Option<Place>, Refusal> {
        self.health.as_ref().map_or(Ok(None), |set| set.begin(limit, context))
    }

    /// Why there is none to pick of `all`, at `now`.
    pub fn why_none(&self, all: &[Rc<EndpointState>], now: Instant) -> Refusal {
        match all {
            [] => Refusal::NoEndpoint,
            all if all.iter().all(|endpoint| endpoint.admits(now)) => Refusal::Unhealthy,
            _ => Refusal::CircuitOpen,
        }
    }

    /// The endpoints that may serve `version`, if there are any; `None` asks for any version.
    pub fn group(&self, version: Option<&Name>) -> Option<&Group> {
        match version {
            None => Some(&self.all),
            Some(wanted) => self.versions.iter().find(|(name, _)| name == wanted).map(|(_, group)| group),
        }
    }

    /// The same as a list.
    pub fn serving(&self, version: Option<&Name>) -> &[Rc<EndpointState>] {
        self.group(version).map_or(&[], |group| &group.all)
    }
}
