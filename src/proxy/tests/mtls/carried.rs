//! What passes between two proxies of the mesh.

use std::io::{Read, Write};
use std::net::Shutdown;

use bytes::Bytes;
use leno_core::authorize::Mode;
use leno_core::balance::Algorithm;
use leno_core::endpoints::Endpoint;
use leno_core::mirror::Mirror;
use leno_core::percentage::Percentage;
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::service::Protocol;
use leno_core::weight::Weight;
use leno_proxy::control::Update;

use crate::authority::{Authority, PAYMENT, self_signed};
use crate::peers::{self, ask, patient, send_all};
use crate::proxies::{counted, endpoint, eventually_counted, inbound, outbound, pair};
use crate::stranger::{self, client_config};
use crate::support::{Peer, Server, ok};

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
fn http1_requests_share_one_secured_connection_and_both_ends_are_recorded_as_such() {
    let (app, told) = Server::telling();
    let pair = pair(app.address, Protocol::Http);
    let mut client = Peer::dial(pair.address);
    for turn in 0..20 {
        let answer = client.ask(&format!("POST /{turn} HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody"));
        assert_eq!((answer.status(), answer.body()), (200, "told"));
        assert!(told.recv().unwrap().starts_with(&format!("POST /{turn} ")));
    }
    assert_eq!(counted(&pair.caller, &["leno_tls_handshakes_total", r#"side="client",result="ok",resumed="false""#]), 1);
    assert_eq!(counted(&pair.callee, &["leno_tls_handshakes_total", r#"side="server",result="ok",resumed="false""#]), 1);
    for mesh in [&pair.caller, &pair.callee] {
        eventually_counted(mesh, &["leno_requests_total", r#"mtls="true""#], 20);
        assert_eq!(counted(mesh, &["leno_requests_total", r#"mtls="false""#]), 0);
    }
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect()
}

#[test]
fn long_bodies_arrive_whole_both_ways_whatever_the_reader_waits_for() {
    const LENGTH: usize = 12 * 1024 * 1024;
    let app = Server::start(|mut peer| {
        let head = peer.head().unwrap();
        assert!(head.starts_with("POST /"), "{head}");
        let body = peer.exactly(LENGTH);
        assert!(body == pattern(LENGTH), "the request's body is whole");
        peer.stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes()).unwrap();
        peer.stream.write_all(&pattern(LENGTH)).unwrap();
        assert!(peer.is_closed());
    });
    let pair = pair(app.address, Protocol::Http);
    let mut client = Peer::dial(pair.address);
    client.send(&format!("POST / HTTP/1.1\r\nHost: payment\r\nContent-Length: {LENGTH}\r\n\r\n"));
    client.stream.write_all(&pattern(LENGTH)).unwrap();
    // Nobody reads before the response fills every buffer on its way.
    assert_eq!(client.head().map(|head| head.starts_with("HTTP/1.1 200")), Some(true));
    assert!(client.exactly(LENGTH) == pattern(LENGTH), "the response's body is whole");
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole_only_if_the_end_was_said() {
    let authority = Authority::new();
    for (path, says_end) in [("/whole", true), ("/cut", false)] {
        let (certified, _) = authority.certified(&[PAYMENT], crate::authority::Life::Now);
        let server = stranger::serve(certified, &["leno/http"], move |mut stream| {
            stranger::head(&mut stream).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf").unwrap();
            stream.flush().unwrap();
            if says_end {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
            stream.sock.shutdown(Shutdown::Write).unwrap();
            let _closed = stream.sock.read(&mut [0; 16]);
        });
        let (_mesh, address) = outbound(&authority, Protocol::Http, &[(server, Some(PAYMENT))]);
        let mut client = Peer::dial(address);
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: payment\r\n\r\n"));
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
        let end = client.stream.read_to_end(&mut Vec::new());
        assert_eq!(end.is_ok(), says_end, "{path}: {end:?}");
    }
}

#[test]
fn opaque_connections_pass_with_each_side_closing_on_its_own_and_servers_speaking_first() {
    let server = echo();
    let pair_of_echo = pair(server.address, Protocol::Tcp);
    let mut client = Peer::dial(pair_of_echo.address);
    client.send("GET / HTTP/1.1\n");
    assert_eq!(client.until("\n").unwrap(), "GET / HTTP/1.1\n", "bytes are not looked at");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"end", "the server still speaks after the client has closed its side");
    eventually_counted(&pair_of_echo.callee, &["leno_tcp_connections_closed_total", r#"mtls="true""#], 1);
    assert_eq!(counted(&pair_of_echo.callee, &["leno_tcp_connections_failed_total"]), 0, "it ended, and was not cut");

    let server = greeting();
    let pair_of_greeting = pair(server.address, Protocol::Tcp);
    assert_eq!(Peer::dial(pair_of_greeting.address).until("\n").unwrap(), "220 ready\n");
    // Of undeclared protocol: the caller's proxy waits for its client, and dials then.
    let undeclared = pair(server.address, Protocol::Detect);
    let mut client = Peer::dial(undeclared.address);
    assert_eq!(client.until("\n").unwrap(), "220 ready\n");
    client.send("GET / HTTP/1.1\n");
    assert_eq!(client.until("\n").unwrap(), "GET / HTTP/1.1\n");
}

#[test]
fn a_client_that_is_silent_at_first_is_understood_although_tickets_arrive_meanwhile() {
    let server = Server::answering("hello");
    let pair = pair(server.address, Protocol::Detect);
    let mut client = Peer::dial(pair.address);
    eventually_counted(&pair.caller, &["leno_tls_handshakes_total", r#"result="ok""#], 1);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: payment\r\n\r\n").body(), "hello");
    eventually_counted(&pair.callee, &["leno_requests_total", r#"protocol="http1""#], 1);
}

#[test]
fn an_apps_own_tls_passes_inside_mutual_tls_and_beside_it() {
    let authority = Authority::new();
    let app = stranger::serve(self_signed("spiffe://app/ns/its/sa/own"), &["h2", "echo"], stranger::echo);
    let (_callee, at_app) = inbound(app, &authority, Mode::Permissive, Protocol::Tls);
    let (caller, inside) = outbound(&authority, Protocol::Detect, &[(at_app, Some(PAYMENT))]);
    for (address, mutual) in [(at_app, 0), (inside, 1)] {
        let mut client = stranger::dial(address, client_config("echo", None, &rustls::version::TLS13));
        client.write_all(b"hello").unwrap();
        let mut echoed = [0; 5];
        client.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"hello");
        assert_eq!(client.conn.alpn_protocol(), Some(&b"echo"[..]), "the app's own handshake");
        assert_eq!(counted(&caller, &["leno_tls_handshakes_total", r#"result="ok""#]), mutual);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_and_grpc_pass_stream_by_stream_with_trailers() {
    let app = peers::Server::echo().await;
    let pair = pair(app.address, Protocol::Grpc);
    let client = peers::dial(pair.address).await;
    for _ in 0..20 {
        let response = ask(&client, peers::grpc(), b"question").await.unwrap();
        assert_eq!((response.text(), response.grpc_status().0), ("question", "0"));
    }
    let mut ready = client.clone().ready().await.unwrap();
    let (response, mut send) = ready.send_request(peers::post("/long"), false).unwrap();
    let mut body = patient(response).await.unwrap().into_body();
    let whole = Bytes::from(pattern(3 * 1024 * 1024));
    let sent = whole.clone();
    let sending = tokio::spawn(async move {
        send_all(&mut send, sent).await.unwrap();
        send.send_data(Bytes::new(), true).unwrap();
    });
    let mut echoed = Vec::new();
    while let Some(piece) = patient(body.data()).await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        echoed.extend_from_slice(&piece);
    }
    sending.await.unwrap();
    assert!(echoed == whole);
    assert_eq!(app.connections(), 1);
    assert_eq!(counted(&pair.caller, &["leno_tls_handshakes_total", r#"result="ok""#]), 1);
    eventually_counted(&pair.callee, &["leno_requests_total", r#"protocol="grpc",mtls="true""#], 20);
}

#[test]
fn certificates_signed_by_either_of_two_trusted_roots_meet() {
    let app = Server::start(|mut peer| {
        while let Some(_request) = peer.message() {
            peer.send(&ok("met"));
        }
    });
    let (old, new) = (Authority::new(), Authority::new());
    let (callee, at_app) = inbound(app.address, &old, Mode::Strict, Protocol::Http);
    let (caller, address) = outbound(&new, Protocol::Http, &[(at_app, Some(PAYMENT))]);
    let ask = || Peer::dial(address).ask("GET / HTTP/1.1\r\nHost: payment\r\nConnection: close\r\n\r\n").status();
    assert_eq!(ask(), 502, "neither knows the other's root");
    for mesh in [&callee, &caller] {
        mesh.tell(Update::Trust(crate::authority::trust(&[&old, &new])));
    }
    crate::support::eventually("both trust both roots", || ask() == 200);
}

#[test]
fn copies_for_a_mirror_are_mutual_tls_like_any_request_and_go_no_further() {
    let (app, told) = Server::telling();
    let (copied, copies) = Server::telling();
    let authority = Authority::new();
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Http);
    let (mirror, at_mirror) = inbound(copied.address, &authority, Mode::Strict, Protocol::Http);
    let (caller, address) = outbound(&authority, Protocol::Http, &[]);
    let version = |address, version: &str| Endpoint { versions: vec![version.into()], ..endpoint(address, Some(PAYMENT)) };
    caller.set_these(vec![version(at_app, "v1"), version(at_mirror, "v2")]);
    let target = |version: &str| Target::Version(version.into());
    let mirrored = Mirror { target: target("v2"), percentage: Percentage::ALL };
    let to = Destination { target: target("v1"), weight: Weight::ONE };
    let rule = Rule { name: "all".into(), destinations: vec![to], mirrors: vec![mirrored], ..Rule::default() };
    let routes = || RouteTable::new("shop/mirrors".into(), None, vec![rule.clone()]);
    // The mirror's own proxy knows the policy as well: what comes in is never mirrored.
    for mesh in [&caller, &mirror] {
        mesh.set_service(Protocol::Http, Algorithm::RoundRobin, routes());
    }
    let mut client = Peer::dial(address);
    for _ in 0..10 {
        assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody").body(), "told");
        assert_eq!(copies.recv().unwrap(), told.recv().unwrap());
    }
    eventually_counted(&caller, &[r#"leno_mirrored_total{outcome="answered"}"#], 10);
    eventually_counted(&mirror, &["leno_requests_total", r#"mtls="true""#], 10);
    assert_eq!(counted(&mirror, &["leno_mirrored_total"]), 0);
    assert!(told.try_recv().is_err() && copies.try_recv().is_err(), "each was there once");
}
