//! What a ReferenceGrant means to the mesh: which namespaces' TrafficPolicies may send requests to which services of its own.

use std::collections::BTreeMap;

use leno_api as api;
use leno_api::k8s;
use leno_core::names::Name;

use crate::namespace::Namespace;

/// What is kept of a ReferenceGrant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The namespaces whose policies may.
    from: Vec<Name>,
    /// The Services that they may name.
    services: Named,
    /// The MeshServices that they may name.
    meshes: Named,
}

/// Objects of one kind that a grant names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    All,
    /// These; there may be none.
    These(Vec<Name>),
}

impl Grant {
    /// What `grant` means; `None` when it is not about TrafficPolicies and services.
    pub(crate) fn read(grant: &k8s::ReferenceGrant) -> Option<Self> {
        let is_policy = |it: &&k8s::Grantee| &*it.group == api::GROUP && &*it.kind == "TrafficPolicy";
        let from: Vec<Name> = grant.from.iter().filter(is_policy).map(|it| it.namespace.clone()).collect();
        let services = Named::read(&grant.to, "", "Service");
        let meshes = Named::read(&grant.to, api::GROUP, "MeshService");
        let says_nothing = from.is_empty() || services.is_none() && meshes.is_none();
        (!says_nothing).then_some(Self { from, services, meshes })
    }
}

impl Named {
    fn read(to: &[k8s::Referent], group: &str, kind: &str) -> Self {
        let of_kind = to.iter().filter(|it| &*it.group == group && &*it.kind == kind);
        // One entry without a name means all.
        of_kind.map(|it| it.name.clone()).collect::<Option<Vec<_>>>().map_or(Self::All, Self::These)
    }

    fn is_none(&self) -> bool {
        *self == Self::These(Vec::new())
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.iter().any(|it| **it == *name),
        }
    }
}

impl Namespace {
    /// Whether policies of namespace `from` may send requests to `service` of this one. A grant for a MeshService is one for the
    /// service that it is for. Whether the service exists is not asked, so that who may not use it does not learn it.
    pub(crate) fn permits(&self, from: &str, service: &str) -> bool {
        let mut grants = self.grants.values().filter(|grant| grant.from.iter().any(|it| **it == *from));
        let is_outside = self.is_outside(service);
        grants.any(|grant| !is_outside && grant.services.has(service) || self.meshes_of(service).any(|mesh| grant.meshes.has(mesh)))
    }

    /// Whether it depends on MeshServices what policies of other namespaces may do here.
    pub(crate) fn grants_meshes(&self) -> bool {
        self.grants.values().any(|grant| !grant.meshes.is_none())
    }
}

/// The namespaces, by name.
pub(crate) type Namespaces = BTreeMap<Name, Namespace>;

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(from: &str, to: &str) -> Option<Grant> {
        let text = format!("{{metadata: {{name: g, namespace: books}}, spec: {{from: [{from}], to: [{to}]}}}}");
        Grant::read(&serde_yaml::from_str::<k8s::Watched<k8s::ReferenceGrant>>(&text).unwrap().object)
    }

    #[test]
    fn only_what_is_about_policies_and_services_is_kept() {
        const POLICY: &str = "{group: leno.dev, kind: TrafficPolicy, namespace: shop}";
        const SERVICE: &str = "{group: '', kind: Service}";
        for (from, to) in [
            ("{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}", SERVICE),
            ("{group: leno.dev, kind: SecurityPolicy, namespace: shop}", SERVICE),
            ("{kind: TrafficPolicy, namespace: shop}", SERVICE),
            (POLICY, "{group: '', kind: Secret}"),
            (POLICY, "{group: leno.dev, kind: Service}"),
            (POLICY, "{group: '', kind: MeshService}"),
            (POLICY, ""),
            ("", SERVICE),
        ] {
            assert_eq!(grant(from, to), None, "from {from} to {to}");
        }
        let all = grant(POLICY, "{group: '', kind: Service, name: ledger}, {kind: Service}").unwrap();
        assert!(all.services.has("anything") && all.meshes.is_none());
        let one = grant(POLICY, "{group: '', kind: Service, name: ledger}, {group: leno.dev, kind: MeshService, name: m}").unwrap();
        assert!(one.services.has("ledger") && !one.services.has("m") && one.meshes.has("m") && !one.meshes.has("ledger"));
        assert_eq!(one.from, [Name::from("shop")]);
    }
}
