//! The folder changes while the mesh runs.

use std::time::Duration;

use crate::apps;
use crate::client::get;
use crate::harness::{Mesh, policy, service, versions, workload};

fn route_to(version: &str) -> String {
    policy("payment", &format!("  routes:\n  - name: all\n    destinations:\n    - version: {version}\n"))
}

#[test]
fn a_change_takes_effect_a_broken_file_keeps_the_last_state_and_a_mended_one_is_taken_in() {
    let (v1, v2) = (apps::http("v1", Duration::ZERO), apps::http("v2", Duration::ZERO));
    let workloads = [workload("payment-1", "payment", "v1", v1), workload("payment-2", "payment", "v2", v2)].concat();
    let mesh = Mesh::up(&[service("payment"), versions("payment"), workloads].concat());
    let payment = mesh.service("shop/payment", 80);
    let meets = |version: &'static str| move |_: &Mesh| (0..10).all(|_| get(payment, "/", "").body == version);

    mesh.write("policy.yaml", &route_to("v1"));
    mesh.until("everybody meets v1", meets("v1"));
    mesh.write("policy.yaml", &route_to("v2"));
    mesh.until("everybody meets v2", meets("v2"));

    mesh.write("policy.yaml", &route_to("v1").replace("destinations:", "destinatoins:"));
    let told = mesh.told("destinatoins");
    assert!(told.contains("manifests/policy.yaml:9: ") && told.contains("did you mean destinations?"), "{told}");
    assert!(meets("v2")(&mesh), "the last good state is in force");
    mesh.write("policy.yaml", "a: [\n");
    mesh.told("manifests/policy.yaml:2: this is no YAML");
    assert!(meets("v2")(&mesh), "the last good state is in force");

    mesh.write("policy.yaml", &route_to("v1"));
    mesh.told("mended: ");
    mesh.until("everybody meets v1 again", meets("v1"));
}

#[test]
fn workloads_and_services_that_come_and_go_get_and_lose_their_proxies() {
    let mesh = Mesh::up(&service("payment"));
    let payment = mesh.service("shop/payment", 80);
    assert_eq!(get(payment, "/", "").status, 503);

    let app = apps::http("here", Duration::ZERO);
    mesh.write("more.yaml", &[workload("payment-1", "payment", "v1", app), service("orders")].concat());
    mesh.until("the workload answers", |_| get(payment, "/", "").body == "here");
    mesh.until("it is in the state file", |mesh| mesh.state()["workloads"]["shop/payment-1"].is_object());
    let orders = mesh.service("shop/orders", 80);
    assert_eq!(get(orders, "/", "").status, 503);

    mesh.remove("more.yaml");
    mesh.until("nobody answers", |_| get(payment, "/", "").status == 503);
    mesh.until("it has left the state file", |mesh| mesh.state()["workloads"].as_object().unwrap().is_empty());
    mesh.until("nobody listens for the service that is gone", |_| std::net::TcpStream::connect(orders).is_err());
    assert_eq!(mesh.service("shop/payment", 80), payment, "what stays keeps its address");
}

#[test]
fn what_a_policy_names_in_vain_is_told_while_the_rest_goes_on() {
    let app = apps::http("v1", Duration::ZERO);
    let mesh = Mesh::up(&[service("payment"), workload("payment-1", "payment", "v1", app), versions("payment"), route_to("v9")].concat());
    let told = mesh.told("VersionNotFound");
    assert!(told.contains("TrafficPolicy shop/payment") && told.contains("v9"), "{told}");
    assert_eq!(get(mesh.service("shop/payment", 80), "/", "").status, 500);
}
