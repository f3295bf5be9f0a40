//! A sidecar that is addressed on purpose, as an HTTP proxy is.

use leno_core::service::Protocol;
use leno_proxy::listen::Accept;

use crate::support::{Peer, Server, Setup};

#[test]
fn a_service_is_found_by_host_by_absolute_target_and_by_connect() {
    let (server, told) = Server::telling();
    let (_mesh, address) = Setup::to(&[&server]).start_with(|| Accept::OutboundExplicit);
    let mut client = Peer::dial(address);
    assert_eq!(client.ask("GET /host HTTP/1.1\r\nHost: payment\r\n\r\n").status(), 200);
    assert!(told.recv().unwrap().starts_with("GET /host HTTP/1.1\r\nHost: payment\r\n"));
    assert_eq!(client.ask("GET http://payment:80/target?q HTTP/1.1\r\nHost: payment:80\r\nProxy-Authorization: x\r\n\r\n").status(), 200);
    let request = told.recv().unwrap();
    assert!(request.starts_with("GET /target?q HTTP/1.1\r\nHost: payment:80\r\nx-request-id: "), "{request}");
    client.send("CONNECT payment:80 HTTP/1.1\r\nHost: payment:80\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.ask("GET /tunnel HTTP/1.1\r\nHost: payment\r\n\r\n").status(), 200);
    assert!(told.recv().unwrap().starts_with("GET /tunnel"), "requests in the tunnel are routed one by one");
}

#[test]
fn connect_carries_opaque_services_too() {
    let server = Server::start(|mut peer| peer.send("220 ready\n"));
    let (_mesh, address) = Setup { protocol: Protocol::Tcp, ..Setup::to(&[&server]) }.start_with(|| Accept::OutboundExplicit);
    let mut client = Peer::dial(address);
    client.send("CONNECT payment:80 HTTP/1.1\r\nHost: payment:80\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.until("\n").unwrap(), "220 ready\n");
}

#[test]
fn a_host_nobody_knows_is_404_and_the_outside_is_reached_as_through_any_proxy() {
    let (outside, told) = Server::telling();
    let (_mesh, address) = Setup::default().start_with(|| Accept::OutboundExplicit);
    let mut client = Peer::dial(address);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: ghost\r\n\r\n").status(), 404);
    let authority = outside.address;
    assert_eq!(client.ask(&format!("GET http://{authority}/out HTTP/1.1\r\nHost: {authority}\r\n\r\n")).status(), 200);
    assert!(told.recv().unwrap().starts_with("GET /out HTTP/1.1\r\n"));
    client.send(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.ask("GET /raw HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    assert_eq!(told.recv().unwrap(), "GET /raw HTTP/1.1\r\nHost: a\r\n\r\n", "untouched");
}

#[test]
fn the_sidecar_does_not_send_requests_to_itself() {
    let (_mesh, address) = Setup::default().start_with(|| Accept::OutboundExplicit);
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(&format!("GET http://{address}/ HTTP/1.1\r\nHost: {address}\r\n\r\n")).status(), 404);
}
