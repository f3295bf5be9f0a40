//! The present value of a service, and of a workload.

use std::collections::BTreeMap;

use leno_core::authorize::Guard;
use leno_core::names::Name;
use leno_core::service as core;
use leno_core::service::Protocol;
use leno_core::workload::{Egress, InboundPort, Workload};

use crate::backing::Pod;
use crate::mesh::Mesh;
use crate::namespace::Namespace;
use crate::service::{Port, Service};

impl Namespace {
    /// The service called `name`, if it is in the mesh.
    pub(crate) fn service(&self, name: &str) -> Option<core::Service> {
        let service = self.mesh_service(name)?;
        let mesh = self.mesh_in_force(name).map(|(_, mesh)| mesh);
        let mesh = mesh.as_deref();
        let ports = service.ports.iter().map(|port| core::ServicePort { port: port.number, protocol: protocol(port, mesh) });
        Some(core::Service {
            id: service.id.clone(),
            vips: service.vips.to_vec(),
            hosts: mesh.map(|mesh| mesh.hosts.clone()).unwrap_or_default(),
            ports: ports.collect(),
            balancer: mesh.map(|mesh| mesh.balancer).unwrap_or_default(),
            routes: self.routes(service, mesh),
        })
    }

    /// What the pod or workload called `name` is, if it is known, be it only by slices that name it.
    pub(crate) fn workload(&self, name: &str) -> Option<Workload> {
        let pod = self.pods.get_key_value(name);
        let local = self.locals.get_key_value(name);
        let (stored, _) = pod.map(|(name, _)| (name, ())).or(local.map(|(name, _)| (name, ())))?;
        let mut inbound = BTreeMap::new();
        for (service, _) in pod.into_iter().flat_map(|(_, pod)| &pod.services) {
            if let Some(service) = self.mesh_service(service) {
                self.inbound_of_pod(stored, service, &mut inbound);
            }
        }
        if let Some((_, local)) = local {
            for service in self.services.values().filter(|service| !service.external && service.selects(local.labels())) {
                let mesh = self.mesh_in_force(&service.id.name).map(|(_, mesh)| mesh);
                let version = mesh.as_deref().and_then(|mesh| mesh.versions_of(Some(local.labels())).next().cloned());
                let ports = service.ports.iter().filter_map(|port| Some((port, local.port(&port.target)?)));
                ports.for_each(|(port, number)| add(&mut inbound, number, port, service, mesh.as_deref(), version.as_ref()));
            }
        }
        Some(Workload {
            id: self.workload_id(stored),
            inbound: inbound.into_values().collect(),
            others: Guard::default(),
            egress: Egress::default(),
        })
    }

    /// Adds the ports of the pod called `name` to which `service` leads.
    fn inbound_of_pod(&self, name: &Name, service: &Service, inbound: &mut BTreeMap<u16, InboundPort>) {
        let mesh = self.mesh_in_force(&service.id.name).map(|(_, mesh)| mesh);
        let labels = self.pods.get(name).and_then(Pod::labels);
        let version = mesh.as_deref().and_then(|mesh| mesh.versions_of(labels).next().cloned());
        for slice in self.slices_of(&service.id.name).iter().filter(|slice| slice.pods().any(|pod| pod == name)) {
            let ports = service.ports.iter().filter_map(|port| Some((port, slice.port(&port.name)?)));
            ports.for_each(|(port, number)| add(inbound, number, port, service, mesh.as_deref(), version.as_ref()));
        }
    }
}

/// Adds that `port` of `service` leads to the container's port `number`. Of several services that lead there the first by name
/// is kept, and of several ports of one service the lowest.
fn add(inbound: &mut BTreeMap<u16, InboundPort>, number: u16, port: &Port, service: &Service, mesh: Option<&Mesh>, version: Option<&Name>) {
    let new = InboundPort {
        port: number,
        protocol: protocol(port, mesh),
        service: service.id.clone(),
        version: version.cloned(),
        guard: Guard::default(),
    };
    match inbound.get_mut(&number) {
        Some(known) if known.service <= new.service => (),
        Some(known) => *known = new,
        None => drop(inbound.insert(number, new)),
    }
}

/// What is spoken on `port`: what the MeshService says, else the Service.
fn protocol(port: &Port, mesh: Option<&Mesh>) -> Protocol {
    mesh.and_then(|mesh| mesh.protocol(port.number)).unwrap_or(port.protocol)
}
