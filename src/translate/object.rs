//! What comes in: objects, their keys, and changes of them.

use std::fmt;

use leno_api as api;
use leno_core::names::{Name, ServiceId};

/// One object of a kind that the mesh reads.
#[derive(Clone, Debug)]
pub enum Object {
    /// v1 Service.
    Service(api::k8s::Service),
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(api::k8s::EndpointSlice),
    /// v1 Pod.
    Pod(api::k8s::Pod),
    /// leno.dev/v1alpha1 MeshService.
    MeshService(Box<api::MeshService>),
    /// gateway.networking.k8s.io ReferenceGrant, v1 or v1beta1.
    ReferenceGrant(api::k8s::ReferenceGrant),
    /// leno.dev/v1alpha1 TrafficPolicy.
    TrafficPolicy(api::TrafficPolicy),
    /// leno.dev/v1alpha1 SecurityPolicy.
    SecurityPolicy(api::SecurityPolicy),
    /// leno.dev/v1alpha1 Workload (folders of manifests only).
    Workload(api::Workload),
}

/// The kinds of objects that the mesh reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// v1 Pod.
    Pod,
    /// leno.dev/v1alpha1 MeshService.
    MeshService,
    /// gateway.networking.k8s.io ReferenceGrant.
    ReferenceGrant,
    /// leno.dev/v1alpha1 TrafficPolicy.
    TrafficPolicy,
    /// leno.dev/v1alpha1 SecurityPolicy.
    SecurityPolicy,
    /// leno.dev/v1alpha1 Workload.
    Workload,
}

/// Names one object; displayed `TrafficPolicy shop/payment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

/// One change of one object.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all changes are the large variant, and each is consumed at once")]
pub enum Change {
    /// The object is now this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
    /// The object is there but did not decode. Its last good state is kept, and its report says so.
    Unreadable {
        /// Which object.
        key: ObjectKey,
        /// Its `metadata.generation`.
        generation: Option<i64>,
        /// What is wrong with it, in words.
        error: String,
    },
}

impl Kind {
    /// Every kind, in an order that builds a model with the fewest repeated touches.
    pub const ALL: [Self; 8] = [
        Self::Service,
        Self::MeshService,
        Self::ReferenceGrant,
        Self::TrafficPolicy,
        Self::SecurityPolicy,
        Self::EndpointSlice,
        Self::Pod,
        Self::Workload,
    ];
}

impl Object {
    /// Names the object. One without a namespace, which only files hold, is in `default`.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(it) => ObjectKey::new(Kind::Service, it.namespace.clone(), it.name.clone()),
            Self::EndpointSlice(it) => ObjectKey::new(Kind::EndpointSlice, it.namespace.clone(), it.name.clone()),
            Self::Pod(it) => ObjectKey::new(Kind::Pod, it.namespace.clone(), it.name.clone()),
            Self::ReferenceGrant(it) => ObjectKey::new(Kind::ReferenceGrant, it.namespace.clone(), it.name.clone()),
            Self::MeshService(it) => of_metadata(Kind::MeshService, it.metadata.namespace.as_deref(), it.metadata.name.as_deref()),
            Self::TrafficPolicy(it) => of_metadata(Kind::TrafficPolicy, it.metadata.namespace.as_deref(), it.metadata.name.as_deref()),
            Self::SecurityPolicy(it) => of_metadata(Kind::SecurityPolicy, it.metadata.namespace.as_deref(), it.metadata.name.as_deref()),
            Self::Workload(it) => of_metadata(Kind::Workload, it.metadata.namespace.as_deref(), it.metadata.name.as_deref()),
        }
    }
}

fn of_metadata(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> ObjectKey {
    ObjectKey::new(kind, namespace.filter(|it| !it.is_empty()).unwrap_or("default"), name.unwrap_or_default())
}

impl Change {
    /// Names the object that changed.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Apply(object) => object.key(),
            Self::Delete(key) | Self::Unreadable { key, .. } => key.clone(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::MeshService => "MeshService",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::SecurityPolicy => "SecurityPolicy",
            Self::Workload => "Workload",
        })
    }
}

impl ObjectKey {
    /// The key of the `kind` called `name` in `namespace`.
    pub fn new(kind: Kind, namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The key of the Service that `service` stands for.
    pub fn of_service(service: &ServiceId) -> Self {
        Self { kind: Kind::Service, namespace: service.namespace.clone(), name: service.name.clone() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
