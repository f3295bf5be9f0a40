//! Limits on what is under way to a service: HTTP/1 and opaque connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use leno_core::limits::Limits;
use leno_core::resilience::Resilience;
use leno_core::retry::Retry;
use leno_core::route::{RouteTable, Rule};
use leno_core::service::Protocol;

use crate::support::{Mesh, Peer, Server, Setup, eventually, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";

fn limited(endpoints: &[SocketAddr], limits: Limits, setup: Setup) -> (Mesh, SocketAddr) {
    let (mesh, address) = setup.start();
    mesh.set_guarded(endpoints, &Resilience { limits, ..Resilience::default() });
    (mesh, address)
}

/// A server that answers once its gate is open, and counts what it is asked.
struct Gated {
    server: Server,
    gate: Arc<(Mutex<bool>, Condvar)>,
    asked: Arc<AtomicUsize>,
}

impl Gated {
    fn start() -> Self {
        let (gate, asked) = (Arc::<(Mutex<bool>, Condvar)>::default(), Arc::new(AtomicUsize::new(0)));
        let (at, count) = (Arc::clone(&gate), Arc::clone(&asked));
        let server = Server::start(move |mut peer| {
            while peer.message().is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                drop(at.1.wait_while(at.0.lock().unwrap(), |is_open| !*is_open).unwrap());
                peer.send(&ok("let in"));
            }
        });
        Self { server, gate, asked }
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn await_requests(&self, count: usize) {
        eventually("the server is asked", || self.asked.load(Ordering::SeqCst) == count);
    }
}

fn overflows(mesh: &Mesh, limit: &str, count: usize) -> bool {
    mesh.metrics().contains(&format!("leno_overflow_total{{destination=\"shop/payment\",limit=\"{limit}\"}} {count}\n"))
}

#[test]
fn requests_beyond_the_limit_are_answered_503_and_the_client_is_not_told_why() {
    let gated = Gated::start();
    let limits = Limits { requests: Some(1), ..Limits::default() };
    let (mesh, address) = limited(&[gated.server.address], limits, Setup::default());
    let (mut first, mut second) = (Peer::dial(address), Peer::dial(address));
    first.send(GET);
    gated.await_requests(1);
    let refused = second.ask(GET);
    assert_eq!(refused.status(), 503);
    assert!(!refused.text().contains("overflow") && !refused.text().contains("limit"), "{}", refused.text());
    gated.open();
    assert_eq!(first.response().status(), 200);
    eventually("there is room again", || second.ask(GET).status() == 200);
    assert!(mesh.metrics().contains("reason=\"overflow\"}"));
    assert!(mesh.metrics().contains("leno_overflow_total{destination=\"shop/payment\",limit=\"requests\"}"));
}

#[test]
fn requests_wait_for_a_free_connection_and_no_more_than_may_wait() {
    let gated = Gated::start();
    let limits = Limits { connections: Some(1), pending: Some(2), ..Limits::default() };
    let (mesh, address) = limited(&[gated.server.address], limits, Setup::default());
    let mut clients: Vec<_> = (0..4).map(|_| Peer::dial(address)).collect();
    for client in &mut clients {
        client.send(GET);
    }
    eventually("one of four finds neither a connection nor room to wait", || overflows(&mesh, "pending", 1));
    gated.await_requests(1);
    gated.open();
    let mut statuses: Vec<_> = clients.iter_mut().map(|client| client.response().status()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 503]);
    assert_eq!(gated.server.connections(), 1, "one connection carried them all");
}

#[test]
fn connections_that_rest_make_room_for_those_that_are_needed() {
    let (one, other) = (Server::answering("one"), Server::answering("other"));
    let limits = Limits { connections: Some(1), ..Limits::default() };
    let (_mesh, address) = limited(&[one.address, other.address], limits, Setup::default());
    let mut client = Peer::dial(address);
    for _ in 0..6 {
        assert_eq!(client.ask(GET).status(), 200);
    }
    assert_eq!((one.connections(), other.connections()), (3, 3), "the one that rested was closed each time");
}

#[test]
fn a_client_that_goes_waits_no_more() {
    let gated = Gated::start();
    let limits = Limits { connections: Some(1), pending: Some(1), ..Limits::default() };
    let (mesh, address) = limited(&[gated.server.address], limits, Setup::default());
    let mut first = Peer::dial(address);
    first.send(GET);
    gated.await_requests(1);
    let mut others = [Peer::dial(address), Peer::dial(address)];
    others.iter_mut().for_each(|other| other.send(GET));
    eventually("one of them waits, the other is refused", || overflows(&mesh, "pending", 1));
    let [one, other] = others;
    let is_refused = |peer: &Peer| {
        peer.stream.set_nonblocking(true).unwrap();
        let is_answered = matches!(peer.stream.peek(&mut [0]), Ok(1));
        peer.stream.set_nonblocking(false).unwrap();
        is_answered
    };
    eventually("the refusal is there", || is_refused(&one) || is_refused(&other));
    let (mut refused, waiting) = if is_refused(&one) { (one, other) } else { (other, one) };
    assert_eq!(refused.response().status(), 503);
    socket2::SockRef::from(&waiting.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(waiting);
    eventually("it is noticed", || mesh.metrics().contains("leno_connections_open{direction=\"outbound\"} 2\n"));
    gated.open();
    assert_eq!((first.response().status(), refused.ask(GET).status()), (200, 200));
    assert_eq!(gated.asked.load(Ordering::SeqCst), 2, "the request of who has gone was never sent");
}

#[test]
fn a_connection_is_kept_no_longer_than_the_idle_timeout() {
    let server = Server::answering("again");
    let limits = Limits { idle_timeout: Some(Duration::from_millis(1)), ..Limits::default() };
    let (_mesh, address) = limited(&[server.address], limits, Setup::default());
    let mut client = Peer::dial(address);
    eventually("another connection is made", || {
        assert_eq!(client.ask(GET).body(), "again");
        server.connections() > 1
    });
}

#[test]
fn an_opaque_connection_without_a_byte_for_the_idle_timeout_is_closed() {
    let server = Server::start(|mut peer| {
        peer.send("hello\n");
        peer.rest();
    });
    let limits = Limits { idle_timeout: Some(Duration::from_millis(30)), ..Limits::default() };
    let (mesh, address) = limited(&[server.address], limits, Setup { protocol: Protocol::Tcp, ..Setup::default() });
    let mut client = Peer::dial(address);
    assert_eq!(client.until("\n").as_deref(), Some("hello\n"));
    assert!(client.is_closed());
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"idle-timeout\"} 1"));
}

#[test]
fn requests_are_sent_once_more_by_policy_only_where_the_limit_allows_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = Server::start(move |mut peer| {
        while peer.message().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let retry = Arc::new(Retry { attempts: 1, ..Retry::default() });
    let rule = Rule { name: "all".into(), retry: Some(retry), ..Rule::default() };
    let setup = || Setup { routes: RouteTable::new("shop/p".into(), None, vec![rule.clone()]), ..Setup::default() };
    for (retries, tries) in [(Some(1), 2), (Some(0), 1)] {
        asked.store(0, Ordering::SeqCst);
        let (mesh, address) = limited(&[server.address], Limits { retries, ..Limits::default() }, setup());
        assert_eq!(Peer::dial(address).ask(GET).status(), 503);
        assert_eq!(asked.load(Ordering::SeqCst), tries);
        assert_eq!(overflows(&mesh, "retries", 1), retries == Some(0));
    }
}

#[test]
fn opaque_connections_beyond_the_limit_are_closed() {
    let server = Server::start(|mut peer| {
        peer.send("hello\n");
        peer.rest();
    });
    let limits = Limits { connections: Some(1), pending: Some(0), ..Limits::default() };
    let (mesh, address) = limited(&[server.address], limits, Setup { protocol: Protocol::Tcp, ..Setup::default() });
    let mut first = Peer::dial(address);
    assert_eq!(first.until("\n").as_deref(), Some("hello\n"));
    assert!(Peer::dial(address).is_closed());
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"overflow\"} 1") && overflows(&mesh, "pending", 1));
    drop(first);
    eventually("there is room again", || Peer::dial(address).until("\n").is_some());
}
