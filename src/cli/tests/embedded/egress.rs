//! What is outside the mesh: registered by a MeshService, and nothing else where a policy says so.

use std::time::Duration;

use crate::apps;
use crate::client::get;
use crate::harness::{Mesh, workload};

#[test]
fn what_is_registered_is_reached_by_its_name_and_nothing_else_where_a_policy_says_so() {
    let (bank, stranger) = (apps::http("rates", Duration::ZERO), apps::http("stranger", Duration::ZERO));
    let registered = format!(
        "---\napiVersion: leno.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: bank, namespace: shop}}\nspec:\n  \
         hosts: [bank.example]\n  external: {{addresses: [127.0.0.1], ports: [{}]}}\n",
        bank.port()
    );
    let closed = "---\napiVersion: leno.dev/v1alpha1\nkind: SecurityPolicy\nmetadata: {name: inside, namespace: shop}\nspec:\n  \
                  selector: {matchLabels: {app: web}}\n  egress: {mode: RegisteredOnly}\n";
    let (web, orders) = (workload("web", "web", "v1", apps::nobody()), workload("orders", "orders", "v1", apps::nobody()));
    let mesh = Mesh::up(&[web, orders, registered, closed.to_owned()].concat());
    let (named, elsewhere) = (format!("http://bank.example:{}/", bank.port()), format!("http://{stranger}/"));
    for workload in ["shop/web", "shop/orders"] {
        assert_eq!(get(mesh.outbound(workload), &named, "").body, "rates", "{workload}");
    }
    assert_eq!(get(mesh.outbound("shop/orders"), &elsewhere, "").body, "stranger");
    mesh.until("the policy is in force", |mesh| get(mesh.outbound("shop/web"), &elsewhere, "").status == 502);
    let refused = get(mesh.outbound("shop/web"), &elsewhere, "");
    assert!(refused.body.starts_with("nothing outside is registered"), "{refused:?}");
}
