//! Rules that speak of identities: only what a handshake has proven counts.

use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::authorize::{Action, Authorization, Guard, Policy, Posture, Rule, Source};
use leno_core::names::WorkloadId;
use leno_core::service::Protocol;
use leno_core::workload::{InboundPort, Workload};
use leno_proxy::control::Update;
use leno_proxy::listen::Accept;

use crate::authority::{Authority, PAYMENT, WEB};
use crate::proxies::{APP_PORT, endpoint, eventually_counted, settings};
use crate::support::{Mesh, Peer, Server, Setup, payment};

pub(crate) const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";

/// A proxy before `app`, which lets nobody but `orders` in.
pub(crate) fn only_orders(app: SocketAddr, authority: &Authority, protocol: Protocol) -> (Mesh, SocketAddr) {
    let from =
        Source::Peer { trust_domain: "cluster.local".into(), namespace: Some("shop".into()), service_account: Some("orders".into()) };
    let rules = vec![Rule { from: vec![from], ..Rule::default() }];
    let policy = Policy { name: "shop/only-orders".into(), action: Action::Allow, rules };
    let authorization = Arc::new(Authorization::new(Posture::Allow, vec![Arc::new(policy)], Vec::new()));
    let guard = Guard { authorization, ..Guard::default() };
    let inbound = vec![InboundPort { port: APP_PORT, protocol, service: payment(), version: None, guard, concurrency: None }];
    let id = WorkloadId::new("shop", "payment-1");
    let setup = Setup { settings: settings("payment-1"), ..Setup::default() };
    let (mesh, address) = setup.start_with(|| Accept::InboundApp { app, port: APP_PORT });
    mesh.tell(Update::Trust(authority.trust()));
    mesh.tell(Update::Credentials(authority.credentials(PAYMENT)));
    mesh.tell(Update::Workload(Arc::new(Workload { inbound, ..Workload::new(id) })));
    (mesh, address)
}

/// A proxy beside a caller that is `identity`.
fn caller(identity: &str, authority: &Authority, protocol: Protocol, callee: SocketAddr) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup { settings: settings("web-1"), protocol, ..Setup::default() }.start();
    mesh.tell(Update::Trust(authority.trust()));
    mesh.tell(Update::Credentials(authority.credentials(identity)));
    mesh.set_these(vec![endpoint(callee, Some(PAYMENT))]);
    (mesh, address)
}

#[test]
fn requests_pass_for_whom_they_are_allowed_and_the_metric_names_both() {
    let (app, authority) = (Server::answering("hello"), Authority::new());
    let (callee, at_app) = only_orders(app.address, &authority, Protocol::Http);
    let get = "GET / HTTP/1.1\r\nHost: payment\r\n\r\n";
    for (identity, status) in [(ORDERS, 200), (WEB, 403)] {
        let (_caller, address) = caller(identity, &authority, Protocol::Http, at_app);
        let answer = Peer::dial(address).ask(get);
        assert_eq!(answer.status(), status, "{identity}");
        assert!(!answer.text().contains("only-orders"), "{answer:?}");
    }
    assert_eq!(Peer::dial(at_app).ask(get).status(), 403, "a plain caller has proven nothing");
    for (decision, identity) in [("allow", ORDERS), ("deny", WEB), ("deny", "")] {
        let labels = format!("decision=\"{decision}\",policy=\"shop/only-orders\",source_identity=\"{identity}\"");
        eventually_counted(&callee, &["leno_authorization_total", &labels], 1);
    }
}

#[test]
fn opaque_connections_pass_for_whom_they_are_allowed_and_are_reset_for_others() {
    let app = Server::start(|mut peer| {
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
    });
    let authority = Authority::new();
    let (callee, at_app) = only_orders(app.address, &authority, Protocol::Tcp);
    let (_orders, address) = caller(ORDERS, &authority, Protocol::Tcp, at_app);
    let mut allowed = Peer::dial(address);
    allowed.send("hello\n");
    assert_eq!(allowed.until("\n").as_deref(), Some("hello\n"));
    let (_web, address) = caller(WEB, &authority, Protocol::Tcp, at_app);
    for address in [address, at_app] {
        let mut refused = Peer::dial(address);
        refused.send("hello\n");
        assert!(refused.is_closed());
    }
    eventually_counted(&callee, &["leno_errors_total", "denied"], 2);
    assert_eq!(app.connections(), 1, "the app has seen one of three");
}
