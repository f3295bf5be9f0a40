//! Requests go where policies say.

use std::time::Duration;

use crate::apps;
use crate::client::{Client, get};
use crate::harness::{Mesh, policy, service, versions, workload};

/// payment v1 and v2, and web, which only calls.
fn shop(rest: &str) -> Mesh {
    let (v1, v2) = (apps::http("v1", Duration::ZERO), apps::http("v2", Duration::ZERO));
    let web = "---\napiVersion: leno.dev/v1alpha1\nkind: Workload\nmetadata: {name: web-1, namespace: shop}\nspec: {}\n";
    let manifests = [
        service("payment"),
        workload("payment-1", "payment", "v1", v1),
        workload("payment-2", "payment", "v2", v2),
        versions("payment"),
        policy("payment", rest),
        web.to_owned(),
    ];
    Mesh::up(&manifests.concat())
}

const NINETY_TEN: &str = "
  routes:
  - name: premium
    matches:
    - path: {prefix: /api}
      headers: [{name: x-user-type, value: premium}]
    destinations: [{version: v2}]
  - name: everyone
    destinations:
    - {version: v1, weight: 90}
    - {version: v2, weight: 10}
";

#[test]
fn two_thousand_requests_are_shared_90_to_10_and_premium_users_all_meet_v2() {
    let mesh = shop(NINETY_TEN);
    let mut client = Client::to(mesh.service("shop/payment", 80));
    let mut first = 0;
    for number in 0..2_000 {
        let answer = client.get("/api/v1/process", "x-user-type: standard\r\n");
        assert_eq!(answer.status, 200, "request {number}: {answer:?}");
        first += u32::from(answer.body == "v1");
    }
    assert!((1_740..=1_860).contains(&first), "{first} of 2000 met v1");
    for _ in 0..100 {
        assert_eq!(client.get("/api/v1/process", "X-User-Type: premium\r\n").body, "v2");
    }
}

#[test]
fn an_app_asks_by_name_through_its_own_sidecar() {
    let mesh = shop("  routes: [{name: all, destinations: [{version: v2}]}]\n");
    let outbound = mesh.outbound("shop/web-1");
    for host in ["payment", "payment.shop", "payment.shop.svc.cluster.local"] {
        let answer = get(outbound, &format!("http://{host}/"), "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "v2"), "{host}");
    }
    assert_eq!(get(outbound, "/", "").body, "v2", "the Host field will do");
}

#[test]
fn the_state_file_names_every_service_and_sidecar_in_the_form_that_is_promised() {
    let mesh = shop(NINETY_TEN);
    let state = mesh.state();
    let keys = |part: &str| state[part].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(state.as_object().unwrap().len(), 2);
    assert_eq!(
        (keys("services"), keys("workloads")),
        (vec!["shop/payment".into()], vec!["shop/payment-1".into(), "shop/payment-2".into(), "shop/web-1".into()])
    );
    assert!(mesh.service("shop/payment", 80).ip().is_loopback());
    let admin = state["workloads"]["shop/web-1"]["admin"].as_str().unwrap().parse().unwrap();
    assert_eq!(get(admin, "/ready", "").status, 200);
    assert!(get(admin, "/metrics", "").body.contains("leno_control_connected 1"));
}
