//! The laws of change: the order of changes does not matter, and whatever a change alters it also reports as touched.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use leno_api::k8s;
use leno_core::names::Name;
use leno_core::workload::Workload;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_yaml::Value;

use super::*;

const NAMESPACES: [&str; 2] = ["ops", "shop"];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const PODS: [&str; 4] = ["p0", "p1", "p2", "w0"];
const HOSTS: [&str; 3] = ["a", "x.example.com", "y.example.com"];
const IPS: [&str; 4] = ["10.96.0.1", "10.96.0.2", "fd00::1", "fd00::2"];
const PORTS: [u16; 3] = [80, 81, 82];
const OBJECTS: [&str; 3] = ["a", "b", "m"];

/// The value of everything that can be asked for, over the small world of these tests.
#[derive(Debug, PartialEq)]
struct Everything {
    services: BTreeMap<ServiceId, Option<Service>>,
    endpoints: BTreeMap<EndpointsId, Option<Endpoints>>,
    workloads: BTreeMap<WorkloadId, Option<Workload>>,
    reports: BTreeMap<ObjectKey, Option<Report>>,
    names: Vec<Option<ServiceId>>,
    listed: Vec<ServiceId>,
}

impl Everything {
    fn of(translator: &Translator) -> Self {
        let pairs = |names: &[&'static str]| -> Vec<(&'static str, &'static str)> {
            NAMESPACES.iter().flat_map(|namespace| names.iter().map(|name| (*namespace, *name)).collect::<Vec<_>>()).collect()
        };
        let services: Vec<_> = pairs(&SERVICES).into_iter().map(|(namespace, name)| ServiceId::new(namespace, name)).collect();
        let endpoints = services.iter().flat_map(|id| PORTS.map(|port| EndpointsId::new(id.clone(), port)));
        let workloads = pairs(&PODS).into_iter().map(|(namespace, name)| WorkloadId::new(namespace, name));
        let reports = pairs(&OBJECTS).into_iter().flat_map(|(namespace, name)| {
            [Kind::MeshService, Kind::TrafficPolicy, Kind::SecurityPolicy].map(|kind| ObjectKey::new(kind, namespace, name))
        });
        let addresses =
            IPS.iter().flat_map(|ip| PORTS.map(|port| translator.find_address((ip.parse::<std::net::IpAddr>().unwrap(), port).into())));
        let hosts = HOSTS.iter().flat_map(|host| NAMESPACES.map(|namespace| translator.find_host(host, namespace)));
        Self {
            endpoints: endpoints.map(|id| (id.clone(), translator.endpoints(&id))).collect(),
            workloads: workloads.map(|id| (id.clone(), translator.workload(&id))).collect(),
            reports: reports.map(|key| (key.clone(), translator.report(&key))).collect(),
            names: addresses.chain(hosts).collect(),
            listed: translator.services().cloned().collect(),
            services: services.into_iter().map(|id| (id.clone(), translator.service(&id))).collect(),
        }
    }
}

/// Whatever differs between `before` and `after` is in `touched`.
fn check_touched(before: &Everything, after: &Everything, touched: &Touched) -> Result<(), TestCaseError> {
    for (id, value) in &before.services {
        prop_assert!(
            value == &after.services[id] || touched.services.contains(id),
            "service {id}: {value:?} became {:?}",
            after.services[id]
        );
    }
    for (id, value) in &before.endpoints {
        prop_assert!(
            value == &after.endpoints[id] || touched.endpoints.contains(id),
            "endpoints {id}: {value:?} became {:?}",
            after.endpoints[id]
        );
    }
    for (id, value) in &before.workloads {
        prop_assert!(
            value == &after.workloads[id] || touched.workloads.contains(id),
            "workload {id}: {value:?} became {:?}",
            after.workloads[id]
        );
    }
    for (key, value) in &before.reports {
        prop_assert!(
            value == &after.reports[key] || touched.reports.contains(key),
            "report {key}: {value:?} became {:?}",
            after.reports[key]
        );
    }
    prop_assert!(before.names == after.names || touched.names, "names: {:?} became {:?}", before.names, after.names);
    Ok(())
}

/// What is left of an object's history: its last good version, and its present one.
#[derive(Clone, Debug, Default)]
struct History {
    good: Option<Change>,
    present: Option<Change>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// An object comes or changes; the flag says whether it is good.
    Apply(Box<Change>, bool),
    /// The `n`th object there is goes.
    Delete(usize),
    /// The whole list of a kind comes again, without the `n`th of them.
    Relist(Kind, usize),
}

/// What the objects are, independently of the translator.
#[derive(Default)]
struct World(BTreeMap<ObjectKey, History>);

impl World {
    /// Takes `step`; returns the changes that tell the translator, and whether they are a list of a kind.
    fn take(&mut self, step: &Step) -> (Vec<Change>, Option<Kind>) {
        match step {
            Step::Apply(change, good) => {
                let history = self.0.entry(change.key()).or_default();
                history.present = Some((**change).clone());
                if *good {
                    history.good = Some((**change).clone());
                }
                (vec![(**change).clone()], None)
            }
            Step::Delete(index) => match self.0.keys().nth(*index).cloned() {
                None => (Vec::new(), None),
                Some(key) => {
                    self.0.remove(&key);
                    (vec![Change::Delete(key)], None)
                }
            },
            Step::Relist(kind, without) => {
                let keys: Vec<_> = self.0.keys().filter(|key| key.kind == *kind).cloned().collect();
                if let Some(key) = keys.get(*without) {
                    self.0.remove(key);
                }
                let present = self.0.iter().filter(|(key, _)| key.kind == *kind).filter_map(|(_, history)| history.present.clone());
                (present.collect(), Some(*kind))
            }
        }
    }

    /// A translator that learns the objects in an order that `seed` shuffles.
    fn rebuilt(&self, seed: u64, defaults: Defaults) -> Translator {
        let mut objects: Vec<_> = self.0.iter().collect();
        objects.sort_by_key(|(key, _)| BuildHasherDefault::<DefaultHasher>::default().hash_one((key, seed)));
        let mut translator = Translator::new(defaults);
        for (_, history) in objects {
            for change in history.good.iter().chain(&history.present) {
                translator.apply(change.clone());
            }
        }
        translator
    }
}

fn applied(change: Change, good: bool) -> Step {
    Step::Apply(Box::new(change), good)
}

fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => Just("shop"), 1 => Just("ops")]
}

fn labels() -> impl Strategy<Value = k8s::Labels> {
    subsequence(vec![("app", "a"), ("app", "b"), ("version", "v1"), ("version", "v2")], 1..3).prop_map(|pairs| pairs.into_iter().collect())
}

fn service() -> impl Strategy<Value = Step> {
    let port = (select(&PORTS[..]), select(&["http", "grpc", "tcp", ""][..]), select(&[80_u16, 8080][..]), select(&["TCP", "UDP"][..]));
    let kind = prop_oneof![5 => Just("ClusterIP"), 1 => Just("ExternalName")];
    (namespace(), select(&SERVICES[..]), kind, subsequence(IPS.to_vec(), 0..3), labels(), prop::collection::vec(port, 0..3)).prop_map(
        |(namespace, name, kind, ips, selector, ports)| {
            let ports = ports.into_iter().map(|(port, name, target, protocol)| k8s::ServicePort {
                name: Some(name).filter(|name| !name.is_empty()).map(Into::into),
                port,
                target_port: k8s::TargetPort::Number(target),
                protocol: protocol.into(),
                app_protocol: None,
            });
            let service = k8s::Service {
                namespace: namespace.into(),
                name: name.into(),
                generation: None,
                kind: kind.into(),
                cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
                headless: ips.is_empty(),
                selector,
                ports: ports.collect(),
                external_name: None,
                publish_not_ready_addresses: false,
            };
            applied(Change::Apply(Object::Service(service)), true)
        },
    )
}

fn slice() -> impl Strategy<Value = Step> {
    let pod = prop::option::of(select(&PODS[..]));
    let address = select(&["10.0.0.1", "10.0.0.2", "fd00::a", "fd00::b"][..]);
    let endpoint = (address, pod, any::<[bool; 3]>(), place(&["n1", "n2"]), place(&["z1", "z2"]));
    let endpoint = endpoint.prop_map(|(address, pod, [ready, serving, terminating], node, zone)| k8s::Endpoint {
        address: address.parse().unwrap(),
        ready,
        serving,
        terminating,
        pod: pod.map(Name::from),
        node,
        zone,
    });
    let port =
        (select(&["http", "tcp", ""][..]), prop::option::of(select(&[80_u16, 8080][..]))).prop_map(|(name, port)| k8s::EndpointPort {
            name: Some(name).filter(|name| !name.is_empty()).map(Into::into),
            port,
            protocol: "TCP".into(),
            app_protocol: None,
        });
    let service = prop::option::weighted(0.9, select(&SERVICES[..]));
    (namespace(), select(&["s0", "s1", "s2"][..]), service, prop::collection::vec(endpoint, 0..4), prop::collection::vec(port, 0..3))
        .prop_map(|(namespace, name, service, endpoints, ports)| {
            let slice = k8s::EndpointSlice {
                namespace: namespace.into(),
                name: name.into(),
                service: service.map(Into::into),
                address_type: "IPv4".into(),
                endpoints: endpoints.into(),
                ports: ports.into(),
            };
            applied(Change::Apply(Object::EndpointSlice(slice)), true)
        })
}

/// The name of a node or zone, or none.
fn place(names: &'static [&'static str]) -> impl Strategy<Value = Option<Box<str>>> {
    prop::option::of(select(names).prop_map(Box::from))
}

fn pod() -> impl Strategy<Value = Step> {
    let said =
        vec![("leno.dev/injected", ""), ("leno.dev/exclude-inbound-ports", "80"), ("leno.dev/weight", "7"), ("leno.dev/weight", "x")];
    let annotations = subsequence(said, 0..4);
    (namespace(), select(&PODS[..]), labels(), annotations, select(&["default", "pay"][..]), place(&["n1", "n2"])).prop_map(
        |(namespace, name, labels, annotations, account, node)| {
            let pod = k8s::Pod {
                namespace: namespace.into(),
                name: name.into(),
                uid: "".into(),
                labels,
                annotations: annotations.into_iter().collect(),
                owner: None,
                ips: Box::default(),
                phase: k8s::Phase::Running,
                deleting: false,
                host_network: false,
                node,
                service_account: account.into(),
                ports: Box::default(),
            };
            applied(Change::Apply(Object::Pod(pod)), true)
        },
    )
}

/// An object of Leno's own kinds; every second one of a name is older than those of other names.
fn own(kind: &'static str, spec: impl Strategy<Value = (String, bool)>) -> impl Strategy<Value = Step> {
    (namespace(), select(&OBJECTS[..]), 1..4_u8, spec).prop_map(move |(namespace, name, generation, (spec, good))| {
        let second = if name == "m" { 1 } else { 2 };
        let yaml = format!(
            "{{kind: {kind}, metadata: {{name: {name}, namespace: {namespace}, generation: {generation}, creationTimestamp: 2026-01-01T00:00:0{second}Z}}, spec: {{{spec}}}}}"
        );
        applied(change(serde_yaml::from_str::<Value>(&yaml).unwrap()), good)
    })
}

fn mesh() -> impl Strategy<Value = Step> {
    let versions =
        select(&["", "{name: v1, labels: {version: v1}}", "{name: v1, labels: {app: a}}, {name: v2, labels: {version: v2}}"][..]);
    let ports = select(&["", "{port: 80, protocol: GRPC}", "{port: 82, protocol: TCP}"][..]);
    let guards = select(&["", ", healthCheck: {http: {path: /}}", ", healthCheck: {tcp: {}}", ", adaptiveConcurrency: {}"][..]);
    let balancer = select(&["", "locality: PreferZone", "algorithm: PeakEwma, slowStart: 5s"][..]);
    let good = (select(&SERVICES[..]), subsequence(HOSTS.to_vec(), 0..2), versions, ports, guards, balancer);
    let good = good.prop_map(|(service, hosts, versions, ports, guards, balancer)| {
        let (hosts, balancer) = (hosts.join(", "), format!("loadBalancer: {{{balancer}}}"));
        (format!("service: {service}, hosts: [{hosts}], versions: [{versions}], ports: [{ports}], {balancer}{guards}"), true)
    });
    let hosts = subsequence(HOSTS.to_vec(), 0..2);
    let ports = subsequence(vec!["80", "81", "82"], 1..3);
    let outside = (subsequence(IPS.to_vec(), 1..3), hosts, ports, any::<bool>()).prop_map(|(ips, hosts, ports, tls)| {
        let addresses: Vec<String> = ips.iter().chain(&hosts).map(|it| format!("'{it}'")).collect();
        let tls = if tls { ", tls: {port: 443}" } else { "" };
        (format!("external: {{addresses: [{}], ports: [{}]{tls}}}", addresses.join(", "), ports.join(", ")), true)
    });
    own("MeshService", prop_oneof![5 => good, 3 => outside, 1 => Just(("hosts: ['*']".to_owned(), false))])
}

fn policy() -> impl Strategy<Value = Step> {
    let destination = select(
        &[
            "{version: v1}",
            "{version: v2, weight: 3}",
            "{service: b}",
            "{service: c, port: 81}",
            "{service: a, namespace: ops}",
            "{service: b, namespace: shop}",
            "{service: m, namespace: ops, port: 81}",
        ][..],
    );
    let mirrors = select(&["", "", "{service: a, namespace: shop}"][..]);
    let good = (
        select(&["{name: a}", "{name: m}", "{kind: Service, name: a}", "{kind: Service, name: b}"][..]),
        prop::collection::vec(destination, 0..3),
        mirrors,
    );
    let good = good.prop_map(|(target, to, mirrors)| {
        (format!("targetRef: {target}, routes: [{{name: r, destinations: [{}], mirror: [{mirrors}]}}]", to.join(", ")), true)
    });
    let bad = Just(("targetRef: {name: a}, timeout: soon".to_owned(), false));
    own("TrafficPolicy", prop_oneof![5 => good, 1 => bad])
}

fn grant() -> impl Strategy<Value = Step> {
    let from = subsequence(
        vec![
            "{group: leno.dev, kind: TrafficPolicy, namespace: shop}",
            "{group: leno.dev, kind: TrafficPolicy, namespace: ops}",
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}",
        ],
        0..3,
    );
    let to = subsequence(
        vec![
            "{group: '', kind: Service}",
            "{group: '', kind: Service, name: a}",
            "{group: leno.dev, kind: MeshService}",
            "{group: leno.dev, kind: MeshService, name: m}",
            "{group: '', kind: Secret}",
        ],
        0..3,
    );
    (namespace(), select(&["g0", "g1"][..]), from, to).prop_map(|(namespace, name, from, to)| {
        let (from, to) = (from.join(", "), to.join(", "));
        let yaml =
            format!("{{kind: ReferenceGrant, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{from: [{from}], to: [{to}]}}}}");
        applied(change(serde_yaml::from_str::<Value>(&yaml).unwrap()), true)
    })
}

fn security() -> impl Strategy<Value = Step> {
    let scope = select(
        &[
            "",
            "selector: {matchLabels: {app: a}}, ",
            "selector: {matchLabels: {version: v2}}, ",
            "targetRef: {name: a}, ",
            "targetRef: {name: m}, ",
            "targetRef: {kind: Service, name: a}, ",
            "targetRef: {kind: Service, name: b}, ",
        ][..],
    );
    let mode = select(&["", "mtls: {mode: Strict}, ", "mtls: {mode: Permissive}, ", "mtls: {mode: Disabled}, "][..]);
    let rules = select(
        &[
            "",
            "authorization: [{from: [{namespace: ops}]}], ",
            "authorization: [{ports: [80, 82]}, {ports: [8080]}], ",
            "authorization: [{claims: {scope: [read]}}], action: Audit, ",
            "authorization: [{}], action: Deny, ",
        ][..],
    );
    let jwt =
        select(&["", "", "jwt: [{issuer: a, jwks: '{\"keys\": [{\"kty\": \"EC\"}]}'}]", "jwt: [{issuer: b, jwksUri: 'https://b'}]"][..]);
    let egress = select(&["", "egress: {mode: RegisteredOnly}, ", "egress: {mode: Allow}, "][..]);
    let good = (scope, mode, egress, rules, jwt).prop_map(|(scope, mode, egress, rules, jwt)| {
        let egress = if scope.starts_with("targetRef") { "" } else { egress };
        (format!("{scope}{mode}{egress}{rules}{jwt}"), true)
    });
    own("SecurityPolicy", prop_oneof![5 => good, 1 => Just(("authorization: [{paths: ['/%']}]".to_owned(), false))])
}

fn workload() -> impl Strategy<Value = Step> {
    (namespace(), select(&["w0", "p0"][..]), select(&["a", "b"][..]), select(&["v1", "v2"][..]), select(&["80", "8080"][..])).prop_map(
        |(namespace, name, app, version, port)| {
            let yaml = format!(
                "{{kind: Workload, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}, version: {version}}}, annotations: {{leno.dev/injected: ''}}}}, spec: {{ports: [{{port: {port}}}]}}}}"
            );
            applied(change(serde_yaml::from_str::<Value>(&yaml).unwrap()), true)
        },
    )
}

fn unreadable() -> impl Strategy<Value = Step> {
    (namespace(), select(&OBJECTS[..]), select(&[Kind::MeshService, Kind::TrafficPolicy, Kind::SecurityPolicy][..])).prop_map(
        |(namespace, name, kind)| {
            applied(Change::Unreadable { key: ObjectKey::new(kind, namespace, name), generation: Some(9), error: "no".into() }, false)
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => service(),
        4 => slice(),
        3 => pod(),
        4 => mesh(),
        4 => policy(),
        3 => grant(),
        4 => security(),
        2 => workload(),
        1 => unreadable(),
        4 => (0..20_usize).prop_map(Step::Delete),
        1 => (select(&Kind::ALL[..]), 0..4_usize).prop_map(|(kind, without)| Step::Relist(kind, without)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn changes_in_any_order_give_the_model_of_the_final_objects_and_touch_whatever_they_alter(
        steps in prop::collection::vec(step(), 1..40),
        seed: u64,
        holds_unknown_pods: bool,
    ) {
        let defaults = Defaults { holds_unknown_pods, ..Defaults::new("cluster.local") };
        let (mut world, mut translator) = (World::default(), Translator::new(defaults.clone()));
        let mut before = Everything::of(&translator);
        for step in &steps {
            let (changes, list_of) = world.take(step);
            let mut touched = Touched::default();
            match list_of {
                Some(kind) => touched = translator.replace(kind, changes),
                None => changes.into_iter().for_each(|change| touched.merge(translator.apply(change))),
            }
            let after = Everything::of(&translator);
            check_touched(&before, &after, &touched)?;
            before = after;
        }
        prop_assert_eq!(&before, &Everything::of(&world.rebuilt(seed, defaults)));

        // Every list again, as it is: nothing is touched.
        for kind in Kind::ALL {
            let (changes, _) = world.take(&Step::Relist(kind, usize::MAX));
            prop_assert!(translator.replace(kind, changes).is_empty());
        }
        // And without objects nothing is left.
        for kind in Kind::ALL {
            translator.replace(kind, Vec::new());
        }
        prop_assert!(translator.is_empty());
    }
}

/// Guards travel with the endpoints, so that they hold for whoever sends requests there.
#[test]
fn a_guard_that_comes_changes_or_goes_touches_the_endpoints() {
    let mut translator = translator(&[PAYMENT, super::PODS, SLICE, VERSIONS]);
    let id = EndpointsId::new(ServiceId::new("shop", "payment"), 80);
    let breaker = |translator: &Translator| translator.endpoints(&id).unwrap().resilience.clone().and_then(|it| it.breaker);
    for (number, (spec, failures)) in
        [("circuitBreaker: {}", Some(5)), ("circuitBreaker: {failureThreshold: 2}", Some(2)), ("hosts: []", None)].into_iter().enumerate()
    {
        let generation = number + 2;
        let object = format!(
            "kind: MeshService\nmetadata: {{name: payment, namespace: shop, generation: {generation}, creationTimestamp: 2026-01-02T00:00:00Z}}\nspec: {{versions: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}], {spec}}}\n"
        );
        let touched = apply(&mut translator, &object);
        assert!(touched.endpoints.contains(&id), "{spec}");
        assert_eq!(breaker(&translator).map(|it| it.failure_threshold), failures, "{spec}");
    }
}
