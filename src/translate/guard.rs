//! What holds for connections to a workload: the SecurityPolicies that are for it, as guards of its ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use leno_api::k8s::Labels;
use leno_core::authorize::{Authorization, Guard, Issuer, Mode, Policy};
use leno_core::names::Name;
use leno_core::workload::Egress;

use crate::backing::Pod;
use crate::namespace::Namespace;
use crate::object::{Kind, ObjectKey};
use crate::policy::TargetRef;
use crate::security::{IssuerSpec, KeysSpec, Scope, Security};
use crate::service::{Port, Service};

/// Key sets that were fetched, by their URLs.
pub(crate) type KeySets = BTreeMap<Name, Name>;

/// That a service's port leads to a port of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lead<'a> {
    pub(crate) service: &'a Service,
    pub(crate) port: &'a Port,
    /// The workload's port.
    pub(crate) number: u16,
}

/// Guards of one workload.
pub(crate) struct Guards<'a> {
    namespace: &'a Namespace,
    keys: &'a KeySets,
    leads: &'a [Lead<'a>],
    /// The policies of the namespace and those whose selector has the workload.
    general: Vec<&'a Security>,
    /// The policies for services, with the name of the service.
    targeted: Vec<(Name, &'a Security)>,
    /// What holds where no service leads.
    others: Guard,
}

impl<'a> Guards<'a> {
    /// The guards of the workload `name`, to which `leads` lead.
    pub(crate) fn new(namespace: &'a Namespace, name: &str, leads: &'a [Lead<'a>], keys: &'a KeySets) -> Self {
        let good = || namespace.securities.values().filter_map(|object| object.value().map(|value| &**value));
        let general = good().filter(|security| namespace.is_for(security, name)).collect();
        let targeted = good().filter_map(|security| Some((namespace.service_of(security.target()?)?, security))).collect();
        let mut guards = Self { namespace, keys, leads, general, targeted, others: Guard::default() };
        guards.others = guards.build(None);
        guards
    }

    /// What holds where no service leads.
    pub(crate) fn others(&self) -> Guard {
        self.others.clone()
    }

    /// Where the workload may connect to outside the cluster.
    pub(crate) fn egress(&self) -> Egress {
        let strictest = |of_namespace: bool| {
            let said = self.general.iter().filter(|security| matches!(security.scope, Scope::Namespace) == of_namespace);
            said.filter_map(|security| security.egress).max_by_key(|egress| *egress == Egress::RegisteredOnly)
        };
        strictest(false).or_else(|| strictest(true)).unwrap_or(self.namespace.defaults.egress)
    }

    /// What holds for the workload's port `number`.
    pub(crate) fn of(&self, number: u16) -> Guard {
        let is_targeted = self.targeted.iter().any(|(service, _)| self.ports_of(service).any(|(_, to)| to == number));
        if is_targeted { self.build(Some(number)) } else { self.others() }
    }

    fn build(&self, number: Option<u16>) -> Guard {
        let leads_here = |service: &Name| self.ports_of(service).any(|(_, to)| Some(to) == number);
        let targeted: Vec<_> = self.targeted.iter().filter(|(service, _)| leads_here(service)).collect();
        let mode = self.namespace.mode(self.general.iter().copied(), targeted.iter().map(|(_, security)| *security));
        let general = self.general.iter().filter_map(|security| security.policy.clone());
        let of_services = targeted.iter().filter_map(|(service, security)| {
            let policy = security.policy.as_ref()?;
            Some(number.map_or_else(|| Arc::clone(policy), |number| self.translated(policy, service, number)))
        });
        let policies = general.chain(of_services).collect();
        let securities = self.general.iter().copied().chain(targeted.iter().map(|(_, security)| *security));
        let issuers = self.issuers(securities);
        Guard { mode, authorization: Arc::new(Authorization::new(self.namespace.defaults.posture, policies, issuers)) }
    }

    /// Each issuer once, in a fixed order.
    fn issuers<'s>(&self, securities: impl Iterator<Item = &'s Security>) -> Vec<Arc<Issuer>> {
        let mut issuers: Vec<Issuer> = securities.flat_map(|security| &security.issuers).map(|spec| issuer(spec, self.keys)).collect();
        issuers.sort_by(|one, other| {
            let key = |it: &Issuer| (it.issuer.clone(), it.headers.clone(), it.audiences.clone(), it.keys.clone());
            key(one).cmp(&key(other))
        });
        issuers.dedup();
        issuers.into_iter().map(Arc::new).collect()
    }

    /// The ports of `service` that lead to this workload: the service's, and the workload's.
    fn ports_of(&self, service: &Name) -> impl Iterator<Item = (u16, u16)> {
        let leads = self.leads.iter().filter(move |lead| lead.service.id.name == *service);
        leads.map(|lead| (lead.port.number, lead.number))
    }

    /// `policy`, which speaks of the ports of `service`, as it is for the workload's port `number`. Every rule keeps its place.
    fn translated(&self, policy: &Arc<Policy>, service: &Name, number: u16) -> Arc<Policy> {
        if policy.rules.iter().all(|rule| rule.ports.is_empty()) {
            return Arc::clone(policy);
        }
        let mut policy = Policy::clone(policy);
        for rule in policy.rules.iter_mut().filter(|rule| !rule.ports.is_empty()) {
            let mut ports: Vec<u16> =
                self.ports_of(service).filter(|(port, _)| rule.ports.contains(port)).map(|(_, number)| number).collect();
            ports.sort_unstable();
            ports.dedup();
            // A rule for ports that are not here must match nothing, and a rule without ports would match every port.
            rule.ports = if ports.is_empty() { vec![another_than(number)] } else { ports };
        }
        Arc::new(policy)
    }
}

/// A port that is not `number`.
fn another_than(number: u16) -> u16 {
    if number == 1 { 2 } else { 1 }
}

fn issuer(spec: &IssuerSpec, sets: &KeySets) -> Issuer {
    let keys = match &spec.keys {
        KeysSpec::Given(keys) => keys.clone(),
        KeysSpec::Fetched(uri) => sets.get(uri).cloned().unwrap_or_else(|| Name::from("")),
    };
    Issuer { issuer: spec.issuer.clone(), audiences: spec.audiences.clone(), headers: spec.headers.clone(), keys }
}

impl Security {
    /// The service it is for.
    pub(crate) fn target(&self) -> Option<&TargetRef> {
        match &self.scope {
            Scope::Service(target) => Some(target),
            Scope::Namespace | Scope::Selector(_) => None,
        }
    }

    /// Whether it is for pods that have labels, and these are such.
    pub(crate) fn selects(&self, labels: Option<&Labels>) -> bool {
        match &self.scope {
            Scope::Selector(wanted) => labels.is_some_and(|labels| labels.contains_all(wanted.iter())),
            Scope::Namespace | Scope::Service(_) => false,
        }
    }
}

/// The order of modes by what they ask of callers.
fn strictness(mode: &Mode) -> u8 {
    match mode {
        Mode::Disabled => 0,
        Mode::Permissive => 1,
        Mode::Strict => 2,
    }
}

impl Namespace {
    /// Every port of a service that leads to the pod or workload called `name`.
    pub(crate) fn leads(&self, name: &Name) -> Vec<Lead<'_>> {
        let mut leads = Vec::new();
        for (service, _) in self.pods.get(name).into_iter().flat_map(|pod| &pod.services) {
            leads.extend(self.leads_of_pod(name, service));
        }
        if let Some(local) = self.locals.get(name) {
            for service in self.services.values().filter(|service| !service.external && service.selects(local.labels())) {
                leads.extend(service.ports.iter().filter_map(|port| Some(Lead { service, port, number: local.port(&port.target)? })));
            }
        }
        leads
    }

    /// The ports of `service` that lead to the pod `name`, by its slices.
    fn leads_of_pod(&self, name: &Name, service: &str) -> Vec<Lead<'_>> {
        let Some(service) = self.mesh_service(service) else { return Vec::new() };
        let slices = self.slices_of(&service.id.name).iter().filter(|slice| slice.pods().any(|pod| pod == name));
        let leads =
            slices.flat_map(|slice| service.ports.iter().filter_map(|port| Some(Lead { service, port, number: slice.port(&port.name)? })));
        leads.collect()
    }

    /// The SecurityPolicies that are for the pod or workload called `name`, or for one of its ports.
    pub(crate) fn securities_of(&self, name: &Name) -> Vec<(ObjectKey, Option<i64>)> {
        let leads = self.leads(name);
        let is_for = |security: &Security| match security.target().map(|target| self.service_of(target)) {
            None => self.is_for(security, name),
            Some(service) => service.is_some_and(|service| leads.iter().any(|lead| lead.service.id.name == service)),
        };
        let concerned = self.securities.iter().filter(|(_, object)| object.value().is_some_and(|security| is_for(security)));
        concerned.map(|(name, object)| (self.key(Kind::SecurityPolicy, name), object.generation)).collect()
    }

    /// Whether `security` is for every port of the pod or workload called `name`.
    fn is_for(&self, security: &Security, name: &str) -> bool {
        let pod = self.pods.get(name).and_then(Pod::labels);
        let local = self.locals.get(name).map(|local| local.labels());
        match &security.scope {
            Scope::Namespace => true,
            Scope::Selector(_) => security.selects(pod) || security.selects(local),
            Scope::Service(_) => false,
        }
    }

    /// The mode that `general` policies, which are for a workload, and `targeted` ones, which are for its port, give together.
    fn mode<'s>(&self, general: impl Iterator<Item = &'s Security>, targeted: impl Iterator<Item = &'s Security>) -> Mode {
        let (wide, selecting): (Vec<&Security>, Vec<&Security>) = general.partition(|security| security.scope == Scope::Namespace);
        let strictest = |modes: &mut dyn Iterator<Item = &Security>| modes.filter_map(|it| it.mode).max_by_key(strictness);
        let narrow = strictest(&mut selecting.into_iter().chain(targeted));
        narrow.or_else(|| strictest(&mut wide.into_iter())).unwrap_or(self.defaults.mode)
    }

    /// Whether `service` has anything to do with the pod or workload called `name`.
    fn may_lead(&self, service: &str, name: &str) -> bool {
        let names_pod = self.pods.get(name).is_some_and(|pod| pod.services.iter().any(|(known, _)| **known == *service));
        names_pod || self.locals.contains_key(name)
    }

    /// The mode of port `number` of the pod or workload called `name`, to which `service` leads.
    pub(crate) fn mode_of(&self, name: &Name, number: u16, service: &Service) -> Mode {
        let with_mode = || self.securities.values().filter_map(|object| object.value().map(|it| &**it)).filter(|it| it.mode.is_some());
        if with_mode().next().is_none() {
            return self.defaults.mode;
        }
        let targeted = with_mode().filter(|security| {
            let Some(target) = security.target().and_then(|target| self.service_of(target)) else { return false };
            target == service.id.name
                || self.may_lead(&target, name)
                    && self.leads(name).iter().any(|lead| lead.number == number && lead.service.id.name == target)
        });
        self.mode(with_mode().filter(|security| self.is_for(security, name)), targeted)
    }
}
