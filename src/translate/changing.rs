//! How one object's change moves a namespace on, and what it touches: each kind's `put`, where `None` means gone.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use leno_api::k8s;
use leno_core::endpoints::EndpointsId;
use leno_core::names::Name;

use crate::backing::{Local, Slice};
use crate::grant::Grant;
use crate::member::Member;
use crate::mesh::Mesh;
use crate::namespace::{InForce, Namespace};
use crate::object::Kind;
use crate::outside::Lookups;
use crate::policy::{Policy, TargetRef};
use crate::service::Service;
use crate::touched::Touched;
use crate::tracked::Tracked;

/// What a change has done.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// What it touched in its namespace.
    pub(crate) touched: Touched,
    /// Hosts (`MeshService.spec.hosts`) that may lead elsewhere than before.
    pub(crate) hosts: BTreeSet<Name>,
    /// Nodes and their zones, as an endpoint said them that is there no more.
    pub(crate) zones_gone: Vec<(Name, Name)>,
    /// As an endpoint says them that is there now.
    pub(crate) zones_come: Vec<(Name, Name)>,
    /// Services of the namespace that differ for policies of other namespaces which name them.
    pub(crate) named: BTreeSet<Name>,
    /// Whether policies of other namespaces may name others of its services than before.
    pub(crate) granted: bool,
}

impl Namespace {
    /// A Service came, changed or went.
    pub(crate) fn put_service(&mut self, name: &Name, new: Option<Service>, effects: &mut Effects) {
        let old = self.services.get(name);
        if old == new.as_ref() {
            return;
        }
        if let Some((_, mesh)) = self.mesh_in_force(name) {
            // Something outside of this name is hidden by the Service, or comes forth again.
            effects.hosts.extend(mesh.outside.is_some().then(|| mesh.hosts.clone()).into_iter().flatten());
        }
        let moved = match (old, &new) {
            (Some(old), Some(new)) => old.is_found_elsewhere(new),
            (_, _) => true,
        };
        effects.touched.names |= moved;
        self.touch_backing(name, effects);
        self.touch_securities_of_service(name, effects);
        replace(&mut self.services, name, new);
        self.touch_backing(name, effects);
        self.touch_securities_of_service(name, effects);
        effects.touched.services.insert(self.service_id(name));
        if moved && let Some((_, mesh)) = self.mesh_in_force(name) {
            effects.hosts.extend(mesh.hosts.iter().cloned());
        }
        self.touch_dependents(name, effects);
    }

    /// Touches what speaks of the service called `name`, which came, changed or went.
    fn touch_dependents(&self, name: &Name, effects: &mut Effects) {
        self.touch_mesh_reports(name, effects);
        self.touch_policy_reports(name, effects);
        // A policy for a MeshService of this name, which is not there, is told of the Service.
        self.touch_policies_of(&TargetRef::MeshService(name.clone()), effects);
        for policy in self.policies_naming.get(name).into_iter().flatten() {
            self.touch_policy(policy, &mut effects.touched);
        }
        effects.named.insert(name.clone());
    }

    /// Touches the policy called `policy`, one of whose destinations may be another one, and the service it is for.
    pub(crate) fn touch_policy(&self, policy: &Name, touched: &mut Touched) {
        touched.reports.insert(self.key(Kind::TrafficPolicy, policy));
        let target = self.policies.get(policy).and_then(Tracked::value).and_then(|policy| self.service_of(&policy.target));
        touched.services.extend(target.map(|target| self.service_id(&target)));
    }

    /// A ReferenceGrant came, changed or went. One that says nothing about policies is none.
    pub(crate) fn put_grant(&mut self, name: &Name, new: Option<Grant>, effects: &mut Effects) {
        if self.grants.get(name) != new.as_ref() {
            effects.granted = true;
            replace(&mut self.grants, name, new);
        }
    }

    /// An EndpointSlice came, changed or went. A slice of no service is none.
    pub(crate) fn put_slice(&mut self, name: &Name, new: Option<k8s::EndpointSlice>, effects: &mut Effects) {
        let new = new.and_then(|slice| slice.service.clone().map(|service| (service, slice)));
        let new_service = new.as_ref().map(|(service, _)| self.shared_service(service));
        let new = match (&new_service, new) {
            (Some(service), Some((_, slice))) => {
                let mut places = mem::take(&mut self.places);
                let slice = Slice::new(slice, |pod| self.link(pod, service), &mut places);
                self.places = places;
                Some(slice)
            }
            (_, _) => None,
        };
        let old_service = self.slice_services.remove(name);
        let old = old_service.as_ref().and_then(|service| self.take_slice(service, name));
        if let (Some(service), Some(old)) = (&old_service, &old) {
            old.pods().for_each(|pod| self.unlink(pod, service));
        }
        let nodes = |slice: &Option<Slice>| slice.iter().flat_map(Slice::nodes).collect::<Vec<_>>();
        let (before, after) = (nodes(&old), nodes(&new));
        if before != after {
            effects.zones_gone.extend(before);
            effects.zones_come.extend(after);
        }
        if old != new || old_service != new_service {
            self.touch_slices((old_service.as_ref(), old.as_ref()), (new_service.as_ref(), new.as_ref()), effects);
        }
        if let (Some(service), Some(slice)) = (new_service, new) {
            self.slice_services.insert(slice.name.clone(), service.clone());
            let slices = self.slices.entry(service).or_default();
            let place = slices.partition_point(|other| other.name < slice.name);
            slices.reserve_exact(1);
            slices.insert(place, slice);
        }
    }

    /// A Pod came, changed or went.
    pub(crate) fn put_pod(&mut self, name: &Name, new: Option<Member>, effects: &mut Effects) {
        let known = self.pods.get(name).and_then(|pod| pod.member.as_ref());
        if known == new.as_ref() {
            return;
        }
        let pod = self.pods.entry(name.clone()).or_default();
        let old = mem::replace(&mut pod.member, new);
        let pod = &self.pods[name];
        effects.touched.workloads.insert(self.workload_id(name));
        let answers = |member: Option<&Member>| member.and_then(|it| it.excluded.clone().map(|ports| (ports, Arc::clone(&it.identity))));
        let weight = |member: Option<&Member>| member.map(|it| it.weight).unwrap_or_default();
        let has_another_weight = weight(old.as_ref()) != weight(pod.member.as_ref());
        let zone = |member: Option<&Member>| member.and_then(Member::zone).map(Name::from);
        let has_another_zone = zone(old.as_ref()) != zone(pod.member.as_ref());
        let is_another = old.is_none() != pod.member.is_none() && self.defaults.holds_unknown_pods
            || answers(old.as_ref()) != answers(pod.member.as_ref());
        let has_another_mode = self.touch_selecting(old.as_ref().map(|member| &member.labels), pod.labels(), effects);
        if is_another || has_another_mode || has_another_weight || has_another_zone {
            self.touch_endpoints_of(name, effects);
        }
        for (service, _) in &pod.services {
            let Some((_, mesh)) = self.mesh_in_force(service) else { continue };
            if has_another_weight {
                self.touch_mesh_reports(service, effects);
            }
            if !mesh.versions_of(old.as_ref().map(|member| &member.labels)).eq(mesh.versions_of(pod.labels())) {
                self.touch_endpoints(service, effects);
                self.touch_mesh_reports(service, effects);
            }
        }
        if pod.is_forgotten() {
            self.pods.remove(name);
        }
    }

    /// A Workload came, changed or went.
    pub(crate) fn put_local(&mut self, name: &Name, new: Option<Local>, effects: &mut Effects) {
        if self.locals.get(name) == new.as_ref() {
            return;
        }
        effects.touched.workloads.insert(self.workload_id(name));
        self.touch_selecting(self.locals.get(name).map(Local::labels), new.as_ref().map(Local::labels), effects);
        self.touch_services_of_local(name, effects);
        self.touch_endpoints_of(name, effects);
        replace(&mut self.locals, name, new);
        self.touch_services_of_local(name, effects);
        self.touch_endpoints_of(name, effects);
    }

    /// A MeshService came, changed or went.
    pub(crate) fn put_mesh(&mut self, name: &Name, new: Option<Tracked<Mesh>>, lookups: &Lookups, effects: &mut Effects) {
        let old = self.meshes.get(name);
        if old == new.as_ref() {
            return;
        }
        let meaning = |object: Option<&Tracked<Mesh>>| object.and_then(Tracked::value).cloned();
        let (before, after) = (meaning(old), meaning(new.as_ref()));
        for mesh in [&before, &after].into_iter().flatten() {
            effects.hosts.extend(mesh.hosts.iter().cloned());
        }
        let services: BTreeSet<Name> = [&before, &after].into_iter().flatten().map(|mesh| mesh.service.clone()).collect();
        if self.grants_meshes() {
            effects.named.extend(services.iter().cloned());
        }
        let snapshots = self.snapshots(&services, effects);
        let outside =
            |mesh: &Option<Arc<Mesh>>| mesh.as_ref().and_then(|mesh| Some(mesh.outside.as_ref()?.service(&self.name, name, lookups)));
        let outside = outside(&after);
        let is_elsewhere = before.as_ref().map(|mesh| &mesh.outside) != after.as_ref().map(|mesh| &mesh.outside);
        if is_elsewhere {
            self.touch_outside(name, effects);
        }
        let target = TargetRef::MeshService(name.clone());
        self.touch_securities_of(&target, effects);
        if let Some(mesh) = before {
            unindex(&mut self.meshes_for, &mesh.service, name);
        }
        if let Some(mesh) = after {
            self.meshes_for.entry(mesh.service.clone()).or_default().insert(name.clone());
        }
        replace(&mut self.meshes, name, new);
        replace(&mut self.outsides, name, outside);
        self.compare(&snapshots, effects);
        if is_elsewhere {
            self.touch_outside(name, effects);
        }
        effects.touched.reports.insert(self.key(Kind::MeshService, name));
        self.touch_policies_of(&target, effects);
        self.touch_securities_of(&target, effects);
    }

    /// Host names of what the MeshService called `name` registers mean other addresses than before.
    pub(crate) fn move_outside(&mut self, name: &Name, lookups: &Lookups, effects: &mut Effects) {
        let Some(mesh) = self.meshes.get(name).and_then(Tracked::value) else { return };
        let Some(outside) = &mesh.outside else { return };
        let moved = outside.service(&self.name, name, lookups);
        effects.touched.reports.insert(self.key(Kind::MeshService, name));
        if self.outsides.get(name) != Some(&moved) {
            self.outsides.insert(name.clone(), moved);
            effects.touched.names = true;
            self.touch_endpoints(name, effects);
        }
    }

    /// Touches what is registered outside as `name`, if anything is, and what speaks of it.
    fn touch_outside(&self, name: &Name, effects: &mut Effects) {
        if self.is_outside(name) {
            effects.touched.names = true;
            effects.touched.services.insert(self.service_id(name));
            self.touch_endpoints(name, effects);
            self.touch_dependents(name, effects);
            self.touch_securities_of_service(name, effects);
        }
    }

    /// A TrafficPolicy came, changed or went.
    pub(crate) fn put_policy(&mut self, name: &Name, new: Option<Tracked<Policy>>, effects: &mut Effects) {
        let old = self.policies.get(name);
        if old == new.as_ref() {
            return;
        }
        let meaning = |object: Option<&Tracked<Policy>>| object.and_then(Tracked::value).cloned();
        let (before, after) = (meaning(old), meaning(new.as_ref()));
        let targets = [&before, &after].into_iter().flatten();
        let services: BTreeSet<Name> = targets.filter_map(|policy| self.service_of(&policy.target)).collect();
        let snapshots = self.snapshots(&services, effects);
        if let Some(policy) = before {
            unindex(&mut self.policies_for, &policy.target, name);
            policy.named_services().for_each(|service| unindex(&mut self.policies_naming, service, name));
        }
        if let Some(policy) = after {
            self.policies_for.entry(policy.target.clone()).or_default().insert(name.clone());
            for service in policy.named_services() {
                self.policies_naming.entry(service.clone()).or_default().insert(name.clone());
            }
        }
        replace(&mut self.policies, name, new);
        self.compare(&snapshots, effects);
        effects.touched.reports.insert(self.key(Kind::TrafficPolicy, name));
    }

    /// What holds for `services` before a change of a MeshService or policy.
    fn snapshots(&self, services: &BTreeSet<Name>, effects: &mut Effects) -> Vec<(Name, InForce)> {
        let snapshot = |service: &Name| {
            self.touch_mesh_reports(service, effects);
            self.touch_policy_reports(service, effects);
            (service.clone(), self.in_force(service))
        };
        services.iter().map(snapshot).collect()
    }

    /// Touches what differs after the change.
    fn compare(&self, snapshots: &[(Name, InForce)], effects: &mut Effects) {
        for (service, before) in snapshots {
            let after = self.in_force(service);
            if *before != after {
                effects.touched.services.insert(self.service_id(service));
            }
            if before.mesh != after.mesh {
                self.compare_meshes(service, before, &after, effects);
            }
            self.touch_mesh_reports(service, effects);
            self.touch_policy_reports(service, effects);
        }
    }

    fn compare_meshes(&self, service: &Name, before: &InForce, after: &InForce, effects: &mut Effects) {
        let mesh = |in_force: &InForce| in_force.mesh.as_ref().map(|(_, mesh)| mesh.clone());
        let (before, after) = (mesh(before), mesh(after));
        for mesh in [&before, &after].into_iter().flatten() {
            effects.hosts.extend(mesh.hosts.iter().cloned());
        }
        let versions = |mesh: &Option<std::sync::Arc<Mesh>>| mesh.as_ref().is_some_and(|mesh| !mesh.versions.is_empty());
        let same = |field: fn(&Mesh, &Mesh) -> bool, empty: bool| match (&before, &after) {
            (Some(before), Some(after)) => field(before, after),
            (_, _) => empty,
        };
        let versions_differ = !same(|a, b| a.versions == b.versions, !versions(&before) && !versions(&after));
        let guards = |mesh: &Option<Arc<Mesh>>| mesh.as_ref().and_then(|mesh| mesh.resilience.clone());
        let balancing = |mesh: &Option<Arc<Mesh>>| mesh.as_ref().and_then(|mesh| mesh.balancing.clone());
        let ports_differ = !same(|a, b| a.ports == b.ports, false);
        let are_checked = |mesh: &Option<Arc<Mesh>>| guards(mesh).is_some_and(|guards| guards.health_check.is_some());
        let choice_differs = guards(&before) != guards(&after) || balancing(&before) != balancing(&after);
        // Checks speak what is spoken on the port.
        if versions_differ || choice_differs || (ports_differ && are_checked(&after)) {
            self.touch_endpoints(service, effects);
        }
        let concurrency = |mesh: &Option<Arc<Mesh>>| mesh.as_ref().and_then(|mesh| mesh.concurrency);
        if versions_differ || ports_differ || concurrency(&before) != concurrency(&after) {
            self.touch_workloads(service, effects);
        }
    }

    /// Touches everything that a service's ports and selector lead to.
    fn touch_backing(&self, service: &Name, effects: &mut Effects) {
        self.touch_endpoints(service, effects);
        self.touch_workloads(service, effects);
    }

    pub(crate) fn touch_endpoints(&self, service: &Name, effects: &mut Effects) {
        if let Some(found) = self.found(service) {
            let ids = found.ports.iter().map(|port| EndpointsId::new(found.id.clone(), port.number));
            effects.touched.endpoints.extend(ids);
        }
    }

    fn touch_workloads(&self, service: &Name, effects: &mut Effects) {
        let pods = self.slices_of(service).iter().flat_map(Slice::pods);
        effects.touched.workloads.extend(pods.map(|pod| self.workload_id(pod)));
        if let Some(service) = self.services.get(service) {
            effects.touched.workloads.extend(self.locals_of(service).map(|(name, _)| self.workload_id(name)));
        }
    }

    fn touch_mesh_reports(&self, service: &Name, effects: &mut Effects) {
        effects.touched.reports.extend(self.meshes_for(service).map(|name| self.key(Kind::MeshService, name)));
    }

    fn touch_policy_reports(&self, service: &Name, effects: &mut Effects) {
        effects.touched.reports.extend(self.policies_for(service).iter().map(|name| self.key(Kind::TrafficPolicy, name)));
    }

    fn touch_policies_of(&self, target: &TargetRef, effects: &mut Effects) {
        let policies = self.policies_for.get(target).into_iter().flatten();
        effects.touched.reports.extend(policies.map(|name| self.key(Kind::TrafficPolicy, name)));
    }

    fn touch_services_of_local(&self, name: &Name, effects: &mut Effects) {
        let Some(local) = self.locals.get(name) else { return };
        for service in self.services.values().filter(|service| service.selects(local.labels())) {
            self.touch_endpoints(&service.id.name, effects);
            self.touch_mesh_reports(&service.id.name, effects);
        }
    }

    /// Touches what a slice of `old` that is now one of `new` leads to: the endpoints, and the workloads that it names newly or no
    /// more, or all when it leads to other ports than before.
    fn touch_slices(&self, old: (Option<&Name>, Option<&Slice>), new: (Option<&Name>, Option<&Slice>), effects: &mut Effects) {
        for service in [old.0, new.0].into_iter().flatten() {
            self.touch_endpoints(service, effects);
            self.touch_mesh_reports(service, effects);
        }
        let ports = |slice: Option<&Slice>| slice.map(|slice| slice.ports.clone());
        let before: BTreeSet<_> = old.1.into_iter().flat_map(Slice::pods_in_zones).collect();
        let after: BTreeSet<_> = new.1.into_iter().flat_map(Slice::pods_in_zones).collect();
        let same_ports = old.0 == new.0 && ports(old.1) == ports(new.1);
        let changed: Vec<_> = if same_ports { before.symmetric_difference(&after).collect() } else { before.union(&after).collect() };
        for (pod, _) in changed {
            effects.touched.workloads.insert(self.workload_id(pod));
            for service in [old.0, new.0].into_iter().flatten() {
                self.touch_neighbours(pod, service, effects);
            }
        }
    }

    /// The name `service`, as it is stored already if it is.
    fn shared_service(&self, service: &Name) -> Name {
        let stored = self.services.get_key_value(service).map(|(name, _)| name);
        stored.or_else(|| self.slices.get_key_value(service).map(|(name, _)| name)).unwrap_or(service).clone()
    }

    /// One more endpoint of `service` names `pod`. Returns the name as it is stored.
    fn link(&mut self, pod: Name, service: &Name) -> Name {
        let shared = self.pods.get_key_value(&pod).map_or(pod, |(name, _)| name.clone());
        self.pods.entry(shared.clone()).or_default().link(service);
        shared
    }

    /// One endpoint of `service` less names `pod`.
    fn unlink(&mut self, pod: &Name, service: &Name) {
        if let Some(state) = self.pods.get_mut(pod) {
            state.unlink(service);
            if state.is_forgotten() {
                self.pods.remove(pod);
            }
        }
    }

    fn take_slice(&mut self, service: &Name, name: &Name) -> Option<Slice> {
        let slices = self.slices.get_mut(service)?;
        let place = slices.iter().position(|slice| slice.name == *name)?;
        let slice = slices.remove(place);
        if slices.is_empty() {
            self.slices.remove(service);
        }
        Some(slice)
    }
}

/// Puts `new` in the place of what is called `name`; `None` takes it away.
pub(crate) fn replace<T>(map: &mut BTreeMap<Name, T>, name: &Name, new: Option<T>) {
    match new {
        Some(new) => drop(map.insert(name.clone(), new)),
        None => drop(map.remove(name)),
    }
}

/// Takes `name` out of the set of `key`, and the set out of the index when it is empty.
pub(crate) fn unindex<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Name>>, key: &K, name: &Name) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}
