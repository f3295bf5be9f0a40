//! What is held over time: sessions, certificates, roots.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use leno_core::authorize::Mode;
use leno_core::service::Protocol;
use leno_proxy::control::Update;
use rustls::ClientConfig;

use crate::authority::{Authority, Life, PAYMENT, WEB, trust};
use crate::proxies::{counted, inbound, outbound, pair};
use crate::stranger::{self, client_config};
use crate::support::{Peer, Server, eventually};

const RESUMED: [&str; 2] = ["leno_tls_handshakes_total", r#"result="ok",resumed="true""#];
const FULL: [&str; 2] = ["leno_tls_handshakes_total", r#"result="ok",resumed="false""#];

fn echo() -> Server {
    Server::start(|mut peer| {
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
    })
}

/// Carries one line over a connection of its own.
fn pass(address: std::net::SocketAddr) -> bool {
    let mut client = Peer::dial(address);
    client.send("hello\n");
    client.until("\n").is_some()
}

/// One line over a connection of its own that knows nothing of tunnels.
fn pass_alone(address: std::net::SocketAddr, config: &ClientConfig) -> bool {
    let mut client = stranger::dial(address, config.clone());
    let mut echoed = [0; 6];
    client.write_all(b"hello\n").and_then(|()| client.read_exact(&mut echoed)).is_ok()
}

#[test]
fn sessions_are_resumed_until_the_trust_changes_and_are_verified_like_new_ones() {
    let (app, authority) = (echo(), Authority::new());
    let (callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Tcp);
    let config = client_config("leno/tcp", Some(authority.certified(&[WEB], Life::Now).0), &rustls::version::TLS13);
    for _ in 0..10 {
        assert!(pass_alone(at_app, &config));
    }
    assert!(counted(&callee, &RESUMED) >= 5, "{}", callee.metrics());
    assert_eq!(counted(&callee, &RESUMED) + counted(&callee, &FULL), 10);
    // The app's side trusts somebody else from now on: no session of before lets anybody in.
    callee.tell(Update::Trust(Authority::new().trust()));
    eventually("the caller's root is forgotten", || !pass_alone(at_app, &config));
    let resumed = counted(&callee, &RESUMED);
    for _ in 0..3 {
        assert!(!pass_alone(at_app, &config));
    }
    assert_eq!(counted(&callee, &RESUMED), resumed);
}

#[test]
fn a_proxy_that_knows_no_tunnels_is_dialled_for_each_connection_with_sessions_resumed() {
    let authority = Authority::new();
    let older = stranger::serve(authority.certified(&[PAYMENT], Life::Now).0, &["leno/http", "leno/tcp"], stranger::echo);
    let (caller, address) = outbound(&authority, Protocol::Tcp, &[(older, Some(PAYMENT))]);
    for _ in 0..10 {
        assert!(pass(address));
    }
    assert!(counted(&caller, &RESUMED) >= 5, "{}", caller.metrics());
    assert_eq!(counted(&caller, &RESUMED) + counted(&caller, &FULL), 10);
}

#[test]
fn renewals_cut_no_connection_and_fail_no_request() {
    let app = Server::answering("hello");
    let opaque = echo();
    let requests = pair(app.address, Protocol::Http);
    let connections = pair(opaque.address, Protocol::Tcp);
    let mut stream = Peer::dial(connections.address);
    stream.send("before\n");
    assert_eq!(stream.until("\n").unwrap(), "before\n");
    let ends = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|turn| {
            let (address, ends) = (requests.address, Arc::clone(&ends));
            thread::spawn(move || {
                let mut asked = 0;
                while !ends.load(Ordering::SeqCst) {
                    let close = if turn % 2 == 0 { "Connection: close\r\n" } else { "" };
                    let mut client = Peer::dial(address);
                    assert_eq!(client.ask(&format!("GET / HTTP/1.1\r\nHost: payment\r\n{close}\r\n")).status(), 200);
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for _ in 0..10 {
        let before = requests.caller.metrics();
        for pair in [&requests, &connections] {
            pair.callee.tell(Update::Credentials(pair.authority.credentials(PAYMENT)));
            pair.caller.tell(Update::Credentials(pair.authority.credentials(WEB)));
        }
        stream.send("again\n");
        assert_eq!(stream.until("\n").unwrap(), "again\n", "the connection of before goes on");
        assert!(pass(connections.address), "and new ones are made");
        eventually("requests pass after it", || requests.caller.metrics() != before);
    }
    ends.store(true, Ordering::SeqCst);
    for load in load {
        assert!(load.join().unwrap() > 0);
    }
    assert_eq!(counted(&connections.callee, &["leno_tls_handshakes_total", r#"result="ok""#]), 11);
}

#[test]
fn a_root_is_replaced_step_by_step_with_nothing_failing() {
    let app = echo();
    let pair = pair(app.address, Protocol::Tcp);
    let next = Authority::new();
    let both = || trust(&[&pair.authority, &next]);
    let steps: [&dyn Fn(); 7] = [
        &|| {},
        &|| pair.caller.tell(Update::Trust(both())),
        &|| pair.callee.tell(Update::Trust(both())),
        &|| pair.callee.tell(Update::Credentials(next.credentials(PAYMENT))),
        &|| pair.caller.tell(Update::Credentials(next.credentials(WEB))),
        &|| pair.callee.tell(Update::Trust(next.trust())),
        &|| pair.caller.tell(Update::Trust(next.trust())),
    ];
    for (number, step) in steps.iter().enumerate() {
        step();
        for _ in 0..5 {
            assert!(pass(pair.address), "after step {number}");
        }
    }
    let shaken = counted(&pair.caller, &FULL) + counted(&pair.caller, &RESUMED);
    assert!((2..=7).contains(&shaken), "{shaken}: connections of one step share a tunnel, and those of before are left when trust changes");
}
