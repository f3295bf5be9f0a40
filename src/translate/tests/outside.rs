//! What is registered outside the cluster, and where apps may connect to.

use std::net::{IpAddr, SocketAddr};

use leno_core::workload::{Egress, Workload};

use super::*;

const API: &str = "
kind: MeshService
metadata: {name: api, namespace: shop, generation: 1, creationTimestamp: 2026-01-02T00:00:00Z}
spec:
  hosts: [api.internal]
  external: {addresses: [api.example.com, 192.0.2.9], ports: [80, 443], tls: {port: 443}}
  ports: [{port: 80, protocol: HTTP}]
";

fn found(translator: &mut Translator, host: &str, addresses: &[&str]) -> Touched {
    translator.set_addresses(&host.into(), Ok(addresses.iter().map(|it| it.parse().unwrap()).collect()))
}

fn at(translator: &Translator, address: &str) -> Option<String> {
    translator.find_address(address.parse::<SocketAddr>().unwrap()).map(|id| id.to_string())
}

fn workload(translator: &Translator, name: &str) -> Workload {
    translator.workload(&workload_id(name)).unwrap()
}

#[test]
fn something_outside_is_a_service_at_its_addresses_and_those_of_its_hosts() {
    let mut translator = translator(&[API]);
    assert_eq!(translator.outside_hosts(), ["api.example.com".into()].into());
    assert!(!translator.has_tried_hosts());
    let touched = found(&mut translator, "api.example.com", &["198.51.100.2", "192.0.2.9"]);
    assert_eq!(touched.endpoints, [endpoints_id("api", 80), endpoints_id("api", 443)].into());
    assert!(touched.names && touched.services.is_empty() && translator.has_tried_hosts());
    let service = service(&translator, "api");
    assert!(service.outside && service.vips.is_empty());
    assert_eq!(service.hosts, ["api.example.com".into(), "api.internal".into()]);
    let endpoints = translator.endpoints(&endpoints_id("api", 80)).unwrap();
    let origination = endpoints.origination.clone().unwrap();
    assert_eq!((&*origination.server_name, origination.roots.len()), ("api.example.com", 0));
    assert_eq!(lines(Some(endpoints)), ["192.0.2.9:443  ", "198.51.100.2:443  "]);
    let places = ["192.0.2.9:80", "198.51.100.2:443", "198.51.100.2:444"].map(|address| at(&translator, address));
    assert_eq!(places, [Some("shop/api".to_owned()), Some("shop/api".to_owned()), None]);
    assert_eq!(translator.find_host("API.example.com.", "other"), Some(service_id("api")));
    let report = translator.report(&key(Kind::MeshService, "api")).unwrap();
    assert_eq!(outcome(&report), "Accepted=True Accepted; ResolvedRefs=True ResolvedRefs");
    assert_eq!((report.service, report.endpoints.map(|it| it.ready)), (Some(service_id("api")), Some(2)));
}

#[test]
fn addresses_stay_while_dns_is_down_and_move_when_it_says_so() {
    let mut translator = translator(&[API]);
    found(&mut translator, "api.example.com", &["198.51.100.2"]);
    let touched = translator.set_addresses(&"api.example.com".into(), Err("no answer".to_owned()));
    assert!(touched.endpoints.is_empty() && !touched.reports.is_empty());
    assert_eq!(at(&translator, "198.51.100.2:80").as_deref(), Some("shop/api"));
    let report = translator.report(&key(Kind::MeshService, "api")).unwrap();
    let resolved = report.condition("ResolvedRefs").unwrap();
    assert_eq!((resolved.holds, resolved.reason), (false, "HostNotFound"));
    assert!(resolved.message.contains("no answer. The addresses that it had last stay."), "{}", resolved.message);
    found(&mut translator, "api.example.com", &["198.51.100.3"]);
    assert_eq!((at(&translator, "198.51.100.2:80"), at(&translator, "198.51.100.3:80").is_some()), (None, true));
    translator.apply(Change::Delete(key(Kind::MeshService, "api")));
    assert_eq!((at(&translator, "198.51.100.3:80"), translator.find_host("api.example.com", "shop")), (None, None));
    assert!(translator.is_empty() && translator.outside_hosts().is_empty());
}

#[test]
fn a_service_hides_what_has_its_name_outside_and_the_status_says_so() {
    let cluster = "
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], selector: {app: api}, ports: [{port: 80}]}
";
    let mut translator = translator(&[API]);
    found(&mut translator, "api.example.com", &["198.51.100.2"]);
    let touched = apply(&mut translator, cluster);
    assert!(touched.names && touched.services.contains(&service_id("api")) && touched.endpoints.contains(&endpoints_id("api", 443)));
    assert!(!service(&translator, "api").outside && translator.endpoints(&endpoints_id("api", 443)).is_none());
    assert_eq!((at(&translator, "198.51.100.2:80"), at(&translator, "10.96.0.7:80").is_some()), (None, true));
    let report = translator.report(&key(Kind::MeshService, "api")).unwrap();
    assert_eq!(report.conditions[0].reason, "Conflicted");
    let touched = translator.apply(Change::Delete(key(Kind::Service, "api")));
    assert!(touched.names && touched.endpoints.contains(&endpoints_id("api", 443)) && service(&translator, "api").outside);
    assert!(at(&translator, "198.51.100.2:80").is_some());
}

#[test]
fn what_cannot_be_used_is_said_in_words() {
    let broken = |external: &str, ports: &str| {
        let yaml =
            format!("{{kind: MeshService, metadata: {{name: api, namespace: shop}}, spec: {{external: {external}, ports: {ports}}}}}");
        let translator = translator(&[&yaml]);
        let report = translator.report(&key(Kind::MeshService, "api")).unwrap();
        report.conditions.into_iter().map(|it| it.message).collect::<Vec<_>>().join(" ")
    };
    let cases = [
        ("{addresses: [300.1.1.1], ports: [80]}", "[]", "\"300.1.1.1\" is neither a host name nor an IP address"),
        ("{addresses: ['*.a.example'], ports: [80]}", "[]", "\"*.a.example\" is neither a host name nor an IP address"),
        ("{addresses: [a.example], ports: []}", "[]", "write at least one port"),
        ("{addresses: [a.example], ports: [443], tls: {}}", "[{port: 443, protocol: TLS}]", "apps speak TLS at port 443 themselves"),
        ("{addresses: [a.example], ports: [443], tls: {caBundle: x}}", "[]", "it holds no certificate in PEM"),
        ("{addresses: [a.example], ports: [443]}", "[{port: 80, protocol: HTTP}]", "spec.external.ports has no port 80 (it has 443)"),
        ("{addresses: [a.example], ports: [443]}", "[]", "a.example has not been looked up yet"),
    ];
    for (external, ports, words) in cases {
        let told = broken(external, ports);
        assert!(told.contains(words), "{external}: {told}");
    }
}

#[test]
fn policies_lead_to_the_outside_and_versions_do_not_exist_there() {
    let policy = "
kind: TrafficPolicy
metadata: {name: api, namespace: shop}
spec:
  targetRef: {name: api}
  timeout: 2s
  routes: [{name: old, destinations: [{version: v1}]}, {name: all, destinations: [{service: api, port: 443}]}]
";
    let mut translator = translator(&[API, policy]);
    found(&mut translator, "api.example.com", &[]);
    assert_eq!(service(&translator, "api").routes.timeout(), Some(std::time::Duration::from_secs(2)));
    let report = translator.report(&key(Kind::TrafficPolicy, "api")).unwrap();
    assert_eq!(outcome(&report), "Accepted=True Accepted; ResolvedRefs=False VersionNotFound");
    assert!(report.conditions[1].message.contains("shop/api is outside the cluster"), "{report:?}");
    let guard = "{kind: SecurityPolicy, metadata: {name: api, namespace: shop}, spec: {targetRef: {name: api}, mtls: {mode: Strict}}}";
    apply(&mut translator, guard);
    let report = translator.report(&key(Kind::SecurityPolicy, "api")).unwrap();
    assert!(report.conditions[0].message.contains("is outside the cluster"), "{report:?}");
}

#[test]
fn every_workload_is_told_of_the_ports_outside_and_of_its_own_freedom() {
    let general = "{kind: SecurityPolicy, metadata: {name: a, namespace: shop}, spec: {egress: {mode: RegisteredOnly}}}";
    let selecting = "
kind: SecurityPolicy
metadata: {name: b, namespace: shop}
spec: {selector: {matchLabels: {version: v1}}, egress: {mode: Allow}}
";
    let mut translator = translator(&[PODS]);
    let everybody = [workload_id("payment-1"), workload_id("payment-2")].into();
    assert_eq!(workload(&translator, "payment-1").egress, Egress::Allow);
    let touched = apply(&mut translator, API);
    assert_eq!((touched.workloads, workload(&translator, "payment-1").outside_ports), (everybody, vec![80, 443]));
    let touched = apply(&mut translator, general);
    assert_eq!((touched.workloads.len(), workload(&translator, "payment-1").egress), (2, Egress::RegisteredOnly));
    apply(&mut translator, selecting);
    let modes = ["payment-1", "payment-2"].map(|name| workload(&translator, name).egress);
    assert_eq!(modes, [Egress::Allow, Egress::RegisteredOnly], "a selector beats the namespace");
    let report = translator.report(&key(Kind::SecurityPolicy, "a")).unwrap();
    assert!(report.conditions[0].message.contains("egress.clusterNetworks"), "{report:?}");
}

#[test]
fn networks_of_pods_are_never_outside() {
    let inside = vec!["10.244.0.0/16".parse().unwrap()];
    let defaults = Defaults { egress: Egress::RegisteredOnly, inside, ..Defaults::new("cluster.local") };
    let mut translator = Translator::new(defaults);
    apply(&mut translator, PODS);
    let workload = workload(&translator, "payment-1");
    let closed = ["10.244.3.4", "10.245.0.1"].map(|address| workload.is_closed_to(address.parse::<IpAddr>().unwrap()));
    assert_eq!(closed, [false, true]);
}
