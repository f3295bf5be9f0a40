//! Endpoints that fail: circuit breakers, ejections and what is left when nobody is healthy. HTTP/1 and opaque connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use leno_core::breaker::CircuitBreaker;
use leno_core::outlier::OutlierDetection;
use leno_core::resilience::Resilience;
use leno_core::route::{RouteTable, Rule};
use leno_core::service::Protocol;

use crate::support::{Mesh, Peer, Server, Setup, eventually, nowhere, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn breaker(failure_threshold: u32, open_for: Duration) -> Resilience {
    let breaker = CircuitBreaker { failure_threshold, open_for, ..CircuitBreaker::default() };
    Resilience { breaker: Some(breaker), ..Resilience::default() }
}

fn outliers(consecutive_errors: u32, panic_percent: u8) -> Resilience {
    let outliers = OutlierDetection { consecutive_errors, base_ejection_time: LONG, ..OutlierDetection::default() };
    Resilience { outliers: Some(outliers), panic_percent, ..Resilience::default() }
}

fn guarded(endpoints: &[SocketAddr], resilience: &Resilience, setup: Setup) -> (Mesh, SocketAddr) {
    let (mesh, address) = setup.start();
    mesh.set_guarded(endpoints, resilience);
    (mesh, address)
}

/// A server that answers 500 until it is told to be good, and counts what it is asked.
struct Failing {
    server: Server,
    is_good: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

fn failing() -> Failing {
    let (is_good, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (good, count) = (Arc::clone(&is_good), Arc::clone(&asked));
    let server = Server::start(move |mut peer| {
        while peer.message().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            let failed = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned();
            peer.send(&if good.load(Ordering::SeqCst) { ok("recovered") } else { failed });
        }
    });
    Failing { server, is_good, asked }
}

#[test]
fn an_open_breaker_answers_503_at_once_and_its_endpoint_is_left_alone() {
    let failing = failing();
    let (mesh, address) = guarded(&[failing.server.address], &breaker(3, LONG), Setup::default());
    let mut client = Peer::dial(address);
    let statuses: Vec<_> = (0..6).map(|_| client.ask(GET).status()).collect();
    assert_eq!(statuses, [500, 500, 500, 503, 503, 503]);
    assert_eq!(failing.asked.load(Ordering::SeqCst), 3);
    let told = client.ask(GET).text();
    assert!(!told.contains("circuit"), "why is nobody's business but the operators': {told}");
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"circuit-open\"} 4"));
    assert!(mesh.metrics().contains("leno_circuit_breaker_transitions_total{destination=\"shop/payment\",to=\"open\"} 1\n"));
}

#[test]
fn a_breaker_closes_again_by_trials() {
    let failing = failing();
    let (mesh, address) = guarded(&[failing.server.address], &breaker(1, Duration::from_millis(20)), Setup::default());
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).status(), 500);
    failing.is_good.store(true, Ordering::SeqCst);
    eventually("trials are let pass", || client.ask(GET).status() == 200);
    assert_eq!(client.ask(GET).status(), 200, "the second success closes it");
    for state in ["half-open", "closed"] {
        let line = format!("leno_circuit_breaker_transitions_total{{destination=\"shop/payment\",to=\"{state}\"}} 1\n");
        eventually("the change is counted", || mesh.metrics().contains(&line));
    }
}

#[test]
fn a_breaker_that_is_open_stays_so_when_other_endpoints_come() {
    let (failing, good) = (failing(), Server::answering("good"));
    let (mesh, address) = guarded(&[failing.server.address], &breaker(1, LONG), Setup::default());
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).status(), 500);
    assert_eq!(client.ask(GET).status(), 503);
    mesh.set_guarded(&[failing.server.address, good.address], &breaker(1, LONG));
    eventually("the new one is known", || client.ask(GET).status() == 200);
    for _ in 0..10 {
        assert_eq!(client.ask(GET).body(), "good");
    }
    assert_eq!(failing.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn an_endpoint_that_does_not_answer_in_time_opens_its_breaker() {
    let server = Server::start(|mut peer| while peer.message().is_some() {});
    let rule = Rule { name: "all".into(), timeout: Some(Duration::from_millis(30)), ..Rule::default() };
    let setup = Setup { routes: RouteTable::new("shop/p".into(), None, vec![rule]), ..Setup::default() };
    let (_mesh, address) = guarded(&[server.address], &breaker(2, LONG), setup);
    let mut client = Peer::dial(address);
    let statuses: Vec<_> = (0..4).map(|_| client.ask(GET).status()).collect();
    assert_eq!(statuses, [504, 504, 503, 503]);
}

#[test]
fn an_endpoint_that_fails_in_a_row_is_left_out_and_the_others_take_its_requests() {
    let (failing, good) = (failing(), Server::answering("good"));
    let (mesh, address) = guarded(&[failing.server.address, good.address], &outliers(2, 50), Setup::default());
    let mut client = Peer::dial(address);
    eventually("it is left out", || {
        client.ask(GET);
        mesh.metrics().contains("leno_endpoint_ejections_total{destination=\"shop/payment\",cause=\"consecutive-errors\"} 1\n")
    });
    assert_eq!(failing.asked.load(Ordering::SeqCst), 2);
    for _ in 0..10 {
        assert_eq!(client.ask(GET).body(), "good");
    }
}

#[test]
fn connections_that_cannot_be_made_count_as_failures() {
    let good = Server::answering("good");
    let (mesh, address) = guarded(&[nowhere(), good.address], &outliers(2, 50), Setup::default());
    let mut client = Peer::dial(address);
    eventually("it is left out", || {
        assert_eq!(client.ask(GET).body(), "good", "nobody notices");
        mesh.metrics().contains("cause=\"consecutive-errors\"} 1\n")
    });
}

#[test]
fn with_too_few_healthy_endpoints_all_are_used() {
    let failing = failing();
    let (mesh, address) = guarded(&[failing.server.address], &outliers(1, 50), Setup::default());
    let mut client = Peer::dial(address);
    for _ in 0..5 {
        assert_eq!(client.ask(GET).status(), 500);
    }
    assert!(mesh.metrics().contains("cause=\"consecutive-errors\"} 1\n"), "it is left out, and there is nobody else");
}

#[test]
fn without_a_panic_threshold_nobody_is_called_who_is_not_healthy() {
    let failing = failing();
    let (mesh, address) = guarded(&[failing.server.address], &outliers(1, 0), Setup::default());
    let mut client = Peer::dial(address);
    assert_eq!([client.ask(GET).status(), client.ask(GET).status()], [500, 503]);
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"unhealthy\"} 1"));
}

#[test]
fn opaque_connections_are_closed_at_once_while_the_breaker_is_open() {
    let setup = Setup { protocol: Protocol::Tcp, ..Setup::default() };
    let (mesh, address) = guarded(&[nowhere()], &breaker(1, LONG), setup);
    assert!(Peer::dial(address).is_closed());
    assert!(Peer::dial(address).is_closed());
    eventually("the reasons are counted", || {
        let metrics = mesh.metrics();
        metrics.contains("reason=\"connect-failed\"} 1") && metrics.contains("reason=\"circuit-open\"} 1")
    });
}
