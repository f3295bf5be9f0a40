//! Clients that hold things up: each is bounded in time, counted, and nobody else notices.

use std::time::Duration;

use leno_core::service::Protocol;
use leno_proxy::worker::Settings;

use crate::support::{Mesh, Peer, Server, Setup, eventually};

const SHORT: Duration = Duration::from_millis(200);
/// More than what sockets of both sides and the proxy hold together.
const LARGE: usize = 32 * 1024 * 1024;

fn impatient(servers: &[&Server], change: impl FnOnce(&mut Settings)) -> (Mesh, std::net::SocketAddr) {
    let mut setup = Setup::to(servers);
    change(&mut setup.settings);
    setup.start()
}

fn counts(mesh: &Mesh, reason: &str) -> bool {
    let label = format!("reason=\"{reason}\"");
    mesh.metrics().lines().any(|line| line.starts_with("leno_errors_total{") && line.contains(&label) && line.ends_with(" 1"))
}

#[test]
fn a_head_that_trickles_is_answered_408_in_time_and_the_app_hears_nothing() {
    let server = Server::answering("hello");
    let (mesh, address) = impatient(&[&server], |settings| settings.head_timeout = SHORT);
    let mut client = Peer::dial(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let mut other = Peer::dial(address);
    assert_eq!(other.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body(), "hello", "others go on");
    let answer = client.response();
    assert_eq!((answer.status(), answer.field("connection")), (408, Some("close")));
    assert!(client.is_closed());
    eventually("the reason is counted", || counts(&mesh, "head-too-slow"));
    assert_eq!(server.connections(), 1);
}

#[test]
fn first_bytes_that_tell_nothing_are_waited_for_as_long_as_a_head_and_silence_before_them_for_ever() {
    let server = Server::answering("hello");
    let (mesh, address) = impatient(&[&server], |settings| settings.head_timeout = SHORT);
    let mut silent = Peer::dial(address);
    let mut client = Peer::dial(address);
    client.send("PRI * HT");
    assert!(client.is_closed());
    eventually("the reason is counted", || counts(&mesh, "head-too-slow"));
    assert_eq!(silent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body(), "hello");
}

#[test]
fn a_body_that_stops_coming_is_answered_408_in_time() {
    for framing in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let server = Server::answering("hello");
        let (mesh, address) = impatient(&[&server], |settings| settings.stall_timeout = SHORT);
        let mut client = Peer::dial(address);
        let answer = client.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        assert_eq!((answer.status(), answer.field("connection")), (408, Some("close")));
        assert!(client.is_closed());
        eventually("the reason is counted", || counts(&mesh, "body-too-slow"));
    }
}

#[test]
fn an_app_that_has_begun_to_answer_waits_for_the_body_as_long_as_it_likes() {
    let server = Server::start(|mut peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(peer.exactly(5), b"hello");
        peer.send("whole");
    });
    let (_mesh, address) = impatient(&[&server], |settings| settings.stall_timeout = SHORT);
    let mut client = Peer::dial(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    std::thread::sleep(SHORT * 2); // resting is what is tested
    client.send("hello");
    assert_eq!(client.exactly(5), b"whole");
}

#[test]
fn a_response_that_nobody_reads_is_given_up_in_time() {
    let server = Server::start(|mut peer| {
        peer.head().unwrap();
        peer.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        drop(std::io::Write::write_all(&mut peer.stream, &vec![b'x'; LARGE]));
    });
    let (mesh, address) = impatient(&[&server], |settings| settings.stall_timeout = SHORT);
    let mut client = Peer::dial(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the reason is counted", || counts(&mesh, "client-too-slow"));
    eventually("nothing is left open", || {
        mesh.metrics().lines().filter(|line| line.starts_with("leno_connections_open{")).all(|line| line.ends_with(" 0"))
    });
}

#[test]
fn tunnels_and_opaque_connections_may_rest() {
    let server = Server::start(|mut peer| {
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
    });
    let mut setup = Setup { protocol: Protocol::Tcp, ..Setup::to(&[&server]) };
    (setup.settings.stall_timeout, setup.settings.head_timeout) = (SHORT, SHORT);
    let (_mesh, address) = setup.start();
    let mut client = Peer::dial(address);
    client.send("one\n");
    assert_eq!(client.until("\n").unwrap(), "one\n");
    std::thread::sleep(SHORT * 2); // resting is what is tested
    client.send("two\n");
    assert_eq!(client.until("\n").unwrap(), "two\n");
}

/// Pours without end until its client is gone.
fn pouring(head: &'static str) -> Server {
    Server::start(move |mut peer| {
        if !head.is_empty() {
            peer.head().unwrap();
            peer.send(head);
        }
        let block = vec![b'x'; 1024 * 1024];
        while std::io::Write::write_all(&mut peer.stream, &block).is_ok() {}
    })
}

#[test]
fn a_transfer_without_end_leaves_others_their_turns() {
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 100000000000000\r\n\r\n";
    for (protocol, head) in [(Protocol::Tcp, ""), (Protocol::Http, endless)] {
        let (greedy, small) = (pouring(head), Server::answering("hello"));
        let mut setup = Setup { protocol, ..Setup::to(&[&greedy]) };
        setup.endpoints.push((small.address, "v1"));
        let (_mesh, address) = setup.start();
        let mut client = Peer::dial(address);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.exactly(4).len(), 4);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let reader = std::thread::spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                client.skip(1024 * 1024);
            }
        });
        // Round robin: the second connection or request goes to the other server.
        let mut other = Peer::dial(address);
        for _ in 0..5 {
            assert_eq!(other.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body(), "hello", "{protocol:?}");
            if protocol == Protocol::Http {
                break;
            }
        }
        stop.send(()).unwrap();
        reader.join().unwrap();
    }
}
