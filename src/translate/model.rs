//! The present value of a service, and of a workload.

use std::collections::BTreeMap;

use leno_core::authorize::Guard;
use leno_core::names::Name;
use leno_core::service as core;
use leno_core::service::Protocol;
use leno_core::workload::{InboundPort, Workload};

use crate::backing::{Local, Pod};
use crate::grant::Namespaces;
use crate::guard::{Guards, KeySets, Lead};
use crate::mesh::Mesh;
use crate::namespace::Namespace;
use crate::service::Port;
use crate::zones::Nodes;

impl Namespace {
    /// The service called `name`, if it is in the mesh. `all` are the namespaces to which its routes may lead.
    pub(crate) fn service(&self, name: &str, all: &Namespaces) -> Option<core::Service> {
        let service = self.mesh_service(name)?;
        let is_outside = self.is_outside(name);
        let mesh = self.mesh_in_force(name).map(|(_, mesh)| mesh);
        let mesh = mesh.as_deref();
        let ports = service.ports.iter().map(|port| core::ServicePort { port: port.number, protocol: protocol(port, mesh) });
        Some(core::Service {
            id: service.id.clone(),
            // Addresses outside come and go as DNS has it; proxies need them as endpoints only.
            vips: if is_outside { Vec::new() } else { service.vips.to_vec() },
            hosts: mesh.map(|mesh| mesh.hosts.clone()).unwrap_or_default(),
            ports: ports.collect(),
            routes: self.routes(service, mesh, all),
            outside: is_outside,
        })
    }

    /// What the pod or workload called `name` is, if it is known, be it only by slices that name it. `keys` are those of issuers,
    /// `outside_ports` those of everything outside, `nodes` say in which zone they are.
    pub(crate) fn workload(&self, name: &str, keys: &KeySets, outside_ports: &[u16], nodes: &Nodes) -> Option<Workload> {
        let pod = self.pods.get_key_value(name).map(|(name, _)| name);
        let stored = pod.or_else(|| self.locals.get_key_value(name).map(|(name, _)| name))?;
        let leads = self.leads(stored);
        let guards = Guards::new(self, stored, &leads, keys);
        let mut inbound: BTreeMap<u16, &Lead<'_>> = BTreeMap::new();
        for lead in &leads {
            // Of several services that lead to a port the first by name is kept, and of several ports of one service the lowest.
            let place = inbound.entry(lead.number).or_insert(lead);
            if (&lead.service.id, lead.port.number) < (&place.service.id, place.port.number) {
                *place = lead;
            }
        }
        let inbound = inbound.into_values().map(|lead| self.inbound(stored, lead, guards.of(lead.number)));
        Some(Workload {
            id: self.workload_id(stored),
            inbound: inbound.collect(),
            others: guards.others(),
            egress: guards.egress(),
            outside_ports: outside_ports.to_vec(),
            inside: self.defaults.inside.clone(),
            zone: self.zone(stored, nodes),
        })
    }

    /// The port of the pod or workload called `name` to which `lead` leads.
    fn inbound(&self, name: &Name, lead: &Lead<'_>, guard: Guard) -> InboundPort {
        let mesh = self.mesh_in_force(&lead.service.id.name).map(|(_, mesh)| mesh);
        let labels = self.pods.get(name).and_then(Pod::labels).or_else(|| self.locals.get(name).map(Local::labels));
        InboundPort {
            port: lead.number,
            protocol: protocol(lead.port, mesh.as_deref()),
            service: lead.service.id.clone(),
            version: mesh.as_deref().and_then(|mesh| mesh.versions_of(labels).next().cloned()),
            guard,
            concurrency: mesh.as_deref().and_then(|mesh| mesh.concurrency),
        }
    }
}

/// What is spoken on `port`: what the MeshService says, else the Service.
pub(crate) fn protocol(port: &Port, mesh: Option<&Mesh>) -> Protocol {
    mesh.and_then(|mesh| mesh.protocol(port.number)).unwrap_or(port.protocol)
}
