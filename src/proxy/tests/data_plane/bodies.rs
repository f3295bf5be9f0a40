//! Bodies: delimited in every way, in both directions, streaming, and what comes before and after them.

use std::io::Write;
use std::sync::mpsc;
use std::thread;

use crate::support::{Peer, Server, Setup, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";

#[test]
fn a_chunked_request_arrives_with_its_content_and_trailers() {
    let (server, told) = Server::telling();
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n");
    client.send("6\r\n world\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    let request = told.recv().unwrap();
    assert!(request.ends_with("\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"), "{request}");
}

#[test]
fn a_chunked_response_arrives_with_its_content_and_trailers() {
    let server = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
        }
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    for _ in 0..2 {
        assert_eq!(client.ask(GET).body(), "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_response_that_ends_with_its_connection_ends_the_clients_too() {
    let server = Server::start(|mut peer| {
        peer.message();
        peer.send("HTTP/1.1 200 OK\r\n\r\nall of it");
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    for request in [GET, "GET / HTTP/1.0\r\n\r\n"] {
        let mut client = Peer::dial(address);
        client.send(request);
        let head = client.head().unwrap();
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert_eq!(client.rest(), b"all of it");
    }
}

#[test]
fn an_http_1_0_client_gets_chunked_content_without_the_chunks() {
    let server = Server::start(|mut peer| {
        peer.message();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
    assert_eq!(client.rest(), b"hello");
}

#[test]
fn interim_responses_reach_the_client_before_it_sends_its_body() {
    let server = Server::start(|mut peer| {
        let head = peer.head().unwrap();
        assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
        peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        assert_eq!(peer.exactly(5), b"hello");
        peer.send(&ok("got it"));
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    client.send("hello");
    assert_eq!(client.response().body(), "got it");
}

#[test]
fn an_answer_that_comes_before_the_body_was_sent_reaches_the_client() {
    let server = Server::start(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbeginning");
    let response = client.response();
    assert_eq!((response.status(), response.body()), (413, "no"));
    assert!(client.is_closed(), "what follows would be the rest of a body nobody reads");
}

#[test]
fn both_directions_stream_at_once() {
    let server = Server::start(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Some(line) = peer.until("ping\r\n") {
            assert!(line.ends_with("ping\r\n"));
            peer.send("4\r\npong\r\n");
        }
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    for _ in 0..20 {
        client.send("4\r\nping\r\n");
        assert_eq!(client.until("pong\r\n").unwrap(), "4\r\npong\r\n");
    }
}

/// Bytes this process holds, from the kernel.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

const LARGE: usize = 64 * 1024 * 1024;

fn send_much(stream: &mut impl Write) {
    let block = [7; 64 * 1024];
    for _ in 0..LARGE / block.len() {
        stream.write_all(&block).unwrap();
    }
}

#[test]
fn large_bodies_stream_both_ways_in_bounded_memory() {
    let server = Server::start(|mut peer| {
        peer.head();
        assert_eq!(peer.skip(LARGE), LARGE);
        peer.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        send_much(&mut peer.stream);
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let before = resident_bytes();
    let mut client = Peer::dial(address);
    client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
    send_much(&mut client.stream);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(client.skip(LARGE), LARGE);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 24 * 1024 * 1024, "{grown} bytes more than before");
}

#[test]
fn a_slow_reader_slows_the_sender_down() {
    let (tell, told) = mpsc::channel();
    let server = Server::start(move |mut peer| {
        peer.head();
        peer.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        peer.stream.set_nonblocking(true).unwrap();
        let (block, mut sent) = ([7; 64 * 1024], 0);
        // Nobody reads, so at some point the kernel takes no more: backpressure has come all the way.
        loop {
            match peer.stream.write(&block) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && sent > 0 => break,
                Err(_) => {}
            }
            assert!(sent < LARGE, "all was taken though nobody reads");
            thread::yield_now();
        }
        tell.send(sent).unwrap();
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send(GET);
    assert!(told.recv().unwrap() < LARGE);
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    let server = Server::start(|mut peer| {
        let head = peer.head().unwrap();
        assert!(head.contains("Upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfirst");
        assert_eq!(peer.exactly(10), b"earlylate\n");
        peer.send("bye");
    });
    let (mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly",
    );
    let head = client.head().unwrap();
    assert_eq!(head, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nconnection: upgrade\r\n\r\n");
    assert_eq!(client.exactly(5), b"first");
    client.send("late\n");
    assert_eq!(client.rest(), b"bye");
    drop(client);
    crate::support::eventually("the tunnel is recorded", || mesh.metrics().contains("code=\"1xx\""));
}

#[test]
fn a_change_of_protocol_nobody_asked_for_is_no_answer() {
    let server = Server::start(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    assert_eq!(Peer::dial(address).ask(GET).status(), 502);
}

#[test]
fn a_response_that_is_cut_is_seen_as_cut() {
    let server = Server::start(|mut peer| {
        peer.message();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    });
    let (mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send(GET);
    client.head().unwrap();
    assert!(client.rest().len() < 100);
    crate::support::eventually("the cut is counted", || mesh.metrics().contains("response-cut"));
}
