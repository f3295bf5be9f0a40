//! Mirroring over HTTP/1: what the copy is, and that nothing a mirror does touches the original.

use std::sync::mpsc;
use std::thread;

use leno_core::mirror::Mirror;
use leno_core::percentage::Percentage;
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::weight::Weight;
use leno_proxy::mirror::{BODY_MAX, IN_FLIGHT_MAX};

use crate::support::{Mesh, Peer, Server, Setup, eventually, nowhere, ok};

/// All requests go to v1, and copies to each of `mirrors`.
fn routes(mirrors: &[(&str, f64)]) -> RouteTable {
    let version = |version: &str| Target::Version(version.into());
    let mirror = |(name, percent): &(&str, f64)| Mirror { target: version(name), percentage: Percentage::from_percent(*percent).unwrap() };
    let rule = Rule {
        name: "all".into(),
        destinations: vec![Destination { target: version("v1"), weight: Weight::ONE }],
        mirrors: mirrors.iter().map(mirror).collect(),
        ..Rule::default()
    };
    RouteTable::new("shop/mirrors".into(), None, vec![rule])
}

fn mirrored_to(app: &Server, mirror: std::net::SocketAddr) -> (Mesh, std::net::SocketAddr) {
    let endpoints = vec![(app.address, "v1"), (mirror, "v2")];
    Setup { endpoints, routes: routes(&[("v2", 100.0)]), ..Setup::default() }.start()
}

fn counted(mesh: &Mesh, outcome: &str) -> u64 {
    let line = format!("leno_mirrored_total{{outcome=\"{outcome}\"}} ");
    mesh.metrics().lines().find_map(|it| it.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

/// Waits until that many copies have ended so, and none is on its way.
fn ended(mesh: &Mesh, outcome: &str, count: u64) {
    eventually(&format!("{count} x {outcome}"), || {
        counted(mesh, outcome) == count && mesh.metrics().contains("leno_mirrors_in_flight 0\n")
    });
}

#[test]
fn the_mirror_gets_the_request_as_the_app_does_and_its_answer_is_dropped() {
    let (app, told) = Server::telling();
    let (copies, tell) = mpsc::channel();
    let mirror = Server::start(move |mut peer| {
        while let Some(request) = peer.message() {
            copies.send(request.text()).unwrap();
            peer.send("HTTP/1.1 103 Early Hints\r\n\r\n");
            peer.send("HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nlost\r\n0\r\n\r\n");
        }
    });
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let mut client = Peer::dial(address);
    let requests = [
        "GET /a?b HTTP/1.1\r\nHost: payment.example.com\r\nX-One: 1\r\n\r\n",
        "POST /c HTTP/1.1\r\nHost: payment\r\nContent-Length: 5\r\n\r\nhello",
        "POST /d HTTP/1.1\r\nHost: payment\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    ];
    for (sent, request) in requests.iter().enumerate() {
        assert_eq!(client.ask(request).body(), "told");
        assert_eq!(tell.recv().unwrap(), told.recv().unwrap(), "host, request id and body are the same: {request:?}");
        ended(&mesh, "answered", sent as u64 + 1);
    }
    assert_eq!(mirror.connections(), 1, "the mirror's connection is used again");
    assert!(!mesh.metrics().contains("code=\"5xx\""), "what a mirror answers is no answer of the service");
}

#[test]
fn a_body_is_copied_while_it_goes_up() {
    let (app, mirror) = (Server::answering("app"), mpsc::channel());
    let (heard, hears) = mirror;
    let mirror = Server::start(move |mut peer| {
        peer.head();
        for piece in ["one", "two"] {
            peer.until(piece).unwrap();
            heard.send(piece).unwrap();
        }
        peer.send(&ok("lost"));
    });
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let mut client = Peer::dial(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none");
    assert_eq!(hears.recv().unwrap(), "one", "before the rest was there");
    client.send("two");
    assert_eq!(hears.recv().unwrap(), "two");
    assert_eq!(client.response().body(), "app");
    ended(&mesh, "answered", 1);
}

#[test]
fn whatever_a_mirror_does_the_original_is_answered_and_nothing_is_left() {
    type Handle = fn(Peer);
    let cases: [(&str, Handle, &str); 5] = [
        ("closes at once", drop, "disconnected"),
        ("sends garbage", |mut peer| drop((peer.head(), peer.send("garbage\r\n\r\n"))), "bad-response"),
        ("cuts its answer", |mut peer| drop((peer.head(), peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"))), "disconnected"),
        ("answers without reading", |mut peer| drop((peer.send(&ok("early")), peer.rest())), "answered"),
        (
            "did not reach its app",
            |mut peer| drop((peer.head(), peer.send("HTTP/1.1 502 No\r\nx-leno-undelivered: connect\r\nContent-Length: 0\r\n\r\n"))),
            "undelivered",
        ),
    ];
    for (what, handle, outcome) in cases {
        let (app, mirror) = (Server::answering("app"), Server::start(handle));
        let (mesh, address) = mirrored_to(&app, mirror.address);
        let answer = Peer::dial(address).ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!((answer.status(), answer.body()), (200, "app"), "{what}");
        ended(&mesh, outcome, 1);
        assert!(!mesh.metrics().contains("leno_errors_total{"), "{what}: it is no error of the service");
    }
    let app = Server::answering("app");
    let (mesh, address) = mirrored_to(&app, nowhere());
    assert_eq!(Peer::dial(address).ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body(), "app");
    ended(&mesh, "connect-failed", 1);
}

#[test]
fn mirrors_that_hang_take_no_more_than_their_bound_and_the_originals_go_on_in_order() {
    let app = Server::start(|mut peer| {
        while let Some(request) = peer.message() {
            peer.send(&ok(std::str::from_utf8(&request.body).unwrap()));
        }
    });
    // It accepts, and never reads.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (mesh, address) = mirrored_to(&app, hanging.local_addr().unwrap());
    let mut client = Peer::dial(address);
    let body = |number: usize| format!("{number}:{}", "x".repeat(BODY_MAX - 100));
    for number in 0..IN_FLIGHT_MAX + 5 {
        let body = body(number);
        let answer = client.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.body() == body, "request {number} is answered with its own body");
    }
    assert_eq!(counted(&mesh, "overflow"), 5);
    assert!(mesh.metrics().contains(&format!("leno_mirrors_in_flight {IN_FLIGHT_MAX}\n")));
    drop(hanging);
    ended(&mesh, "disconnected", IN_FLIGHT_MAX as u64);
}

#[test]
fn bodies_beyond_the_bound_reach_the_app_whole_and_the_mirror_not() {
    let (app, told) = Server::telling();
    let (mirror, _copies) = Server::telling();
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let long = "y".repeat(BODY_MAX + 1);
    let mut client = Peer::dial(address);
    client.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{long}", long.len()));
    assert!(told.recv().unwrap().ends_with(&long));
    ended(&mesh, "too-long", 1);
    assert_eq!(mirror.connections(), 0, "its length was known");
    client.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len()));
    assert_eq!(told.recv().unwrap().matches('y').count(), long.len());
    ended(&mesh, "too-long", 2);
}

#[test]
fn a_client_that_breaks_off_takes_the_copy_with_it() {
    let app = Server::start(|mut peer| drop(peer.rest()));
    let (gone, is_gone) = mpsc::channel();
    let mirror = Server::start(move |mut peer| gone.send(peer.rest()).unwrap());
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let mut client = Peer::dial(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none");
    eventually("the copy is on its way", || mirror.connections() == 1);
    drop(client);
    ended(&mesh, "abandoned", 1);
    assert!(!is_gone.recv().unwrap().ends_with(b"onetwo"), "the mirror sees a request that was cut");
}

#[test]
fn shares_are_drawn_for_each_mirror_and_what_is_not_there_is_counted() {
    let (app, one, two) = (Server::answering("app"), Server::answering("1"), Server::answering("2"));
    let endpoints = vec![(app.address, "v1"), (one.address, "v2"), (two.address, "v3")];
    let mirrors = routes(&[("v2", 30.0), ("v3", 0.0), ("v4", 100.0)]);
    let (mesh, address) = Setup { endpoints, routes: mirrors, ..Setup::default() }.start();
    let mut client = Peer::dial(address);
    for _ in 0..1000 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body(), "app");
    }
    ended(&mesh, "no-endpoint", 1000);
    eventually("30 % of 1000, give or take 6 points", || (240..=360).contains(&counted(&mesh, "answered")));
    assert_eq!(two.connections(), 0);
}

#[test]
fn a_change_of_protocol_is_not_mirrored() {
    let app = Server::start(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        let bytes = peer.exactly(4);
        peer.send(std::str::from_utf8(&bytes).unwrap());
    });
    let mirror = Server::answering("mirror");
    let (_mesh, address) = mirrored_to(&app, mirror.address);
    let mut client = Peer::dial(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping");
    assert_eq!(mirror.connections(), 0);
}

#[test]
fn many_clients_and_a_mirror_that_refuses_at_random_leave_no_copy_behind() {
    let app = Server::answering("app");
    let mirror = Server::start(|mut peer| {
        let mut served = 0;
        while let Some(_request) = peer.message() {
            served += 1;
            if served % 3 == 0 {
                return;
            }
            peer.send(&ok("mirror"));
        }
    });
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let client = move || {
        let mut client = Peer::dial(address);
        for _ in 0..100 {
            assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").body(), "app");
        }
    };
    let clients: Vec<_> = (0..8).map(|_| thread::spawn(client)).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let outcomes = ["answered", "disconnected", "overflow"];
    eventually("every copy is counted, and none is left", || {
        outcomes.iter().map(|outcome| counted(&mesh, outcome)).sum::<u64>() == 800 && mesh.metrics().contains("leno_mirrors_in_flight 0\n")
    });
}
