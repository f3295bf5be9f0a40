//! What callers get when the mesh cannot carry a request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::apps;
use crate::client::get;
use crate::harness::{Mesh, policy, service, versions, workload};

#[test]
fn no_endpoint_is_503_an_app_that_is_down_502_and_a_timeout_504() {
    let slow = apps::http("late", Duration::from_secs(20));
    let manifests = [
        service("empty"),
        service("down"),
        workload("down-1", "down", "v1", apps::nobody()),
        service("slow"),
        workload("slow-1", "slow", "v1", slow),
        versions("slow"),
        policy("slow", "  timeout: 300ms\n"),
    ];
    let mesh = Mesh::up(&manifests.concat());
    let status = |name: &str| {
        let answer = get(mesh.service(name, 80), "/", "");
        (answer.status, answer.body)
    };
    assert_eq!(status("shop/empty"), (503, "the service has no endpoint that is ready".to_owned()));
    assert_eq!(status("shop/down").0, 502);
    let began = Instant::now();
    assert_eq!(status("shop/slow").0, 504);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_service_with_endpoint_slices_leads_to_their_addresses() {
    let app = apps::http("from a slice", Duration::ZERO);
    let mesh = Mesh::up(&[service("payment").replace("\n  selector: {app: payment}", ""), slice(app)].concat());
    assert_eq!(get(mesh.service("shop/payment", 80), "/", "").body, "from a slice");
}

fn slice(address: SocketAddr) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: payment-1, namespace: shop, labels: {{kubernetes.io/service-name: payment}}}}\naddressType: IPv4\nendpoints: [{{addresses: [\"{}\"], conditions: {{ready: true}}}}]\nports: [{{name: http, port: {}, protocol: TCP}}]\n",
        address.ip(),
        address.port()
    )
}
