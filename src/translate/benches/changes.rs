//! What it costs the controller to take in one endpoint's change, in instructions. `tests/instructions` runs this and holds the ratios.

#![expect(missing_docs, clippy::exit, reason = "the macros make items that nobody documents, and a main that ends the process")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gungraun::{library_benchmark, library_benchmark_group, main};
use leno_api::k8s::{Endpoint, EndpointPort, EndpointSlice, Labels, Service, ServicePort, TargetPort};
use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::ServiceId;
use leno_translate::{Change, Defaults, Object, Translator};

fn service(number: u32) -> Object {
    let port = ServicePort {
        name: Some("http".into()),
        port: 80,
        target_port: TargetPort::Number(8080),
        protocol: "TCP".into(),
        app_protocol: Some("http".into()),
    };
    Object::Service(Service {
        namespace: "shop".into(),
        name: format!("service-{number}").into(),
        generation: None,
        kind: "ClusterIP".into(),
        cluster_ips: [IpAddr::V4(Ipv4Addr::from(0x0a60_0000 + number))].into(),
        headless: false,
        selector: Labels::default(),
        ports: [port].into(),
        external_name: None,
        publish_not_ready_addresses: false,
    })
}

/// The slice of service `number` with `endpoints`, of which the last is ready or not.
fn slice(number: u32, endpoints: u32, last_is_ready: bool) -> Object {
    let endpoint = |at: u32| Endpoint {
        address: IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + number * endpoints + at)),
        ready: at + 1 < endpoints || last_is_ready,
        serving: true,
        terminating: false,
        pod: Some(format!("service-{number}-{at:05}").into()),
        node: None,
        zone: None,
    };
    Object::EndpointSlice(EndpointSlice {
        namespace: "shop".into(),
        name: format!("service-{number}-x7k2p").into(),
        service: Some(Arc::from(format!("service-{number}"))),
        address_type: "IPv4".into(),
        endpoints: (0..endpoints).map(endpoint).collect(),
        ports: [EndpointPort { name: Some("http".into()), port: Some(8080), protocol: "TCP".into(), app_protocol: None }].into(),
    })
}

/// A mesh of `services` with `endpoints` each, and a change of one endpoint of the service 0.
fn mesh(services: u32, endpoints: u32) -> (Translator, Change) {
    let mut translator = Translator::new(Defaults::new("cluster.local"));
    for number in 0..services {
        translator.apply(Change::Apply(service(number)));
        translator.apply(Change::Apply(slice(number, endpoints, true)));
    }
    (translator, Change::Apply(slice(0, endpoints, false)))
}

fn of_services(services: u32) -> (Translator, Change) {
    mesh(services, 10)
}

fn of_endpoints(endpoints: u32) -> (Translator, Change) {
    mesh(1, endpoints)
}

/// Takes in the change and gives the endpoints that it touches.
fn changed((mut translator, change): (Translator, Change)) -> (Translator, Option<Endpoints>) {
    let touched = translator.apply(black_box(change));
    assert!(!touched.endpoints.is_empty(), "the change touches something");
    let endpoints = translator.endpoints(&EndpointsId::new(ServiceId::new("shop", "service-0"), 80));
    (translator, endpoints)
}

#[library_benchmark]
#[benches::services(args = [10, 100, 2_000], setup = of_services)]
fn change_among_services(mesh: (Translator, Change)) -> (Translator, Option<Endpoints>) {
    changed(mesh)
}

#[library_benchmark]
#[benches::endpoints(args = [10, 100, 10_000], setup = of_endpoints)]
fn change_among_endpoints(mesh: (Translator, Change)) -> (Translator, Option<Endpoints>) {
    changed(mesh)
}

library_benchmark_group!(name = changes, benchmarks = [change_among_services, change_among_endpoints]);
main!(library_benchmark_groups = changes);
