//! The mesh on a laptop: keeps a proxy for each service and workload of the folder, and passes the objects on.
//!
//! In: what the folder says. Out: the same for the publisher, with workloads at their sidecars' addresses. In between proxies
//! are started, replaced and ended, so that an endpoint is never told before its sidecar listens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leno_api as api;
use leno_controller::source::SourceEvent;
use leno_core::names::{ServiceId, WorkloadId};
use leno_proxy::boot::Proxy;
use leno_proxy::telemetry::Registry;
use leno_translate::{Change, Kind, Object, ObjectKey};

use super::processes::{Process, Processes};
use super::proxies::{self, App, Gateway, Sidecar, Start};
use super::rewrite::behind_sidecar;
use super::says::Says;
use super::state::State;

/// How long a replaced proxy's connections may take to end.
const REPLACED_BOUND: Duration = Duration::from_secs(10);

/// Proxies and processes by what they are for.
pub struct Mesh {
    start: Start,
    says: Says,
    sidecars: BTreeMap<WorkloadId, Sidecar>,
    gateways: BTreeMap<ServiceId, Gateway>,
    processes: Processes,
}

impl Mesh {
    /// A mesh of nothing yet.
    pub fn new(start: Start, says: Says) -> Self {
        Self { start, processes: Processes::new(says.clone()), says, sidecars: BTreeMap::new(), gateways: BTreeMap::new() }
    }

    /// Takes in the first lists, all at once: which ports apps have is known before services get theirs.
    pub fn begin(&mut self, lists: Vec<SourceEvent>) -> Vec<SourceEvent> {
        let (workloads, others): (Vec<_>, Vec<_>) =
            lists.into_iter().partition(|event| matches!(event, SourceEvent::Listed(Kind::Workload, _)));
        workloads.into_iter().chain(others).map(|event| self.take(event)).collect()
    }

    /// Takes in one event; gives it as the publisher is to see it.
    pub fn take(&mut self, event: SourceEvent) -> SourceEvent {
        match event {
            SourceEvent::Listing(_) | SourceEvent::Whole(_) | SourceEvent::Keys(..) | SourceEvent::Addresses(..) => event,
            SourceEvent::Changed(change) => SourceEvent::Changed(self.change(change)),
            SourceEvent::Listed(kind, changes) => {
                let listed: BTreeSet<ObjectKey> = changes.iter().map(Change::key).collect();
                self.retain(kind, &listed);
                SourceEvent::Listed(kind, changes.into_iter().map(|change| self.change(change)).collect())
            }
        }
    }

    fn change(&mut self, change: Change) -> Change {
        match change {
            Change::Apply(Object::Workload(workload)) => self.workload(workload),
            Change::Apply(object) => {
                if let Object::Service(service) = &object {
                    self.service(service);
                }
                Change::Apply(object)
            }
            Change::Delete(key) => {
                self.remove(&key);
                Change::Delete(key)
            }
            Change::Unreadable { .. } => change,
        }
    }

    /// A workload is there: its sidecar, then its process, then the object as others are to see it.
    fn workload(&mut self, workload: api::Workload) -> Change {
        let key = Object::Workload(workload.clone()).key();
        let id = WorkloadId::new(key.namespace.clone(), key.name.clone());
        let app = App::of(&workload);
        if self.sidecars.get(&id).is_none_or(|sidecar| !sidecar.is_for(&app)) {
            match self.start.sidecar(&id, app, self.sidecars.get(&id)) {
                Ok(sidecar) => {
                    self.says.line(&format!("workload {id}: outbound {}, admin {}", sidecar.state().outbound, sidecar.state().admin));
                    let replaced = self.sidecars.insert(id.clone(), sidecar);
                    end_later(replaced.map(Sidecar::into_proxy));
                }
                Err(error) => {
                    self.says.line(&format!("workload {id}: its sidecar cannot start, so it is left out: {error}"));
                    self.remove(&key);
                    return Change::Delete(key);
                }
            }
        }
        let sidecar = &self.sidecars[&id];
        self.processes.keep(&id, Process::of(&workload, sidecar.state().outbound));
        let inbound = sidecar.inbound.clone();
        Change::Apply(Object::Workload(behind_sidecar(workload, inbound)))
    }

    fn service(&mut self, service: &api::k8s::Service) {
        let id = ServiceId::new(service.namespace.clone(), service.name.clone());
        let ports = tcp_ports(service);
        if ports.is_empty() {
            end_later(self.gateways.remove(&id).map(Gateway::into_proxy));
            return;
        }
        if self.gateways.get(&id).is_some_and(|gateway| gateway.has_just(&ports)) {
            return;
        }
        let sidecars = &self.sidecars;
        let is_app = |port| sidecars.values().any(|sidecar| sidecar.app().has(port));
        match self.start.gateway(&id, &ports, is_app, self.gateways.get(&id)) {
            Ok(gateway) => {
                for (port, address) in &gateway.addresses {
                    self.says.line(&format!("service {id}:{port} is at {address}"));
                }
                let replaced = self.gateways.insert(id, gateway);
                end_later(replaced.map(Gateway::into_proxy));
            }
            Err(error) => self.says.line(&format!("service {id} has no address: {error}")),
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        match key.kind {
            Kind::Workload => {
                let id = WorkloadId::new(key.namespace.clone(), key.name.clone());
                self.processes.end(&id);
                if let Some(sidecar) = self.sidecars.remove(&id) {
                    self.start.tokens.take(&id);
                    self.says.line(&format!("workload {id} is gone"));
                    end_later(Some(sidecar.into_proxy()));
                }
            }
            Kind::Service => {
                let id = ServiceId::new(key.namespace.clone(), key.name.clone());
                if let Some(gateway) = self.gateways.remove(&id) {
                    self.start.tokens.take(&proxies::caller_through(&id));
                    self.says.line(&format!("service {id} is gone"));
                    end_later(Some(gateway.into_proxy()));
                }
            }
            Kind::EndpointSlice | Kind::Pod | Kind::MeshService | Kind::ReferenceGrant | Kind::TrafficPolicy | Kind::SecurityPolicy => {}
        }
    }

    /// Ends what a list of `kind` does not name.
    fn retain(&mut self, kind: Kind, listed: &BTreeSet<ObjectKey>) {
        let key = |namespace: &Arc<str>, name: &Arc<str>| ObjectKey::new(kind, Arc::clone(namespace), Arc::clone(name));
        let held: Vec<ObjectKey> = match kind {
            Kind::Workload => self.sidecars.keys().map(|id| key(&id.namespace, &id.name)).collect(),
            Kind::Service => self.gateways.keys().map(|id| key(&id.namespace, &id.name)).collect(),
            Kind::EndpointSlice | Kind::Pod | Kind::MeshService | Kind::ReferenceGrant | Kind::TrafficPolicy | Kind::SecurityPolicy => {
                Vec::new()
            }
        };
        for key in held.iter().filter(|key| !listed.contains(key)) {
            self.remove(key);
        }
    }

    /// Where everything is found.
    pub fn state(&self) -> State {
        State {
            services: self.gateways.iter().map(|(id, gateway)| (id.clone(), gateway.addresses.clone())).collect(),
            workloads: self.sidecars.iter().map(|(id, sidecar)| (id.clone(), sidecar.state())).collect(),
        }
    }

    /// The counters of every proxy.
    pub fn registries(&self) -> Vec<Arc<Registry>> {
        self.sidecars.values().map(Sidecar::registry).chain(self.gateways.values().map(Gateway::registry)).collect()
    }

    /// The sidecars' proxies, to wait until they carry traffic.
    pub fn sidecars(&self) -> impl Iterator<Item = &Proxy> {
        self.sidecars.values().map(Sidecar::proxy)
    }

    /// Ends everything in the order in which nobody misses what has ended: who only calls, then proxies, then apps.
    pub async fn end(mut self, bound: Duration) {
        let callers: Vec<_> = self.sidecars.iter().filter(|(_, sidecar)| sidecar.inbound.is_empty()).map(|(id, _)| id.clone()).collect();
        for id in &callers {
            self.processes.end(id);
        }
        self.processes.ended().await;
        let gateways = self.gateways.into_values().map(Gateway::into_proxy);
        let proxies = gateways.chain(self.sidecars.into_values().map(Sidecar::into_proxy)).collect();
        if tokio::task::spawn_blocking(move || proxies::end(proxies, bound)).await.is_err() {
            tracing::error!("ending the proxies failed");
        }
        self.processes.end_all();
        self.processes.ended().await;
    }
}

/// The ports of a service that the mesh carries: none of one that leads outside.
fn tcp_ports(service: &api::k8s::Service) -> Vec<u16> {
    if &*service.kind == "ExternalName" {
        return Vec::new();
    }
    let mut ports: Vec<u16> = service.ports.iter().filter(|port| &*port.protocol == "TCP").map(|port| port.port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Ends a proxy that was replaced or is not needed any more, beside everything else.
fn end_later(proxy: Option<Proxy>) {
    if let Some(proxy) = proxy {
        tokio::task::spawn_blocking(move || proxies::end(vec![proxy], REPLACED_BOUND));
    }
}
