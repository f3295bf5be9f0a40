//! Leno's API: what people write, and the parts of Kubernetes' own objects that the mesh reads.
//!
//! [`MeshService`], [`TrafficPolicy`] and [`SecurityPolicy`] are custom resources; `crds/` is generated from them ([`crds`]). [`Workload`] exists
//! only in folders of manifests. [`k8s`] holds trimmed forms of Service, EndpointSlice, Pod and the Gateway API's ReferenceGrant.
//!
//! Decoding is lenient, so that no odd object stops a list; [`check()`] is strict, for people's files: it holds an object
//! against the very schema that the API server enforces.
//!
//! Reading order: [`mesh_service`], [`load_balancer`], [`traffic_policy`], [`retry`], [`filters`], [`fault`], [`cors`], [`security_policy`], [`status`], [`duration`], [`rules`], [`schema`], [`mod@check`], [`k8s`].

pub mod check;
pub mod cors;
pub mod duration;
pub mod fault;
pub mod filters;
pub mod k8s;
pub mod load_balancer;
pub mod mesh_service;
pub mod mirror;
pub mod rate_limit;
pub mod resilience;
pub mod retry;
pub mod rules;
pub mod schema;
pub mod security_policy;
pub mod status;
pub mod traffic_policy;
pub mod workload;

pub use check::{Problem, check};
pub use duration::Duration;
pub use mesh_service::{MeshService, MeshServiceSpec, MeshServiceStatus};
pub use schema::{crd_yaml, crds};
pub use security_policy::{SecurityPolicy, SecurityPolicySpec, SecurityPolicyStatus};
pub use traffic_policy::{TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus};
pub use workload::{Workload, WorkloadSpec};

/// The API group of Leno's own kinds.
pub const GROUP: &str = "leno.dev";

/// The version of Leno's own kinds.
pub const VERSION: &str = "v1alpha1";
