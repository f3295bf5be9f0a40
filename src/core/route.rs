//! Route selection: which backend one request goes to.
//!
//! In: a [`Service`] (immutable), the port, the request head and a random `draw`. Out: a [`Decision`].
//! Nothing here reads a clock, a socket or a random source, so plain values test every rule.
//!
//! Reading order: [`decide`], [`RouteTable`], [`Trace`]. Conditions are in [`crate::matching`], shares in [`crate::weight`].

mod index;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use self::index::Index;
use crate::filters::Filters;
use crate::matching::{Match, Mismatch};
use crate::mirror::Mirror;
use crate::names::{Name, ServiceId};
use crate::rate_limit::RateLimit;
use crate::request::RequestHead;
use crate::retry::Retry;
use crate::service::Service;
use crate::weight::{Weight, pick_weighted};

/// The rules of the policy in force for a service, ready to be searched. The default table has no rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteTable {
    policy: Option<Name>,
    timeout: Option<Duration>,
    retry: Option<Arc<Retry>>,
    rules: Vec<Rule>,
    /// Indices of (rule, match), most specific first: the order in which matches are judged.
    order: Vec<(usize, usize)>,
    /// Which places of `order` may hold for a path.
    index: Index,
}

/// One route of a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Name, unique in its policy; a metric label.
    pub name: Name,
    /// The rule applies when any of these holds; an empty list holds for every request.
    pub matches: Vec<Match>,
    /// Where its requests go, by weight; an empty list means the service's own endpoints.
    pub destinations: Vec<Destination>,
    /// Time for the whole request; `None` takes the policy's.
    pub timeout: Option<Duration>,
    /// Who else gets copies of its requests.
    pub mirrors: Vec<Mirror>,
    /// What else it does to requests and responses; `None` is nothing.
    pub filters: Option<Arc<Filters>>,
    /// Time in which, once a response has begun, a byte must come or go; `None` is unlimited.
    pub idle_timeout: Option<Duration>,
    /// What is tried again; `None` takes the policy's.
    pub retry: Option<Arc<Retry>>,
    /// How many of its requests may pass, in each proxy.
    pub rate_limit: Option<RateLimit>,
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
    /// The match of the rule that held; `None` where the rule has none.
    pub matched: Option<&'t Match>,
    /// Who is to answer.
    pub backend: Backend<'t>,
    /// Time for the whole request, from its first byte to the response's head; `None` is unlimited.
    pub timeout: Option<Duration>,
    /// Time in which, once a response has begun, a byte must come or go; `None` is unlimited.
    pub idle_timeout: Option<Duration>,
    /// What is tried again; `None`: only what is without a policy ([`crate::retry`]).
    pub retry: Option<&'t Arc<Retry>>,
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
    /// Whether it wants to hear of the matches that an index of paths rules out, too: nobody else pays for the telling.
    const LISTENS: bool = true;

    /// One match was judged. `index` is its place in the rule's list; an empty list is judged as one empty match.
    fn judged(&mut self, rule: &'t Rule, index: usize, outcome: Result<(), Mismatch<'t>>);
}

/// Watches nothing, at no cost.
pub struct Silent;

impl Trace<'_> for Silent {
    const LISTENS: bool = false;

    fn judged(&mut self, _: &Rule, _: usize, _: Result<(), Mismatch<'_>>) {}
}

/// Says what happens to one request for `port` of `service`.
///
/// * `draw`: uniform over `u64`; the caller owns the random source. It is used for the weights only.
/// * `trace`: is told of every match judged, most specific first, up to the one that holds.
///
/// What no rule matches goes to the service's own endpoints. With n rules of exact paths and prefixes O(log n) for each segment of
/// the path; rules with patterns, and without a condition on the path, are judged one by one.
pub fn decide<'t>(service: &'t Service, port: u16, request: &RequestHead<'_>, draw: u64, trace: &mut impl Trace<'t>) -> Decision<'t> {
    let table = &service.routes;
    let own = Backend::Endpoints { service: &service.id, port, version: None };
    match table.find(request, trace) {
        None => {
            Decision { rule: None, matched: None, backend: own, timeout: table.timeout, idle_timeout: None, retry: table.retry.as_ref() }
        }
        Some((rule, matched)) => {
            let backend = if rule.destinations.is_empty() { own } else { rule.backend(&service.id, port, draw) };
            Decision {
                rule: Some(rule),
                matched,
                backend,
                timeout: rule.timeout.or(table.timeout),
                idle_timeout: rule.idle_timeout,
                retry: rule.retry.as_ref().or(table.retry.as_ref()),
            }
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
        let path = |(rule, place): &(usize, usize)| rules[*rule].matches.get(*place)?.path.as_ref();
        let index = Index::new(order.iter().map(path));
        Self { policy: Some(policy), timeout, retry: None, rules, order, index }
    }

    /// The same table with `retry` for every rule that says nothing else, and for what no rule matches.
    #[must_use]
    pub fn with_retry(self, retry: Option<Arc<Retry>>) -> Self {
        Self { retry, ..self }
    }

    /// Name of the policy in force, `namespace/name`.
    pub fn policy(&self) -> Option<&Name> {
        self.policy.as_ref()
    }

    /// Time for every request whose rule says nothing else.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// What is tried again of every request whose rule says nothing else.
    pub fn retry(&self) -> Option<&Arc<Retry>> {
        self.retry.as_ref()
    }

    /// The rules, in list order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Every other service that a destination names, so that a subscriber knows whose endpoints it may need.
    pub fn other_services(&self) -> impl Iterator<Item = (&ServiceId, Option<u16>)> {
        let destinations = self.rules.iter().flat_map(|rule| &rule.destinations).map(|destination| &destination.target);
        let mirrors = self.rules.iter().flat_map(|rule| &rule.mirrors).map(|mirror| &mirror.target);
        destinations.chain(mirrors).filter_map(|target| match target {
            Target::Service { service, port } => Some((service, *port)),
            Target::Version(_) | Target::Missing(_) => None,
        })
    }

    /// The most specific rule that matches, and which of its matches held.
    fn find<'t, T: Trace<'t>>(&'t self, request: &RequestHead<'_>, trace: &mut T) -> Option<(&'t Rule, Option<&'t Match>)> {
        let mut judged = 0;
        for at in self.index.candidates(request.path) {
            if T::LISTENS {
                self.tell_of_ruled_out(judged..at, trace);
                judged = at + 1;
            }
            let (rule, place, matched) = self.at(at);
            let outcome = matched.map_or(Ok(()), |conditions| conditions.check(request));
            trace.judged(rule, place, outcome);
            if outcome.is_ok() {
                return Some((rule, matched));
            }
        }
        if T::LISTENS {
            self.tell_of_ruled_out(judged..self.order.len(), trace);
        }
        None
    }

    /// The match at `at` in the order of precedence: its rule, its place there, and its conditions if it has any.
    fn at(&self, at: usize) -> (&Rule, usize, Option<&Match>) {
        let (rule, place) = self.order[at];
        let rule = &self.rules[rule];
        (rule, place, rule.matches.get(place))
    }

    /// Tells of matches that their condition on the path has ruled out.
    fn tell_of_ruled_out<'t>(&'t self, range: Range<usize>, trace: &mut impl Trace<'t>) {
        for (rule, place, matched) in range.map(|at| self.at(at)) {
            let path = matched.and_then(|conditions| conditions.path.as_ref()).expect("only a condition on the path rules out");
            trace.judged(rule, place, Err(Mismatch::Path(path)));
        }
    }
}

impl Rule {
    /// The destination that owns `draw`.
    fn backend<'t>(&'t self, own: &'t ServiceId, port: u16, draw: u64) -> Backend<'t> {
        let picked = pick_weighted(self.destinations.iter().map(|destination| destination.weight), draw);
        picked.map_or(Backend::NoWeight, |index| self.destinations[index].target.backend(own, port))
    }
}

impl Target {
    /// Who answers requests that are for `port` of `own` and go to this target.
    pub fn backend<'t>(&'t self, own: &'t ServiceId, port: u16) -> Backend<'t> {
        match self {
            Self::Missing(what) => Backend::Missing(what),
            Self::Version(version) => Backend::Endpoints { service: own, port, version: Some(version) },
            Self::Service { service, port: other } => Backend::Endpoints { service, port: other.unwrap_or(port), version: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::{FieldMatch, PathMatch, Pattern, ValueMatch};
    use crate::request::{Caller, split_target};
    use crate::service::{Protocol, ServicePort};
    use proptest::prelude::*;

    fn service(timeout: Option<Duration>, rules: Vec<Rule>) -> Service {
        Service {
            ports: vec![ServicePort { port: 80, protocol: Protocol::Http }],
            routes: RouteTable::new("shop/p".into(), timeout, rules),
            ..Service::new(ServiceId::new("shop", "payment"))
        }
    }

    fn rule(name: &str, matches: Vec<Match>) -> Rule {
        Rule { name: name.into(), matches, ..Rule::default() }
    }

    fn prefix(path: &str) -> Match {
        Match { path: Some(PathMatch::Prefix(path.into())), ..Match::default() }
    }

    fn exact(path: &str) -> Match {
        Match { path: Some(PathMatch::Exact(path.into())), ..Match::default() }
    }

    fn regex(source: &str) -> Match {
        Match { path: Some(PathMatch::Regex(Pattern::new(source).unwrap())), ..Match::default() }
    }

    fn with_fields(mut conditions: Match, method: Option<&str>, headers: &[&str], query: &[&str]) -> Match {
        let fields =
            |names: &[&str]| names.iter().map(|name| FieldMatch { name: (*name).into(), value: ValueMatch::Present(true) }).collect();
        conditions.method = method.map(Name::from);
        conditions.headers = fields(headers);
        conditions.query = fields(query);
        conditions
    }

    /// Judges `method target` with the header fields called `fields`; gives the decision and what the trace was told.
    fn decided<'t>(
        service: &'t Service,
        method: &str,
        target: &str,
        fields: &[&str],
        draw: u64,
    ) -> (Decision<'t>, Vec<(String, usize, bool)>) {
        #[derive(Default)]
        struct Recorder(Vec<(String, usize, bool)>);
        impl<'t> Trace<'t> for Recorder {
            fn judged(&mut self, rule: &'t Rule, index: usize, outcome: Result<(), Mismatch<'t>>) {
                self.0.push((rule.name.to_string(), index, outcome.is_ok()));
            }
        }
        let (path, query) = split_target(target);
        let headers: Vec<(String, String)> = fields.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let caller = Caller::default();
        let request = RequestHead { method, path, query, authority: "payment", headers: &headers, caller: &caller };
        let mut recorder = Recorder::default();
        let decision = decide(service, 80, &request, draw, &mut recorder);
        (decision, recorder.0)
    }

    #[test]
    fn the_most_specific_rule_wins_whatever_the_order_of_the_list() {
        let mut rules = vec![
            rule("any", vec![]),
            rule("prefix", vec![prefix("/api")]),
            rule("long-prefix", vec![prefix("/api/v1")]),
            rule("regex", vec![regex("/api/v[12]/.*")]),
            rule("exact", vec![exact("/api/v1/pay")]),
            rule("method", vec![with_fields(prefix("/api"), Some("POST"), &[], &[])]),
            rule("headers", vec![with_fields(prefix("/api"), None, &["a", "b"], &[])]),
            rule("header", vec![with_fields(prefix("/api"), None, &["a"], &["q", "r"])]),
            rule("query", vec![with_fields(prefix("/api"), None, &[], &["q", "r"])]),
        ];
        let cases: [(&str, &str, &[&str], &str); 12] = [
            ("GET", "/", &[], "any"),
            ("GET", "/apis", &[], "any"),
            ("GET", "/api", &[], "prefix"),
            ("GET", "/api/v1", &[], "long-prefix"),
            ("GET", "/api/v1/x", &[], "regex"),
            ("GET", "/api/v1/pay", &[], "exact"),
            ("POST", "/api", &["a", "b"], "method"),
            ("POST", "/api/v1", &["a", "b"], "long-prefix"),
            ("GET", "/api", &["a", "b"], "headers"),
            ("GET", "/api?q&r", &["a"], "header"),
            ("GET", "/api?q&r", &[], "query"),
            ("GET", "/api?q&r", &["a", "b"], "headers"),
        ];
        for turn in 0..rules.len() {
            rules.rotate_left(1);
            let service = service(None, rules.clone());
            for (method, target, fields, want) in cases {
                let rule = decided(&service, method, target, fields, 0).0.rule.unwrap();
                assert_eq!(&*rule.name, want, "{method} {target} {fields:?}, list turned by {turn}");
            }
        }
    }

    #[test]
    fn of_equally_specific_rules_the_first_in_the_list_wins() {
        let service = service(None, vec![rule("a", vec![prefix("/x")]), rule("b", vec![prefix("/x/")]), rule("c", vec![prefix("/y")])]);
        assert_eq!(&*decided(&service, "GET", "/x/1", &[], 0).0.rule.unwrap().name, "a");
    }

    #[test]
    fn what_no_rule_matches_goes_to_the_services_own_endpoints() {
        let service = service(Some(Duration::from_secs(3)), vec![rule("a", vec![prefix("/x")])]);
        let (decision, told) = decided(&service, "GET", "/", &[], 0);
        let own = Backend::Endpoints { service: &service.id, port: 80, version: None };
        assert_eq!(
            decision,
            Decision { rule: None, matched: None, backend: own, timeout: Some(Duration::from_secs(3)), idle_timeout: None, retry: None }
        );
        assert_eq!(told, [("a".to_owned(), 0, false)]);
        assert_eq!(decide_connection(&service, 80), own);
    }

    #[test]
    fn the_timeout_of_a_rule_comes_before_that_of_its_policy() {
        let quick = Rule { timeout: Some(Duration::from_millis(5)), ..rule("quick", vec![prefix("/quick")]) };
        let service = service(Some(Duration::from_secs(15)), vec![quick, rule("rest", vec![])]);
        assert_eq!(decided(&service, "GET", "/quick", &[], 0).0.timeout, Some(Duration::from_millis(5)));
        assert_eq!(decided(&service, "GET", "/", &[], 0).0.timeout, Some(Duration::from_secs(15)));
    }

    #[test]
    fn what_a_rule_says_of_retries_comes_whole_before_what_its_policy_says() {
        let attempts = |attempts| Some(Arc::new(Retry { attempts, ..Retry::default() }));
        let own = Rule { retry: attempts(5), ..rule("own", vec![prefix("/own")]) };
        let mut service = service(None, vec![own, rule("rest", vec![prefix("/rest")])]);
        let tries = |service: &Service, path| decided(service, "GET", path, &[], 0).0.retry.map(|retry| retry.attempts);
        assert_eq!((tries(&service, "/own"), tries(&service, "/rest")), (Some(5), None));
        service.routes = service.routes.with_retry(attempts(1));
        assert_eq!((tries(&service, "/own"), tries(&service, "/rest"), tries(&service, "/")), (Some(5), Some(1), Some(1)));
    }

    #[test]
    fn destinations_name_who_answers() {
        let other = ServiceId::new("shop", "ledger");
        let to = |target| Destination { target, weight: Weight::ONE };
        let destinations = vec![
            to(Target::Version("v1".into())),
            to(Target::Service { service: other.clone(), port: None }),
            to(Target::Service { service: other.clone(), port: Some(81) }),
            to(Target::Missing("version v9".into())),
        ];
        let service = service(None, vec![Rule { destinations, ..rule("all", vec![]) }]);
        let backend = |draw| decided(&service, "GET", "/", &[], draw).0.backend;
        assert_eq!(backend(0), Backend::Endpoints { service: &service.id, port: 80, version: Some(&"v1".into()) });
        assert_eq!(backend(1), Backend::Endpoints { service: &other, port: 80, version: None });
        assert_eq!(backend(2), Backend::Endpoints { service: &other, port: 81, version: None });
        assert_eq!(backend(3), Backend::Missing(&"version v9".into()));
        let named: Vec<_> = service.routes.other_services().map(|(id, port)| (id.to_string(), port)).collect();
        assert_eq!(named, [("shop/ledger".to_owned(), None), ("shop/ledger".to_owned(), Some(81))]);
    }

    #[test]
    fn rule_whose_destinations_have_no_weight_answers_for_nobody() {
        let nothing = Destination { target: Target::Version("v1".into()), weight: Weight::new(0).unwrap() };
        let service = service(None, vec![Rule { destinations: vec![nothing], ..rule("all", vec![]) }]);
        assert_eq!(decided(&service, "GET", "/", &[], 7).0.backend, Backend::NoWeight);
    }

    /// Any match over a small world, so that several hold for one request.
    fn any_match() -> impl Strategy<Value = Match> {
        let path = prop_oneof![
            Just(None),
            prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c"]).prop_map(|path| Some(PathMatch::Prefix(path.into()))),
            prop::sample::select(vec!["/a", "/a/b", "/a/b/c"]).prop_map(|path| Some(PathMatch::Exact(path.into()))),
            prop::sample::select(vec!["/a.*", "/a/b.*|/x"]).prop_map(|source| Some(PathMatch::Regex(Pattern::new(source).unwrap()))),
        ];
        let method = prop::option::of(Just("GET"));
        let fields = || prop::sample::subsequence(vec!["h", "i", "j"], 0..=3);
        (path, method, fields(), fields())
            .prop_map(|(path, method, headers, query)| with_fields(Match { path, ..Match::default() }, method, &headers, &query))
    }

    /// How specific a match is, told apart from [`Match::rank`]: Gateway API's list of criteria, each as a number that is higher
    /// where the match is more specific.
    fn criteria(conditions: &Match) -> [usize; 5] {
        let (kind, length) = match &conditions.path {
            Some(PathMatch::Exact(path)) => (2, path.len()),
            Some(PathMatch::Regex(pattern)) => (1, pattern.source().len()),
            Some(PathMatch::Prefix(path)) => (0, path.trim_end_matches('/').len()),
            None => (0, 0),
        };
        [kind, length, usize::from(conditions.method.is_some()), conditions.headers.len(), conditions.query.len()]
    }

    proptest! {
        /// The rule found matches; nothing else that matches is more specific; of equals it is the first in the list. And the trace
        /// tells of every match up to it, in that order.
        #[test]
        fn the_rule_found_is_the_first_in_order_of_precedence_that_matches(
            matches in prop::collection::vec(prop::collection::vec(any_match(), 0..3), 0..8),
            path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/x", "*"]),
            query in prop::sample::subsequence(vec!["h", "i", "j"], 0..=3),
            fields in prop::sample::subsequence(vec!["h", "i", "j"], 0..=3),
            method in prop::sample::select(vec!["GET", "PUT"]),
        ) {
            let rules: Vec<Rule> = matches.into_iter().enumerate().map(|(index, matches)| rule(&index.to_string(), matches)).collect();
            let service = service(None, rules.clone());
            let target = format!("{path}?{}", query.join("&"));
            let (decision, told) = decided(&service, method, &target, &fields, 0);

            let headers: Vec<(String, String)> = fields.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
            let caller = Caller::default();
            let query = query.join("&");
            let request = RequestHead { method, path, query: &query, authority: "payment", headers: &headers, caller: &caller };
            let all = rules.iter().enumerate().flat_map(|(index, rule)| {
                let empty = rule.matches.is_empty().then(Match::default);
                rule.matches.clone().into_iter().chain(empty).enumerate().map(move |(place, conditions)| (index, place, conditions))
            });
            let mut ordered: Vec<_> = all.collect();
            // Higher criteria first; the sort is stable, so equals stay in list order.
            ordered.sort_by_key(|(_, _, conditions)| std::cmp::Reverse(criteria(conditions)));
            let judged: Vec<_> = ordered.iter().map(|(index, place, conditions)| (index.to_string(), *place, conditions.check(&request).is_ok())).collect();
            let until = judged.iter().position(|(_, _, holds)| *holds);
            prop_assert_eq!(decision.rule.map(|rule| rule.name.to_string()), until.map(|place| judged[place].0.clone()));
            prop_assert_eq!(decide(&service, 80, &request, 0, &mut Silent), decision, "who listens changes nothing");
            prop_assert_eq!(&told[..], &judged[..until.map_or(judged.len(), |place| place + 1)]);
        }

        /// However many prefixes, patterns and conditions others have, an exact path wins.
        #[test]
        fn an_exact_path_beats_any_other(others in prop::collection::vec(any_match(), 0..8), place in 0usize..8, path in prop::sample::select(vec!["/a", "/a/b"])) {
            let others = others.into_iter().filter(|other| !matches!(other.path, Some(PathMatch::Exact(_))));
            let mut rules: Vec<Rule> = others.map(|other| rule("other", vec![other])).collect();
            rules.insert(place.min(rules.len()), rule("exact", vec![exact(path)]));
            let service = service(None, rules);
            let decision = decided(&service, "GET", &format!("{path}?h&i&j"), &["h", "i", "j"], 0).0;
            prop_assert_eq!(&*decision.rule.expect("the exact rule matches").name, "exact");
        }

        /// Of every draw in turn, each version is given exactly its weight.
        #[test]
        fn versions_are_given_exactly_their_weights(weights in prop::collection::vec(0u32..40, 1..6), start in 0u64..1_000_000) {
            let destinations = weights.iter().enumerate().map(|(index, weight)| Destination {
                target: Target::Version(index.to_string().into()),
                weight: Weight::new(*weight).unwrap(),
            });
            let service = service(None, vec![Rule { destinations: destinations.collect(), ..rule("split", vec![]) }]);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut given = vec![0u32; weights.len()];
            for draw in start..start + total {
                match decided(&service, "GET", "/", &[], draw).0.backend {
                    Backend::Endpoints { version: Some(version), .. } => given[version.parse::<usize>().unwrap()] += 1,
                    Backend::Endpoints { version: None, .. } | Backend::Missing(_) | Backend::NoWeight => prop_assert!(false, "no version"),
                }
            }
            prop_assert_eq!(given, weights);
        }
    }
}
