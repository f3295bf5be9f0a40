//! Health checks between proxies: over mutual TLS, as the calling workload, judged like any request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leno_core::authorize::Mode;
use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::health::{HealthCheck, HttpProbe, Probe};
use leno_core::resilience::Resilience;
use leno_core::service::Protocol;

use crate::authority::{Authority, PAYMENT, WEB};
use crate::authorized::{ORDERS, only_orders};
use crate::proxies::{counted, endpoint, eventually_counted, inbound, settings};
use crate::support::{Mesh, PORT, Peer, Server, Setup, eventually, nowhere, payment};

const GET: &str = "GET / HTTP/1.1\r\nHost: payment\r\n\r\n";

fn http() -> Probe {
    Probe::Http(HttpProbe { path: "/healthz".into(), host: "payment.shop".into(), port: None, is_http2: false, expected: Vec::new() })
}

/// A proxy beside a caller that is `identity`, which checks who answers at `callee`.
fn checking(identity: &str, authority: &Authority, protocol: Protocol, callee: SocketAddr, probe: Probe) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup { settings: settings("web-1"), protocol, ..Setup::default() }.start();
    mesh.tell(leno_proxy::control::Update::Trust(authority.trust()));
    mesh.tell(leno_proxy::control::Update::Credentials(authority.credentials(identity)));
    let check = HealthCheck { interval: Duration::from_millis(20), timeout: Duration::from_secs(5), ..HealthCheck::new(probe) };
    let resilience = Some(Arc::new(Resilience { health_check: Some(check), panic_percent: 0, ..Resilience::default() }));
    let endpoints = vec![endpoint(callee, Some(PAYMENT))];
    mesh.set_all(Endpoints { endpoints, resilience, ..Endpoints::new(EndpointsId::new(payment(), PORT)) });
    // Endpoints are checked while they are used.
    let mut client = Peer::dial(address);
    client.send(GET);
    eventually("the endpoints are known", || mesh.metrics().contains("leno_health_checks_total"));
    (mesh, address)
}

fn passed(mesh: &Mesh, outcome: &str) {
    eventually_counted(mesh, &["leno_health_checks_total", &format!("outcome=\"{outcome}\"")], 3);
}

#[test]
fn checks_prove_who_asks_and_who_answers() {
    let (app, authority) = (Server::answering("hello"), Authority::new());
    let (callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Http);
    let (caller, address) = checking(WEB, &authority, Protocol::Http, at_app, http());
    passed(&caller, "passed");
    assert_eq!(counted(&caller, &["leno_health_checks_total", "outcome=\"failed\""]), 0);
    assert_eq!(Peer::dial(address).ask(GET).status(), 200);
    assert_eq!(counted(&callee, &["leno_requests_total", "mtls=\"false\""]), 0, "none came in plain text");
}

#[test]
fn an_endpoint_that_cannot_prove_itself_is_not_well() {
    let (app, authority) = (Server::answering("hello"), Authority::new());
    let (_callee, at_app) = inbound(app.address, &Authority::new(), Mode::Permissive, Protocol::Http);
    let (caller, address) = checking(WEB, &authority, Protocol::Http, at_app, http());
    passed(&caller, "failed");
    assert_eq!(Peer::dial(address).ask(GET).status(), 503);
}

#[test]
fn who_may_not_call_finds_nobody_well() {
    let (app, authority) = (Server::answering("hello"), Authority::new());
    let (_callee, at_app) = only_orders(app.address, &authority, Protocol::Http);
    let (orders, _) = checking(ORDERS, &authority, Protocol::Http, at_app, http());
    passed(&orders, "passed");
    let (web, address) = checking(WEB, &authority, Protocol::Http, at_app, http());
    passed(&web, "failed");
    assert_eq!(Peer::dial(address).ask(GET).status(), 503);
}

#[test]
fn an_app_that_is_down_behind_its_proxy_takes_no_connections() {
    let authority = Authority::new();
    let listening = Server::start(|mut peer| drop(peer.rest()));
    for (app, outcome) in [(listening.address, "passed"), (nowhere(), "failed")] {
        let (_callee, at_app) = inbound(app, &authority, Mode::Strict, Protocol::Tcp);
        let (caller, _) = checking(WEB, &authority, Protocol::Tcp, at_app, Probe::Tcp);
        passed(&caller, outcome);
    }
}
