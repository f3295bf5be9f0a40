//! Who comes in, by mode.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_core::authorize::Mode;
use leno_core::service::Protocol;

use crate::authority::{Authority, Life, PAYMENT, WEB};
use crate::peers::{self, patient};
use crate::proxies::{counted, eventually_counted, inbound, inbound_with, outbound, settings, workload};
use crate::stranger::{self, client_config};
use crate::support::{Peer, Server, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: payment\r\n\r\n";

#[test]
fn a_proxy_of_the_mesh_comes_in_by_every_mode_and_plain_text_by_all_but_strict() {
    for protocol in [Protocol::Http, Protocol::Detect, Protocol::Tcp] {
        for mode in [Mode::Permissive, Mode::Strict, Mode::Disabled] {
            let app = Server::answering("hello");
            let authority = Authority::new();
            let (callee, at_app) = inbound(app.address, &authority, mode, protocol);
            let (_caller, address) = outbound(&authority, protocol, &[(at_app, Some(PAYMENT))]);
            assert_eq!(Peer::dial(address).ask(GET).body(), "hello", "{protocol:?} {mode:?}");
            let before = app.connections();
            let mut plain = Peer::dial(at_app);
            plain.send(GET);
            if mode == Mode::Strict {
                assert!(plain.is_closed(), "{protocol:?}");
                eventually_counted(&callee, &["leno_errors_total", "plain-text"], 1);
                assert_eq!(app.connections(), before, "the app has not heard of it");
            } else {
                assert_eq!(plain.response().body(), "hello", "{protocol:?} {mode:?}");
            }
        }
    }
}

#[test]
fn strict_refuses_by_a_reset_whatever_is_spoken_and_the_app_hears_nothing() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Detect);
    let tls = stranger::hello("h2");
    for bytes in [GET.as_bytes(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"EHLO host\r\n", b"\0\0\0\x08", &tls] {
        let mut client = Peer::dial(at_app);
        client.stream.write_all(bytes).unwrap();
        let end = client.stream.read(&mut [0; 16]);
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{bytes:?}");
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn a_plain_client_that_waits_for_the_server_to_speak_is_served_where_plain_text_is() {
    let app = Server::start(|mut peer| {
        peer.send("220 ready\n");
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
    });
    for protocol in [Protocol::Tcp, Protocol::Detect] {
        let (_callee, at_app) = inbound(app.address, &Authority::new(), Mode::Permissive, protocol);
        assert_eq!(Peer::dial(at_app).until("\n").unwrap(), "220 ready\n", "{protocol:?}");
    }
}

/// The first connection from an address tells; the next ones do not wait for what will not come.
#[test]
fn a_plain_client_waits_once_for_the_server_to_speak_and_a_proxy_at_its_address_is_still_understood() {
    let app = Server::start(|mut peer| {
        peer.send("220 ready\n");
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
    });
    let authority = Authority::new();
    let mut settings = settings("payment-1");
    (settings.detect_timeout, settings.intercepts) = (Duration::from_secs(1), true);
    let wait = settings.detect_timeout;
    let (_callee, at_app) = inbound_with(app.address, &authority, Mode::Permissive, Protocol::Tcp, settings);
    let greeted = |address| {
        let since = Instant::now();
        assert_eq!(Peer::dial(address).until("\n").unwrap(), "220 ready\n");
        since.elapsed()
    };
    assert!(greeted(at_app) >= wait);
    assert!(greeted(at_app) < wait);
    let (_caller, address) = outbound(&authority, Protocol::Tcp, &[(at_app, Some(PAYMENT))]);
    greeted(address);
    assert!(greeted(at_app) >= wait, "a proxy has said hello from there meanwhile");
}

/// A starved machine or a lost segment once made a proxy's late hello plain text: 400 where HTTP was declared.
#[test]
fn a_proxy_whose_hello_comes_later_than_detection_waits_is_still_one() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    for protocol in [Protocol::Http, Protocol::Detect, Protocol::Tcp] {
        let mut settings = settings("payment-1");
        settings.detect_timeout = Duration::from_millis(1);
        let (_callee, at_app) = inbound_with(app.address, &authority, Mode::Permissive, protocol, settings);
        let (certified, _) = authority.certified(&[WEB], Life::Now);
        let before = app.connections();
        let mut client = stranger::dial(at_app, client_config("leno/http", Some(certified), &rustls::version::TLS13));
        if protocol == Protocol::Http {
            std::thread::sleep(Duration::from_millis(50));
        } else {
            eventually("the app is asked whether it speaks first", || app.connections() > before);
        }
        client.write_all(GET.as_bytes()).unwrap();
        assert!(stranger::head(&mut client).unwrap().starts_with("HTTP/1.1 200"), "{protocol:?}");
    }
}

#[test]
fn declared_probes_pass_a_strict_port_and_nothing_else_does_on_their_connection() {
    let (app, told) = Server::telling();
    let mut settings = settings("payment-1");
    settings.probes = Arc::new("8080/healthz,8080/ready?full=1".parse().unwrap());
    let (callee, at_app) = inbound_with(app.address, &Authority::new(), Mode::Strict, Protocol::Http, settings);
    let mut kubelet = Peer::dial(at_app);
    for target in ["/healthz", "/ready?full=1", "/healthz"] {
        assert_eq!(kubelet.ask(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).status(), 200, "{target}");
        assert!(told.recv().unwrap().starts_with(&format!("GET {target} ")));
    }
    kubelet.send(GET);
    assert!(kubelet.is_closed(), "another request on the same connection");
    let others = [
        "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET /healthz/../admin HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /healthz?x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for other in others {
        let mut client = Peer::dial(at_app);
        client.send(other);
        assert!(client.is_closed(), "{other}");
    }
    assert!(told.try_recv().is_err(), "the app has heard of none of them");
    eventually_counted(&callee, &["leno_errors_total", "plain-text"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_grpc_probe_passes_a_strict_port_and_other_calls_end_its_connection() {
    let app = peers::Server::echo().await;
    let mut settings = settings("payment-1");
    settings.probes = Arc::new("8080/grpc.health.v1.Health/Check".parse().unwrap());
    let (callee, at_app) = inbound_with(app.address, &Authority::new(), Mode::Strict, Protocol::Grpc, settings);
    let kubelet = peers::dial(at_app).await;
    let mut check = peers::grpc();
    *check.uri_mut() = "http://payment/grpc.health.v1.Health/Check".parse().unwrap();
    assert_eq!(peers::ask(&kubelet, check, b"").await.unwrap().grpc_status().0, "0");
    assert_eq!(app.requests(), 1);
    assert!(patient(peers::ask(&kubelet, peers::grpc(), b"")).await.is_err());
    assert_eq!(app.requests(), 1, "the app has not heard of it");
    eventually_counted(&callee, &["leno_errors_total", "plain-text"], 1);
}

#[test]
fn a_port_that_becomes_strict_refuses_the_next_request_of_a_plain_connection() {
    let app = Server::answering("hello");
    let (callee, at_app) = inbound(app.address, &Authority::new(), Mode::Permissive, Protocol::Http);
    let mut client = Peer::dial(at_app);
    assert_eq!(client.ask(GET).body(), "hello");
    callee.tell(workload(Mode::Strict, Protocol::Http));
    eventually("new connections are refused", || {
        let mut other = Peer::dial(at_app);
        other.send(GET);
        other.is_closed()
    });
    client.send(GET);
    assert!(client.is_closed());
}

#[test]
fn nobody_comes_in_unproven_before_the_mode_is_known() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    let setup = crate::support::Setup { settings: settings("payment-1"), ..Default::default() };
    let accept = leno_proxy::listen::Accept::InboundApp { app: app.address, port: 8080 };
    let (mesh, at_app) = setup.start_with(|| accept);
    mesh.tell(leno_proxy::control::Update::Trust(authority.trust()));
    mesh.tell(leno_proxy::control::Update::Connected(false));
    let mut client = Peer::dial(at_app);
    client.send(GET);
    assert!(client.is_closed());
    assert_eq!(app.connections(), 0);
}

#[test]
fn a_connection_made_straight_to_the_inbound_port_is_closed_even_by_a_proxy_of_the_mesh() {
    let authority = Authority::new();
    let setup = crate::support::Setup { settings: settings("payment-1"), ..Default::default() };
    let (mesh, address) = setup.start_with(|| leno_proxy::listen::Accept::InboundTransparent);
    mesh.tell(leno_proxy::control::Update::Trust(authority.trust()));
    mesh.tell(leno_proxy::control::Update::Credentials(authority.credentials(PAYMENT)));
    mesh.tell(workload(Mode::Permissive, Protocol::Http));
    let (certified, _) = authority.certified(&[crate::authority::WEB], crate::authority::Life::Now);
    let mut client = stranger::dial(address, stranger::client_config("leno/http", Some(certified), &rustls::version::TLS13));
    let _early = client.write_all(GET.as_bytes());
    assert!(client.conn.is_handshaking() && client.read(&mut [0; 1]).is_err());
    assert!(Peer::dial(address).is_closed());
    assert_eq!(counted(&mesh, &["leno_tls_handshakes_total"]), 0);
}

#[test]
fn a_hello_that_stalls_or_trickles_is_given_up_in_time() {
    let app = Server::answering("hello");
    let mut settings = settings("payment-1");
    settings.handshake_timeout = Duration::from_millis(300);
    let (callee, at_app) = inbound_with(app.address, &Authority::new(), Mode::Strict, Protocol::Http, settings);
    let hello = stranger::hello("leno/http");
    // Half a hello; a whole one and nothing after it; nothing at all.
    for part in [&hello[..hello.len() / 2], &hello, &[]] {
        let mut client = Peer::dial(at_app);
        client.stream.write_all(part).unwrap();
        let mut answered = Vec::new();
        let _reset = client.stream.read_to_end(&mut answered);
        assert!(!answered.starts_with(b"HTTP"), "{answered:?}");
    }
    let mut trickling = Peer::dial(at_app);
    let refused = hello.iter().any(|byte| {
        std::thread::sleep(Duration::from_millis(2));
        trickling.stream.write_all(&[*byte]).is_err()
    });
    assert!(refused || trickling.is_closed());
    assert_eq!(counted(&callee, &["leno_tls_handshakes_total", r#"result="ok""#]), 0);
    eventually_counted(&callee, &["leno_tls_handshakes_total", r#"result="timeout""#], 1);
    assert_eq!(app.connections(), 0);
}

#[test]
fn a_hello_in_small_pieces_is_understood() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Permissive, Protocol::Http);
    let (certified, _) = authority.certified(&[crate::authority::WEB], crate::authority::Life::Now);
    let mut config = stranger::client_config("leno/http", Some(certified), &rustls::version::TLS13);
    config.max_fragment_size = Some(64);
    let mut client = stranger::dial(at_app, config);
    client.write_all(GET.as_bytes()).unwrap();
    assert!(stranger::head(&mut client).unwrap().starts_with("HTTP/1.1 200"));
    client.conn.send_close_notify();
    client.flush().unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
}
