//! Publishing without a network: objects in, what proxies hold out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf as _, Bytes};
use leno_api as api;
use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::{ServiceId, WorkloadId};
use leno_core::service::Service;
use leno_core::workload::Workload;
use leno_translate::{Change, Defaults, Kind, Object, ObjectKey, Translator};
use leno_xds::client::{Event, Subscriptions};
use leno_xds::frame::Decoder;
use leno_xds::server::Limits;
use leno_xds::subject::Subject;
use proptest::prelude::*;
use serde_yaml::Value;

use super::counters::Counters;
use super::index::Index;
use super::outbox::{Next, Outbox};
use super::receipts::Receipts;
use super::topic::Topic;
use super::{Caller, ConnectionId, REQUIRED_OF_CLUSTER};
use crate::source::SourceEvent;

/// By then a proxy has acknowledged whatever it was sent.
pub(crate) const ACKNOWLEDGED_AFTER: Duration = Duration::from_secs(1);

/// The change that brings the object in `yaml`.
pub(crate) fn apply(yaml: &str) -> Change {
    let document: Value = serde_yaml::from_str(yaml).unwrap();
    let kind = document["kind"].as_str().unwrap().to_owned();
    Change::Apply(match kind.as_str() {
        "Service" => Object::Service(serde_yaml::from_value::<api::k8s::Watched<_>>(document).unwrap().object),
        "EndpointSlice" => Object::EndpointSlice(serde_yaml::from_value::<api::k8s::Watched<_>>(document).unwrap().object),
        "Pod" => Object::Pod(serde_yaml::from_value::<api::k8s::Watched<_>>(document).unwrap().object),
        "MeshService" => Object::MeshService(serde_yaml::from_value(document).unwrap()),
        "TrafficPolicy" => Object::TrafficPolicy(serde_yaml::from_value(document).unwrap()),
        "SecurityPolicy" => Object::SecurityPolicy(serde_yaml::from_value(document).unwrap()),
        _ => unreachable!("no object of kind {kind}"),
    })
}

pub(crate) fn changed(yaml: &str) -> SourceEvent {
    SourceEvent::Changed(apply(yaml))
}

pub(crate) fn listed(kind: Kind, objects: &[String]) -> SourceEvent {
    SourceEvent::Listed(kind, objects.iter().map(|yaml| apply(yaml)).collect())
}

pub(crate) fn service(name: &str, vip: u8) -> String {
    format!(
        "{{kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{clusterIP: 10.96.0.{vip}, clusterIPs: [10.96.0.{vip}], \
         selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]}}}}"
    )
}

pub(crate) fn slice(service: &str, hosts: &[u8]) -> String {
    let endpoint = |host: &u8| {
        format!("{{addresses: [10.0.0.{host}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {service}-{host}}}}}")
    };
    let endpoints: Vec<String> = hosts.iter().map(endpoint).collect();
    format!(
        "{{kind: EndpointSlice, metadata: {{name: {service}-x, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}, \
         addressType: IPv4, ports: [{{name: http, port: 8080, protocol: TCP}}], endpoints: [{}]}}",
        endpoints.join(", ")
    )
}

pub(crate) fn pod(service: &str, host: u8, version: &str) -> String {
    format!("{{kind: Pod, metadata: {{name: {service}-{host}, namespace: shop, labels: {{app: {service}, version: {version}}}}}}}")
}

pub(crate) fn mesh(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: leno.dev/v1alpha1, kind: MeshService, metadata: {{name: {name}, namespace: shop, generation: 1}}, spec: {spec}}}"
    )
}

pub(crate) const VERSIONS: &str = "{versions: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}";

pub(crate) fn id(name: &str) -> ServiceId {
    ServiceId::new("shop", name)
}

pub(crate) fn endpoints_of(name: &str) -> Subject {
    Subject::Endpoints(EndpointsId::new(id(name), 80))
}

pub(crate) fn address(vip: u8) -> Subject {
    Subject::Address(([10, 96, 0, vip], 80).into())
}

/// A proxy without a network.
struct Proxy {
    connection: ConnectionId,
    outbox: Arc<Outbox>,
    client: Subscriptions,
    wanted: BTreeSet<Subject>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    endpoints: BTreeMap<EndpointsId, Arc<Endpoints>>,
    workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    meanings: BTreeMap<Subject, Option<ServiceId>>,
    /// The pieces of bytes it was sent, not copied.
    pieces: Vec<Bytes>,
}

/// An index, its proxies, and a clock that stands.
struct Mesh {
    index: Index,
    receipts: Receipts,
    counters: Arc<Counters>,
    proxies: Vec<Proxy>,
    next: u64,
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH
}

impl Mesh {
    fn new(proxies: usize) -> Self {
        let (receipts, counters) = (Receipts::default(), Arc::new(Counters::default()));
        let translator = Translator::new(Defaults::new("cluster.local"));
        let index = Index::new(translator, REQUIRED_OF_CLUSTER.into(), receipts.clone(), counters.clone());
        let mut mesh = Self { index, receipts, counters, proxies: Vec::new(), next: 0 };
        for index in 0..proxies {
            let client = Subscriptions::new(&WorkloadId::new("shop", format!("web-{index}")));
            mesh.proxies.push(Proxy {
                connection: ConnectionId(0),
                outbox: Arc::new(Outbox::new(Limits::default())),
                client,
                wanted: BTreeSet::new(),
                services: BTreeMap::new(),
                endpoints: BTreeMap::new(),
                workloads: BTreeMap::new(),
                meanings: BTreeMap::new(),
                pieces: Vec::new(),
            });
            mesh.reconnect(index);
        }
        mesh
    }

    /// With the objects listed.
    fn listed(proxies: usize, objects: &[String]) -> Self {
        let mut mesh = Self::new(proxies);
        mesh.list(&REQUIRED_OF_CLUSTER);
        mesh.index.apply(objects.iter().map(|yaml| changed(yaml)), now());
        mesh
    }

    fn list(&mut self, kinds: &[Kind]) {
        self.index.apply(kinds.iter().map(|kind| listed(*kind, &[])), now());
    }

    fn reconnect(&mut self, index: usize) {
        let proxy = &mut self.proxies[index];
        self.index.disconnect(proxy.connection, now());
        self.next += 1;
        proxy.connection = ConnectionId(self.next);
        proxy.outbox = Arc::new(Outbox::new(Limits::default()));
        proxy.client.connected();
        self.index.connect(proxy.connection, proxy.outbox.clone(), Caller::Anybody);
    }

    fn subscribe(&mut self, index: usize, subject: Subject) {
        self.proxies[index].client.subscribe(subject.clone());
        self.proxies[index].wanted.insert(subject);
    }

    fn unsubscribe(&mut self, index: usize, subject: &Subject) {
        let proxy = &mut self.proxies[index];
        let event = proxy.client.unsubscribe(subject);
        proxy.wanted.remove(subject);
        proxy.meanings.remove(subject);
        proxy.forget(subject);
        if let Some(Event::Unused(subject)) = event {
            proxy.forget(&subject);
        }
    }

    /// Until nobody has anything to say, even later.
    fn settle(&mut self) {
        let received = Instant::now();
        let later = received + ACKNOWLEDGED_AFTER;
        loop {
            let mut is_quiet = true;
            for proxy in &mut self.proxies {
                while let Some(request) = proxy.client.next_request(later) {
                    let request = unframed(&request);
                    let intake = proxy.outbox.with(|connection| connection.receive(request)).unwrap();
                    self.index.intake(proxy.connection, intake, now());
                    is_quiet = false;
                }
                while let Some(mut message) = proxy.outbox.with(leno_xds::server::Connection::next_response) {
                    proxy.pieces.extend(message.pieces().cloned());
                    let bytes = message.copy_to_bytes(message.remaining());
                    for event in proxy.client.receive(unframed(&bytes), received).unwrap() {
                        proxy.act(event);
                    }
                    is_quiet = false;
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    /// What was encoded since the last call.
    fn encoded(&self, before: &mut u64) -> u64 {
        let since = self.counters.encoded() - *before;
        *before = self.counters.encoded();
        since
    }
}

impl Proxy {
    fn act(&mut self, event: Event) {
        match event {
            Event::Service(it) => drop(self.services.insert(it.id.clone(), it)),
            Event::Endpoints(it) => drop(self.endpoints.insert(it.id.clone(), it)),
            Event::Workload(it) => drop(self.workloads.insert(it.id.clone(), it)),
            Event::Gone(subject) | Event::Unused(subject) => self.forget(&subject),
            Event::Alias(alias, meaning) => drop(self.meanings.insert(alias, meaning)),
            Event::Trust(_) => (),
            Event::Rejected { name, reason } => unreachable!("{name}: {reason}"),
        }
    }

    fn forget(&mut self, subject: &Subject) {
        match subject {
            Subject::Service(id) if !self.meanings.values().flatten().any(|it| it == id) => drop(self.services.remove(id)),
            Subject::Endpoints(id) => drop(self.endpoints.remove(id)),
            Subject::Workload(id) => drop(self.workloads.remove(id)),
            Subject::Service(_) | Subject::Address(_) | Subject::Host(_) | Subject::Trust => (),
        }
    }
}

fn unframed(framed: &Bytes) -> Bytes {
    let mut decoder = Decoder::new(1 << 20);
    decoder.push(framed);
    decoder.next().unwrap().expect("a whole message was written")
}

#[test]
fn nothing_is_said_before_the_first_list_of_every_required_kind_is_in() {
    let mut mesh = Mesh::new(1);
    mesh.subscribe(0, address(1));
    mesh.subscribe(0, endpoints_of("cart"));
    mesh.subscribe(0, Subject::Service(id("ghost")));
    mesh.index.apply([listed(Kind::Service, &[service("cart", 1)])], now());
    for kind in [Kind::MeshService, Kind::ReferenceGrant, Kind::TrafficPolicy, Kind::SecurityPolicy, Kind::Pod] {
        mesh.list(&[kind]);
        mesh.settle();
        assert_eq!(mesh.proxies[0].pieces.len(), 0, "{kind} is not the last list");
        assert!(!mesh.index.is_ready());
    }
    mesh.index.apply([listed(Kind::EndpointSlice, &[slice("cart", &[7])])], now());
    assert!(mesh.index.is_ready());
    mesh.settle();
    let proxy = &mesh.proxies[0];
    assert_eq!(proxy.meanings[&address(1)], Some(id("cart")));
    assert_eq!(proxy.services.keys().collect::<Vec<_>>(), [&id("cart")], "ghost is known to be absent");
    assert_eq!(proxy.endpoints.len(), 1);
}

#[test]
fn an_endpoint_change_encodes_that_one_resource_once_for_all_and_shares_its_bytes() {
    let objects = [service("cart", 1), service("payment", 2), slice("cart", &[7]), slice("payment", &[8])];
    let mut mesh = Mesh::listed(100, &objects);
    for index in 0..100 {
        for subject in [address(1), address(2), endpoints_of("cart"), endpoints_of("payment")] {
            mesh.subscribe(index, subject);
        }
    }
    let mut before = 0;
    mesh.settle();
    assert_eq!(mesh.encoded(&mut before), 4, "each resource once, whoever subscribes");

    mesh.proxies.iter_mut().for_each(|proxy| proxy.pieces.clear());
    mesh.index.apply([changed(&slice("cart", &[7, 9]))], now());
    mesh.settle();
    assert_eq!(mesh.encoded(&mut before), 1);
    let shared: BTreeSet<*const u8> = mesh.proxies.iter().map(|proxy| proxy.pieces[1].as_ptr()).collect();
    assert_eq!(shared.len(), 1, "a hundred proxies are sent the same bytes in memory");
    assert!(mesh.proxies.iter().all(|proxy| proxy.pieces.len() == 2 && proxy.pieces[0].len() < 60), "the rest is a little glue");
    assert!(mesh.proxies.iter().all(|proxy| proxy.endpoints[&EndpointsId::new(id("cart"), 80)].endpoints.len() == 2));

    mesh.index.apply([changed(&slice("cart", &[7, 9])), changed(&service("nobody", 9))], now());
    mesh.settle();
    assert_eq!(mesh.encoded(&mut before), 0, "what nobody subscribes to is not computed");
}

#[test]
fn ten_services_of_ten_endpoints_cost_a_proxy_little() {
    let mut objects = Vec::new();
    for index in 0..10 {
        objects.push(service(&format!("svc-{index}"), index));
        objects.push(slice(&format!("svc-{index}"), &(index * 10..index * 10 + 10).collect::<Vec<_>>()));
    }
    let mut mesh = Mesh::listed(1, &objects);
    for index in 0..10 {
        mesh.subscribe(0, address(index));
        mesh.subscribe(0, endpoints_of(&format!("svc-{index}")));
    }
    mesh.settle();
    assert_eq!(mesh.proxies[0].endpoints.len(), 10);
    let bytes: usize = mesh.proxies[0].pieces.iter().map(Bytes::len).sum();
    assert!(bytes <= 12 * 1024, "{bytes}");
}

#[test]
fn receipts_follow_answers_and_subscriptions() {
    let mut mesh = Mesh::listed(2, &[service("cart", 1)]);
    mesh.subscribe(0, address(1));
    mesh.subscribe(0, Subject::Service(id("cart")));
    mesh.subscribe(1, Subject::Host("cart".into()));
    mesh.settle();
    let counts = |mesh: &Mesh| {
        let receipt = mesh.receipts.of(&Topic::Service(id("cart")));
        (receipt.subscribed, receipt.current, receipt.current_since.is_some())
    };
    assert_eq!(counts(&mesh), (2, 2, true));
    mesh.index.apply([changed(&mesh_with_hosts("cart", "cart.example.com"))], now());
    assert_eq!(counts(&mesh), (2, 0, false), "nobody has answered yet");
    mesh.settle();
    assert_eq!(counts(&mesh), (2, 2, true));
    mesh.unsubscribe(0, &address(1));
    mesh.settle();
    assert_eq!(counts(&mesh), (2, 2, true), "the canonical subscription is left");
    mesh.reconnect(1);
    assert_eq!(counts(&mesh), (1, 1, true));
    mesh.settle();
    assert_eq!(counts(&mesh), (2, 2, true), "a proxy that says it has the current state needs no answer");
}

fn mesh_with_hosts(name: &str, host: &str) -> String {
    mesh(name, &format!("{{hosts: [{host}]}}"))
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, u8),
    Unsubscribe(usize, u8),
    Service(u8, Option<u8>),
    Slice(u8, Vec<u8>),
    Hosts(u8, Option<u8>),
    Versions(u8),
    Pods(bool),
    /// A list of Services that come one by one, with how many of them before the list breaks off and begins again.
    Services(Vec<u8>, usize),
    Settle,
    Reconnect(usize),
}

const NAMES: [&str; 3] = ["cart", "payment", "web"];

fn subject(index: u8) -> Subject {
    match index % 11 {
        index @ 0..3 => Subject::Service(id(NAMES[usize::from(index)])),
        index @ 3..6 => endpoints_of(NAMES[usize::from(index - 3)]),
        index @ 6..8 => address(index - 5),
        8 => Subject::Host("cart".into()),
        9 => Subject::Host("a1.example".into()),
        _ => Subject::Workload(WorkloadId::new("shop", "payment-1")),
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2, any::<u8>()).prop_map(|(proxy, subject)| Step::Subscribe(proxy, subject)),
        1 => (0usize..2, any::<u8>()).prop_map(|(proxy, subject)| Step::Unsubscribe(proxy, subject)),
        3 => (0u8..3, prop::option::weighted(0.8, 1u8..3)).prop_map(|(name, vip)| Step::Service(name, vip)),
        2 => (0u8..3, prop::collection::vec(1u8..5, 0..3)).prop_map(|(name, hosts)| Step::Slice(name, hosts)),
        2 => (0u8..3, prop::option::of(0u8..3)).prop_map(|(name, host)| Step::Hosts(name, host)),
        1 => (0u8..3).prop_map(Step::Versions),
        1 => any::<bool>().prop_map(Step::Pods),
        1 => (prop::collection::vec(0u8..3, 0..3), 0usize..3).prop_map(|(names, broken)| Step::Services(names, broken)),
        2 => Just(Step::Settle),
        1 => (0usize..2).prop_map(Step::Reconnect),
    ]
}

impl Mesh {
    fn step(&mut self, step: Step) {
        let name = |index: u8| NAMES[usize::from(index)];
        let event = match step {
            Step::Subscribe(proxy, index) => return self.subscribe(proxy, subject(index)),
            Step::Unsubscribe(proxy, index) => return self.unsubscribe(proxy, &subject(index)),
            Step::Settle => return self.settle(),
            Step::Reconnect(proxy) => return self.reconnect(proxy),
            Step::Services(names, broken) => return self.list_services(&names, broken),
            Step::Service(index, Some(vip)) => changed(&service(name(index), vip)),
            Step::Service(index, None) => SourceEvent::Changed(Change::Delete(ObjectKey::new(Kind::Service, "shop", name(index)))),
            Step::Slice(index, mut hosts) => {
                hosts.dedup();
                changed(&slice(name(index), &hosts))
            }
            Step::Hosts(index, Some(host)) => changed(&mesh_with_hosts(name(index), &format!("a{host}.example"))),
            Step::Hosts(index, None) => SourceEvent::Changed(Change::Delete(ObjectKey::new(Kind::MeshService, "shop", name(index)))),
            Step::Versions(index) => changed(&mesh(name(index), VERSIONS)),
            Step::Pods(second) => listed(Kind::Pod, &[pod("payment", 1, if second { "v2" } else { "v1" })]),
        };
        self.index.apply([event], now());
    }

    /// Lists Services one by one; in the end there are those and no others.
    fn list_services(&mut self, names: &[u8], broken: usize) {
        let events = |count: usize| {
            let listed = names.iter().take(count).map(|index| changed(&service(NAMES[usize::from(*index)], index + 1)));
            [SourceEvent::Listing(Kind::Service)].into_iter().chain(listed).collect::<Vec<_>>()
        };
        self.index.apply(events(broken), now());
        self.index.apply(events(usize::MAX), now());
        self.index.apply([SourceEvent::Whole(Kind::Service)], now());
        let present: BTreeSet<_> = names.iter().map(|index| ObjectKey::new(Kind::Service, "shop", NAMES[usize::from(*index)])).collect();
        assert_eq!(self.index.translator().keys(Kind::Service), present);
    }

    /// What the law demands of one proxy: exactly what the translator says now of what it subscribes to.
    fn check(&self, proxy: &Proxy) -> Result<(), TestCaseError> {
        let translator = self.index.translator();
        let mut services = BTreeSet::new();
        for subject in &proxy.wanted {
            let found = match subject {
                Subject::Address(address) => translator.find_address(*address),
                Subject::Host(host) => translator.find_host(host, "shop"),
                Subject::Service(id) => Some(id.clone()),
                Subject::Endpoints(id) => {
                    prop_assert_eq!(proxy.endpoints.get(id).map(|it| Endpoints::clone(it)), translator.endpoints(id), "{}", id);
                    continue;
                }
                Subject::Trust => continue,
                Subject::Workload(id) => {
                    prop_assert_eq!(proxy.workloads.get(id).map(|it| Workload::clone(it)), translator.workload(id), "{}", id);
                    continue;
                }
            };
            let found = found.filter(|id| translator.service(id).is_some());
            if subject.is_alias() {
                prop_assert_eq!(&proxy.meanings[subject], &found, "{}", subject);
            }
            services.extend(found);
        }
        prop_assert_eq!(proxy.services.keys().collect::<Vec<_>>(), services.iter().collect::<Vec<_>>());
        for (id, service) in &proxy.services {
            prop_assert_eq!(Some(Service::clone(service)), translator.service(id));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    /// Whatever changes, is subscribed to, dropped and reconnected: in the end each proxy holds exactly what the translator
    /// says of what it subscribes to, and the receipts say so.
    #[test]
    fn every_proxy_ends_with_what_the_objects_say(steps in prop::collection::vec(step(), 0..60)) {
        let mut mesh = Mesh::new(2);
        mesh.list(&REQUIRED_OF_CLUSTER);
        steps.into_iter().for_each(|step| mesh.step(step));
        mesh.step(Step::Pods(true));
        mesh.settle();
        for proxy in &mesh.proxies {
            mesh.check(proxy)?;
        }
        for name in NAMES {
            let holders = mesh.proxies.iter().filter(|proxy| proxy.services.contains_key(&id(name))).count();
            let receipt = mesh.receipts.of(&Topic::Service(id(name)));
            prop_assert_eq!((receipt.subscribed, receipt.current), (holders, holders), "{}", name);
        }
        for index in 0..2 {
            mesh.proxies.iter_mut().for_each(|proxy| proxy.pieces.clear());
            mesh.reconnect(index);
            mesh.settle();
            prop_assert_eq!(mesh.proxies[index].pieces.len(), 0, "a reconnect with nothing changed sends nothing");
            mesh.check(&mesh.proxies[index])?;
        }
    }
}

#[test]
fn nothing_is_gone_before_a_list_is_whole_and_nothing_is_served_before_the_first_ones_are() {
    let mut mesh = Mesh::new(1);
    for kind in REQUIRED_OF_CLUSTER {
        assert!(!mesh.index.is_ready());
        mesh.index.apply([SourceEvent::Listing(kind)], now());
        if kind == Kind::Service {
            mesh.index.apply([changed(&service("cart", 1)), changed(&service("web", 2))], now());
        }
        mesh.index.apply([SourceEvent::Whole(kind)], now());
    }
    assert!(mesh.index.is_ready());
    mesh.subscribe(0, Subject::Service(id("cart")));
    mesh.settle();
    mesh.index.apply([SourceEvent::Listing(Kind::Service), changed(&service("web", 2))], now());
    mesh.settle();
    assert!(mesh.proxies[0].services.contains_key(&id("cart")), "the list is not whole");
    mesh.index.apply([SourceEvent::Whole(Kind::Service)], now());
    mesh.settle();
    assert!(!mesh.proxies[0].services.contains_key(&id("cart")));
    assert_eq!(mesh.index.translator().keys(Kind::Service).len(), 1);
}

#[test]
fn an_ended_outbox_says_so_to_its_writer() {
    use super::outbox::Ending;
    use std::task::{Context, Poll, Waker};
    let outbox = Outbox::new(Limits::default());
    let mut context = Context::from_waker(Waker::noop());
    assert!(outbox.poll_next(&mut context).is_pending());
    let ending = Ending { code: 14, message: "bye".to_owned() };
    outbox.end(ending.clone());
    outbox.end(Ending { code: 0, message: String::new() });
    assert!(matches!(outbox.poll_next(&mut context), Poll::Ready(Next::End(it)) if it == ending), "the first ending counts");
}

fn security(name: &str, generation: u8, spec: &str) -> String {
    format!(
        "{{apiVersion: leno.dev/v1alpha1, kind: SecurityPolicy, metadata: {{name: {name}, namespace: shop, generation: {generation}}}, \
         spec: {spec}}}"
    )
}

#[test]
fn receipts_of_a_policy_count_the_proxies_that_enforce_it() {
    let policy = |generation, spec| changed(&security("p", generation, spec));
    let mut mesh = Mesh::listed(2, &[service("web", 1), slice("web", &[0, 1]), pod("web", 0, "v1"), pod("web", 1, "v2")]);
    for index in 0..2 {
        mesh.subscribe(index, Subject::Workload(WorkloadId::new("shop", format!("web-{index}"))));
    }
    mesh.settle();
    let topic = Topic::Security(id("p"));
    let receipt = |mesh: &Mesh| {
        let receipt = mesh.receipts.of(&topic);
        (receipt.version.as_deref().map(str::to_owned), receipt.subscribed, receipt.current)
    };
    assert_eq!(receipt(&mesh), (None, 0, 0));
    mesh.index.apply([policy(1, "{authorization: [{}]}")], now());
    assert_eq!(receipt(&mesh), (Some("1".into()), 2, 0), "nobody has answered yet");
    mesh.settle();
    assert_eq!(receipt(&mesh), (Some("1".into()), 2, 2));
    mesh.index.apply([policy(2, "{authorization: [{}], action: Allow}")], now());
    assert_eq!(receipt(&mesh), (Some("2".into()), 2, 2), "it says the same as before");
    mesh.index.apply([policy(3, "{authorization: [{}], selector: {matchLabels: {version: v2}}}")], now());
    mesh.settle();
    assert_eq!(receipt(&mesh), (Some("3".into()), 1, 1));
    mesh.reconnect(1);
    assert_eq!(receipt(&mesh), (None, 0, 0), "nobody who enforces it is connected");
    mesh.settle();
    assert_eq!(receipt(&mesh), (Some("3".into()), 1, 1), "a proxy that says it has the current state needs no answer");
    mesh.index.apply([policy(4, "{authorization: [{paths: ['/%']}]}")], now());
    assert_eq!(receipt(&mesh), (Some("4".into()), 1, 1), "the last good state stays in force");
}

#[test]
fn nothing_is_served_before_the_keys_of_issuers_were_tried() {
    let mut mesh = Mesh::new(1);
    let web = WorkloadId::new("shop", "web-0");
    mesh.subscribe(0, Subject::Workload(web.clone()));
    mesh.index.apply([listed(Kind::SecurityPolicy, &[security("p", 1, "{jwt: [{issuer: a, jwksUri: 'https://a.example/'}]}")])], now());
    for kind in REQUIRED_OF_CLUSTER.into_iter().filter(|kind| ![Kind::SecurityPolicy, Kind::Pod].contains(kind)) {
        mesh.list(&[kind]);
    }
    mesh.index.apply([listed(Kind::Pod, &[pod("web", 0, "v1")])], now());
    assert!(!mesh.index.is_ready());
    let uris = mesh.index.take_key_uris().unwrap();
    mesh.settle();
    assert!(mesh.proxies[0].workloads.is_empty());
    mesh.index.apply(uris.into_iter().map(|uri| SourceEvent::Keys(uri, Ok("keys".into()))), now());
    assert!(mesh.index.is_ready() && mesh.index.take_key_uris().is_none());
    mesh.settle();
    let workload = &mesh.proxies[0].workloads[&web];
    assert_eq!(&*workload.others.authorization.issuers[0].keys, "keys");
    mesh.index.apply([SourceEvent::Keys("https://a.example/".into(), Ok("newer".into()))], now());
    mesh.settle();
    assert_eq!(&*mesh.proxies[0].workloads[&web].others.authorization.issuers[0].keys, "newer");
}
