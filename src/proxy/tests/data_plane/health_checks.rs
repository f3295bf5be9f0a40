//! Endpoints that are asked whether they are well: who is left out, and comes back. HTTP/1 and opaque connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use leno_core::health::{HealthCheck, HttpProbe, Probe};
use leno_core::resilience::Resilience;
use leno_core::service::Protocol;

use crate::support::{Mesh, Peer, Server, Setup, eventually, nowhere};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";

fn http(port: Option<u16>, expected: &[u16]) -> Probe {
    let (path, host) = ("/healthz?full=1".into(), "payment.shop".into());
    Probe::Http(HttpProbe { path, host, port, is_http2: false, expected: expected.to_vec() })
}

/// Checks that follow each other quickly.
pub(crate) fn checked(probe: Probe, panic_percent: u8) -> Resilience {
    let check = HealthCheck { interval: Duration::from_millis(10), timeout: Duration::from_secs(5), ..HealthCheck::new(probe) };
    Resilience { health_check: Some(check), panic_percent, ..Resilience::default() }
}

/// A server that answers checks with a status that can be changed, and counts them and requests.
struct Checked {
    server: Server,
    status: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Checked {
    fn new(status: u16) -> Self {
        let (status, checks, requests) = (Arc::new(AtomicU16::new(status)), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (now, check_count, request_count) = (Arc::clone(&status), Arc::clone(&checks), Arc::clone(&requests));
        let server = Server::start(move |mut peer| {
            while let Some(request) = peer.message() {
                let is_check = request.head.starts_with("GET /healthz?full=1 HTTP/1.1\r\nhost: payment.shop\r\n");
                (if is_check { &check_count } else { &request_count }).fetch_add(1, Ordering::SeqCst);
                let status = if is_check { now.load(Ordering::SeqCst) } else { 200 };
                peer.send(&format!("HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n\r\n"));
            }
        });
        Self { server, status, checks, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn start(endpoints: &[SocketAddr], resilience: &Resilience, protocol: Protocol) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup { protocol, ..Setup::default() }.start();
    mesh.set_guarded(endpoints, resilience);
    // Endpoints are checked while they are used.
    drop(Peer::dial(address).ask(GET));
    (mesh, address)
}

fn unhealthy(mesh: &Mesh, count: usize) {
    let line = format!("leno_endpoints_unhealthy{{destination=\"shop/payment\",port=\"80\"}} {count}\n");
    eventually(&format!("{count} are unhealthy"), || mesh.metrics().contains(&line));
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_requests_until_it_passes_them_again() {
    let (bad, good) = (Checked::new(503), Checked::new(200));
    let (mesh, address) = start(&[bad.server.address, good.server.address], &checked(http(None, &[]), 50), Protocol::Http);
    unhealthy(&mesh, 1);
    let before = bad.requests();
    let mut client = Peer::dial(address);
    for _ in 0..20 {
        assert_eq!(client.ask(GET).status(), 200);
    }
    assert_eq!(bad.requests(), before);
    bad.status.store(204, Ordering::SeqCst);
    unhealthy(&mesh, 0);
    while bad.requests() == before {
        assert_eq!(client.ask(GET).status(), 200);
    }
    bad.status.store(500, Ordering::SeqCst);
    unhealthy(&mesh, 1);
    for line in [
        "leno_health_transitions_total{destination=\"shop/payment\",to=\"unhealthy\"} 2\n",
        "leno_health_transitions_total{destination=\"shop/payment\",to=\"healthy\"} 1\n",
        "leno_health_checks_total{destination=\"shop/payment\",outcome=\"failed\"} ",
        "leno_health_checks_total{destination=\"shop/payment\",outcome=\"passed\"} ",
    ] {
        assert!(mesh.metrics().contains(line), "{line}");
    }
}

#[test]
fn a_status_that_is_not_expected_is_not_well_and_one_that_is_expected_is() {
    let (listed, other) = (Checked::new(404), Checked::new(200));
    let (mesh, address) = start(&[listed.server.address, other.server.address], &checked(http(None, &[404]), 50), Protocol::Http);
    unhealthy(&mesh, 1);
    let before = other.requests();
    let mut client = Peer::dial(address);
    (0..10).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
    assert_eq!((other.requests(), listed.requests() >= 10), (before, true));
}

#[test]
fn another_port_may_be_asked_and_what_does_not_answer_in_http_is_not_well() {
    let (app, garbage) = (
        Checked::new(500),
        Server::start(|mut peer| {
            while peer.message().is_some() && {
                peer.send("what?\r\n\r\n");
                true
            } {}
        }),
    );
    let health = Checked::new(200);
    let (mesh, address) = start(&[app.server.address], &checked(http(Some(health.server.address.port()), &[]), 0), Protocol::Http);
    eventually("the other port is asked", || health.checks.load(Ordering::SeqCst) > 1);
    assert_eq!(Peer::dial(address).ask(GET).status(), 200);
    assert_eq!(app.checks.load(Ordering::SeqCst), 0);
    mesh.set_guarded(&[app.server.address], &checked(http(Some(garbage.address.port()), &[]), 0));
    unhealthy(&mesh, 1);
    assert_eq!(Peer::dial(address).ask(GET).status(), 503);
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"unhealthy\"} 1"));
}

#[test]
fn when_too_few_are_well_all_are_used() {
    let (one, two) = (Checked::new(503), Checked::new(503));
    let (mesh, address) = start(&[one.server.address, two.server.address], &checked(http(None, &[]), 50), Protocol::Http);
    unhealthy(&mesh, 2);
    let mut client = Peer::dial(address);
    (0..10).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
}

#[test]
fn a_server_that_does_not_answer_in_time_is_not_well() {
    let silent = Server::start(|mut peer| {
        while let Some(request) = peer.message() {
            if !request.head.starts_with("GET /healthz") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let mut resilience = checked(http(None, &[]), 0);
    resilience.health_check.as_mut().unwrap().timeout = Duration::from_millis(20);
    let (mesh, address) = start(&[silent.address], &resilience, Protocol::Http);
    unhealthy(&mesh, 1);
    assert_eq!(Peer::dial(address).ask(GET).status(), 503);
}

#[test]
fn connections_are_checked_where_nothing_else_is_known() {
    let echo = Server::start(|mut peer| {
        while let Some(line) = peer.until("\n") {
            peer.send(&line)
        }
    });
    let (mesh, address) = Setup { protocol: Protocol::Tcp, ..Setup::default() }.start();
    mesh.set_guarded(&[nowhere(), echo.address], &checked(Probe::Tcp, 50));
    let ask = || {
        let mut client = Peer::dial(address);
        client.send("hello\n");
        client.until("\n")
    };
    assert_eq!(ask().as_deref(), Some("hello\n"));
    unhealthy(&mesh, 1);
}

#[test]
fn checks_begin_and_end_with_their_settings_and_forget_who_is_gone() {
    let (one, two) = (Checked::new(503), Checked::new(200));
    let (mesh, address) = start(&[one.server.address, two.server.address], &Resilience::default(), Protocol::Http);
    mesh.set_guarded(&[one.server.address, two.server.address], &checked(http(None, &[]), 50));
    unhealthy(&mesh, 1);
    mesh.set_guarded(&[two.server.address], &checked(http(None, &[]), 50));
    unhealthy(&mesh, 0);
    mesh.set_guarded(&[one.server.address, two.server.address], &Resilience { panic_percent: 10, ..Resilience::default() });
    let (mut client, before) = (Peer::dial(address), one.requests());
    eventually("it is used again", || client.ask(GET).status() == 200 && one.requests() > before);
    eventually("nobody is asked any more", || !mesh.metrics().contains("leno_endpoints_unhealthy{"));
}

#[test]
fn two_workers_of_a_proxy_ask_once_and_both_know() {
    let (bad, good) = (Checked::new(503), Checked::new(200));
    let endpoints = [bad.server.address, good.server.address];
    let first = Setup::default();
    let shared = Arc::clone(&first.settings.checks);
    let mut second = Setup::default();
    second.settings.checks = shared;
    let mut slow = checked(http(None, &[]), 50);
    slow.health_check.as_mut().unwrap().interval = Duration::from_secs(3600);
    let meshes = [first.start(), second.start()];
    for (mesh, address) in &meshes {
        mesh.set_guarded(&endpoints, &slow);
        drop(Peer::dial(*address).ask(GET));
    }
    unhealthy(&meshes[0].0, 1);
    eventually("the other one is asked too", || good.checks.load(Ordering::SeqCst) == 1);
    let before = bad.requests();
    for (_, address) in &meshes {
        let mut client = Peer::dial(*address);
        (0..10).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
    }
    assert_eq!((bad.requests(), bad.checks.load(Ordering::SeqCst), good.checks.load(Ordering::SeqCst)), (before, 1, 1));
}

#[test]
fn when_the_worker_that_asks_ends_another_goes_on() {
    let bad = Checked::new(503);
    let first = Setup::default();
    let mut second = Setup::default();
    second.settings.checks = Arc::clone(&first.settings.checks);
    let (mut one, address) = first.start();
    one.set_guarded(&[bad.server.address], &checked(http(None, &[]), 0));
    drop(Peer::dial(address).ask(GET));
    unhealthy(&one, 1);
    let (two, address) = second.start();
    two.set_guarded(&[bad.server.address], &checked(http(None, &[]), 0));
    assert_eq!(Peer::dial(address).ask(GET).status(), 503, "it knows what the other one has found out");
    one.drain(Duration::ZERO);
    one.join();
    bad.status.store(200, Ordering::SeqCst);
    unhealthy(&two, 0);
    assert_eq!(Peer::dial(address).ask(GET).status(), 200);
}
