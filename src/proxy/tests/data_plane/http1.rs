//! HTTP/1 requests and responses: connections, heads, routes.

use std::time::Duration;

use leno_core::balance::Algorithm;
use leno_core::matching::{Match, PathMatch};
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::service::Protocol;
use leno_core::weight::Weight;
use leno_proxy::listen::Accept;

use crate::support::{Peer, Server, Setup, eventually, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";

#[test]
fn requests_of_one_connection_share_one_connection_to_the_endpoint() {
    let server = Server::answering("hello");
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    for _ in 0..3 {
        let response = client.ask(GET);
        assert_eq!((response.status(), response.body()), (200, "hello"));
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(|mut peer| {
        while let Some(request) = peer.message() {
            let path = request.head.split(' ').nth(1).unwrap().to_owned();
            peer.send(&ok(&path));
        }
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
    let bodies: Vec<String> = (0..4).map(|_| client.response().body().to_owned()).collect();
    assert_eq!(bodies, ["/1", "/2", "/3", "/4"]);
}

#[test]
fn a_head_that_comes_byte_by_byte_is_understood() {
    let server = Server::answering("hello");
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    for byte in GET.chars() {
        client.send(&byte.to_string());
    }
    assert_eq!(client.response().status(), 200);
}

#[test]
fn the_request_is_patched_and_its_own_lines_stay_as_they_are() {
    let (server, told) = Server::telling();
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.ask(
        "GET /a?b=c HTTP/1.1\r\nHost: payment\r\nX-CaSe:  kept \r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\n\
         Upgrade: h2c\r\nx-leno-undelivered: connect\r\ntraceparent: 00-1-2-01\r\nb3: 1\r\n\r\n",
    );
    let sent = told.recv().unwrap();
    let (kept, added) = sent.split_once("b3: 1\r\n").unwrap();
    assert_eq!(kept, "GET /a?b=c HTTP/1.1\r\nHost: payment\r\nX-CaSe:  kept \r\ntraceparent: 00-1-2-01\r\n");
    let names: Vec<&str> = added.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert_eq!(names, ["x-request-id", "x-forwarded-for", "x-forwarded-proto"]);
    assert!(added.contains("x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n"), "{added}");
}

#[test]
fn forwarding_fields_that_are_there_are_left_alone_on_the_way_out() {
    let (server, told) = Server::telling();
    let (_mesh, address) = Setup::to(&[&server]).start();
    let request = "GET / HTTP/1.1\r\nHost: payment\r\nx-request-id: mine\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nTE: trailers\r\n\r\n";
    Peer::dial(address).ask(request);
    assert_eq!(told.recv().unwrap(), request.replace("TE: trailers\r\n", "TE: trailers\r\nconnection: te\r\n"));
}

#[test]
fn the_inbound_side_names_its_peer_once() {
    let (server, told) = Server::telling();
    let app = server.address;
    let (_mesh, address) = Setup::default().start_with(|| Accept::InboundApp { app, port: 8080 });
    let mut client = Peer::dial(address);
    for (sent, want) in
        [("", "127.0.0.1"), ("x-forwarded-for: 127.0.0.1\r\n", "127.0.0.1"), ("x-forwarded-for: 1.2.3.4\r\n", "1.2.3.4, 127.0.0.1")]
    {
        client.ask(&format!("GET / HTTP/1.1\r\nHost: payment\r\n{sent}\r\n"));
        let request = told.recv().unwrap();
        assert_eq!(request.matches("x-forwarded-for").count(), 1, "{request}");
        assert!(request.contains(&format!("x-forwarded-for: {want}\r\n")), "{request}");
    }
}

#[test]
fn hop_by_hop_fields_of_a_response_stay_behind() {
    let server = Server::start(|mut peer| {
        peer.message();
        peer.send("HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nx-leno-undelivered-not: 1\r\nServer: app\r\nContent-Length: 0\r\n\r\n");
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    assert_eq!(Peer::dial(address).ask(GET).head, "HTTP/1.1 200 OK\r\nServer: app\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let server = Server::start(|mut peer| {
        while let Some(request) = peer.message() {
            peer.send(if request.head.starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            } else {
                "HTTP/1.1 204 No Content\r\n\r\n"
            });
        }
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.ask(GET).status(), 204);
    assert_eq!(server.connections(), 1, "both responses left the connection usable");
}

#[test]
fn an_http_1_0_client_is_served_and_kept_only_if_it_asks() {
    let (server, told) = Server::telling();
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    let kept = client.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(kept.field("connection"), Some("keep-alive"));
    let closed = client.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(closed.field("connection"), Some("close"));
    assert!(client.is_closed());
    assert!(told.recv().unwrap().starts_with("GET / HTTP/1.1\r\n"));
    assert!(told.recv().unwrap().contains("\r\nhost: "), "HTTP/1.1 cannot do without a Host");
}

#[test]
fn a_client_that_says_close_is_closed_after_its_answer() {
    let server = Server::answering("hello");
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    let response = client.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(response.field("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_answered_400_and_reach_nobody() {
    let server = Server::answering("reached");
    let (_mesh, address) = Setup::to(&[&server]).start();
    for bad in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
    ] {
        let mut client = Peer::dial(address);
        let response = client.ask(bad);
        assert_eq!((response.status(), response.field("connection")), (400, Some("close")), "{bad:?}");
        assert!(client.is_closed(), "{bad:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn what_is_too_large_is_refused_with_its_own_status() {
    let server = Server::answering("reached");
    let (_mesh, address) = Setup::to(&[&server]).start();
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17 * 1024)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "a".repeat(70 * 1024)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
    ];
    for (request, status) in cases {
        assert_eq!(Peer::dial(address).ask(&request).status(), status, "{:?}", &request[..40]);
    }
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "a".repeat(60 * 1024));
    assert_eq!(Peer::dial(address).ask(&large).status(), 200, "a head below the limit passes");
}

fn weighted(destinations: &[(&str, u32)]) -> Vec<Destination> {
    let destination =
        |(version, weight): &(&str, u32)| Destination { target: Target::Version((*version).into()), weight: Weight::new(*weight).unwrap() };
    destinations.iter().map(destination).collect()
}

fn table(rules: Vec<Rule>) -> RouteTable {
    RouteTable::new("shop/split".into(), None, rules)
}

#[test]
fn requests_are_split_by_weight_and_matched_by_path() {
    let (one, two) = (Server::answering("v1"), Server::answering("v2"));
    let exact = Match { path: Some(PathMatch::Exact("/only-v2".into())), ..Match::default() };
    let rules = vec![
        Rule { name: "only".into(), matches: vec![exact], destinations: weighted(&[("v2", 1)]), ..Rule::default() },
        Rule { name: "split".into(), matches: Vec::new(), destinations: weighted(&[("v1", 90), ("v2", 10)]), ..Rule::default() },
    ];
    let setup = Setup { endpoints: vec![(one.address, "v1"), (two.address, "v2")], routes: table(rules), ..Setup::default() };
    let (mesh, address) = setup.start();
    let mut client = Peer::dial(address);
    let v1 = (0..2000).filter(|_| client.ask(GET).body() == "v1").count();
    assert!((1740..=1860).contains(&v1), "90 % of 2000, give or take 3 points: {v1}");
    assert_eq!(client.ask("GET /only-v2 HTTP/1.1\r\nHost: a\r\n\r\n").body(), "v2");
    eventually("rule and version are labels", || mesh.metrics().contains("version=\"v2\",route=\"only\""));
}

#[test]
fn new_routes_and_endpoints_hold_for_the_next_request_of_an_open_connection() {
    let (one, two) = (Server::answering("v1"), Server::answering("v2"));
    let (mesh, address) = Setup { endpoints: vec![(one.address, "v1")], ..Setup::default() }.start();
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).body(), "v1");
    mesh.set_endpoints(&[(one.address, "v1"), (two.address, "v2")]);
    let rule = Rule { name: "all".into(), matches: Vec::new(), destinations: weighted(&[("v2", 1)]), ..Rule::default() };
    mesh.set_service(Protocol::Http, Algorithm::RoundRobin, table(vec![rule]));
    eventually("the new route holds", || client.ask(GET).body() == "v2");
    mesh.set_endpoints(&[(one.address, "v1")]);
    eventually("nobody serves v2 any more", || client.ask(GET).status() == 503);
}

#[test]
fn draining_says_close_finishes_what_runs_and_ends() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(move |mut peer| {
        peer.message();
        tell.send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
        peer.send(&ok("finished"));
    });
    let (mut mesh, address) = Setup::to(&[&server]).start();
    let (mut busy, mut idle) = (Peer::dial(address), Peer::dial(address));
    busy.send(GET);
    told.recv().unwrap();
    mesh.drain(Duration::from_secs(15));
    assert!(idle.is_closed(), "a connection at rest is closed at once");
    go.send(()).unwrap();
    let response = busy.response();
    assert_eq!((response.body(), response.field("connection")), ("finished", Some("close")));
    assert!(busy.is_closed());
    drop(busy);
    mesh.join();
}
