//! Reference grants: what objects of other namespaces may name.

use std::sync::Arc;

use serde::Deserialize;

use super::lenient::{non_empty, or_default};
use super::watched::{RawMeta, watched};

/// A gateway.networking.k8s.io/v1 ReferenceGrant: those `from` may name those `to`, which are in its own namespace. What it
/// does not say is not allowed; so what cannot be read of it allows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Who may.
    pub from: Box<[Grantee]>,
    /// What may be named.
    pub to: Box<[Referent]>,
}

/// The same in version v1beta1, which many clusters serve alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrantBeta(pub ReferenceGrant);

/// Objects of one kind in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grantee {
    /// API group; empty for the core group.
    pub group: Box<str>,
    /// Kind.
    pub kind: Box<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

/// Objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referent {
    /// API group; empty for the core group.
    pub group: Box<str>,
    /// Kind.
    pub kind: Box<str>,
    /// The one that is meant; `None` means all.
    pub name: Option<Arc<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawGrant {
    #[serde(deserialize_with = "or_default")]
    metadata: RawMeta,
    #[serde(deserialize_with = "or_default")]
    spec: RawSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    #[serde(deserialize_with = "or_default")]
    from: Vec<RawGrantee>,
    #[serde(deserialize_with = "or_default")]
    to: Vec<RawReferent>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawGrantee {
    #[serde(deserialize_with = "or_default")]
    group: String,
    #[serde(deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawReferent {
    #[serde(deserialize_with = "or_default")]
    group: String,
    #[serde(deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    name: String,
}

watched!(ReferenceGrant, RawGrant, "gateway.networking.k8s.io", "v1", "ReferenceGrant", "referencegrants");
watched!(ReferenceGrantBeta, RawGrant, "gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants");

impl From<RawGrant> for ReferenceGrant {
    fn from(raw: RawGrant) -> Self {
        let RawGrant { metadata, spec } = raw;
        let grantee = |it: RawGrantee| Grantee { group: it.group.into(), kind: it.kind.into(), namespace: it.namespace.into() };
        // An empty name means all, as the Gateway API has it.
        let referent = |it: RawReferent| Referent { group: it.group.into(), kind: it.kind.into(), name: non_empty(it.name).map(Arc::from) };
        Self {
            namespace: metadata.namespace(),
            name: metadata.name.into(),
            from: spec.from.into_iter().map(grantee).collect(),
            to: spec.to.into_iter().map(referent).collect(),
        }
    }
}

impl From<RawGrant> for ReferenceGrantBeta {
    fn from(raw: RawGrant) -> Self {
        Self(raw.into())
    }
}
