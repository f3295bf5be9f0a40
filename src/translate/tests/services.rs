//! Services and workloads: where they are found, what their ports speak.

use leno_core::balance::Algorithm;
use leno_core::service::Protocol;

use super::*;

#[test]
fn service_has_its_addresses_and_its_tcp_ports() {
    let translator = translator(&["
kind: Service
metadata: {name: dns, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00::a']
  ports:
  - {name: http-metrics, port: 9153, protocol: TCP}
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
  - {name: assoc, port: 7000, protocol: SCTP}
"]);
    let service = service(&translator, "dns");
    assert_eq!(service.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.10", "fd00::a"]);
    let ports: Vec<_> = service.ports.iter().map(|port| (port.port, port.protocol)).collect();
    assert_eq!(ports, [(53, Protocol::Detect), (9153, Protocol::Http)]);
}

#[test]
fn what_a_mesh_service_says_of_a_port_comes_before_what_the_service_says() {
    let mut translator = translator(&[PAYMENT]);
    assert_eq!(service(&translator, "payment").ports[0].protocol, Protocol::Http);
    apply(
        &mut translator,
        "
kind: MeshService
metadata: {name: payment, namespace: shop}
spec: {ports: [{port: 80, protocol: GRPC}], loadBalancer: {algorithm: RoundRobin}, hosts: [Pay.Example.com]}
",
    );
    let service = service(&translator, "payment");
    let balancing = translator.endpoints(&endpoints_id("payment", 80)).unwrap().balancing.unwrap();
    assert_eq!((service.ports[0].protocol, &balancing.algorithm), (Protocol::Grpc, &Algorithm::RoundRobin));
    assert_eq!(service.hosts, ["pay.example.com".into()]);
}

#[test]
fn headless_service_has_no_address_and_is_found_by_name() {
    let translator = translator(&["
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, clusterIPs: [None], selector: {app: db}, ports: [{port: 5432}]}
"]);
    assert!(service(&translator, "db").vips.is_empty());
    assert_eq!(translator.find_host("db", "shop"), Some(service_id("db")));
}

#[test]
fn external_name_is_not_in_the_mesh() {
    let external = "
kind: Service
metadata: {name: payment, namespace: shop}
spec: {type: ExternalName, externalName: pay.example.com, ports: [{port: 80}]}
";
    let mut translator = translator(&[PAYMENT]);
    let touched = apply(&mut translator, external);
    assert_eq!(translator.service(&service_id("payment")), None);
    assert_eq!(translator.endpoints(&endpoints_id("payment", 80)), None);
    assert_eq!(translator.find_host("payment", "shop"), None);
    assert_eq!(translator.find_address("10.96.0.5:80".parse().unwrap()), None);
    assert_eq!(translator.services().count(), 0);
    assert!(touched.names && touched.services.contains(&service_id("payment")));
}

#[test]
fn addresses_and_hosts_lead_to_services() {
    let translator = translator(&[
        PAYMENT,
        "
kind: MeshService
metadata: {name: payment, namespace: shop, creationTimestamp: 2026-01-02T00:00:00Z}
spec: {hosts: [pay.example.com, payment.ops]}
---
kind: Service
metadata: {name: payment, namespace: ops}
spec: {clusterIP: 10.96.0.6, ports: [{port: 80}]}
---
kind: MeshService
metadata: {name: payment, namespace: ops, creationTimestamp: 2026-01-03T00:00:00Z}
spec: {hosts: [pay.example.com, only.ops.example.com]}
---
kind: MeshService
metadata: {name: ghost, namespace: ops, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {hosts: [pay.example.com]}
",
    ]);
    let addresses =
        [("10.96.0.5:80", Some("shop/payment")), ("10.96.0.6:80", Some("ops/payment")), ("10.96.0.5:81", None), ("10.96.0.7:80", None)];
    for (address, want) in addresses {
        let found = translator.find_address(address.parse().unwrap());
        assert_eq!(found.map(|id| id.to_string()).as_deref(), want, "{address}");
    }
    let hosts = [
        ("payment", "shop", Some("shop/payment")),
        ("payment", "web", None),
        ("payment.shop.svc.cluster.local", "web", Some("shop/payment")),
        // No MeshService takes the name of another service.
        ("payment.ops", "shop", Some("ops/payment")),
        // One's own namespace first, then the oldest that has a service.
        ("pay.example.com", "ops", Some("ops/payment")),
        ("pay.example.com", "web", Some("shop/payment")),
        ("PAY.example.com.", "web", Some("shop/payment")),
        ("only.ops.example.com", "web", Some("ops/payment")),
        ("other.example.com", "web", None),
    ];
    for (host, namespace, want) in hosts {
        let found = translator.find_host(host, namespace);
        assert_eq!(found.map(|id| id.to_string()).as_deref(), want, "{host} from {namespace}");
    }
}

#[test]
fn workload_has_the_container_ports_that_services_lead_to() {
    let mut translator = translator(&[
        SLICE,
        "
kind: Service
metadata: {name: payment, namespace: shop}
spec: {clusterIP: 10.96.0.5, ports: [{name: http, port: 80}, {name: grpc, port: 90}]}
---
kind: Service
metadata: {name: a-admin, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{name: tcp-admin, port: 1}]}
---
kind: EndpointSlice
metadata: {name: admin-x, namespace: shop, labels: {kubernetes.io/service-name: a-admin}}
ports: [{name: tcp-admin, port: 9000}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}, targetRef: {kind: Pod, name: payment-1}}]
",
        VERSIONS,
    ]);
    let ports = |translator: &Translator| {
        let workload = translator.workload(&workload_id("payment-1")).unwrap();
        let line = |it: &leno_core::workload::InboundPort| {
            format!("{} {:?} {} {}", it.port, it.protocol, it.service.name, it.version.as_deref().unwrap_or("-"))
        };
        workload.inbound.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(ports(&translator), ["8080 Http payment -", "9000 Tcp a-admin -"], "before the pods are known");
    let touched = apply(&mut translator, PODS);
    assert_eq!(ports(&translator), ["8080 Http payment v1", "9000 Tcp a-admin -"]);
    assert!(touched.workloads.contains(&workload_id("payment-1")));
    // Two services lead to one port: the first by name.
    apply(
        &mut translator,
        "
kind: EndpointSlice
metadata: {name: admin-x, namespace: shop, labels: {kubernetes.io/service-name: a-admin}}
ports: [{name: tcp-admin, port: 8080}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: payment-1}}]
",
    );
    assert_eq!(ports(&translator), ["8080 Tcp a-admin -"]);
    assert_eq!(translator.workload(&workload_id("payment-9")), None);
}

#[test]
fn workloads_of_a_folder_stand_behind_the_services_that_select_them() {
    let mut translator = translator(&[
        VERSIONS,
        "
kind: Service
metadata: {name: payment, namespace: shop}
spec: {selector: {app: payment}, ports: [{name: http, port: 80, targetPort: web}, {name: grpc, port: 90, targetPort: 9090}]}
---
kind: Workload
metadata: {name: payment-1, namespace: shop, labels: {app: payment, version: v1}}
spec: {ports: [{name: web, port: 8081}, {port: 9090}]}
---
kind: Workload
metadata: {name: payment-2, namespace: shop, labels: {app: payment}}
spec: {address: 127.0.0.2, ports: [{name: web, port: 8082}]}
---
kind: Workload
metadata: {name: caller, namespace: shop, labels: {app: caller}}
spec: {}
",
    ]);
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 80))), ["127.0.0.1:8081 payment-1 v1", "127.0.0.2:8082 payment-2 "]);
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 90))), ["127.0.0.1:9090 payment-1 v1"]);
    let inbound = translator.workload(&workload_id("payment-1")).unwrap().inbound;
    let ports: Vec<_> = inbound.iter().map(|it| (it.port, it.protocol, it.version.as_deref())).collect();
    assert_eq!(ports, [(8081, Protocol::Http, Some("v1")), (9090, Protocol::Grpc, Some("v1"))]);
    assert!(translator.workload(&workload_id("caller")).unwrap().inbound.is_empty());

    let touched = apply(
        &mut translator,
        "
kind: Workload
metadata: {name: payment-2, namespace: shop, labels: {app: other}}
spec: {address: 127.0.0.2, ports: [{name: web, port: 8082}]}
",
    );
    assert_eq!(lines(translator.endpoints(&endpoints_id("payment", 80))), ["127.0.0.1:8081 payment-1 v1"]);
    assert!(touched.services.is_empty() && touched.endpoints.contains(&endpoints_id("payment", 80)));
}
