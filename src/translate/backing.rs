//! What is kept of endpoint slices, pods and workloads: there are many, so it is little.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use leno_api as api;
use leno_api::k8s::{Labels, TargetPort};
use leno_core::names::Name;

use crate::member::{Member, SharedNames};

/// An EndpointSlice, as much as the model needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Its name.
    pub(crate) name: Name,
    /// TCP ports of every endpoint: the name of the service's port, and what is listened on.
    pub(crate) ports: Box<[(Box<str>, u16)]>,
    /// Its endpoints.
    pub(crate) endpoints: Box<[SliceEndpoint]>,
}

/// One endpoint of a slice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    /// Its address.
    pub(crate) address: IpAddr,
    /// The pod behind it.
    pub(crate) pod: Option<Name>,
    /// Whether it may be given requests.
    pub(crate) state: State,
    /// The zone it is in.
    pub(crate) zone: Option<Name>,
    /// The node it runs on.
    pub(crate) node: Option<Name>,
}

/// Whether an endpoint may be given requests. The order is that of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It may.
    Ready,
    /// It ends, but still answers: it may where nobody is ready (KEP-1669).
    Draining,
    /// It may not.
    Down,
}

/// A pod, as much as the model needs; also a pod that slices name before it is known.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// What it is; `None` while it is not known.
    pub(crate) member: Option<Member>,
    /// Services whose slices name it, with how many endpoints do.
    pub(crate) services: Vec<(Name, u32)>,
}

/// A process that is not a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// What it is.
    pub(crate) member: Member,
    /// Where it listens.
    address: IpAddr,
    /// What it listens on: name (empty when it has none) and number.
    pub(crate) ports: Box<[(Box<str>, u16)]>,
    /// Where its sidecar takes traffic for a port.
    sidecar: BTreeMap<u16, SocketAddr>,
}

impl Slice {
    /// What to keep of `slice`. The pods' names are those of `shared` and those of zones and nodes those of `places`, so that each is
    /// stored once.
    pub(crate) fn new(slice: api::k8s::EndpointSlice, mut shared: impl FnMut(Name) -> Name, places: &mut SharedNames) -> Self {
        let ports = slice.ports.into_vec().into_iter().filter(|port| &*port.protocol == "TCP");
        let endpoints = slice.endpoints.into_vec().into_iter().map(|it| SliceEndpoint {
            address: it.address,
            state: match (it.ready, it.serving && it.terminating) {
                (true, _) => State::Ready,
                (false, true) => State::Draining,
                (false, false) => State::Down,
            },
            pod: it.pod.map(&mut shared),
            zone: it.zone.map(|zone| places.get(&zone)),
            node: it.node.map(|node| places.get(&node)),
        });
        Self {
            name: slice.name,
            ports: ports.filter_map(|port| Some((port.name.unwrap_or_default(), port.port?))).collect(),
            endpoints: endpoints.collect(),
        }
    }

    /// The pods it names; a pod may come more than once.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Name> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref())
    }

    /// The pods it names, each with the zone that it says of it.
    pub(crate) fn pods_in_zones(&self) -> impl Iterator<Item = (&Name, Option<&Name>)> {
        self.endpoints.iter().filter_map(|endpoint| Some((endpoint.pod.as_ref()?, endpoint.zone.as_ref())))
    }

    /// The nodes of which it says the zone; a node may come more than once.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (Name, Name)> {
        self.endpoints.iter().filter_map(|endpoint| Some((endpoint.node.clone()?, endpoint.zone.clone()?)))
    }

    /// What its endpoints listen on for the service's port called `name`.
    pub(crate) fn port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(port, _)| **port == *name).map(|(_, number)| *number)
    }
}

impl Pod {
    /// Whether nothing is left to remember.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.member.is_none() && self.services.is_empty()
    }

    /// Its labels, if it is known.
    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.member.as_ref().map(|member| &member.labels)
    }

    /// One more endpoint of `service` names the pod.
    pub(crate) fn link(&mut self, service: &Name) {
        match self.services.iter_mut().find(|(name, _)| name == service) {
            Some((_, count)) => *count += 1,
            None => {
                // Mostly one service per pod: no room for more than there are.
                self.services.reserve_exact(1);
                self.services.push((service.clone(), 1));
            }
        }
    }

    /// One endpoint of `service` less names the pod.
    pub(crate) fn unlink(&mut self, service: &Name) {
        for (_, count) in self.services.iter_mut().filter(|(name, _)| name == service) {
            *count = count.saturating_sub(1);
        }
        self.services.retain(|(_, count)| *count > 0);
    }
}

impl Local {
    /// What to keep of `workload`, which is `member`.
    pub(crate) fn new(workload: &api::Workload, member: Member) -> Self {
        let ports = workload.spec.ports.iter().map(|port| (port.name.as_deref().unwrap_or_default().into(), port.port));
        Self { member, address: workload.spec.address, ports: ports.collect(), sidecar: workload.spec.sidecar.clone() }
    }

    /// Its labels.
    pub(crate) fn labels(&self) -> &Labels {
        &self.member.labels
    }

    /// Where its port `number` is reached.
    pub(crate) fn reached_at(&self, number: u16) -> SocketAddr {
        self.sidecar.get(&number).copied().unwrap_or_else(|| SocketAddr::new(self.address, number))
    }

    /// The port it listens on that `target` means.
    pub(crate) fn port(&self, target: &TargetPort) -> Option<u16> {
        let found = self.ports.iter().find(|(name, number)| match target {
            TargetPort::Number(wanted) => number == wanted,
            TargetPort::Name(wanted) => name == wanted,
        });
        found.map(|(_, number)| *number)
    }
}
