//! The Kubernetes objects that the mesh watches, trimmed at decode to what routing and identity need.
//!
//! Decoding is lenient: what is missing or null has its default, enumerations are read from text, an address that cannot be
//! read is left out. So one odd object never fails a list, and a pod costs about 0.7 KiB, whatever it is made of.
//!
//! Watch them as [`Watched`] (`Api<Watched<Pod>>`); keep only [`Watched::object`].

mod endpoint_slice;
mod labels;
mod lenient;
mod pod;
mod reference_grant;
mod service;
mod watched;

pub use endpoint_slice::{Endpoint, EndpointPort, EndpointSlice};
pub use labels::Labels;
pub use pod::{ContainerPort, Owner, Phase, Pod};
pub use reference_grant::{Grantee, ReferenceGrant, ReferenceGrantBeta, Referent};
pub use service::{Service, ServicePort, TargetPort};
pub use watched::Watched;
