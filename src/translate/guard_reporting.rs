//! Reports on SecurityPolicies.

use leno_api::status::{ACCEPTED, RESOLVED_REFS};
use leno_core::authorize::Action;
use leno_core::names::{Name, ServiceId};
use leno_core::workload::Egress;

use crate::fields;
use crate::namespace::Namespace;
use crate::report::{Report, reason};
use crate::reporting::{fails, holds, invalid, summary, unusable};
use crate::resolve::{Unresolved, listed, ports_of};
use crate::security::{Scope, Security};
use crate::tracked::Tracked;
use crate::translator::KeySources;

impl Namespace {
    /// The report on the SecurityPolicy called `name`.
    pub(crate) fn security_report(&self, name: &str, keys: &KeySources) -> Option<Report> {
        let object = self.securities.get(name)?;
        let Some(security) = object.value() else { return Some(unusable(object)) };
        let target = security.target().map(|target| self.target(target)).transpose();
        let target = target.and_then(|service| match service {
            Some(id) if self.outside(&id.name).is_some() => Err(format!(
                "{id} is outside the cluster (spec.external of a MeshService), where nobody guards its ports. Name another target in spec.targetRef."
            )),
            service => Ok(service),
        });
        let accepted = match &target {
            _ if !object.problems.is_empty() => invalid(object, target.is_ok()),
            Err(message) => fails(ACCEPTED, reason::TARGET_NOT_FOUND, message.clone()),
            Ok(service) => holds(ACCEPTED, reason::ACCEPTED, self.in_words(security, service.as_ref())),
        };
        let resolved = match target {
            Err(message) => fails(RESOLVED_REFS, reason::TARGET_NOT_FOUND, message),
            Ok(service) => summary(&self.unresolved_of_security(security, service.as_ref(), keys), "Everything that it names exists."),
        };
        let conditions = vec![accepted, resolved];
        Some(Report { generation: object.generation, service: None, endpoints: None, versions: Vec::new(), conditions })
    }

    fn in_words(&self, security: &Security, service: Option<&ServiceId>) -> String {
        let scope = match (&security.scope, service) {
            (Scope::Service(_), Some(service)) => format!("the pods of Service {service}, at the ports to which it leads"),
            (Scope::Selector(_), _) => format!("the pods of namespace {} that spec.selector selects", self.name),
            (Scope::Namespace | Scope::Service(_), _) => format!("every pod of namespace {}", self.name),
        };
        let effect = match security.policy.as_ref().map(|policy| policy.action) {
            Some(Action::Allow) => " Calls that no Allow rule matches are refused.",
            Some(Action::Deny) => " Calls that its rules match are refused.",
            Some(Action::Audit) => " It refuses nothing; calls that it would refuse are counted and logged.",
            None => "",
        };
        let outside = match security.egress {
            Some(Egress::RegisteredOnly) if self.defaults.inside.is_empty() => {
                " Outside the cluster they reach only what a MeshService registers. Pods that are dialled by their own addresses, as \
                 those of headless Services are, count as outside until the chart's egress.clusterNetworks names their network."
            }
            Some(Egress::RegisteredOnly) => " Outside the cluster they reach only what a MeshService registers.",
            Some(Egress::Allow) | None => "",
        };
        format!("In force for {scope}.{effect}{outside}{}", fields::sentence(&security.fields))
    }

    /// What `security` names and is not there.
    fn unresolved_of_security(&self, security: &Security, service: Option<&ServiceId>, keys: &KeySources) -> Vec<Unresolved> {
        let mut unresolved = Vec::new();
        if let Some(service) = service.and_then(|id| self.mesh_service(&id.name)) {
            let rules = security.policy.iter().flat_map(|policy| &policy.rules).enumerate();
            for (index, rule) in rules {
                let lacking: Vec<u16> = rule.ports.iter().copied().filter(|port| service.port(*port).is_none()).collect();
                if !lacking.is_empty() {
                    let message = format!(
                        "spec.authorization[{index}].ports: Service {} has no TCP port {} (it has {}). With targetRef, write ports of the Service.",
                        service.id,
                        listed(&lacking),
                        ports_of(service)
                    );
                    unresolved.push(Unresolved { reason: reason::PORT_NOT_FOUND, message });
                }
            }
        }
        if matches!(security.scope, Scope::Selector(_)) && self.guarded(security).is_empty() {
            let message = format!("No pod of namespace {} has the labels of spec.selector: correct them, or start such a pod.", self.name);
            unresolved.push(Unresolved { reason: reason::NOTHING_SELECTED, message });
        }
        unresolved.extend(security.key_uris().filter_map(|uri| lacking_keys(uri, keys)));
        let is_issuing = |object: &Tracked<Security>| object.value().is_some_and(|it| !it.issuers.is_empty());
        if security.asks_for_claims() && !self.securities.values().any(is_issuing) {
            let message =
                "Rules ask for claims, but no SecurityPolicy of the namespace says in jwt whose tokens are taken, so no call has \
                           claims. Add jwt."
                    .to_owned();
            unresolved.push(Unresolved { reason: reason::ISSUER_NOT_FOUND, message });
        }
        unresolved
    }
}

/// That the keys at `uri` have never been had.
fn lacking_keys(uri: &Name, keys: &KeySources) -> Option<Unresolved> {
    if keys.sets.contains_key(uri) {
        return None;
    }
    let message = match keys.errors.get(uri) {
        Some(error) => format!("The keys at {uri} could not be fetched: {error}. Until they are, every token of their issuer is refused."),
        None => format!("The keys at {uri} have not been fetched yet. Until they are, every token of their issuer is refused."),
    };
    Some(Unresolved { reason: reason::KEYS_NOT_FETCHED, message })
}
