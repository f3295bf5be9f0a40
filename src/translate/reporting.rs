//! Reports on MeshServices and TrafficPolicies.

use leno_api::status::{ACCEPTED, RESOLVED_REFS};
use leno_core::names::{Name, ServiceId};

use crate::fields;
use crate::grant::Namespaces;
use crate::member::WEIGHT;
use crate::mesh::Mesh;
use crate::namespace::Namespace;
use crate::outside::{Lookups, Outside};
use crate::policy::TargetRef;
use crate::report::{Condition, Report, reason};
use crate::resolve::{Unresolved, listed, ports_of};
use crate::tracked::Tracked;

/// A host that an older MeshService has.
pub(crate) struct TakenHost {
    pub(crate) host: Name,
    pub(crate) namespace: Name,
    pub(crate) mesh: Name,
}

impl Namespace {
    /// The report on the MeshService called `name`. `taken` are its hosts that callers of other namespaces find elsewhere,
    /// `lookups` what host names outside mean.
    pub(crate) fn mesh_report(&self, name: &str, taken: &[TakenHost], lookups: &Lookups) -> Option<Report> {
        let (name, object) = self.meshes.get_key_value(name)?;
        let Some(mesh) = object.value() else { return Some(unusable(object)) };
        let id = self.service_id(&mesh.service);
        let in_force = self.mesh_in_force(&mesh.service).map(|(winner, _)| winner);
        let other = in_force.filter(|winner| winner != name);
        let accepted = if object.problems.is_empty() {
            match &other {
                _ if mesh.outside.is_some() && self.services.contains_key(name) => hidden(&id),
                None if mesh.outside.is_some() => {
                    let message = format!("In force: {id} is outside the cluster.{}", fields::sentence(&mesh.fields));
                    holds(ACCEPTED, reason::ACCEPTED, message)
                }
                Some(other) => conflicted("MeshService", &self.name, other, &id),
                None if self.mesh_service(&mesh.service).is_none() => {
                    holds(ACCEPTED, reason::ACCEPTED, format!("Good, and without effect while Service {id} is not in the mesh."))
                }
                None => holds(ACCEPTED, reason::ACCEPTED, format!("In force for Service {id}.{}", fields::sentence(&mesh.fields))),
            }
        } else {
            invalid(object, other.is_none())
        };
        let service = self.mesh_service(&mesh.service);
        let counted = service.filter(|_| other.is_none()).map(|service| self.counts(service, mesh));
        let (endpoints, versions) = counted.map_or((None, Vec::new()), |(counts, versions)| (Some(counts), versions));
        let (unresolved, otherwise) = match &mesh.outside {
            None => (self.unresolved_of_mesh(mesh, &id, taken), "The Service and its ports exist."),
            Some(outside) => (unresolved_outside(mesh, outside, lookups, taken, &self.name), "Every host name means an address."),
        };
        let resolved = summary(&unresolved, otherwise);
        Some(Report { generation: object.generation, service: Some(id), endpoints, versions, conditions: vec![accepted, resolved] })
    }

    /// The report on the TrafficPolicy called `name`. `all` are the namespaces in which its destinations may be.
    pub(crate) fn policy_report(&self, name: &str, all: &Namespaces) -> Option<Report> {
        let (name, object) = self.policies.get_key_value(name)?;
        let Some(policy) = object.value() else { return Some(unusable(object)) };
        let target = self.target(&policy.target);
        let service = target.as_ref().ok().cloned();
        let other =
            service.as_ref().and_then(|id| self.policy_in_force(&id.name)).map(|(winner, _)| winner).filter(|winner| winner != name);
        let accepted = match (&target, &other) {
            (_, _) if !object.problems.is_empty() => invalid(object, target.is_ok() && other.is_none()),
            (Err(message), _) => fails(ACCEPTED, reason::TARGET_NOT_FOUND, message.clone()),
            (Ok(id), Some(other)) => conflicted("TrafficPolicy", &self.name, other, id),
            (Ok(id), None) => holds(ACCEPTED, reason::ACCEPTED, format!("In force for Service {id}.{}", fields::sentence(&policy.fields))),
        };
        let resolved = match &target {
            Err(message) => fails(RESOLVED_REFS, reason::TARGET_NOT_FOUND, message.clone()),
            Ok(id) => {
                let mesh = self.mesh_in_force(&id.name).map(|(_, mesh)| mesh);
                let service = self.mesh_service(&id.name);
                let unresolved = service.map(|service| self.unresolved(policy, service, mesh.as_deref(), all)).unwrap_or_default();
                summary(&unresolved, "The target and all destinations exist.")
            }
        };
        Some(Report { generation: object.generation, service, endpoints: None, versions: Vec::new(), conditions: vec![accepted, resolved] })
    }

    /// The service that a policy's `target` means, if it is in the mesh; otherwise why not, in words.
    pub(crate) fn target(&self, target: &TargetRef) -> Result<ServiceId, String> {
        let namespace = &self.name;
        let service = match target {
            TargetRef::Service(name) => name.clone(),
            TargetRef::MeshService(name) => match self.meshes.get(name).map(Tracked::value) {
                Some(Some(mesh)) => mesh.service.clone(),
                Some(None) => {
                    return Err(format!("MeshService {namespace}/{name}, which spec.targetRef names, is not valid: see its conditions."));
                }
                None if self.services.contains_key(name) => {
                    return Err(format!(
                        "There is no MeshService {namespace}/{name}, but there is a Service of that name: write kind: Service in spec.targetRef."
                    ));
                }
                None => return Err(format!("There is no MeshService {namespace}/{name}. Create it, or correct spec.targetRef.")),
            },
        };
        let id = self.service_id(&service);
        match (self.found(&service), target) {
            (Some(found), _) if found.external => {
                Err(format!("Service {id} is of type ExternalName, which the mesh does not carry. Name another target in spec.targetRef."))
            }
            (Some(_), _) => Ok(id),
            (None, TargetRef::Service(_)) => Err(format!("There is no Service {id}. Create it, or correct spec.targetRef.")),
            (None, TargetRef::MeshService(name)) => Err(format!(
                "There is no Service {id}, which MeshService {namespace}/{name} is for. Create it, or correct the MeshService."
            )),
        }
    }

    /// What `mesh` names and is not there.
    fn unresolved_of_mesh(&self, mesh: &Mesh, id: &ServiceId, taken: &[TakenHost]) -> Vec<Unresolved> {
        let Some(service) = self.services.get(&mesh.service) else {
            let message = format!("There is no Service {id}. Create it, or name another one in spec.service.");
            return vec![Unresolved { reason: reason::SERVICE_NOT_FOUND, message }];
        };
        if service.external {
            let message = format!("Service {id} is of type ExternalName, which the mesh does not carry. Name another one in spec.service.");
            return vec![Unresolved { reason: reason::SERVICE_NOT_IN_MESH, message }];
        }
        let mut unresolved = Vec::new();
        let lacking: Vec<u16> = mesh.ports.iter().map(|(port, _)| *port).filter(|port| service.port(*port).is_none()).collect();
        if !lacking.is_empty() {
            let message = format!("Service {id} has no TCP port {} (it has {}): correct spec.ports.", listed(&lacking), ports_of(service));
            unresolved.push(Unresolved { reason: reason::PORT_NOT_FOUND, message });
        }
        unresolved.extend(taken_elsewhere(taken, &self.name));
        let weighted: Vec<&str> = self.badly_weighted(service).into_iter().map(|name| &**name).collect();
        if let Some(first) = weighted.first() {
            let others = if weighted.len() > 1 { format!(" and {} more", weighted.len() - 1) } else { String::new() };
            let message = format!(
                "The annotation {WEIGHT} of pod {first}{others} is no whole number from 0 to 1000: correct it. Until then it counts as 100."
            );
            unresolved.push(Unresolved { reason: reason::INVALID_WEIGHT, message });
        }
        unresolved
    }
}

/// What `mesh`, which is `outside`, names and is not there.
fn unresolved_outside(mesh: &Mesh, outside: &Outside, lookups: &Lookups, taken: &[TakenHost], namespace: &str) -> Vec<Unresolved> {
    let mut unresolved: Vec<Unresolved> = outside.hosts.iter().filter_map(|host| unknown_host(host, lookups)).collect();
    let lacking: Vec<u16> = mesh.ports.iter().map(|(port, _)| *port).filter(|port| !outside.ports.contains(port)).collect();
    if !lacking.is_empty() {
        let (lacking, ports) = (listed(&lacking), listed(&outside.ports));
        let message = format!("spec.external.ports has no port {lacking} (it has {ports}): add it there, or correct spec.ports.");
        unresolved.push(Unresolved { reason: reason::PORT_NOT_FOUND, message });
    }
    unresolved.extend(taken_elsewhere(taken, namespace));
    unresolved
}

/// That the last lookup of `host` failed, or that there was none.
fn unknown_host(host: &Name, lookups: &Lookups) -> Option<Unresolved> {
    let then = match lookups.answers.get(host) {
        Some(_) => "The addresses that it had last stay.",
        None => "Until it can, nothing is sent there.",
    };
    let message = match lookups.errors.get(host) {
        Some(error) => format!("{host} cannot be looked up: {error}. {then}"),
        None if lookups.knows(host) => return None,
        None => format!("{host} has not been looked up yet. {then}"),
    };
    Some(Unresolved { reason: reason::HOST_NOT_FOUND, message })
}

/// Hosts that an older MeshService has.
fn taken_elsewhere(taken: &[TakenHost], own: &str) -> impl Iterator<Item = Unresolved> {
    taken.iter().map(move |TakenHost { host, namespace, mesh }| Unresolved {
        reason: reason::HOST_CONFLICTED,
        message: format!(
            "MeshService {namespace}/{mesh} is older and names host {host} too, so callers outside namespace {own} are sent there. Remove \
             the host from one of the two."
        ),
    })
}

/// That something outside has the name of a Service.
fn hidden(id: &ServiceId) -> Condition {
    let message = format!(
        "There is a Service {id}, and what spec.external registers is a service of its own that would have the same name. Give this \
         object another name, or write spec.service instead of spec.external."
    );
    fails(ACCEPTED, reason::CONFLICTED, message)
}

/// The report on an object that has never been good.
pub(crate) fn unusable<T>(object: &Tracked<T>) -> Report {
    let resolved = fails(RESOLVED_REFS, reason::INVALID, "Not looked at, because the object is not valid.".to_owned());
    let conditions = vec![invalid(object, false), resolved];
    Report { generation: object.generation, service: None, endpoints: None, versions: Vec::new(), conditions }
}

/// That the present version is not good. `in_force` says whether an earlier one is.
pub(crate) fn invalid<T>(object: &Tracked<T>, in_force: bool) -> Condition {
    let mut message = object.problems.join(" ");
    match &object.good {
        Some(good) if in_force => {
            let which = good.generation.map_or_else(|| "its last good version".to_owned(), |number| format!("generation {number}"));
            message.push_str(&format!(" Until this is corrected, {which} stays in force."));
        }
        Some(_) | None => message.push_str(" Until this is corrected, the object is not in force."),
    }
    fails(ACCEPTED, reason::INVALID, message)
}

fn conflicted(kind: &str, namespace: &str, other: &str, service: &ServiceId) -> Condition {
    let message = format!(
        "{kind} {namespace}/{other} is for Service {service} too and comes first (the older, else the first by name), so it alone is in \
         force. Merge the two, or delete one."
    );
    fails(ACCEPTED, reason::CONFLICTED, message)
}

/// `ResolvedRefs`: the first reason, and all messages.
pub(crate) fn summary(unresolved: &[Unresolved], otherwise: &str) -> Condition {
    match unresolved.first() {
        None => holds(RESOLVED_REFS, reason::RESOLVED_REFS, otherwise.to_owned()),
        Some(first) => {
            let messages: Vec<&str> = unresolved.iter().map(|it| it.message.as_str()).collect();
            fails(RESOLVED_REFS, first.reason, messages.join(" "))
        }
    }
}

pub(crate) fn holds(kind: &'static str, reason: &'static str, message: String) -> Condition {
    Condition { kind, holds: true, reason, message }
}

pub(crate) fn fails(kind: &'static str, reason: &'static str, message: String) -> Condition {
    Condition { kind, holds: false, reason, message }
}
