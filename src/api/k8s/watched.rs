//! A trimmed object together with the metadata that watching needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::labels::Labels;
use super::lenient::{non_empty, or_default};
use super::pod::Owner;

/// An object as a list or a watch gives it: `Api<Watched<Pod>>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched<T> {
    /// What watching needs: name, namespace, uid, resource version and generation, nothing else.
    pub metadata: ObjectMeta,
    /// What the mesh keeps.
    pub object: T,
}

/// What is decoded of `metadata`, of every kind.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawMeta {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) uid: String,
    resource_version: Option<String>,
    pub(super) generation: Option<i64>,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<RawOwner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawOwner {
    #[serde(deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    name: String,
}

impl RawMeta {
    /// The metadata that watching needs.
    pub(super) fn for_watching(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: Some(self.uid.clone()).filter(|uid| !uid.is_empty()),
            resource_version: self.resource_version.clone(),
            generation: self.generation,
            ..ObjectMeta::default()
        }
    }

    /// The namespace; a manifest without one means `default`, as for kubectl.
    pub(super) fn namespace(&self) -> Arc<str> {
        if self.namespace.is_empty() { "default".into() } else { self.namespace.as_str().into() }
    }

    pub(super) fn labels(&self) -> Labels {
        self.labels.iter().collect()
    }

    /// The annotations that are Leno's.
    pub(super) fn annotations(&self) -> Labels {
        self.annotations.iter().filter(|(key, _)| key.starts_with("leno.dev/")).collect()
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub(super) fn owner(&mut self) -> Option<Owner> {
        let first = self.owner_references.drain(..).next()?;
        Some(Owner { kind: non_empty(first.kind)?, name: non_empty(first.name)? })
    }
}

/// Makes `Watched<$object>` a kind that can be listed and watched, decoded by way of `$raw`.
macro_rules! watched {
    ($object:ty, $raw:ty, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl<'de> serde::Deserialize<'de> for $crate::k8s::Watched<$object> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let raw = <$raw as serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self { metadata: raw.metadata.for_watching(), object: raw.into() })
            }
        }

        impl kube::Resource for $crate::k8s::Watched<$object> {
            type DynamicType = ();
            type Scope = kube::core::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &kube::core::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(super) use watched;
