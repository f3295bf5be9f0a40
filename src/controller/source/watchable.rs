//! The kinds that are watched, each decoded one object at a time.
//!
//! A list of a typed kind fails as a whole when one object does not decode. Leno's own kinds are open to what people write
//! and to other versions of the schema, so they are read as [`Lenient`]; Kubernetes' own are trimmed by types that take
//! whatever is there.

use std::fmt::Debug;

use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::Config;
use leno_api as api;
use leno_api::k8s::Watched;
use leno_translate::{Change, Kind, Object, ObjectKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Objects in one page of a list.
const PAGE: u32 = 1000;

/// How the first list of a kind is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// As a watch that begins with all objects: one at a time in both processes' memory. Of a kind that has none, the API server says so
    /// up to a second late, with its next bookmark.
    Streamed,
    /// Page by page, which every API server can.
    Paged,
}

impl Listing {
    /// What the watch is configured with.
    pub(super) fn config(self) -> Config {
        match self {
            Self::Streamed => Config::default().streaming_lists(),
            Self::Paged => Config::default().any_semantic().page_size(PAGE),
        }
    }
}

/// A kind that the mesh watches.
pub(super) trait Watchable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// What it is to the translator.
    const KIND: Kind;

    /// How its first list is fetched. Kubernetes' own kinds have objects in every cluster, and may have very many.
    const LISTING: Listing = Listing::Streamed;

    /// Whether clusters may do without it: then its absence is nothing to tell anybody, and another version of it may be there.
    const IS_OPTIONAL: bool = false;

    /// Which of its objects are asked for.
    fn selection(config: Config) -> Config {
        config
    }

    /// The change that an object of the kind stands for.
    fn change(self) -> Change;

    /// Names the object.
    fn key(&self) -> ObjectKey {
        let meta = self.meta();
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        ObjectKey { kind: Self::KIND, namespace: text(&meta.namespace), name: text(&meta.name) }
    }
}

impl Watchable for Watched<api::k8s::Service> {
    const KIND: Kind = Kind::Service;

    fn change(self) -> Change {
        Change::Apply(Object::Service(self.object))
    }
}

impl Watchable for Watched<api::k8s::EndpointSlice> {
    const KIND: Kind = Kind::EndpointSlice;

    /// Slices that belong to a Service; others are nobody's endpoints.
    fn selection(config: Config) -> Config {
        config.labels("kubernetes.io/service-name")
    }

    fn change(self) -> Change {
        Change::Apply(Object::EndpointSlice(self.object))
    }
}

impl Watchable for Watched<api::k8s::Pod> {
    const KIND: Kind = Kind::Pod;

    /// Pods that have not ended. The API server says that a pod is deleted when it leaves the selection.
    fn selection(config: Config) -> Config {
        config.fields("status.phase!=Succeeded,status.phase!=Failed")
    }

    fn change(self) -> Change {
        Change::Apply(Object::Pod(self.object))
    }
}

impl Watchable for Watched<api::k8s::ReferenceGrant> {
    const KIND: Kind = Kind::ReferenceGrant;
    const LISTING: Listing = Listing::Paged;
    const IS_OPTIONAL: bool = true;

    fn change(self) -> Change {
        Change::Apply(Object::ReferenceGrant(self.object))
    }
}

impl Watchable for Watched<api::k8s::ReferenceGrantBeta> {
    const KIND: Kind = Kind::ReferenceGrant;
    const LISTING: Listing = Listing::Paged;
    const IS_OPTIONAL: bool = true;

    fn change(self) -> Change {
        Change::Apply(Object::ReferenceGrant(self.object.0))
    }
}

impl Watchable for Lenient<api::MeshService> {
    const KIND: Kind = Kind::MeshService;
    const LISTING: Listing = Listing::Paged;

    fn change(self) -> Change {
        let key = self.key();
        self.change(key, |mut object| {
            object.metadata.managed_fields = None;
            Object::MeshService(Box::new(object))
        })
    }
}

impl Watchable for Lenient<api::TrafficPolicy> {
    const KIND: Kind = Kind::TrafficPolicy;
    const LISTING: Listing = Listing::Paged;

    fn change(self) -> Change {
        let key = self.key();
        self.change(key, |mut object| {
            object.metadata.managed_fields = None;
            Object::TrafficPolicy(object)
        })
    }
}

impl Watchable for Lenient<api::SecurityPolicy> {
    const KIND: Kind = Kind::SecurityPolicy;
    const LISTING: Listing = Listing::Paged;

    fn change(self) -> Change {
        let key = self.key();
        self.change(key, |mut object| {
            object.metadata.managed_fields = None;
            Object::SecurityPolicy(object)
        })
    }
}

/// An object whose metadata could be read, and the object itself if it could be too.
#[derive(Clone, Debug)]
pub(super) struct Lenient<T> {
    metadata: ObjectMeta,
    decoded: Result<T, String>,
}

impl<T> Lenient<T> {
    fn change(self, key: ObjectKey, object: impl FnOnce(T) -> Object) -> Change {
        match self.decoded {
            Ok(decoded) => Change::Apply(object(decoded)),
            Err(error) => Change::Unreadable { key, generation: self.metadata.generation, error },
        }
    }
}

/// What watching needs of any object.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let Head { metadata } = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        let decoded = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
            .map_err(|error| format!("{}: {}", error.path(), error.inner()));
        let metadata = ObjectMeta {
            name: Some(metadata.name),
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, decoded })
    }
}

impl<T: Resource<DynamicType = (), Scope = NamespaceResourceScope>> Resource for Lenient<T> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        T::kind(&())
    }

    fn group((): &()) -> std::borrow::Cow<'_, str> {
        T::group(&())
    }

    fn version((): &()) -> std::borrow::Cow<'_, str> {
        T::version(&())
    }

    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        T::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::api::{ObjectList, WatchEvent};

    use super::*;

    const GOOD: &str = r#"{"apiVersion":"leno.dev/v1alpha1","kind":"MeshService","metadata":{"name":"payment","namespace":"shop","generation":2,"managedFields":[{"manager":"kubectl"}]},"spec":{"service":"pay"}}"#;
    const BAD: &str = r#"{"apiVersion":"leno.dev/v1alpha1","kind":"MeshService","metadata":{"name":"odd","namespace":"shop","generation":3},"spec":{"hosts":7}}"#;

    #[test]
    fn one_object_that_cannot_be_read_leaves_the_rest_of_the_list_alone() {
        let list = format!(r#"{{"apiVersion":"leno.dev/v1alpha1","kind":"MeshServiceList","metadata":{{}},"items":[{BAD},{GOOD}]}}"#);
        let list: ObjectList<Lenient<api::MeshService>> = serde_json::from_str(&list).unwrap();
        let [odd, payment] = <[_; 2]>::try_from(list.items).unwrap().map(Watchable::change);
        let Change::Unreadable { key, generation, error } = odd else { panic!("{odd:?}") };
        assert_eq!((key.to_string().as_str(), generation), ("MeshService shop/odd", Some(3)));
        assert!(error.starts_with("spec.hosts: invalid type: integer `7`"), "{error}");
        let Change::Apply(Object::MeshService(payment)) = payment else { panic!("{payment:?}") };
        assert_eq!((payment.service_name(), &payment.metadata.managed_fields), ("pay", &None));
    }

    #[test]
    fn a_watch_event_of_an_object_that_cannot_be_read_is_still_an_event_of_it() {
        let event: WatchEvent<Lenient<api::MeshService>> =
            serde_json::from_str(&format!(r#"{{"type":"DELETED","object":{BAD}}}"#)).unwrap();
        let WatchEvent::Deleted(object) = event else { panic!("{event:?}") };
        assert_eq!(object.key().to_string(), "MeshService shop/odd");
    }
}
