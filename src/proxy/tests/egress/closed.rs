//! RegisteredOnly where the app asks its proxy by name.

use std::sync::Arc;

use leno_core::names::WorkloadId;
use leno_core::workload::{Egress, Workload};
use leno_proxy::control::Update;
use leno_proxy::listen::Accept;

use crate::support::{Peer, Server, Setup, eventually};

fn workload(egress: Egress, inside: &[&str]) -> Update {
    let inside = inside.iter().map(|network| network.parse().unwrap()).collect();
    Update::Workload(Arc::new(Workload { egress, inside, ..Workload::new(WorkloadId::new("shop", "web-1")) }))
}

#[test]
fn only_what_is_registered_is_reached() {
    let (registered, stranger) = (Server::answering("registered"), Server::answering("stranger"));
    let setup = Setup { endpoints: vec![(registered.address, "v1")], ..Setup::default() };
    let (mesh, proxy) = setup.start_with(|| Accept::OutboundExplicit);
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: {}\r\n\r\n", stranger.address, stranger.address);
    mesh.tell(workload(Egress::Allow, &[]));
    assert_eq!(Peer::dial(proxy).ask(&get).body(), "stranger");
    mesh.tell(workload(Egress::RegisteredOnly, &[]));
    eventually("the mode is in force", || Peer::dial(proxy).ask(&get).status() == 502);
    let refused = Peer::dial(proxy).ask(&get);
    assert!(refused.body().starts_with("nothing outside is registered"), "{}", refused.body());
    let connect = format!("CONNECT {} HTTP/1.1\r\nHost: {}\r\n\r\n", stranger.address, stranger.address);
    assert_eq!(Peer::dial(proxy).ask(&connect).status(), 502);
    assert!(mesh.metrics().contains(r#"reason="not-registered""#), "{}", mesh.metrics());
    assert_eq!(Peer::dial(proxy).ask("GET / HTTP/1.1\r\nHost: payment\r\n\r\n").body(), "registered", "services stay");
    mesh.tell(workload(Egress::RegisteredOnly, &["127.0.0.0/8"]));
    eventually("networks of pods are inside", || Peer::dial(proxy).ask(&get).status() == 200);
}
