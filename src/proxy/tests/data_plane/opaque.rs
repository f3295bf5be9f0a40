//! Connections that are not HTTP, and those whose protocol the first bytes tell.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use leno_core::limits::Limits;
use leno_core::resilience::Resilience;
use leno_core::service::Protocol;
use leno_proxy::listen::Accept;
use socket2::SockRef;

use crate::support::{Peer, Server, Setup, eventually, nowhere};

fn echo() -> Server {
    Server::start(|mut peer| {
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
        peer.send("end");
    })
}

fn greeting() -> Server {
    Server::start(|mut peer| {
        peer.send("220 ready\n");
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
    })
}

#[test]
fn a_declared_tcp_port_lets_the_server_speak_first_and_each_side_close_on_its_own() {
    for protocol in [Protocol::Tcp, Protocol::Tls] {
        let server = echo();
        let (mesh, address) = Setup { protocol, ..Setup::to(&[&server]) }.start();
        let mut client = Peer::dial(address);
        client.send("GET / HTTP/1.1\n");
        assert_eq!(client.until("\n").unwrap(), "GET / HTTP/1.1\n", "bytes are not looked at");
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), b"end", "the server still speaks after the client has closed its side");
        eventually("the connection is recorded", || mesh.metrics().contains("leno_tcp"));
    }
    let server = greeting();
    let (_mesh, address) = Setup { protocol: Protocol::Tcp, ..Setup::to(&[&server]) }.start();
    assert_eq!(Peer::dial(address).until("\n").unwrap(), "220 ready\n");
}

#[test]
fn detection_carries_http_by_request_and_other_bytes_as_they_are() {
    let server = Server::answering("hello");
    let (mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&server]) }.start();
    let mut client = Peer::dial(address);
    client.send("GE");
    client.send("T / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().body(), "hello");
    eventually("a request was recorded", || mesh.metrics().contains("protocol=\"http1\""));
    let server = echo();
    let (_mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&server]) }.start();
    let mut client = Peer::dial(address);
    client.send("\x16\x03\x01 hello\n");
    assert_eq!(client.until("\n").unwrap(), "\x16\x03\x01 hello\n");
}

#[test]
fn a_server_that_speaks_first_on_an_undeclared_port_is_heard_after_the_wait() {
    let server = greeting();
    let (mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&server]) }.start();
    let mut client = Peer::dial(address);
    assert_eq!(client.until("\n").unwrap(), "220 ready\n");
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.until("\n").unwrap(), "GET / HTTP/1.1\r\n", "opaque from then on");
    assert_eq!(server.connections(), 1, "the connection that was dialled to listen is the one that is used");
    assert!(
        mesh.metrics().lines().any(|line| line.starts_with("leno_detection_timeouts_total") && line.ends_with(" 1")),
        "{}",
        mesh.metrics()
    );
}

#[test]
fn a_client_that_is_silent_at_first_is_still_understood() {
    let server = Server::answering("hello");
    let (_mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&server]) }.start();
    let mut client = Peer::dial(address);
    eventually("the server is dialled to hear whether it speaks first", || server.connections() == 1);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().body(), "hello");
}

#[test]
fn an_opaque_connection_nobody_takes_is_reset() {
    let setup = Setup { protocol: Protocol::Tcp, endpoints: vec![(nowhere(), "v1")], ..Setup::default() };
    let (mesh, address) = setup.start();
    assert!(Peer::dial(address).is_closed());
    eventually("the reason is counted", || mesh.metrics().contains("connect-failed"));
}

#[test]
fn an_opaque_connection_goes_to_an_endpoint_that_accepts() {
    let server = greeting();
    let endpoints = vec![(nowhere(), "v1"), (nowhere(), "v1"), (server.address, "v1")];
    let (_mesh, address) = Setup { protocol: Protocol::Tcp, endpoints, ..Setup::default() }.start();
    for _ in 0..3 {
        assert_eq!(Peer::dial(address).until("\n").unwrap(), "220 ready\n");
    }
}

#[test]
fn the_inbound_side_carries_server_first_and_http_alike() {
    let server = greeting();
    let app = server.address;
    let (_mesh, address) = Setup::default().start_with(|| Accept::InboundApp { app, port: 25 });
    assert_eq!(Peer::dial(address).until("\n").unwrap(), "220 ready\n");
    let server = Server::answering("hello");
    let app = server.address;
    let (_mesh, address) = Setup::default().start_with(|| Accept::InboundApp { app, port: 80 });
    assert_eq!(Peer::dial(address).ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body(), "hello");
}

/// A server that says nothing, and ends all of its connections when it is told to.
fn ending() -> (Server, Arc<AtomicBool>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let server = Server::start(move |_peer| {
        while !over.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    });
    (server, is_over)
}

#[test]
fn a_client_that_has_said_nothing_yet_does_not_notice_that_its_endpoint_ends() {
    let ((old, is_over), new) = (ending(), Server::answering("hello"));
    let (mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&old, &new]) }.start();
    let mut client = Peer::dial(address);
    eventually("the first one is dialled to hear whether it speaks first", || old.connections() == 1);
    is_over.store(true, Ordering::SeqCst);
    eventually("another one takes its place", || new.connections() == 1);
    mesh.set_endpoints(&[(new.address, "v1")]);
    let is_answered = || Peer::dial(address).ask("GET / HTTP/1.1\r\nHost: payment\r\n\r\n").body() == "hello";
    eventually("the old one is not known any more", || is_answered() && is_answered());
    let request = "POST /a HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(client.ask(request).body(), "hello");
}

#[test]
fn the_server_that_takes_the_place_of_one_that_ended_may_speak_first() {
    let ((old, is_over), new) = (ending(), greeting());
    let (_mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&old, &new]) }.start();
    let mut client = Peer::dial(address);
    eventually("the first one is dialled", || old.connections() == 1);
    is_over.store(true, Ordering::SeqCst);
    assert_eq!(client.until("\n").unwrap(), "220 ready\n");
    client.send("hello\n");
    assert_eq!(client.until("\n").unwrap(), "hello\n");
}

#[test]
fn bytes_that_are_no_http_go_to_the_server_that_has_taken_the_place() {
    let ((old, is_over), new) = (ending(), echo());
    let (_mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&old, &new]) }.start();
    let mut client = Peer::dial(address);
    eventually("the first one is dialled", || old.connections() == 1);
    is_over.store(true, Ordering::SeqCst);
    eventually("another one takes its place", || new.connections() == 1);
    client.send("\x16\x03\x01 hello\n");
    assert_eq!(client.until("\n").unwrap(), "\x16\x03\x01 hello\n");
}

#[test]
fn servers_that_end_every_connection_at_once_are_given_up() {
    let server = Server::start(drop);
    let (_mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&server]) }.start();
    assert!(Peer::dial(address).is_closed());
    assert_eq!(server.connections(), 3);
    let resetting = Server::start(|peer| SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap());
    let (mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&resetting]) }.start();
    assert!(Peer::dial(address).is_closed());
    // A reset may come before the connection counts as made.
    assert!((1..=3).contains(&resetting.connections()), "{}", resetting.connections());
    let is_told = || ["cut", "connect-failed"].iter().any(|reason| mesh.metrics().contains(&format!("reason=\"{reason}\"")));
    eventually("it is told from an end", is_told);
}

#[test]
fn an_endpoint_that_ends_with_nobody_to_take_its_place_is_the_end() {
    let (old, is_over) = ending();
    let (mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::to(&[&old]) }.start();
    let mut client = Peer::dial(address);
    eventually("it is dialled", || old.connections() == 1);
    mesh.set_endpoints(&[(nowhere(), "v1")]);
    is_over.store(true, Ordering::SeqCst);
    assert!(client.is_closed());
}

#[test]
fn a_connection_in_use_is_not_counted_twice_while_its_endpoint_is_replaced() {
    let ((old, is_over), new) = (ending(), greeting());
    let (mesh, address) = Setup { protocol: Protocol::Detect, ..Setup::default() }.start();
    let limits = Limits { connections: Some(1), ..Limits::default() };
    mesh.set_guarded(&[old.address], &Resilience { limits, ..Resilience::default() });
    let mut client = Peer::dial(address);
    eventually("the first one is dialled", || old.connections() == 1);
    mesh.set_guarded(&[new.address], &Resilience { limits, ..Resilience::default() });
    is_over.store(true, Ordering::SeqCst);
    assert_eq!(client.until("\n").unwrap(), "220 ready\n");
}
