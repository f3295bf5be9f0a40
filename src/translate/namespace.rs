//! One namespace: its objects, and the indexes by which a change finds what it touches. Over the border of a namespace reach only
//! addresses and hosts, and the services of others that its policies name: those the translator keeps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use leno_api as api;
use leno_api::k8s;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::names::{Identity, Name, ServiceId, WorkloadId};

use crate::backing::{Local, Pod, Slice};
use crate::defaults::Defaults;
use crate::grant::Grant;
use crate::member::{Accounts, Member, SaidWeight, SharedNames, WEIGHT, excluded_ports};
use crate::mesh::Mesh;
use crate::object::{Kind, ObjectKey};
use crate::policy::{Policy, TargetRef};
use crate::security::Security;
use crate::service::Service;
use crate::tracked::Tracked;

/// The objects of one namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Its name.
    pub(crate) name: Name,
    /// What holds where nothing else is said.
    pub(crate) defaults: Arc<Defaults>,
    pub(crate) services: BTreeMap<Name, Service>,
    /// What good MeshServices register outside the cluster, by their names, in the form of Services: the addresses are its own.
    pub(crate) outsides: BTreeMap<Name, Service>,
    /// Slices by service, ordered by their names. A service mostly has one.
    pub(crate) slices: BTreeMap<Name, Vec<Slice>>,
    /// Pods that are known or that slices name.
    pub(crate) pods: HashMap<Name, Pod>,
    pub(crate) locals: BTreeMap<Name, Local>,
    pub(crate) meshes: BTreeMap<Name, Tracked<Mesh>>,
    pub(crate) policies: BTreeMap<Name, Tracked<Policy>>,
    /// What policies of other namespaces may name here.
    pub(crate) grants: BTreeMap<Name, Grant>,
    /// The identities of pods and workloads.
    pub(super) accounts: Accounts,
    /// The names of nodes and zones.
    pub(super) places: SharedNames,
    pub(crate) securities: BTreeMap<Name, Tracked<Security>>,
    /// Index: the service of each slice.
    pub(super) slice_services: HashMap<Name, Name>,
    /// Index: good MeshServices by the service they are for.
    pub(super) meshes_for: BTreeMap<Name, BTreeSet<Name>>,
    /// Index: good policies by what they are for.
    pub(super) policies_for: BTreeMap<TargetRef, BTreeSet<Name>>,
    /// Index: good SecurityPolicies by the service that they are for.
    pub(super) securities_for: BTreeMap<TargetRef, BTreeSet<Name>>,
    /// Index: good policies by the other services of this namespace that they name.
    pub(super) policies_naming: BTreeMap<Name, BTreeSet<Name>>,
}

/// What holds for a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct InForce {
    /// Its MeshService, by name.
    pub(crate) mesh: Option<(Name, Arc<Mesh>)>,
    /// Its TrafficPolicy, by name.
    pub(crate) policy: Option<(Name, Arc<Policy>)>,
}

impl Namespace {
    /// An empty namespace.
    pub(crate) fn new(name: Name, defaults: Arc<Defaults>) -> Self {
        Self {
            name,
            defaults,
            accounts: Accounts::default(),
            places: SharedNames::default(),
            services: BTreeMap::new(),
            outsides: BTreeMap::new(),
            slices: BTreeMap::new(),
            pods: HashMap::new(),
            locals: BTreeMap::new(),
            meshes: BTreeMap::new(),
            policies: BTreeMap::new(),
            grants: BTreeMap::new(),
            slice_services: HashMap::new(),
            meshes_for: BTreeMap::new(),
            policies_for: BTreeMap::new(),
            policies_naming: BTreeMap::new(),
            securities: BTreeMap::new(),
            securities_for: BTreeMap::new(),
        }
    }

    /// Whether no object is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.slices.is_empty()
            && self.pods.is_empty()
            && self.locals.is_empty()
            && self.meshes.is_empty()
            && self.policies.is_empty()
            && self.grants.is_empty()
            && self.securities.is_empty()
    }

    /// The names of all objects of `kind`.
    pub(crate) fn names(&self, kind: Kind) -> Vec<Name> {
        match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slice_services.keys().cloned().collect(),
            Kind::Pod => self.pods.iter().filter(|(_, pod)| pod.member.is_some()).map(|(name, _)| name.clone()).collect(),
            Kind::MeshService => self.meshes.keys().cloned().collect(),
            Kind::ReferenceGrant => self.grants.keys().cloned().collect(),
            Kind::TrafficPolicy => self.policies.keys().cloned().collect(),
            Kind::SecurityPolicy => self.securities.keys().cloned().collect(),
            Kind::Workload => self.locals.keys().cloned().collect(),
        }
    }

    /// The id of the service called `name`.
    pub(crate) fn service_id(&self, name: &Name) -> ServiceId {
        ServiceId::new(self.name.clone(), name.clone())
    }

    /// The id of the pod or workload called `name`.
    pub(crate) fn workload_id(&self, name: &Name) -> WorkloadId {
        WorkloadId::new(self.name.clone(), name.clone())
    }

    /// Every pod and workload.
    pub(crate) fn workload_ids(&self) -> impl Iterator<Item = WorkloadId> {
        self.pods.keys().chain(self.locals.keys()).map(|name| self.workload_id(name))
    }

    /// The pods that run on `node`.
    pub(crate) fn workloads_on(&self, node: &str) -> impl Iterator<Item = WorkloadId> {
        let is_there = move |pod: &Pod| pod.member.as_ref().is_some_and(|member| member.node.as_deref() == Some(node));
        self.pods.iter().filter(move |(_, pod)| is_there(pod)).map(|(name, _)| self.workload_id(name))
    }

    /// The key of an object of this namespace.
    pub(crate) fn key(&self, kind: Kind, name: &Name) -> ObjectKey {
        ObjectKey::new(kind, self.name.clone(), name.clone())
    }

    /// The service called `name`, if it is in the mesh.
    pub(crate) fn mesh_service(&self, name: &str) -> Option<&Service> {
        self.found(name).filter(|service| !service.external)
    }

    /// The Service called `name`, or else what is registered outside the cluster by that name.
    pub(crate) fn found(&self, name: &str) -> Option<&Service> {
        self.services.get(name).or_else(|| self.outsides.get(name))
    }

    /// What the service called `name` is, where that is outside the cluster.
    pub(crate) fn outside(&self, name: &str) -> Option<Arc<Mesh>> {
        self.is_outside(name).then(|| self.mesh_in_force(name).map(|(_, mesh)| mesh)).flatten()
    }

    /// Whether `name` is that of something outside the cluster, and of no Service.
    pub(crate) fn is_outside(&self, name: &str) -> bool {
        self.outsides.contains_key(name) && !self.services.contains_key(name)
    }

    /// What is kept of a Pod.
    pub(crate) fn member_of_pod(&mut self, pod: k8s::Pod) -> Member {
        let excluded = excluded_ports(|name| pod.annotations.get(name)).filter(|_| !pod.host_network);
        let weight = SaidWeight::read(pod.annotations.get(WEIGHT));
        let node = pod.node.as_deref().map(|node| self.places.get(node));
        Member { labels: pod.labels, identity: self.account(&pod.service_account), excluded, weight, node }
    }

    /// What is kept of a Workload.
    pub(crate) fn local(&mut self, workload: &api::Workload) -> Local {
        let annotations = workload.metadata.annotations.as_ref();
        let member = Member {
            labels: workload.metadata.labels.iter().flatten().collect(),
            identity: self.account(&workload.spec.service_account),
            excluded: excluded_ports(|name| annotations?.get(name).map(String::as_str)),
            weight: workload.spec.weight.map_or(SaidWeight::Nothing, |it| EndpointWeight::new(it).map_or(SaidWeight::Bad, SaidWeight::Is)),
            node: None,
        };
        Local::new(workload, member)
    }

    fn account(&mut self, account: &str) -> Arc<Identity> {
        self.accounts.identity(&self.defaults.trust_domain, &self.name, account)
    }

    /// The identity of the pod or workload called `name`, if it is known.
    pub(crate) fn identity(&self, name: &str) -> Option<&Arc<Identity>> {
        self.member(name).map(|member| &member.identity)
    }

    /// Whether a proxy stands before the pod or workload called `name` and takes its port `number`, or any.
    pub(crate) fn has_proxy(&self, name: &str, number: Option<u16>) -> bool {
        self.member(name).is_some_and(|member| match number {
            Some(number) => member.proxied(number).is_some(),
            None => member.excluded.is_some(),
        })
    }

    /// What is known of the pod or workload called `name`.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        let pod = self.pods.get(name).and_then(|pod| pod.member.as_ref());
        pod.or_else(|| self.locals.get(name).map(|local| &local.member))
    }

    /// The slices of `service`.
    pub(crate) fn slices_of(&self, service: &str) -> &[Slice] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
    }

    /// The workloads that are no pods and belong to `service`.
    pub(crate) fn locals_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (&'a Name, &'a Local)> {
        self.locals.iter().filter(|(_, local)| service.selects(local.labels()))
    }

    /// What holds for `service`.
    pub(crate) fn in_force(&self, service: &Name) -> InForce {
        InForce { mesh: self.mesh_in_force(service), policy: self.policy_in_force(service) }
    }

    /// The MeshService that holds for `service`: the oldest; of something outside, the one that registers it.
    pub(crate) fn mesh_in_force(&self, service: &str) -> Option<(Name, Arc<Mesh>)> {
        oldest(&self.meshes, self.meshes_of(service))
    }

    /// The good MeshServices of which one holds for `service`: of something outside, those that register it.
    pub(crate) fn meshes_of(&self, service: &str) -> impl Iterator<Item = &Name> {
        let is_outside = self.is_outside(service);
        self.meshes_for(service).filter(move |name| {
            let mesh = self.meshes.get(*name).and_then(Tracked::value);
            mesh.is_some_and(|mesh| mesh.outside.is_some() == is_outside)
        })
    }

    /// The TrafficPolicy that holds for `service`: the oldest.
    pub(crate) fn policy_in_force(&self, service: &Name) -> Option<(Name, Arc<Policy>)> {
        oldest(&self.policies, self.policies_for(service).iter())
    }

    /// The good MeshServices for `service`.
    pub(crate) fn meshes_for(&self, service: &str) -> impl Iterator<Item = &Name> {
        self.meshes_for.get(service).into_iter().flatten()
    }

    /// The good policies for `service`, whether they name it or one of its MeshServices.
    pub(crate) fn policies_for(&self, service: &Name) -> BTreeSet<Name> {
        let meshes = self.meshes_for(service).map(|mesh| TargetRef::MeshService(mesh.clone()));
        let targets = meshes.chain([TargetRef::Service(service.clone())]);
        targets.filter_map(|target| self.policies_for.get(&target)).flatten().cloned().collect()
    }

    /// The name of the service that a policy's target means, if that is known. Whether it exists is not asked.
    pub(crate) fn service_of(&self, target: &TargetRef) -> Option<Name> {
        match target {
            TargetRef::Service(name) => Some(name.clone()),
            TargetRef::MeshService(name) => self.meshes.get(name)?.value().map(|mesh| mesh.service.clone()),
        }
    }
}

/// The oldest good one of `names`; of two that are equally old, the first by name.
fn oldest<'n, T>(all: &BTreeMap<Name, Tracked<T>>, names: impl Iterator<Item = &'n Name>) -> Option<(Name, Arc<T>)> {
    let good = names.filter_map(|name| all.get(name).and_then(|it| Some((it.age, name, it.value()?))));
    good.min_by_key(|(age, name, _)| (*age, *name)).map(|(_, name, value)| (name.clone(), Arc::clone(value)))
}
