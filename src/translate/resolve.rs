//! A policy's destinations, held against what exists.

use leno_core::mirror::Mirror;
use leno_core::names::ServiceId;
use leno_core::route::{Destination, RouteTable, Rule, Target};

use crate::grant::Namespaces;
use crate::mesh::Mesh;
use crate::namespace::Namespace;
use crate::policy;
use crate::policy::{Other, Policy};
use crate::report::reason;
use crate::service::Service;

/// A destination that is not there, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    /// One word.
    pub(crate) reason: &'static str,
    /// What is not there and what to do.
    pub(crate) message: String,
}

/// What a policy names something for.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Requests go there.
    Destination,
    /// Copies go there.
    Mirror,
}

impl Role {
    /// What becomes of requests while it does not exist.
    fn without_it(self) -> &'static str {
        match self {
            Self::Destination => "its share of requests is answered 500",
            Self::Mirror => "no copies are sent there",
        }
    }
}

impl Namespace {
    /// The routes of `service`: those of the policy in force, or none. `all` are the namespaces in which its destinations may be.
    pub(crate) fn routes(&self, service: &Service, mesh: Option<&Mesh>, all: &Namespaces) -> RouteTable {
        let Some((name, policy)) = self.policy_in_force(&service.id.name) else { return RouteTable::default() };
        let rules = policy.routes.iter().map(|route| Rule {
            name: route.name.clone(),
            matches: route.matches.clone(),
            destinations: self.destinations(route, service, mesh, all),
            timeout: route.timeout,
            mirrors: self.mirrors(route, service, mesh, all),
            filters: route.filters.clone(),
            idle_timeout: route.idle_timeout,
            retry: route.retry.clone(),
            rate_limit: route.rate_limit.clone(),
        });
        RouteTable::new(format!("{}/{name}", self.name).into(), policy.timeout, rules.collect()).with_retry(policy.retry.clone())
    }

    /// Every destination of `policy` that is not there for requests to `service`.
    pub(crate) fn unresolved(&self, policy: &Policy, service: &Service, mesh: Option<&Mesh>, all: &Namespaces) -> Vec<Unresolved> {
        let named = policy.routes.iter().flat_map(|route| {
            let destinations = route.destinations.iter().map(move |(destination, _)| (route, destination, Role::Destination));
            destinations.chain(route.mirrors.iter().map(move |(destination, _)| (route, destination, Role::Mirror)))
        });
        let mut unresolved: Vec<Unresolved> = named
            .filter_map(|(route, destination, role)| {
                let problem = self.resolve(destination, (service, mesh), role, all).1?;
                Some(Unresolved { reason: problem.reason, message: format!("Route {}: {}", route.name, problem.message) })
            })
            .collect();
        unresolved.dedup();
        unresolved
    }

    fn destinations(&self, route: &policy::Route, service: &Service, mesh: Option<&Mesh>, all: &Namespaces) -> Vec<Destination> {
        let resolved = route.destinations.iter().map(|(destination, weight)| Destination {
            target: self.resolve(destination, (service, mesh), Role::Destination, all).0,
            weight: *weight,
        });
        resolved.collect()
    }

    fn mirrors(&self, route: &policy::Route, service: &Service, mesh: Option<&Mesh>, all: &Namespaces) -> Vec<Mirror> {
        let resolved = route.mirrors.iter().map(|(destination, percentage)| Mirror {
            target: self.resolve(destination, (service, mesh), Role::Mirror, all).0,
            percentage: *percentage,
        });
        resolved.collect()
    }

    /// What `destination` is for requests to `service`, and what is wrong with it.
    fn resolve(
        &self,
        destination: &policy::Destination,
        (service, mesh): (&Service, Option<&Mesh>),
        role: Role,
        all: &Namespaces,
    ) -> (Target, Option<Unresolved>) {
        match destination {
            policy::Destination::Version(version) if mesh.is_some_and(|mesh| mesh.has_version(version)) => {
                (Target::Version(version.clone()), None)
            }
            policy::Destination::Version(version) => {
                let problem = Unresolved { reason: reason::VERSION_NOT_FOUND, message: missing_version(version, service, mesh, role) };
                (Target::Missing(format!("version {version}").into()), Some(problem))
            }
            policy::Destination::Service(other) => self.resolve_service(other, service, role, all),
        }
    }

    fn resolve_service(&self, other: &Other, service: &Service, role: Role, all: &Namespaces) -> (Target, Option<Unresolved>) {
        let Other { namespace, name, port } = other;
        let id = ServiceId::new(namespace.as_ref().unwrap_or(&self.name).clone(), name.clone());
        let place = namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
        let spelt = port.map_or_else(|| format!("service {place}{name}"), |port| format!("service {place}{name}:{port}"));
        let home = namespace.as_ref().map_or(Some(self), |namespace| all.get(namespace));
        if namespace.is_some() && !home.is_some_and(|home| home.permits(&self.name, name)) {
            let missing = Target::Missing(format!("{spelt} that namespace {} may name", self.name).into());
            return (missing, Some(not_permitted(&id, &self.name, role)));
        }
        let missing = Target::Missing(spelt.into());
        let Some(other) = home.and_then(|home| home.found(name)) else {
            let then = role.without_it();
            let message = format!("there is no Service {id}. Create it, or name another one. Until then {then}.");
            return (missing, Some(Unresolved { reason: reason::SERVICE_NOT_FOUND, message }));
        };
        if other.external {
            let then = role.without_it();
            let message = format!("Service {id} is of type ExternalName, which the mesh does not carry: {then}.");
            return (missing, Some(Unresolved { reason: reason::SERVICE_NOT_IN_MESH, message }));
        }
        let wanted: Vec<u16> = port.map_or_else(|| service.ports.iter().map(|port| port.number).collect(), |port| vec![port]);
        let lacking: Vec<u16> = wanted.iter().copied().filter(|number| other.port(*number).is_none()).collect();
        let target = if lacking.len() == wanted.len() { missing } else { Target::Service { service: id.clone(), port: *port } };
        if lacking.is_empty() {
            return (target, None);
        }
        let hint = if port.is_some() { "Name one of these" } else { "Say with port which of these is meant" };
        let then = match role {
            Role::Destination => "requests for it are answered 500 or 503",
            Role::Mirror => role.without_it(),
        };
        let message = format!("Service {id} has no TCP port {} (it has {}). {hint}. Until then {then}.", listed(&lacking), ports_of(other));
        (target, Some(Unresolved { reason: reason::PORT_NOT_FOUND, message }))
    }
}

/// That the namespace of `id` does not let policies of namespace `from` name it.
fn not_permitted(id: &ServiceId, from: &str, role: Role) -> Unresolved {
    let ServiceId { namespace, name } = id;
    let message = format!(
        "service {id} is in another namespace, which does not allow it. Create a ReferenceGrant (gateway.networking.k8s.io) in namespace \
         {namespace} with spec.from [{{group: leno.dev, kind: TrafficPolicy, namespace: {from}}}] and spec.to [{{group: \"\", kind: \
         Service, name: {name}}}], or [{{group: leno.dev, kind: MeshService, name: {name}}}] for something outside the cluster. Until \
         then {}.",
        role.without_it()
    );
    Unresolved { reason: reason::REF_NOT_PERMITTED, message }
}

fn missing_version(version: &str, service: &Service, mesh: Option<&Mesh>, role: Role) -> String {
    let then = format!("Until then {}.", role.without_it());
    match mesh {
        Some(mesh) if mesh.outside.is_some() => {
            format!(
                "there is no version {version}: {} is outside the cluster, where there are none. Name a service instead. {then}",
                service.id
            )
        }
        None => {
            format!("there is no version {version}, because no MeshService for Service {} names versions. Create one. {then}", service.id)
        }
        Some(mesh) if mesh.versions.is_empty() => {
            format!("there is no version {version}: the MeshService for Service {} names none. Add it to spec.versions. {then}", service.id)
        }
        Some(mesh) => {
            let known: Vec<&str> = mesh.versions.iter().map(|version| &*version.name).collect();
            format!(
                "there is no version {version}: the MeshService for Service {} names {}. Correct the name, or add the version to spec.versions. {then}",
                service.id,
                known.join(", ")
            )
        }
    }
}

/// The TCP ports of `service`, for people.
pub(crate) fn ports_of(service: &Service) -> String {
    let numbers: Vec<u16> = service.ports.iter().map(|port| port.number).collect();
    if numbers.is_empty() { "none".to_owned() } else { listed(&numbers) }
}

/// Numbers, for people.
pub(crate) fn listed(numbers: &[u16]) -> String {
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
