//! Requests of HTTP/1 that are under way at once share tunnels, and are as if each had a connection to itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use leno_core::service::Protocol;
use leno_proxy::control::Update;
use socket2::SockRef;

use crate::authority::Authority;
use crate::proxies::{Pair, counted, eventually_counted, handshakes, pair};
use crate::support::{Peer, Server, eventually, ok};

const GET: &str = "GET / HTTP/1.1\r\nHost: payment\r\n\r\n";
/// More than all windows and buffers on the way hold.
const MUCH: usize = 8 * 1024 * 1024;
/// Requests that have a connection each.
const ALONE_MAX: usize = 2;

/// An app that answers as `answer` says, and begins an answer to `/hold` of which it sends one byte when it gets one. An answer that
/// makes the close a reset is the last on its connection.
fn app(answer: impl Fn(&str, &mut Peer) + Send + Sync + 'static) -> Server {
    Server::start(move |mut peer| {
        while let Some(head) = peer.head() {
            if head.starts_with("POST /hold ") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
                let Some(byte) = peer.until("!") else { return };
                peer.send(&byte);
            } else {
                answer(&head, &mut peer);
                if SockRef::from(&peer.stream).linger().unwrap().is_some() {
                    return;
                }
            }
        }
    })
}

/// A request that is under way until its client sends `!`, or the status that it was answered with instead.
fn hold(address: SocketAddr) -> Result<Peer, String> {
    let mut client = Peer::dial(address);
    client.send("POST /hold HTTP/1.1\r\nHost: payment\r\nContent-Length: 1\r\n\r\n");
    let status = client.head().unwrap()[9..12].to_owned();
    if status == "200" { Ok(client) } else { Err(status) }
}

/// As many requests under way as have a connection each: those that come beside them are in a tunnel.
fn held(address: SocketAddr) -> Vec<Peer> {
    (0..ALONE_MAX).map(|_| hold(address).unwrap()).collect()
}

#[test]
fn requests_at_the_same_time_share_a_tunnel_beside_two_connections_and_what_they_were_given_is_used_again() {
    let app = app(|_, peer| peer.send(&ok("free")));
    let Pair { caller, callee, address, .. } = pair(app.address, Protocol::Http);
    for _ in 0..2 {
        let mut clients: Vec<_> = (0..20).map(|_| hold(address).unwrap()).collect();
        for client in &mut clients {
            client.send("!");
            assert_eq!(client.exactly(1), b"!");
        }
    }
    assert_eq!((handshakes(&caller), handshakes(&callee)), (3, 3));
    assert_eq!(app.connections(), 20, "they are used again");
    assert_eq!(counted(&callee, &["leno_connections_open", "inbound"]), 20, "the tunnel itself is none of them");
    for mesh in [&caller, &callee] {
        eventually_counted(mesh, &["leno_requests_total", r#"mtls="true""#], 40);
    }
}

#[test]
fn requests_one_after_the_other_take_what_rests_and_dial_nothing() {
    let app = app(|_, peer| peer.send(&ok("free")));
    let Pair { caller, address, callee: _callee, .. } = pair(app.address, Protocol::Http);
    // Those in the tunnel rest when the others are over.
    let mut clients: Vec<_> = (0..5).map(|_| hold(address).unwrap()).collect();
    for client in &mut clients {
        client.send("!");
        assert_eq!(client.exactly(1), b"!");
    }
    let before = (handshakes(&caller), app.connections());
    for _ in 0..10 {
        assert_eq!(Peer::dial(address).ask(GET).body(), "free");
    }
    assert_eq!((handshakes(&caller), app.connections()), before, "a connection that rests is taken");
}

#[test]
fn a_response_that_is_cut_is_cut_for_its_client_and_for_nobody_else() {
    let app = app(|_, peer| {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
        peer.exactly(1);
        SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let Pair { caller, callee, address, .. } = pair(app.address, Protocol::Http);
    let (_alone, mut beside) = (held(address), hold(address).unwrap());
    for turn in 1..4 {
        let mut client = Peer::dial(address);
        client.send("POST /cut HTTP/1.1\r\nHost: payment\r\nContent-Length: 1\r\n\r\n");
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
        client.send("!");
        let mut body = Vec::new();
        let end = client.stream.read_to_end(&mut body);
        assert!(end.is_err() && body.len() <= 4, "{end:?} after {} bytes: a cut body is not taken for a whole one", body.len());
        eventually_counted(&caller, &["leno_errors_total", "response-cut"], turn);
        eventually_counted(&callee, &["leno_errors_total", "response-cut"], turn);
    }
    beside.send("!");
    assert_eq!(beside.exactly(1), b"!");
    assert_eq!(handshakes(&caller), 3);
}

#[test]
fn who_reads_nothing_of_its_response_holds_up_nobody_else_and_still_gets_everything() {
    let app = app(|head, peer| {
        if head.starts_with("GET /much") {
            peer.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"));
            peer.stream.write_all(&vec![7; MUCH]).unwrap();
        } else {
            peer.send(&ok("little"));
        }
    });
    let Pair { caller, address, callee: _callee, .. } = pair(app.address, Protocol::Http);
    let _alone = held(address);
    let mut stuck: Vec<_> = (0..4).map(|_| Peer::dial(address)).collect();
    for client in &mut stuck {
        client.send("GET /much HTTP/1.1\r\nHost: payment\r\n\r\n");
    }
    for _ in 0..20 {
        assert_eq!(Peer::dial(address).ask(GET).body(), "little");
    }
    assert_eq!(handshakes(&caller), 3);
    for client in &mut stuck {
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
        assert!(client.exactly(MUCH).iter().all(|byte| *byte == 7));
    }
}

#[test]
fn a_response_after_which_the_connection_closes_arrives_whole() {
    let app = app(|head, peer| {
        let (length, field) = (MUCH / 4, if head.starts_with("GET /told") { "Connection: close\r\n" } else { "" });
        peer.send(&format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {length}\r\n\r\n"));
        peer.stream.write_all(&vec![7; length]).unwrap();
    });
    let Pair { address, caller: _caller, callee: _callee, .. } = pair(app.address, Protocol::Http);
    let _alone = held(address);
    for request in ["GET /told HTTP/1.1\r\nHost: payment\r\n\r\n", "GET / HTTP/1.1\r\nHost: payment\r\nConnection: close\r\n\r\n"] {
        let mut client = Peer::dial(address);
        client.send(request);
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"), "{request}");
        assert_eq!(client.exactly(MUCH / 4).len(), MUCH / 4, "{request}");
    }
}

#[test]
fn a_connection_in_a_tunnel_may_change_to_another_protocol() {
    let app = app(|_, peer| {
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello\n");
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
        peer.send("end");
        peer.stream.shutdown(Shutdown::Write).unwrap();
    });
    let Pair { address, caller, callee: _callee, .. } = pair(app.address, Protocol::Http);
    let _alone = held(address);
    let mut client = Peer::dial(address);
    client.send("GET / HTTP/1.1\r\nHost: payment\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(client.until("\n").as_deref(), Some("hello\n"));
    client.send("word\n");
    assert_eq!(client.until("\n").as_deref(), Some("word\n"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"end");
    assert_eq!(handshakes(&caller), 3);
}

#[test]
fn a_client_that_is_gone_ends_its_request_at_the_app() {
    let (tell, told) = mpsc::channel();
    let app = app(move |_, peer| {
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n");
        tell.send(peer.stream.read(&mut [0]).map_err(|error| error.kind())).unwrap();
    });
    let Pair { address, caller: _caller, callee: _callee, .. } = pair(app.address, Protocol::Http);
    let _alone = held(address);
    let mut client = Peer::dial(address);
    client.send(GET);
    assert!(client.head().is_some());
    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let end = told.recv().unwrap();
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
}

#[test]
fn who_is_trusted_no_more_gets_no_further_connection_in_a_tunnel_of_before() {
    let app = app(|_, peer| peer.send(&ok("free")));
    let Pair { callee, caller: _caller, address, .. } = pair(app.address, Protocol::Http);
    let (_alone, mut before) = (held(address), hold(address).unwrap());
    callee.tell(Update::Trust(Authority::new().trust()));
    // Nothing of it comes to rest, so that each request needs a connection more.
    let mut others = Vec::new();
    eventually("the caller's root is forgotten", || hold(address).map(|client| others.push(client)).is_err());
    before.send("!");
    assert_eq!(before.exactly(1), b"!", "what was begun goes on");
}

#[test]
fn draining_finishes_what_was_begun_in_a_tunnel_and_ends_with_it() {
    let app = app(|_, peer| peer.send(&ok("free")));
    let Pair { mut callee, address, caller: _caller, .. } = pair(app.address, Protocol::Http);
    let mut clients = held(address);
    clients.push(hold(address).unwrap());
    let mut rested = hold(address).unwrap();
    rested.send("!");
    assert_eq!(rested.exactly(1), b"!");
    callee.drain(Duration::from_secs(60));
    for client in &mut clients {
        client.send("!");
        assert_eq!(client.exactly(1), b"!");
    }
    callee.join();
}
