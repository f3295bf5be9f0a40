//! Route selection: which backend one request goes to.
//!
//! In: a [`Service`] (immutable), the port, the request head and a random `draw`. Out: a [`Decision`].
//! Nothing here reads a clock, a socket or a random source, so plain values test every rule.
//!
//! Reading order: [`decide`], [`RouteTable`], [`Trace`]. Conditions are in [`crate::matching`], shares in [`crate::weight`].

use std::time::Duration;

use crate::matching::{Match, Mismatch};
use crate::names::{Name, ServiceId};
use crate::request::RequestHead;
use crate::service::Service;
use crate::weight::{Weight, pick_weighted};

/// The rules of the policy in force for a service, ready to be searched. The default table has no rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTable {
    policy: Option<Name>,
    timeout: Option<Duration>,
    rules: Vec<Rule>,
    /// Indices of (rule, match), most specific first: the order in which matches are judged.
    order: Vec<(usize, usize)>,
}

/// One route of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Name, unique in its policy; a metric label.
    pub name: Name,
    /// The rule applies when any of these holds; an empty list holds for every request.
    pub matches: Vec<Match>,
    /// Where its requests go, by weight; an empty list means the service's own endpoints.
    pub destinations: Vec<Destination>,
    /// Time for the whole request; `None` takes the policy's.
    pub timeout: Option<Duration>,
}

/// One weighted destination of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// What it names.
    pub target: Target,
    /// Its relative share.
    pub weight: Weight,
}

/// What a destination names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A version of the service the request was for.
    Version(Name),
    /// Another service's endpoints, without that service's own routes (Gateway API `backendRefs`).
    Service {
        /// The other service.
        service: ServiceId,
        /// Its port; `None` means the port the request was for.
        port: Option<u16>,
    },
    /// Something that does not exist, as the policy spells it. Its share of requests is answered 500 (Gateway API).
    Missing(Name),
}

/// What is to happen to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<'t> {
    /// The rule that matched; `None` when none did and the service's defaults hold.
    pub rule: Option<&'t Rule>,
    /// Who is to answer.
    pub backend: Backend<'t>,
    /// Time for the whole request, from its first byte to the response's head; `None` is unlimited.
    pub timeout: Option<Duration>,
}

/// Who is to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend<'t> {
    /// One of the endpoints of a service port; 503 when there is none.
    Endpoints {
        /// The service whose endpoints are meant.
        service: &'t ServiceId,
        /// Its port.
        port: u16,
        /// Only endpoints of this version.
        version: Option<&'t Name>,
    },
    /// Nobody: the chosen destination does not exist. Answer 500.
    Missing(&'t Name),
    /// Nobody: every destination of the rule has weight 0. Answer 500.
    NoWeight,
}

/// Watches a decision being made. The proxy passes [`Silent`], `leno explain` a recorder.
pub trait Trace<'t> {
    /// One match was judged. `index` is its place in the rule's list; an empty list is judged as one empty match.
    fn judged(&mut self, rule: &'t Rule, index: usize, outcome: Result<(), Mismatch<'t>>);
}

/// Watches nothing, at no cost.
pub struct Silent;

impl Trace<'_> for Silent {
    fn judged(&mut self, _: &Rule, _: usize, _: Result<(), Mismatch<'_>>) {}
}

/// Says what happens to one request for `port` of `service`.
///
/// * `draw`: uniform over `u64`; the caller owns the random source. It is used for the weights only.
/// * `trace`: is told of every match judged, most specific first, up to the one that holds.
///
/// What no rule matches goes to the service's own endpoints.
pub fn decide<'t>(service: &'t Service, port: u16, request: &RequestHead<'_>, draw: u64, trace: &mut impl Trace<'t>) -> Decision<'t> {
    let table = &service.routes;
    let own = Backend::Endpoints { service: &service.id, port, version: None };
    match table.find(request, trace) {
        None => Decision { rule: None, backend: own, timeout: table.timeout },
        Some(rule) => {
            let backend = if rule.destinations.is_empty() { own } else { rule.backend(&service.id, port, draw) };
            Decision { rule: Some(rule), backend, timeout: rule.timeout.or(table.timeout) }
        }
    }
}

/// What is to happen to one connection whose bytes are not looked at: it has no head to match, so the service's own endpoints.
pub fn decide_connection(service: &Service, port: u16) -> Backend<'_> {
    Backend::Endpoints { service: &service.id, port, version: None }
}

impl RouteTable {
    /// The table of the policy called `policy` with its `rules` in list order; `timeout` is for every rule that has none.
    pub fn new(policy: Name, timeout: Option<Duration>, rules: Vec<Rule>) -> Self {
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            order.extend((0..rule.matches.len().max(1)).map(|place| (index, place)));
        }
        // Stable: equally specific matches stay in list order.
        order.sort_by_key(|(rule, place)| rules[*rule].matches.get(*place).map_or_else(|| Match::default().rank(), Match::rank));
        Self { policy: Some(policy), timeout, rules, order }
    }

    /// Name of the policy in force, `namespace/name`.
    pub fn policy(&self) -> Option<&Name> {
        self.policy.as_ref()
    }

    /// Time for every request whose rule says nothing else.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The rules, in list order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Every other service that a destination names, so that a subscriber knows whose endpoints it may need.
    pub fn other_services(&self) -> impl Iterator<Item = (&ServiceId, Option<u16>)> {
        self.rules.iter().flat_map(|rule| &rule.destinations).filter_map(|destination| match &destination.target {
            Target::Service { service, port } => Some((service, *port)),
            Target::Version(_) | Target::Missing(_) => None,
        })
    }

    /// The most specific rule that matches.
    fn find<'t>(&'t self, request: &RequestHead<'_>, trace: &mut impl Trace<'t>) -> Option<&'t Rule> {
        self.order.iter().find_map(|(rule, place)| {
            let rule = &self.rules[*rule];
            let outcome = rule.matches.get(*place).map_or(Ok(()), |conditions| conditions.check(request));
            trace.judged(rule, *place, outcome);
            outcome.ok().map(|()| rule)
        })
    }
}

impl Rule {
    /// The destination that owns `draw`.
    fn backend<'t>(&'t self, own: &'t ServiceId, port: u16, draw: u64) -> Backend<'t> {
        let picked = pick_weighted(self.destinations.iter().map(|destination| destination.weight), draw);
        match picked.map(|index| &self.destinations[index].target) {
            None => Backend::NoWeight,
            Some(Target::Missing(what)) => Backend::Missing(what),
            Some(Target::Version(version)) => Backend::Endpoints { service: own, port, version: Some(version) },
            Some(Target::Service { service, port: other }) => Backend::Endpoints { service, port: other.unwrap_or(port), version: None },
        }
    }
}
