//! How the mesh begins and ends.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::apps;
use crate::client::{Client, get};
use crate::harness::{Mesh, service, workload};

/// Every process whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let parent = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    all.filter(|child| parent(child) == Some(pid)).collect()
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn the_demo_answers_and_ends_with_no_process_left() {
    let demo = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/demo/shop.yaml")).unwrap();
    let policies = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/demo/policies.yaml")).unwrap();
    let mut mesh = Mesh::up(&format!("{demo}---\n{policies}"));
    let orders = mesh.service("shop/orders", 80);
    mesh.until("orders answers with what payment says", |_| get(orders, "/", "").body.starts_with("order taken; payment v"));
    mesh.until("there is traffic", |mesh| {
        let state = mesh.state();
        let admin = state["workloads"]["shop/web-1"]["admin"].as_str().map(|address| address.parse().unwrap());
        admin.is_some_and(|admin| get(admin, "/metrics", "").body.contains("route=\"premium\""))
    });
    let children = children(mesh.pid());
    assert_eq!(children.len(), 4, "payment v1 and v2, orders and the traffic");
    let status = mesh.end();
    assert!(status.success(), "{status}");
    assert!(!children.iter().any(|child| alive(*child)), "{children:?}");
    assert!(std::net::TcpStream::connect(orders).is_err());
}

/// A resting connection was once taken for one on which a request begins: ending waited for it, and it got 408 after a while.
#[test]
fn resting_connections_do_not_hold_up_the_end() {
    let app = apps::http("v1", Duration::ZERO);
    let mut mesh = Mesh::up(&[service("payment"), workload("payment-1", "payment", "v1", app)].concat());
    let mut client = Client::to(mesh.service("shop/payment", 80));
    for _ in 0..3 {
        assert_eq!(client.get("/", "").status, 200);
    }
    let cut: Vec<_> = mesh.ended().into_iter().filter(|line| line.contains("connections are cut")).collect();
    assert!(cut.is_empty(), "{cut:?}");
}

#[test]
fn a_process_finds_its_ports_in_its_environment_and_is_started_again_when_it_dies() {
    let app = apps::nobody();
    let manifests = format!(
        "{}---\napiVersion: leno.dev/v1alpha1\nkind: Workload\nmetadata: {{name: a-1, namespace: shop}}\nspec:\n  address: {}\n  ports: [{{name: my-port, port: {}}}]\n  command: [sh, -c, 'echo $LENO_ADDRESS $PORT $LENO_PORT_MY_PORT $LENO_OUTBOUND; exit 7']\n",
        service("a"),
        app.ip(),
        app.port()
    );
    let mesh = Mesh::up(&manifests);
    let told = mesh.told("shop/a-1 | 127.0.0.1 ");
    assert_eq!(told, format!("shop/a-1 | 127.0.0.1 {port} {port} {}", mesh.outbound("shop/a-1"), port = app.port()));
    mesh.told("exit status: 7); starting again in 400ms");
}

#[test]
fn a_folder_that_is_not_there_is_refused_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_leno")).args(["up", "-f", "no/such/folder"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no/such/folder cannot be read: give -f a folder of manifests"), "{said}");
}

#[test]
fn addresses_outside_loopback_are_refused_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_leno")).args(["up", "-f", ".", "--bind", "10.0.0.0/8"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("not within 127.0.0.0/8"), "{said}");
}
