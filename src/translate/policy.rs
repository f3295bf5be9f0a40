//! What a TrafficPolicy means, before its destinations are looked for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use leno_api as api;
use leno_api::traffic_policy as spec;
use leno_core::filters::Filters;
use leno_core::matching::{FieldMatch, Match, PathMatch, Pattern, ValueMatch};
use leno_core::names::{Name, ServiceId};
use leno_core::rate_limit::RateLimit;
use leno_core::retry::Retry;
use leno_core::weight::Weight;

use crate::fields;
use crate::filters;
use crate::mirror::Mirror;

/// A good TrafficPolicy.
#[derive(Debug, PartialEq)]
pub(crate) struct Policy {
    /// What it is for.
    pub(crate) target: TargetRef,
    /// Time for requests whose route says nothing else.
    pub(crate) timeout: Option<Duration>,
    /// What is tried again, of requests whose route says nothing else.
    pub(crate) retry: Option<Arc<Retry>>,
    /// Its routes, in list order.
    pub(crate) routes: Vec<Route>,
    /// The fields that it writes, in words.
    pub(crate) fields: Name,
}

/// What a policy is for, as it spells it. It is in the policy's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TargetRef {
    /// A MeshService, which names a Service.
    MeshService(Name),
    /// A Service.
    Service(Name),
}

/// One route.
#[derive(Debug, PartialEq)]
pub(crate) struct Route {
    pub(crate) name: Name,
    pub(crate) matches: Vec<Match>,
    pub(crate) destinations: Vec<(Destination, Weight)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) filters: Option<Arc<Filters>>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) retry: Option<Arc<Retry>>,
    pub(crate) rate_limit: Option<RateLimit>,
}

/// Where requests go, as the policy spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A version of the target.
    Version(Name),
    /// Another service.
    Service(Other),
}

/// Another service, as the policy spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// Its namespace, where that is not the policy's.
    pub(crate) namespace: Option<Name>,
    /// Its name.
    pub(crate) name: Name,
    /// Its port, where that is not the one the request was for.
    pub(crate) port: Option<u16>,
}

impl Policy {
    /// The other services of its namespace that its destinations and mirrors name.
    pub(crate) fn named_services(&self) -> impl Iterator<Item = &Name> {
        self.others().filter(|other| other.namespace.is_none()).map(|other| &other.name)
    }

    /// The services of other namespaces that they name.
    pub(crate) fn named_elsewhere(&self) -> impl Iterator<Item = ServiceId> {
        self.others().filter_map(|other| Some(ServiceId::new(other.namespace.clone()?, other.name.clone())))
    }

    fn others(&self) -> impl Iterator<Item = &Other> {
        let destinations = self.routes.iter().flat_map(|route| &route.destinations).map(|(destination, _)| destination);
        let mirrors = self.routes.iter().flat_map(|route| &route.mirrors).map(|(destination, _)| destination);
        destinations.chain(mirrors).filter_map(|destination| match destination {
            Destination::Service(other) => Some(other),
            Destination::Version(_) => None,
        })
    }
}

/// Reads a TrafficPolicy of `namespace`; otherwise everything that is wrong with it.
pub(crate) fn read(spec: &api::TrafficPolicySpec, namespace: &Name) -> Result<Policy, Vec<String>> {
    let mut reader = Reader { namespace: namespace.clone(), problems: Vec::new() };
    let target = &spec.target_ref;
    if target.name.is_empty() {
        reader.problem("spec.targetRef.name", "name the MeshService or Service that the policy is for.");
    }
    let timeout = reader.duration("spec.timeout", spec.timeout.as_ref());
    let retry = reader.retry("spec.retry", spec.retry.as_ref());
    let routes = spec.routes.iter().enumerate().map(|(index, route)| reader.route(index, route)).collect();
    let mut names = BTreeSet::new();
    for (index, route) in spec.routes.iter().enumerate().filter(|(_, route)| !route.name.is_empty()) {
        if !names.insert(&route.name) {
            reader.problem(
                &format!("spec.routes[{index}].name"),
                &format!("there are two routes called {}: give each a name of its own.", route.name),
            );
        }
    }
    let fields = fields::said(&serde_json::to_value(spec).unwrap_or_default());
    let name = target.name.as_str().into();
    let target = match target.kind {
        spec::TargetKind::MeshService => TargetRef::MeshService(name),
        spec::TargetKind::Service => TargetRef::Service(name),
    };
    if reader.problems.is_empty() { Ok(Policy { target, timeout, retry, routes, fields }) } else { Err(reader.problems) }
}

/// Reads on after a problem, so that a person learns all of them at once.
#[derive(Default)]
pub(crate) struct Reader {
    /// The policy's.
    namespace: Name,
    problems: Vec<String>,
}

impl Reader {
    pub(crate) fn problem(&mut self, path: &str, message: &str) {
        self.problems.push(format!("{path}: {message}"));
    }

    pub(crate) fn duration(&mut self, path: &str, duration: Option<&api::Duration>) -> Option<Duration> {
        match duration?.parse() {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.problem(path, &format!("{error}."));
                None
            }
        }
    }

    /// A route without a name is called by its place in the list.
    fn route(&mut self, index: usize, route: &spec::Route) -> Route {
        let path = format!("spec.routes[{index}]");
        let name = if route.name.is_empty() { format!("route-{index}") } else { route.name.clone() };
        let matches =
            route.matches.iter().enumerate().map(|(place, it)| self.conditions(&format!("{path}.matches[{place}]"), it)).collect();
        let destinations = route.destinations.iter().enumerate();
        let destinations = destinations.filter_map(|(place, it)| self.destination(&format!("{path}.destinations[{place}]"), it)).collect();
        let rate_limit = route.rate_limit.as_ref().and_then(|it| self.rate_limit(&format!("{path}.rateLimit"), it));
        let filters = filters::read(&path, route, &mut |path, message| self.problem(path, message));
        let timeout = self.duration(&format!("{path}.timeout"), route.timeout.as_ref());
        let mirrors = self.mirrors(&path, &route.mirror);
        let idle_timeout = self.duration(&format!("{path}.idleTimeout"), route.idle_timeout.as_ref());
        let retry = self.retry(&format!("{path}.retry"), route.retry.as_ref());
        Route { name: name.into(), matches, destinations, timeout, mirrors, rate_limit, filters, idle_timeout, retry }
    }

    fn conditions(&mut self, path: &str, spec: &spec::Match) -> Match {
        let headers = spec.headers.iter().enumerate().filter_map(|(index, it)| {
            let value = self.value(&format!("{path}.headers[{index}]"), &it.name, it.value.as_deref(), it.regex.as_deref(), it.present)?;
            Some(FieldMatch { name: it.name.to_ascii_lowercase().into(), value })
        });
        let headers = headers.collect();
        let query = spec.query.iter().enumerate().filter_map(|(index, it)| {
            let value = self.value(&format!("{path}.query[{index}]"), &it.name, it.value.as_deref(), it.regex.as_deref(), it.present)?;
            Some(FieldMatch { name: it.name.as_str().into(), value })
        });
        let query = query.collect();
        let method = spec.method.as_deref().map(Name::from);
        Match { path: spec.path.as_ref().and_then(|it| self.path(&format!("{path}.path"), it)), method, headers, query }
    }

    fn path(&mut self, path: &str, spec: &spec::PathMatch) -> Option<PathMatch> {
        match (&spec.exact, &spec.prefix, &spec.regex) {
            (Some(exact), None, None) => self.plain_path(&format!("{path}.exact"), exact).map(PathMatch::Exact),
            (None, Some(prefix), None) => self.plain_path(&format!("{path}.prefix"), prefix).map(PathMatch::Prefix),
            (None, None, Some(regex)) => self.pattern(&format!("{path}.regex"), regex).map(PathMatch::Regex),
            (_, _, _) => {
                self.problem(path, "write exactly one of exact, prefix and regex.");
                None
            }
        }
    }

    fn plain_path(&mut self, path: &str, text: &str) -> Option<Name> {
        if text.starts_with('/') && !text.contains(['?', '#']) {
            return Some(text.into());
        }
        self.problem(path, &format!("{text:?} is not a path: begin with /, and leave out query and fragment."));
        None
    }

    fn pattern(&mut self, path: &str, source: &str) -> Option<Pattern> {
        match Pattern::new(source) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.problem(path, &format!("{error}."));
                None
            }
        }
    }

    fn value(&mut self, path: &str, name: &str, value: Option<&str>, regex: Option<&str>, present: Option<bool>) -> Option<ValueMatch> {
        if name.is_empty() {
            self.problem(&format!("{path}.name"), "write the name of the field.");
        }
        match (value, regex, present) {
            (Some(value), None, None) => Some(ValueMatch::Exact(value.into())),
            (None, Some(regex), None) => self.pattern(&format!("{path}.regex"), regex).map(ValueMatch::Regex),
            (None, None, Some(present)) => Some(ValueMatch::Present(present)),
            (_, _, _) => {
                self.problem(path, "write exactly one of value, regex and present.");
                None
            }
        }
    }

    fn destination(&mut self, path: &str, spec: &spec::Destination) -> Option<(Destination, Weight)> {
        let weight = Weight::new(spec.weight).map_err(|error| self.problem(&format!("{path}.weight"), &format!("{error}."))).ok()?;
        let named = Named {
            version: spec.version.as_deref(),
            service: spec.service.as_deref(),
            namespace: spec.namespace.as_deref(),
            port: spec.port,
        };
        self.target(path, named).map(|target| (target, weight))
    }

    /// What a destination or a mirror names.
    pub(crate) fn target(&mut self, path: &str, named: Named<'_>) -> Option<Destination> {
        match named {
            Named { version: Some(version), service: None, namespace: None, port: None } => Some(Destination::Version(version.into())),
            Named { version: None, service: Some(service), namespace, port } => {
                let namespace = namespace.filter(|namespace| !namespace.is_empty() && **namespace != *self.namespace).map(Name::from);
                Some(Destination::Service(Other { namespace, name: service.into(), port }))
            }
            Named { version: Some(_), service: None, port: Some(_), .. } => {
                self.problem(&format!("{path}.port"), "a port goes with service; a version is reached at the port the request was for.");
                None
            }
            Named { version: Some(_), service: None, namespace: Some(_), .. } => {
                self.problem(&format!("{path}.namespace"), "a namespace goes with service; versions are those of the policy's target.");
                None
            }
            Named { .. } => {
                self.problem(path, "write exactly one of version and service.");
                None
            }
        }
    }
}

/// The fields by which a destination or a mirror says where to.
#[derive(Clone, Copy)]
pub(crate) struct Named<'s> {
    pub(crate) version: Option<&'s str>,
    pub(crate) service: Option<&'s str>,
    pub(crate) namespace: Option<&'s str>,
    pub(crate) port: Option<u16>,
}
