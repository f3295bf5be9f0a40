//! Opaque connections share tunnels, and are as if each were alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use leno_core::authorize::Mode;
use leno_core::service::Protocol;
use leno_proxy::control::Update;
use socket2::SockRef;

use crate::authority::{Authority, PAYMENT};
use crate::proxies::{Pair, counted, eventually_counted, handshakes, inbound, outbound, pair};
use crate::support::{Mesh, Peer, Server, eventually, nowhere};

/// Connections in one tunnel.
const STREAMS_MAX: usize = 64;

fn echo() -> Server {
    Server::start(|mut peer| {
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
        peer.send("end");
    })
}

fn open(mesh: &Mesh, direction: &str) -> u64 {
    counted(mesh, &["leno_connections_open", direction])
}

/// Whether one line comes back over a connection of its own.
fn pass(address: SocketAddr) -> bool {
    let mut client = Peer::dial(address);
    client.send("hello\n");
    client.until("\n").is_some()
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect()
}

#[test]
fn connections_share_one_handshake_and_each_is_counted_and_closed_on_its_own() {
    let app = echo();
    let Pair { caller, callee, address, .. } = pair(app.address, Protocol::Tcp);
    let mut clients: Vec<_> = (0..20).map(|_| Peer::dial(address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("{number}\n"));
        assert_eq!(client.until("\n").unwrap(), format!("{number}\n"));
    }
    assert_eq!((handshakes(&caller), handshakes(&callee)), (1, 1));
    assert_eq!((open(&caller, "outbound"), open(&callee, "inbound")), (20, 20), "the tunnel itself is none of them");
    assert_eq!(app.connections(), 20);
    for mut client in clients.drain(..10) {
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), b"end");
    }
    for mesh in [&caller, &callee] {
        eventually_counted(mesh, &["leno_tcp_connections_closed_total", r#"mtls="true""#], 10);
        assert_eq!(counted(mesh, &["leno_tcp_connections_failed_total"]), 0);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("{number}\n"));
        assert_eq!(client.until("\n").unwrap(), format!("{number}\n"), "those that go on hear nothing of it");
    }
}

#[test]
fn a_tunnel_that_is_full_gets_another_beside_it() {
    let app = echo();
    let Pair { caller, callee, address, .. } = pair(app.address, Protocol::Tcp);
    let mut clients: Vec<_> = (0..2 * STREAMS_MAX + 1).map(|_| Peer::dial(address)).collect();
    for client in &mut clients {
        client.send("hello\n");
        assert_eq!(client.until("\n").as_deref(), Some("hello\n"));
    }
    assert_eq!(handshakes(&caller), 3);
    drop(clients);
    eventually("all have ended", || open(&callee, "inbound") == 0);
    assert!(pass(address));
    assert_eq!(handshakes(&caller), 3, "their tunnels are used again");
}

#[test]
fn a_reset_of_either_side_is_a_reset_for_the_other_and_for_nobody_else() {
    let (tell, told) = mpsc::channel();
    let app = Server::start(move |mut peer| {
        while let Some(line) = peer.until("\n") {
            if line == "reset\n" {
                return SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            peer.send(&line);
            if line == "wait\n" {
                let end = peer.stream.read(&mut [0]).map_err(|error| error.kind());
                return tell.send(end).unwrap();
            }
        }
    });
    let Pair { callee, address, caller: _caller, .. } = pair(app.address, Protocol::Tcp);
    let mut beside = Peer::dial(address);
    beside.send("hello\n");
    assert_eq!(beside.until("\n").as_deref(), Some("hello\n"));

    let mut client = Peer::dial(address);
    client.send("reset\n");
    assert_eq!(client.stream.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));

    let mut client = Peer::dial(address);
    client.send("wait\n");
    assert_eq!(client.until("\n").as_deref(), Some("wait\n"));
    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(told.recv().unwrap(), Err(ErrorKind::ConnectionReset));

    eventually_counted(&callee, &["leno_tcp_connections_failed_total"], 2);
    beside.send("again\n");
    assert_eq!(beside.until("\n").as_deref(), Some("again\n"));
}

#[test]
fn long_streams_arrive_whole_both_ways() {
    const LENGTH: usize = 12 * 1024 * 1024;
    let app = Server::start(|mut peer| {
        assert!(peer.exactly(LENGTH) == pattern(LENGTH));
        peer.stream.write_all(&pattern(LENGTH)).unwrap();
    });
    let pair = pair(app.address, Protocol::Tcp);
    let clients: Vec<_> = (0..3).map(|_| Peer::dial(pair.address)).collect();
    let carried = clients.into_iter().map(|mut client| {
        thread::spawn(move || {
            client.stream.write_all(&pattern(LENGTH)).unwrap();
            client.exactly(LENGTH) == pattern(LENGTH)
        })
    });
    for carried in carried.collect::<Vec<_>>() {
        assert!(carried.join().unwrap());
    }
}

#[test]
fn who_reads_nothing_holds_up_nobody_else_and_still_gets_everything() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let app = Server::start(|mut peer| match peer.until("\n").as_deref() {
        Some("much\n") => peer.stream.write_all(&pattern(LENGTH)).unwrap(),
        // Pieces of a byte each.
        Some("crumbs\n") => pattern(100_000).chunks(1).for_each(|crumb| peer.stream.write_all(crumb).unwrap()),
        _ => peer.send("hello\n"),
    });
    let pair = pair(app.address, Protocol::Tcp);
    let ask = |what: &str| {
        let mut client = Peer::dial(pair.address);
        client.send(what);
        client
    };
    let mut stuck: Vec<_> = (0..20).map(|_| ask("much\n")).collect();
    let mut crumbs = ask("crumbs\n");
    for _ in 0..20 {
        assert_eq!(ask("any\n").until("\n").as_deref(), Some("hello\n"));
    }
    assert_eq!(handshakes(&pair.caller), 1);
    assert!(crumbs.exactly(100_000) == pattern(100_000));
    for client in &mut stuck {
        assert!(client.exactly(LENGTH) == pattern(LENGTH));
    }
}

#[test]
fn an_app_that_does_not_accept_is_left_for_another_endpoint() {
    let (app, authority) = (echo(), Authority::new());
    let (_down, at_down) = inbound(nowhere(), &authority, Mode::Strict, Protocol::Tcp);
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Tcp);
    let (caller, address) = outbound(&authority, Protocol::Tcp, &[(at_down, Some(PAYMENT)), (at_app, Some(PAYMENT))]);
    for _ in 0..6 {
        assert!(pass(address));
    }
    assert_eq!(counted(&caller, &["leno_tcp_connections_failed_total"]), 0);
    assert_eq!(handshakes(&caller), 2, "one for each, whether its app accepts or not");
    let (caller, address) = outbound(&authority, Protocol::Tcp, &[(at_down, Some(PAYMENT))]);
    assert!(Peer::dial(address).is_closed());
    eventually_counted(&caller, &["leno_errors_total", "connect-failed"], 1);
}

#[test]
fn who_is_trusted_no_more_opens_nothing_on_a_tunnel_of_before() {
    let app = echo();
    let Pair { callee, address, caller: _caller, .. } = pair(app.address, Protocol::Tcp);
    let mut before = Peer::dial(address);
    before.send("hello\n");
    assert_eq!(before.until("\n").as_deref(), Some("hello\n"));
    callee.tell(Update::Trust(Authority::new().trust()));
    eventually("the caller's root is forgotten", || !pass(address));
    let reached = app.connections();
    for _ in 0..3 {
        assert!(!pass(address));
    }
    assert_eq!(app.connections(), reached);
    before.send("again\n");
    assert_eq!(before.until("\n").as_deref(), Some("again\n"), "what was carried goes on");
}

#[test]
fn draining_lets_connections_go_on_and_ends_with_the_last() {
    let app = echo();
    let Pair { mut callee, address, caller: _caller, .. } = pair(app.address, Protocol::Tcp);
    let mut client = Peer::dial(address);
    client.send("hello\n");
    assert_eq!(client.until("\n").as_deref(), Some("hello\n"));
    callee.drain(Duration::from_secs(60));
    client.send("again\n");
    assert_eq!(client.until("\n").as_deref(), Some("again\n"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"end");
    callee.join();
}
