//! What happens when an endpoint is not there, does not answer, or answers nonsense.

use std::time::Duration;

use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::weight::Weight;
use leno_proxy::listen::Accept;

use crate::support::{PATIENCE, Peer, Server, Setup, eventually, nowhere, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: payment\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn without_endpoints_the_answer_is_503_and_the_connection_stays() {
    let (mesh, address) = Setup::default().start();
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).status(), 503);
    assert_eq!(client.ask(POST).status(), 503);
    let head = client.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".replace("HEAD", "GET").as_str());
    assert_eq!(head.body(), "the service has no endpoint that is ready\n");
    eventually("the reason is counted", || mesh.metrics().contains("no-endpoint"));
}

#[test]
fn a_body_that_was_not_read_when_the_proxy_answers_closes_the_connection() {
    let (_mesh, address) = Setup::default().start();
    let mut client = Peer::dial(address);
    let response = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbeginning");
    assert_eq!((response.status(), response.field("connection")), (503, Some("close")));
    assert!(client.is_closed());
}

#[test]
fn a_request_goes_elsewhere_when_an_endpoint_does_not_accept() {
    let server = Server::answering("reached");
    let endpoints = vec![(nowhere(), "v1"), (nowhere(), "v1"), (server.address, "v1")];
    let (_mesh, address) = Setup { endpoints, ..Setup::default() }.start();
    let mut client = Peer::dial(address);
    for _ in 0..6 {
        assert_eq!(client.ask(POST).body(), "reached");
    }
}

#[test]
fn when_no_endpoint_accepts_the_answer_is_502() {
    let (_mesh, address) = Setup { endpoints: vec![(nowhere(), "v1")], ..Setup::default() }.start();
    assert_eq!(Peer::dial(address).ask(GET).status(), 502);
}

#[test]
fn the_inbound_side_says_that_the_app_never_got_the_request() {
    let app = nowhere();
    let (_mesh, address) = Setup::default().start_with(|| Accept::InboundApp { app, port: 8080 });
    let response = Peer::dial(address).ask(GET);
    assert_eq!((response.status(), response.field("x-leno-undelivered")), (502, Some("connect")));
}

#[test]
fn what_an_app_never_got_goes_elsewhere_with_its_body() {
    let undelivered = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 502 Bad Gateway\r\nx-leno-undelivered: connect\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let (server, told) = Server::telling();
    let (mesh, address) = Setup::to(&[&undelivered, &server]).start();
    let mut client = Peer::dial(address);
    for _ in 0..4 {
        assert_eq!(client.ask(POST).status(), 200);
        assert!(told.recv().unwrap().ends_with("hello"));
    }
    assert!(undelivered.connections() > 0);
    mesh.set_endpoints(&[(undelivered.address, "v1")]);
    eventually("only the one that never delivers is left", || {
        let response = client.ask(POST);
        assert_eq!(response.field("x-leno-undelivered"), None, "this is said between proxies only");
        response.status() == 502
    });
}

#[test]
fn a_connection_closed_while_it_rested_is_replaced_unseen() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(move |mut peer| {
        peer.message();
        peer.send(&ok("once"));
        drop(peer);
        tell.send(()).unwrap();
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    for round in 1..=20 {
        assert_eq!(client.ask(POST).body(), "once");
        told.recv().unwrap();
        assert_eq!(server.connections(), round, "each connection answers one request");
    }
}

#[test]
fn a_reused_connection_that_closes_before_it_answers_is_retried_only_for_idempotent_requests() {
    // The second request on a connection is read and not answered: a close that crossed the request.
    let server = Server::start(|mut peer| {
        peer.message();
        peer.send(&ok("first"));
        peer.message();
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).status(), 200);
    assert_eq!(client.ask(GET).body(), "first", "sent again on a new connection");
    assert_eq!(client.ask(POST).status(), 502, "it may have taken effect");
}

#[test]
fn a_service_that_does_not_answer_in_time_is_504() {
    let server = Server::start(|mut peer| while peer.message().is_some() {});
    let rule = Rule {
        name: "all".into(),
        matches: Vec::new(),
        destinations: Vec::new(),
        timeout: Some(Duration::from_millis(50)),
        ..Rule::default()
    };
    let (_mesh, address) = Setup { routes: RouteTable::new("shop/p".into(), None, vec![rule]), ..Setup::to(&[&server]) }.start();
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).status(), 504);
    assert_eq!(client.ask(GET).status(), 504, "the client's connection is still good");
    assert_eq!(server.connections(), 2, "the endpoint's is not");
}

#[test]
fn destinations_that_do_not_exist_or_weigh_nothing_are_500_and_name_no_policy() {
    let server = Server::answering("reached");
    for (target, weight) in [(Target::Missing("shop/ghost".into()), 1), (Target::Version("v1".into()), 0)] {
        let destinations = vec![Destination { target, weight: Weight::new(weight).unwrap() }];
        let rule = Rule { name: "all".into(), matches: Vec::new(), destinations, ..Rule::default() };
        let (_mesh, address) = Setup { routes: RouteTable::new("shop/secret".into(), None, vec![rule]), ..Setup::to(&[&server]) }.start();
        let response = Peer::dial(address).ask(GET);
        assert_eq!(response.status(), 500);
        assert!(!response.text().contains("secret") && !response.text().contains("ghost"), "{}", response.text());
    }
}

#[test]
fn responses_that_are_no_valid_http_are_502() {
    for bad in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        let server = Server::start(move |mut peer| {
            peer.message();
            peer.send(bad);
        });
        let (_mesh, address) = Setup::to(&[&server]).start();
        assert_eq!(Peer::dial(address).ask(GET).status(), 502, "{bad:?}");
    }
}

#[test]
fn interim_responses_pass_but_not_without_end() {
    let server = Server::start(|mut peer| {
        while let Some(request) = peer.message() {
            let count = if request.head.starts_with("GET /few") { 20 } else { 20_000 };
            peer.send(&"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count));
            peer.send(&ok("final"));
        }
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    for (path, want) in [("/few", 200), ("/many", 502)] {
        let mut client = Peer::dial(address);
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut response = client.response();
        while response.status() == 103 {
            response = client.response();
        }
        assert_eq!(response.status(), want, "{path}");
    }
}

#[test]
fn a_second_response_nobody_asked_for_is_given_to_nobody() {
    let server = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send(&format!("{}{}", ok("mine"), ok("smuggled")));
        }
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    let mut client = Peer::dial(address);
    for _ in 0..5 {
        assert_eq!(client.ask(GET).body(), "mine");
    }
}

#[test]
fn a_request_whose_client_is_gone_is_given_up_at_the_endpoint() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(move |mut peer| {
        let head = peer.message().unwrap().head;
        if head.starts_with("GET /begun") {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        }
        tell.send("asked").unwrap();
        assert!(peer.is_closed(), "no second request comes");
        tell.send("given up").unwrap();
    });
    let (_mesh, address) = Setup::to(&[&server]).start();
    for path in ["/silent", "/begun"] {
        let mut client = Peer::dial(address);
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(told.recv_timeout(PATIENCE), Ok("asked"));
        if path == "/begun" {
            client.until("hello").unwrap();
        }
        // A close with nothing left to say is a reset.
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(told.recv_timeout(PATIENCE), Ok("given up"), "{path}");
    }
}

#[test]
fn connections_of_an_endpoint_that_vanished_are_closed() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(move |mut peer| {
        peer.message();
        peer.send(&ok("hello"));
        tell.send(peer.is_closed()).unwrap();
    });
    let (mesh, address) = Setup::to(&[&server]).start();
    assert_eq!(Peer::dial(address).ask(GET).status(), 200);
    mesh.set_endpoints(&[]);
    assert!(told.recv_timeout(Duration::from_secs(3)).unwrap(), "closed without waiting for its rest to end");
}
