//! The translator: the present state of all objects, and the model computed from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::{Identity, Name, ServiceId, WorkloadId, service_of_host};
use leno_core::service::Service;
use leno_core::workload::Workload;

use crate::age::Age;
use crate::changing::Effects;
use crate::defaults::Defaults;
use crate::elsewhere::{Elsewhere, Which};
use crate::grant::{Grant, Namespaces};
use crate::guard::KeySets;
use crate::mesh;
use crate::namespace::Namespace;
use crate::object::{Change, Kind, Object, ObjectKey};
use crate::outside::Lookups;
use crate::policy;
use crate::report::Report;
use crate::reporting::TakenHost;
use crate::security;
use crate::service;
use crate::touched::Touched;
use crate::tracked::Tracked;
use crate::zones::Nodes;

/// The state of all objects, and what they mean together. See the crate's documentation.
#[derive(Debug)]
pub struct Translator {
    defaults: Arc<Defaults>,
    namespaces: Namespaces,
    /// Index: services by cluster IP. More than one only in files that are wrong; the first counts.
    vips: BTreeSet<Vip>,
    /// Index: good MeshServices, as (namespace, name), by the hosts they name.
    hosts: BTreeMap<Name, BTreeSet<(Name, Name)>>,
    /// Index: what policies name in other namespaces.
    elsewhere: Elsewhere,
    keys: KeySources,
    /// What the host names of what is outside mean.
    lookups: Lookups,
    /// Index: what is registered outside, by port.
    outside: BTreeMap<u16, BTreeSet<(Name, Name)>>,
    /// The ports of that index.
    outside_ports: Vec<u16>,
    /// In which zones nodes are.
    nodes: Nodes,
}

/// An address at which a service is found, and the kind of the object that says so: a Service and something outside may have one name.
type Vip = (IpAddr, ServiceId, Kind);

/// Key sets of token issuers that were fetched.
#[derive(Debug, Default)]
pub(crate) struct KeySources {
    /// Those that were had, by URL.
    pub(crate) sets: KeySets,
    /// Why the last fetch failed, by URL.
    pub(crate) errors: BTreeMap<Name, String>,
}

/// A MeshService that may be asked for a host: in force, for a service that exists. Ordered oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    age: Age,
    namespace: Name,
    mesh: Name,
    service: Name,
}

impl KeySources {
    fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.errors.is_empty()
    }

    /// Forgets what is not wanted any more.
    fn retain(&mut self, wanted: &BTreeSet<Name>) {
        self.sets.retain(|uri, _| wanted.contains(uri));
        self.errors.retain(|uri, _| wanted.contains(uri));
    }

    /// Whether fetching from `uri` was tried.
    fn knows(&self, uri: &Name) -> bool {
        self.sets.contains_key(uri) || self.errors.contains_key(uri)
    }
}

impl Translator {
    /// A translator that has seen nothing yet.
    pub fn new(defaults: Defaults) -> Self {
        Self {
            defaults: Arc::new(defaults),
            namespaces: Namespaces::new(),
            vips: BTreeSet::new(),
            hosts: BTreeMap::new(),
            elsewhere: Elsewhere::default(),
            keys: KeySources::default(),
            lookups: Lookups::default(),
            outside: BTreeMap::new(),
            outside_ports: Vec::new(),
            nodes: Nodes::default(),
        }
    }

    /// Takes in one change. The cost is that of the one object and of the services it touches.
    pub fn apply(&mut self, change: Change) -> Touched {
        match change {
            Change::Apply(object) => {
                let key = object.key();
                self.put(&key, Some(object))
            }
            Change::Delete(key) => self.put(&key, None),
            Change::Unreadable { key, generation, error } => self.put_unreadable(&key, generation, error),
        }
    }

    /// Takes in a whole list of one kind: what is absent is deleted, what is equal touches nothing.
    /// Changes of other kinds are left out.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Change>) -> Touched {
        let mut absent = self.keys(kind);
        let mut touched = Touched::default();
        for change in objects {
            let key = change.key();
            if key.kind != kind {
                continue;
            }
            if !matches!(change, Change::Delete(_)) {
                absent.remove(&key);
            }
            touched.merge(self.apply(change));
        }
        for key in absent {
            touched.merge(self.put(&key, None));
        }
        touched
    }

    /// The keys of all objects of `kind`.
    pub fn keys(&self, kind: Kind) -> BTreeSet<ObjectKey> {
        self.namespaces.values().flat_map(|it| it.names(kind).into_iter().map(|name| it.key(kind, &name))).collect()
    }

    /// The service, if it is in the mesh.
    pub fn service(&self, id: &ServiceId) -> Option<Service> {
        self.namespaces.get(&id.namespace)?.service(&id.name, &self.namespaces)
    }

    /// The endpoints of one port of a service in the mesh.
    pub fn endpoints(&self, id: &EndpointsId) -> Option<Endpoints> {
        self.namespaces.get(&id.service.namespace)?.endpoints(&id.service.name, id.port)
    }

    /// What a proxy beside the pod or workload needs to know of it. A pod that is known only by the slices that name it has
    /// its ports, and no versions yet.
    pub fn workload(&self, id: &WorkloadId) -> Option<Workload> {
        self.namespaces.get(&id.namespace)?.workload(&id.name, &self.keys.sets, &self.outside_ports, &self.nodes)
    }

    /// Who the pod or workload is, if it is known: its namespace and service account.
    pub fn identity(&self, id: &WorkloadId) -> Option<Identity> {
        self.namespaces.get(&id.namespace)?.identity(&id.name).map(|identity| Identity::clone(identity))
    }

    /// Whether a proxy stands before the pod or workload and takes what comes to its port `number`; without a port, whether there is one.
    pub fn has_proxy(&self, id: &WorkloadId, number: Option<u16>) -> bool {
        self.namespaces.get(&id.namespace).is_some_and(|namespace| namespace.has_proxy(&id.name, number))
    }

    /// The service at a virtual address and one of its ports.
    pub fn find_address(&self, address: SocketAddr) -> Option<ServiceId> {
        let first = (address.ip(), ServiceId::new("", ""), Kind::Service);
        let at_address = self.vips.range(first..).take_while(|(vip, ..)| *vip == address.ip()).map(|(_, id, _)| id);
        // Where a Service hides something outside of its name, the address is still that of the latter.
        let is_there = |service: &service::Service| service.port(address.port()).is_some() && service.vips.contains(&address.ip());
        let mut with_port = at_address.filter(|id| self.stored(id).is_some_and(is_there));
        with_port.next().cloned()
    }

    /// The service that `host` (without port) means to a caller in `namespace`.
    ///
    /// A name of cluster DNS means its service, as DNS itself would have it, so that no MeshService can take another service's
    /// name. Any other is looked for among `spec.hosts`, in the caller's namespace first; of several the oldest counts.
    pub fn find_host(&self, host: &str, namespace: &str) -> Option<ServiceId> {
        let by_dns = service_of_host(host, namespace, &self.defaults.cluster_domain).filter(|id| self.stored(id).is_some());
        by_dns.or_else(|| {
            let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            let claim = self.claims(&host).min_by_key(|claim| (&*claim.namespace != namespace, claim.clone()))?;
            Some(ServiceId::new(claim.namespace, claim.service))
        })
    }

    /// The SecurityPolicies that are part of what the workload enforces, with the generations of their present versions.
    pub fn policies_of(&self, id: &WorkloadId) -> Vec<(ObjectKey, Option<i64>)> {
        self.namespaces.get(&id.namespace).map(|namespace| namespace.securities_of(&id.name)).unwrap_or_default()
    }

    /// Where keys of token issuers are to be fetched, each once.
    pub fn key_uris(&self) -> BTreeSet<Name> {
        let objects = self.namespaces.values().flat_map(|namespace| namespace.securities.values());
        objects.filter_map(Tracked::value).flat_map(|security| security.key_uris().cloned().collect::<Vec<_>>()).collect()
    }

    /// Whether fetching has been tried everywhere where keys are wanted.
    pub fn has_tried_keys(&self) -> bool {
        self.key_uris().iter().all(|uri| self.keys.knows(uri))
    }

    /// What came of fetching the keys at `uri`: a key set, or why there is none. Keys that were had before stay then.
    pub fn set_keys(&mut self, uri: &Name, fetched: Result<Name, String>) -> Touched {
        let KeySources { sets, errors } = &mut self.keys;
        let is_news = match fetched {
            Ok(keys) => errors.remove(uri).is_some() | (sets.insert(uri.clone(), keys.clone()) != Some(keys)),
            Err(error) => errors.insert(uri.clone(), error.clone()) != Some(error),
        };
        let mut effects = Effects::default();
        if is_news {
            let wanted = self.key_uris();
            self.keys.retain(&wanted);
            self.namespaces.values().for_each(|namespace| namespace.touch_keys(uri, &mut effects));
        }
        effects.touched
    }

    /// The host names that are to be looked up, each once.
    pub fn outside_hosts(&self) -> BTreeSet<Name> {
        let meshes = self.namespaces.values().flat_map(|namespace| namespace.meshes.values()).filter_map(Tracked::value);
        meshes.filter_map(|mesh| mesh.outside.as_ref()).flat_map(|outside| outside.hosts.iter().cloned()).collect()
    }

    /// Whether every one of them was looked up, well or not.
    pub fn has_tried_hosts(&self) -> bool {
        self.outside_hosts().iter().all(|host| self.lookups.knows(host))
    }

    /// What came of looking `host` up: its addresses, or why there are none. Addresses that were had before stay then.
    pub fn set_addresses(&mut self, host: &Name, found: Result<Vec<IpAddr>, String>) -> Touched {
        let Lookups { answers, errors } = &mut self.lookups;
        let is_news = match found {
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                errors.remove(host).is_some() | (answers.insert(host.clone(), addresses.clone()) != Some(addresses))
            }
            Err(error) => errors.insert(host.clone(), error.clone()) != Some(error),
        };
        let mut touched = Touched::default();
        if !is_news {
            return touched;
        }
        self.forget_lookups();
        for (namespace, name) in self.hosts.get(host).cloned().unwrap_or_default() {
            let key = ObjectKey::new(Kind::MeshService, namespace, name);
            let Some(namespace) = self.namespaces.get_mut(&key.namespace) else { continue };
            let (before, mut effects) = (Names::of(namespace, &key), Effects::default());
            namespace.move_outside(&key.name, &self.lookups, &mut effects);
            let after = Names::of(namespace, &key);
            touched.merge(self.finish(&key, before, after, effects));
        }
        touched
    }

    /// Forgets lookups that are not wanted any more.
    fn forget_lookups(&mut self) {
        if !self.lookups.answers.is_empty() || !self.lookups.errors.is_empty() {
            let wanted = self.outside_hosts();
            self.lookups.answers.retain(|host, _| wanted.contains(host));
            self.lookups.errors.retain(|host, _| wanted.contains(host));
        }
    }

    /// Every service in the mesh, ordered by namespace; those outside the cluster come last in theirs.
    pub fn services<'s>(&'s self) -> impl Iterator<Item = &'s ServiceId> {
        let all = |it: &'s Namespace| {
            let outside = it.outsides.iter().filter(move |(name, _)| it.is_outside(name)).map(|(_, service)| service);
            it.services.values().filter(|service| !service.external).chain(outside).map(|service| &service.id)
        };
        self.namespaces.values().flat_map(all)
    }

    /// Where what is registered outside as `id` is: host names and addresses, as its MeshService has them.
    pub fn outside(&self, id: &ServiceId) -> Option<Vec<String>> {
        let mesh = self.namespaces.get(&id.namespace)?.outside(&id.name)?;
        let outside = mesh.outside.as_ref()?;
        Some(outside.hosts.iter().map(ToString::to_string).chain(outside.addresses.iter().map(ToString::to_string)).collect())
    }

    /// How the sidecars of the pods behind this service learn how many requests they bear at once; `None`: they do not.
    pub fn concurrency(&self, id: &ServiceId) -> Option<AdaptiveConcurrency> {
        self.namespaces.get(&id.namespace)?.mesh_in_force(&id.name)?.1.concurrency
    }

    /// What is said about a MeshService, TrafficPolicy or SecurityPolicy. There are no reports on objects of other kinds.
    pub fn report(&self, key: &ObjectKey) -> Option<Report> {
        let namespace = self.namespaces.get(&key.namespace)?;
        match key.kind {
            Kind::MeshService => namespace.mesh_report(&key.name, &self.taken_hosts(namespace, &key.name), &self.lookups),
            Kind::TrafficPolicy => namespace.policy_report(&key.name, &self.namespaces),
            Kind::SecurityPolicy => namespace.security_report(&key.name, &self.keys),
            Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::ReferenceGrant | Kind::Workload => None,
        }
    }

    /// Whether it holds nothing at all.
    pub fn is_empty(&self) -> bool {
        let Self { defaults: _, namespaces, nodes, vips, hosts, elsewhere, keys, lookups: _, outside, outside_ports: _ } = self;
        let has_services = !namespaces.is_empty() || !vips.is_empty() || !hosts.is_empty() || !outside.is_empty();
        !has_services && nodes.is_empty() && elsewhere.is_empty() && keys.is_empty()
    }

    /// Every MeshService, TrafficPolicy and SecurityPolicy, ordered: what there are reports on.
    pub fn reported(&self) -> impl Iterator<Item = ObjectKey> {
        let keys = |it: &Namespace, kind| it.names(kind).into_iter().map(|name| it.key(kind, &name)).collect::<Vec<_>>();
        [Kind::MeshService, Kind::TrafficPolicy, Kind::SecurityPolicy]
            .into_iter()
            .flat_map(move |kind| self.namespaces.values().flat_map(move |it| keys(it, kind)))
    }

    /// The object of `key` is now `object`.
    fn put(&mut self, key: &ObjectKey, object: Option<Object>) -> Touched {
        let Self { namespaces, defaults, lookups, .. } = self;
        let namespace = namespace_of(namespaces, defaults, key);
        let (shared, name) = (namespace.name.clone(), &key.name);
        let before = Names::of(namespace, key);
        let mut effects = Effects::default();
        match object {
            Some(Object::Service(it)) => namespace.put_service(name, Some(service::Service::new(&shared, it)), &mut effects),
            Some(Object::EndpointSlice(it)) => namespace.put_slice(name, Some(it), &mut effects),
            Some(Object::Pod(it)) => {
                let member = namespace.member_of_pod(it);
                namespace.put_pod(name, Some(member), &mut effects);
            }
            Some(Object::Workload(it)) => {
                let local = namespace.local(&it);
                namespace.put_local(name, Some(local), &mut effects);
            }
            Some(Object::MeshService(it)) => {
                let age = Age::made_at(it.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()));
                let next = Tracked::next(namespace.meshes.get(name), age, it.metadata.generation, mesh::read(&it));
                namespace.put_mesh(name, Some(next), lookups, &mut effects);
            }
            Some(Object::ReferenceGrant(it)) => namespace.put_grant(name, Grant::read(&it), &mut effects),
            Some(Object::TrafficPolicy(it)) => {
                let age = Age::made_at(it.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()));
                let next = Tracked::next(namespace.policies.get(name), age, it.metadata.generation, policy::read(&it.spec, &shared));
                namespace.put_policy(name, Some(next), &mut effects);
            }
            Some(Object::SecurityPolicy(it)) => {
                let age = Age::made_at(it.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()));
                let read = security::read(&it.spec, &shared, name, &namespace.defaults.trust_domain);
                let next = Tracked::next(namespace.securities.get(name), age, it.metadata.generation, read);
                namespace.put_security(name, Some(next), &mut effects);
            }
            None => match key.kind {
                Kind::Service => namespace.put_service(name, None, &mut effects),
                Kind::EndpointSlice => namespace.put_slice(name, None, &mut effects),
                Kind::Pod => namespace.put_pod(name, None, &mut effects),
                Kind::Workload => namespace.put_local(name, None, &mut effects),
                Kind::MeshService => namespace.put_mesh(name, None, lookups, &mut effects),
                Kind::ReferenceGrant => namespace.put_grant(name, None, &mut effects),
                Kind::TrafficPolicy => namespace.put_policy(name, None, &mut effects),
                Kind::SecurityPolicy => namespace.put_security(name, None, &mut effects),
            },
        }
        let after = Names::of(namespace, key);
        let touched = self.finish(key, before, after, effects);
        if key.kind == Kind::MeshService {
            self.forget_lookups();
        }
        if key.kind == Kind::SecurityPolicy && !self.keys.is_empty() {
            let wanted = self.key_uris();
            self.keys.retain(&wanted);
        }
        touched
    }

    /// The object of `key` is there but did not decode. Of kinds that nobody reports on, the last good state is kept in silence:
    /// the source of the objects logs it.
    fn put_unreadable(&mut self, key: &ObjectKey, generation: Option<i64>, error: String) -> Touched {
        let Self { namespaces, defaults, lookups, .. } = self;
        let namespace = namespace_of(namespaces, defaults, key);
        let before = Names::of(namespace, key);
        let mut effects = Effects::default();
        match key.kind {
            Kind::MeshService => {
                let next = Tracked::unreadable(namespace.meshes.get(&key.name), generation, error);
                namespace.put_mesh(&key.name, Some(next), lookups, &mut effects);
            }
            Kind::TrafficPolicy => {
                let next = Tracked::unreadable(namespace.policies.get(&key.name), generation, error);
                namespace.put_policy(&key.name, Some(next), &mut effects);
            }
            Kind::SecurityPolicy => {
                let next = Tracked::unreadable(namespace.securities.get(&key.name), generation, error);
                namespace.put_security(&key.name, Some(next), &mut effects);
            }
            Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::ReferenceGrant | Kind::Workload => (),
        }
        let after = Names::of(namespace, key);
        self.finish(key, before, after, effects)
    }

    /// Brings the indexes that reach over namespaces up to date, and touches what they lead to.
    fn finish(&mut self, key: &ObjectKey, before: Names, after: Names, effects: Effects) -> Touched {
        let Effects { mut touched, hosts, zones_gone, zones_come, named, granted } = effects;
        if !zones_gone.is_empty() || !zones_come.is_empty() {
            for node in self.nodes.change(zones_gone, zones_come) {
                touched.workloads.extend(self.namespaces.values().flat_map(|namespace| namespace.workloads_on(&node)));
            }
        }
        for vip in &before.vips {
            self.vips.remove(vip);
        }
        self.vips.extend(after.vips);
        let claim = (key.namespace.clone(), key.name.clone());
        self.index_ports(&claim, &before.ports, &after.ports, &mut touched);
        for host in before.hosts {
            if let Some(claims) = self.hosts.get_mut(&host) {
                claims.remove(&claim);
            }
        }
        for host in after.hosts {
            self.hosts.entry(host).or_default().insert(claim.clone());
        }
        touched.names |= !hosts.is_empty();
        for host in hosts {
            match self.hosts.get(&host) {
                Some(claims) if claims.is_empty() => drop(self.hosts.remove(&host)),
                Some(claims) => {
                    let keys = claims.iter().map(|(namespace, name)| ObjectKey::new(Kind::MeshService, namespace.clone(), name.clone()));
                    touched.reports.extend(keys);
                }
                None => (),
            }
        }
        self.elsewhere.replace(&claim, &before.elsewhere, after.elsewhere);
        if self.namespaces.get(&key.namespace).is_some_and(Namespace::is_empty) {
            self.namespaces.remove(&key.namespace);
        }
        let which = if granted { Which::All } else { Which::These(named) };
        self.elsewhere.touch(&self.namespaces, &key.namespace, &which, &mut touched);
        touched
    }

    /// The MeshService `claim` registers the ports `after`, no longer `before`. Every workload is told of ports that are new or gone.
    fn index_ports(&mut self, claim: &(Name, Name), before: &[u16], after: &[u16], touched: &mut Touched) {
        for port in before {
            if let Some(claims) = self.outside.get_mut(port) {
                claims.remove(claim);
            }
        }
        for port in after {
            self.outside.entry(*port).or_default().insert(claim.clone());
        }
        self.outside.retain(|_, claims| !claims.is_empty());
        if !self.outside_ports.iter().eq(self.outside.keys()) {
            self.outside_ports = self.outside.keys().copied().collect();
            touched.workloads.extend(self.namespaces.values().flat_map(Namespace::workload_ids));
        }
    }

    /// The stored Service, if it is in the mesh.
    fn stored(&self, id: &ServiceId) -> Option<&service::Service> {
        self.namespaces.get(&id.namespace)?.mesh_service(&id.name)
    }

    /// The MeshServices that may be asked for `host`.
    fn claims(&self, host: &str) -> impl Iterator<Item = Claim> {
        self.hosts.get(host).into_iter().flatten().filter_map(|(namespace, name)| self.namespaces.get(namespace)?.claim(name))
    }

    /// The hosts of a MeshService that an older one has.
    fn taken_hosts(&self, namespace: &Namespace, name: &str) -> Vec<TakenHost> {
        let Some(own) = namespace.meshes.get_key_value(name).and_then(|(name, _)| namespace.claim(name)) else { return Vec::new() };
        let hosts = namespace.meshes.get(name).and_then(Tracked::value).map(|mesh| mesh.hosts.clone()).unwrap_or_default();
        let taken = hosts.into_iter().filter_map(|host| {
            let oldest = self.claims(&host).min().filter(|oldest| *oldest < own)?;
            Some(TakenHost { host, namespace: oldest.namespace, mesh: oldest.mesh })
        });
        taken.collect()
    }
}

impl Namespace {
    /// The MeshService called `name`, if it is in force for a service that exists.
    fn claim(&self, name: &Name) -> Option<Claim> {
        let object = self.meshes.get(name)?;
        let service = object.value()?.service.clone();
        let in_force = self.mesh_in_force(&service).is_some_and(|(winner, _)| winner == *name);
        (in_force && self.mesh_service(&service).is_some()).then(|| Claim {
            age: object.age,
            namespace: self.name.clone(),
            mesh: name.clone(),
            service,
        })
    }
}

/// The namespace of `key`, which is there from now on.
fn namespace_of<'a>(namespaces: &'a mut Namespaces, defaults: &Arc<Defaults>, key: &ObjectKey) -> &'a mut Namespace {
    namespaces.entry(key.namespace.clone()).or_insert_with(|| Namespace::new(key.namespace.clone(), Arc::clone(defaults)))
}

/// What one object says that the indexes over all namespaces hold.
#[derive(Default)]
struct Names {
    vips: Vec<Vip>,
    hosts: Vec<Name>,
    /// Ports of something outside.
    ports: Vec<u16>,
    /// Services of other namespaces.
    elsewhere: Vec<ServiceId>,
}

impl Names {
    fn of(namespace: &Namespace, key: &ObjectKey) -> Self {
        match key.kind {
            Kind::Service => {
                let vips = namespace
                    .services
                    .get(&key.name)
                    .into_iter()
                    .flat_map(|it| it.vips.iter().map(|vip| (*vip, it.id.clone(), Kind::Service)));
                Self { vips: vips.collect(), ..Self::default() }
            }
            Kind::MeshService => {
                let mesh = namespace.meshes.get(&key.name).and_then(Tracked::value);
                let outside = namespace.outsides.get(&key.name);
                let vips = outside.into_iter().flat_map(|it| it.vips.iter().map(|vip| (*vip, it.id.clone(), Kind::MeshService))).collect();
                let ports = outside.into_iter().flat_map(|it| it.ports.iter().map(|port| port.number)).collect();
                Self { vips, hosts: mesh.map(|mesh| mesh.hosts.clone()).unwrap_or_default(), ports, ..Self::default() }
            }
            Kind::TrafficPolicy => {
                let policy = namespace.policies.get(&key.name).and_then(Tracked::value);
                Self { elsewhere: policy.map(|policy| policy.named_elsewhere().collect()).unwrap_or_default(), ..Self::default() }
            }
            Kind::EndpointSlice | Kind::Pod | Kind::ReferenceGrant | Kind::SecurityPolicy | Kind::Workload => Self::default(),
        }
    }
}
