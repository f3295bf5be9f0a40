//! The present endpoints of a service port, and how many there are.
//!
//! A pod that is in an IPv4 and in an IPv6 slice is one endpoint, with its address in the family of the service's first
//! cluster IP (IPv4 for a headless service): an app may listen on one family only, and it would get twice its share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use leno_core::authorize::Mode;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
use leno_core::names::{Identity, Name};

use crate::backing::{Pod, Slice, State};
use crate::member::{Member, SaidWeight};
use crate::mesh::Mesh;
use crate::model::protocol;
use crate::namespace::Namespace;
use crate::outside::Outside;
use crate::report::EndpointCounts;
use crate::resilience;
use crate::service::{Port, Service};

/// Something that may serve, before the choice among families and states.
struct Candidate<'a> {
    address: SocketAddr,
    workload: Option<&'a Name>,
    state: State,
    versions: Vec<Name>,
    identity: Option<Arc<Identity>>,
    zone: Option<Name>,
    weight: EndpointWeight,
}

impl Namespace {
    /// The endpoints of port `number` of the service called `name`.
    pub(crate) fn endpoints(&self, name: &str, number: u16) -> Option<Endpoints> {
        let service = self.mesh_service(name)?;
        let port = service.port(number)?;
        if let Some(mesh) = self.outside(name) {
            let resilience = mesh.resilience.as_ref().map(|it| resilience::at_port(it, protocol(port, Some(&mesh))));
            let balancing = mesh.balancing.clone();
            let all = |outside| Endpoints { resilience, balancing, ..outside_endpoints(service, number, outside) };
            return mesh.outside.as_ref().map(all);
        }
        let mut candidates = self.candidates(service, port);
        // Ready ones; those that drain only where nobody is ready (KEP-1669).
        let best = candidates.iter().map(|candidate| candidate.state).min().filter(|state| *state != State::Down);
        candidates.retain(|candidate| Some(candidate.state) == best);
        keep_one_family(&mut candidates, service.prefers_ipv6());
        let mut endpoints: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
        for candidate in candidates {
            let workload = candidate.workload.cloned().unwrap_or_else(|| Name::from(""));
            let Candidate { address, versions, identity, zone, weight, .. } = candidate;
            let new = Endpoint { address, workload, versions, identity, weight, zone };
            match endpoints.get_mut(&address) {
                Some(known) if known.workload.is_empty() => *known = new,
                Some(_) => (),
                None => drop(endpoints.insert(address, new)),
            }
        }
        let mesh = self.mesh_in_force(name).map(|(_, mesh)| mesh);
        let resilience = mesh.as_ref().and_then(|mesh| Some(resilience::at_port(mesh.resilience.as_ref()?, protocol(port, Some(mesh)))));
        Some(Endpoints {
            endpoints: endpoints.into_values().collect(),
            resilience,
            balancing: mesh.and_then(|mesh| mesh.balancing.clone()),
            ..Endpoints::new(EndpointsId::new(service.id.clone(), number))
        })
    }

    fn candidates<'a>(&'a self, service: &'a Service, port: &Port) -> Vec<Candidate<'a>> {
        let mesh = self.mesh_in_force(&service.id.name).map(|(_, mesh)| mesh);
        let tells_zones = mesh.as_ref().and_then(|mesh| mesh.balancing.as_ref()).is_some_and(|balancing| balancing.prefers_zone);
        let mut candidates = Vec::new();
        for slice in self.slices_of(&service.id.name) {
            let Some(number) = slice.port(&port.name) else { continue };
            let known = slice.endpoints.iter().filter(|endpoint| !self.is_held_back(endpoint.pod.as_ref()));
            candidates.extend(known.map(|endpoint| Candidate {
                address: SocketAddr::new(endpoint.address, number),
                workload: endpoint.pod.as_ref(),
                state: endpoint.state,
                versions: self.versions_of_pod(endpoint.pod.as_ref(), mesh.as_ref()),
                identity: self.proxied(service, endpoint.pod.as_ref(), number),
                zone: if tells_zones { endpoint.zone.clone().or_else(|| self.label_of_pod(endpoint.pod.as_ref()?)) } else { None },
                weight: self.weight_of_pod(endpoint.pod.as_ref()).in_force(),
            }));
        }
        for (name, local) in self.locals_of(service) {
            let Some(number) = local.port(&port.target) else { continue };
            candidates.push(Candidate {
                address: local.reached_at(number),
                workload: Some(name),
                state: State::Ready,
                versions: mesh.iter().flat_map(|mesh| mesh.versions_of(Some(local.labels()))).cloned().collect(),
                identity: self.peer(service, name, &local.member, number),
                zone: local.member.zone().filter(|_| tells_zones).map(Name::from),
                weight: local.member.weight.in_force(),
            });
        }
        candidates
    }

    /// Whether an endpoint of `pod` waits for the pod to be seen.
    fn is_held_back(&self, pod: Option<&Name>) -> bool {
        let is_known = |pod| self.pods.get(pod).is_some_and(|pod: &Pod| pod.member.is_some());
        self.defaults.holds_unknown_pods && pod.is_some_and(|pod| !is_known(pod))
    }

    /// Who must answer at port `number` of a pod; nobody in particular while the pod is not known.
    fn proxied(&self, service: &Service, pod: Option<&Name>, number: u16) -> Option<Arc<Identity>> {
        let (name, pod) = self.pods.get_key_value(pod?)?;
        self.peer(service, name, pod.member.as_ref()?, number)
    }

    /// Who must answer at port `number` of `member`, called `name`, to which `service` leads.
    fn peer(&self, service: &Service, name: &Name, member: &Member, number: u16) -> Option<Arc<Identity>> {
        let identity = member.proxied(number)?;
        (self.mode_of(name, number, service) != Mode::Disabled).then(|| Arc::clone(identity))
    }

    /// The zone that the label of the pod called `name` says.
    fn label_of_pod(&self, name: &Name) -> Option<Name> {
        self.pods.get(name)?.member.as_ref()?.zone().map(Name::from)
    }

    /// What the pod called `name` says of its share.
    fn weight_of_pod(&self, name: Option<&Name>) -> SaidWeight {
        name.and_then(|name| self.pods.get(name)?.member.as_ref()).map(|member| member.weight).unwrap_or_default()
    }

    /// The pods and workloads behind `service` that say something of their share which is no weight, ordered.
    pub(crate) fn badly_weighted<'a>(&'a self, service: &'a Service) -> BTreeSet<&'a Name> {
        let pods = self.slices_of(&service.id.name).iter().flat_map(Slice::pods);
        let pods = pods.filter(|name| self.weight_of_pod(Some(name)) == SaidWeight::Bad);
        let locals = self.locals_of(service).filter(|(_, local)| local.member.weight == SaidWeight::Bad).map(|(name, _)| name);
        pods.chain(locals).collect()
    }

    /// The versions of a pod; none while the pod is not known.
    fn versions_of_pod(&self, pod: Option<&Name>, mesh: Option<&Arc<Mesh>>) -> Vec<Name> {
        let labels = pod.and_then(|pod| self.pods.get(pod)).and_then(Pod::labels);
        mesh.into_iter().flat_map(|mesh| mesh.versions_of(labels)).cloned().collect()
    }

    /// How many endpoints `service` has, and how many ready ones of each of the versions of `mesh`.
    pub(crate) fn counts(&self, service: &Service, mesh: &Arc<Mesh>) -> (EndpointCounts, Vec<(Name, usize)>) {
        if mesh.outside.is_some() {
            let all = service.vips.len();
            return (EndpointCounts { ready: all, total: all }, Vec::new());
        }
        let mut ready: BTreeMap<Whose<'_>, Vec<Name>> = BTreeMap::new();
        let mut all = BTreeSet::new();
        for endpoint in self.slices_of(&service.id.name).iter().flat_map(|slice| &slice.endpoints) {
            let whose = endpoint.pod.as_ref().map_or(Whose::Address(endpoint.address), |pod| Whose::Pod(pod));
            all.insert(whose);
            if endpoint.state == State::Ready {
                ready.insert(whose, self.versions_of_pod(endpoint.pod.as_ref(), Some(mesh)));
            }
        }
        for (name, local) in self.locals_of(service) {
            all.insert(Whose::Local(name));
            ready.insert(Whose::Local(name), mesh.versions_of(Some(local.labels())).cloned().collect());
        }
        let count = |version: &Name| ready.values().filter(|versions| versions.contains(version)).count();
        let versions = mesh.versions.iter().map(|version| (version.name.clone(), count(&version.name)));
        (EndpointCounts { ready: ready.len(), total: all.len() }, versions.collect())
    }
}

/// The endpoints of port `number` of something outside: its addresses.
fn outside_endpoints(service: &Service, number: u16, outside: &Outside) -> Endpoints {
    let endpoint = |address: &IpAddr| Endpoint::at(SocketAddr::new(*address, outside.reached_at(number)));
    let endpoints = service.vips.iter().map(endpoint).collect();
    Endpoints { endpoints, origination: outside.origination.clone(), ..Endpoints::new(EndpointsId::new(service.id.clone(), number)) }
}

/// What counts as one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose<'a> {
    Pod(&'a str),
    Local(&'a str),
    Address(IpAddr),
}

/// Drops the other family's address of each workload that has one of the preferred family.
fn keep_one_family(candidates: &mut Vec<Candidate<'_>>, ipv6: bool) {
    let preferred = |candidate: &Candidate<'_>| candidate.address.is_ipv6() == ipv6;
    if candidates.iter().all(preferred) {
        return;
    }
    let reachable: BTreeSet<Name> = candidates.iter().filter(|it| preferred(it)).filter_map(|it| it.workload.cloned()).collect();
    candidates.retain(|candidate| preferred(candidate) || candidate.workload.is_none_or(|name| !reachable.contains(name)));
}
