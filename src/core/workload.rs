//! What one proxy itself is: the workload it stands beside.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::authorize::Guard;
use crate::concurrency::AdaptiveConcurrency;
use crate::names::{Name, ServiceId, WorkloadId};
use crate::service::Protocol;

/// The workload (pod) a proxy belongs to, as the proxy needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its own name.
    pub id: WorkloadId,
    /// The container ports that services lead to, ordered by number.
    pub inbound: Vec<InboundPort>,
    /// What holds for ports that no service leads to.
    pub others: Guard,
    /// Where its app may connect to outside the mesh.
    pub egress: Egress,
    /// The ports of everything outside that is registered, ordered: at these alone an address that nobody knows may be one of it.
    pub outside_ports: Vec<u16>,
    /// Networks whose addresses are never outside (those of pods, which may be dialled without a service).
    pub inside: Vec<IpNet>,
    /// The zone it runs in, where that is known.
    pub zone: Option<Name>,
}

/// Where an app may connect to outside the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Anywhere.
    #[default]
    Allow,
    /// Only to what a MeshService registers (`spec.external`).
    RegisteredOnly,
}

/// A port of the workload that a service leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPort {
    /// The container's port.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The service that leads here (the first by name, where several do).
    pub service: ServiceId,
    /// The service's version this workload belongs to, if it has one.
    pub version: Option<Name>,
    /// What holds for connections to it.
    pub guard: Guard,
    /// How it is learnt how many requests the app bears at once there; `None`: it gets all that come.
    pub concurrency: Option<AdaptiveConcurrency>,
}

impl Workload {
    /// A workload of which nothing is known but its name: no service leads to it, and it may connect anywhere.
    pub fn new(id: WorkloadId) -> Self {
        let (others, egress) = (Guard::default(), Egress::default());
        Self { id, inbound: Vec::new(), others, egress, outside_ports: Vec::new(), inside: Vec::new(), zone: None }
    }

    /// What is known of the container port `number`.
    pub fn inbound(&self, number: u16) -> Option<&InboundPort> {
        self.inbound.iter().find(|port| port.port == number)
    }

    /// Whether the app may not connect to `address` unless something registered is there.
    pub fn is_closed_to(&self, address: IpAddr) -> bool {
        self.egress == Egress::RegisteredOnly && !self.inside.iter().any(|network| network.contains(&address))
    }

    /// What holds for connections to the container port `number`.
    pub fn guard(&self, number: u16) -> &Guard {
        self.inbound(number).map_or(&self.others, |port| &port.guard)
    }
}
