//! The translator: the present state of all objects, and the model computed from it.

use std::net::SocketAddr;

use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::{ServiceId, WorkloadId};
use leno_core::service::Service;
use leno_core::workload::Workload;

use crate::object::{Change, Kind, ObjectKey};
use crate::report::Report;
use crate::touched::Touched;

/// The state of all objects, and what they mean together. See the crate's documentation.
#[derive(Debug)]
pub struct Translator {
    cluster_domain: Box<str>,
}

impl Translator {
    /// A translator that has seen nothing yet. `cluster_domain` is the DNS domain of the cluster, mostly `cluster.local`.
    pub fn new(cluster_domain: &str) -> Self {
        Self { cluster_domain: cluster_domain.into() }
    }

    /// Takes in one change. The cost is that of the one object and of the services it touches.
    pub fn apply(&mut self, change: Change) -> Touched {
        todo!("{change:?}")
    }

    /// Takes in a whole list of one kind: what is absent is deleted, what is equal touches nothing.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Change>) -> Touched {
        todo!("{kind} {objects:?}")
    }

    /// The service, if it is in the mesh.
    pub fn service(&self, id: &ServiceId) -> Option<Service> {
        todo!("{id}")
    }

    /// The endpoints of one port of a service in the mesh.
    pub fn endpoints(&self, id: &EndpointsId) -> Option<Endpoints> {
        todo!("{id}")
    }

    /// What a proxy beside the pod or workload needs to know of it.
    pub fn workload(&self, id: &WorkloadId) -> Option<Workload> {
        todo!("{id}")
    }

    /// The service at a virtual address and one of its ports.
    pub fn find_address(&self, address: SocketAddr) -> Option<ServiceId> {
        todo!("{address}")
    }

    /// The service that `host` (without port) means to a caller in `namespace`.
    pub fn find_host(&self, host: &str, namespace: &str) -> Option<ServiceId> {
        todo!("{host} {namespace}")
    }

    /// Every service in the mesh, ordered.
    pub fn services(&self) -> impl Iterator<Item = &ServiceId> {
        std::iter::empty()
    }

    /// What is said about a MeshService or TrafficPolicy.
    pub fn report(&self, key: &ObjectKey) -> Option<Report> {
        todo!("{key}")
    }
}
