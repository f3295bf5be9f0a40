//! What one proxy itself is: the workload it stands beside.

use crate::authorize::Guard;
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
}

impl Workload {
    /// What is known of the container port `number`.
    pub fn inbound(&self, number: u16) -> Option<&InboundPort> {
        self.inbound.iter().find(|port| port.port == number)
    }

    /// What holds for connections to the container port `number`.
    pub fn guard(&self, number: u16) -> &Guard {
        self.inbound(number).map_or(&self.others, |port| &port.guard)
    }
}
