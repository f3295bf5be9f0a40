//! Requests that stay with an endpoint, in a zone, or come slowly to a new one. HTTP/1.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leno_core::balance::affinity::{Affinity, SessionCookie};
use leno_core::balance::weighing::EndpointWeight;
use leno_core::balance::{Algorithm, Balancing};
use leno_core::endpoints::Endpoint;
use leno_core::filters::{FieldChanges, Filters};
use leno_core::names::WorkloadId;
use leno_core::outlier::OutlierDetection;
use leno_core::resilience::Resilience;
use leno_core::route::{RouteTable, Rule};
use leno_core::service::Protocol;
use leno_core::workload::Workload;
use leno_proxy::control::Update;

use crate::support::{Mesh, Message, Peer, Server, Setup, eventually, nowhere};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";
/// Longer than any test.
const LONG: Duration = Duration::from_secs(100_000);

fn by_cookie() -> Balancing {
    let cookie = SessionCookie { name: "sid".into(), ttl: Some(Duration::from_secs(60)), path: "/".into() };
    Balancing { algorithm: Algorithm::RoundRobin, affinity: Some(Affinity::Cookie(cookie)), ..Balancing::default() }
}

fn by_header() -> Balancing {
    Balancing { affinity: Some(Affinity::Header("x-session".into())), ..by_cookie() }
}

fn balanced(balancing: Balancing, endpoints: Vec<Endpoint>) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup::default().start();
    mesh.set_balancing(balancing);
    mesh.set_these(ordered(endpoints));
    (mesh, address)
}

fn ordered(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints
}

fn at(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    ordered(addresses.iter().map(|address| Endpoint::at(*address)).collect())
}

/// What a response says of the session: `NAME=VALUE`.
fn cookie(response: &Message) -> Option<String> {
    response.field("set-cookie").and_then(|value| value.split(';').next()).map(str::to_owned)
}

fn with(field: &str, value: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: payment\r\n{field}: {value}\r\n\r\n")
}

fn counts(client: &mut Peer, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(client.ask(GET).body().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn a_cookie_keeps_a_session_at_its_endpoint_whatever_others_come_and_go() {
    let (a, b, c) = (Server::answering("a"), Server::answering("b"), Server::answering("c"));
    let (mesh, address) = balanced(by_cookie(), at(&[a.address, b.address]));
    let mut client = Peer::dial(address);
    let first = client.ask(GET);
    let set = first.field("set-cookie").unwrap().to_owned();
    assert!(set.starts_with("sid=") && set.ends_with("; Path=/; Max-Age=60; HttpOnly"), "{set}");
    let (session, home) = (cookie(&first).unwrap(), first.body().to_owned());
    let mut stays = |what: &str| {
        for _ in 0..6 {
            let response = client.ask(&with("Cookie", &format!("other=1; {session}")));
            assert_eq!((response.body(), response.field("set-cookie")), (home.as_str(), None), "{what}");
        }
    };
    stays("it is told once");
    mesh.set_these(at(&[a.address, b.address, c.address]));
    let mut other = Peer::dial(address);
    eventually("the new one takes sessions", || other.ask(GET).body() == "c");
    stays("another one came");
    let (own, another) = if home == "a" { (a.address, b.address) } else { (b.address, a.address) };
    mesh.set_these(at(&[own, c.address]));
    eventually("the other one is gone", || (0..4).all(|_| other.ask(GET).body() != if another == a.address { "a" } else { "b" }));
    stays("another one went");
    let drained = Endpoint { weight: EndpointWeight::new(0).unwrap(), ..Endpoint::at(own) };
    mesh.set_these(ordered(vec![drained, Endpoint::at(c.address)]));
    eventually("it gets no new sessions", || (0..4).all(|_| other.ask(GET).body() == "c"));
    stays("it is drained");
    mesh.set_these(at(&[c.address]));
    eventually("its endpoint is gone", || client.ask(&with("Cookie", &session)).body() == "c");
    let moved = client.ask(&with("Cookie", &session));
    let new = cookie(&moved).expect("the session has a new home, and is told");
    assert_ne!(new, session);
    assert_eq!(cookie(&client.ask(&with("Cookie", &new))), None);
}

#[test]
fn two_proxies_read_the_same_cookie_be_it_their_first_request() {
    let servers = [Server::answering("a"), Server::answering("b"), Server::answering("c")];
    let all = at(&servers.each_ref().map(|server| server.address));
    let (_mesh, address) = balanced(by_cookie(), all.clone());
    let mut client = Peer::dial(address);
    for _ in 0..3 {
        let first = client.ask(GET);
        let (_other, other) = balanced(by_cookie(), all.clone());
        let response = Peer::dial(other).ask(&with("Cookie", &cookie(&first).unwrap()));
        assert_eq!((response.body(), response.field("set-cookie")), (first.body(), None));
    }
}

#[test]
fn a_header_keeps_a_session_and_so_does_a_value_of_the_callers_own() {
    let servers = [Server::answering("a"), Server::answering("b"), Server::answering("c")];
    let (_mesh, address) = balanced(by_header(), at(&servers.each_ref().map(|server| server.address)));
    let mut client = Peer::dial(address);
    let first = client.ask(GET);
    let session = first.field("x-session").expect("the answer names the endpoint").to_owned();
    assert!(!session.contains(&servers[0].address.port().to_string()), "and tells no address: {session}");
    for _ in 0..6 {
        let response = client.ask(&with("X-Session", &session));
        assert_eq!((response.body(), response.field("x-session")), (first.body(), None));
    }
    for user in 0..10 {
        let own = with("X-Session", &format!("user-{user}"));
        let home = client.ask(&own);
        assert_eq!(home.field("x-session"), None, "the caller keeps its value");
        assert!((0..3).all(|_| client.ask(&own).body() == home.body()));
    }
}

#[test]
fn a_session_whose_endpoint_fails_finds_another_home() {
    let good = Server::answering("good");
    let dead = nowhere();
    let (mesh, address) = balanced(by_cookie(), at(&[dead]));
    let mut client = Peer::dial(address);
    let told = client.ask(GET);
    assert_eq!((told.status(), told.field("set-cookie")), (502, None), "nobody has taken the session");
    mesh.set_these(at(&[dead, good.address]));
    eventually("another one is there", || client.ask(GET).body() == "good");
    // Any session that is not with the good one names the dead one: what is told must be the one that answered.
    for _ in 0..6 {
        let response = client.ask(GET);
        let session = cookie(&response).unwrap();
        let again = client.ask(&with("Cookie", &session));
        assert_eq!((again.body(), again.field("set-cookie")), ("good", None));
    }
}

#[test]
fn an_ejected_endpoint_loses_its_sessions() {
    let failing = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nbad");
        }
    });
    let good = Server::answering("good");
    let (mesh, address) = Setup::default().start();
    mesh.set_balancing(by_cookie());
    let outliers = OutlierDetection { consecutive_errors: 3, base_ejection_time: LONG, ..OutlierDetection::default() };
    mesh.set_guarded(&[failing.address, good.address], &Resilience { outliers: Some(outliers), ..Resilience::default() });
    let mut client = Peer::dial(address);
    let mut session = None;
    eventually("a session is with the one that fails", || {
        let response = client.ask(GET);
        session = cookie(&response).filter(|_| response.body() == "bad");
        session.is_some()
    });
    let request = with("Cookie", &session.unwrap());
    eventually("it is ejected", || client.ask(&request).body() == "good");
    assert!(cookie(&client.ask(&request)).is_some(), "the session is told its new home");
}

#[test]
fn what_a_session_is_told_comes_beside_the_changes_of_its_route() {
    let server = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nSet-Cookie: app=1\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let response = FieldChanges { set: vec![("x-team".into(), "shop".into())], ..FieldChanges::default() };
    let filters = Some(Arc::new(Filters { response, ..Filters::default() }));
    let rule = Rule { name: "all".into(), filters, ..Rule::default() };
    let (mesh, address) = Setup { routes: RouteTable::new("shop/p".into(), None, vec![rule]), ..Setup::default() }.start();
    mesh.set_balancing(by_cookie());
    mesh.set_these(at(&[server.address]));
    let head = Peer::dial(address).ask(GET).head;
    assert!(head.contains("app=1") && head.contains("sid=") && head.contains("x-team: shop"), "{head}");
}

fn in_zone(mesh: &Mesh, zone: &str) {
    mesh.tell(Update::Workload(Arc::new(Workload { zone: Some(zone.into()), ..Workload::new(WorkloadId::new("shop", "web-1")) })));
}

#[test]
fn requests_stay_in_the_zone_of_the_proxy_as_far_as_its_endpoints_bear_them() {
    let servers = [Server::answering("a1"), Server::answering("b1"), Server::answering("b2"), Server::answering("b3")];
    let zoned = |count: usize| {
        let endpoint = |(place, server): (usize, &Server)| Endpoint {
            zone: Some(if place == 0 { "a".into() } else { "b".into() }),
            ..Endpoint::at(server.address)
        };
        ordered(servers[..count].iter().enumerate().map(endpoint).collect())
    };
    let balancing = Balancing { algorithm: Algorithm::RoundRobin, prefers_zone: true, ..Balancing::default() };
    let (mesh, address) = balanced(balancing, zoned(2));
    let mut client = Peer::dial(address);
    assert_eq!(counts(&mut client, 10).len(), 2, "nobody has said where this proxy is");
    in_zone(&mesh, "a");
    eventually("it is in zone a", || counts(&mut client, 6) == BTreeMap::from([("a1".to_owned(), 6)]));
    in_zone(&mesh, "b");
    eventually("it is in zone b", || counts(&mut client, 6) == BTreeMap::from([("b1".to_owned(), 6)]));
    in_zone(&mesh, "a");
    mesh.set_these(zoned(4));
    // Of four endpoints each zone is due two; a has one, so half of the requests leave it.
    eventually("the others take what is too much", || {
        let counts = counts(&mut client, 60);
        counts.len() == 4 && (28..=32).contains(&counts["a1"])
    });
    mesh.set_these(ordered(zoned(4).into_iter().filter(|endpoint| endpoint.zone.as_deref() == Some("b")).collect()));
    eventually("no endpoint is left in the zone", || !counts(&mut client, 12).contains_key("a1"));
}

#[test]
fn zones_count_who_is_healthy_only() {
    let failing = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\na1");
        }
    });
    let other = Server::answering("b1");
    let (mesh, address) = Setup::default().start();
    mesh.set_balancing(Balancing { prefers_zone: true, ..Balancing::default() });
    let outliers = OutlierDetection { consecutive_errors: 3, base_ejection_time: LONG, ..OutlierDetection::default() };
    let resilience = Some(Arc::new(Resilience { outliers: Some(outliers), ..Resilience::default() }));
    let zoned = |address, zone: &str| Endpoint { zone: Some(zone.into()), ..Endpoint::at(address) };
    mesh.set_guarded_these(ordered(vec![zoned(failing.address, "a"), zoned(other.address, "b")]), resilience);
    let mut client = Peer::dial(address);
    client.ask(GET);
    in_zone(&mesh, "a");
    eventually("the zone's only endpoint is ejected", || counts(&mut client, 10) == BTreeMap::from([("b1".to_owned(), 10)]));
}

#[test]
fn an_endpoint_that_comes_gets_little_at_first_and_those_at_the_beginning_all_the_same() {
    let servers = [Server::answering("a"), Server::answering("b"), Server::answering("new")];
    let addresses = servers.each_ref().map(|server| server.address);
    let slowly = Balancing { algorithm: Algorithm::RoundRobin, slow_start: Some(LONG), ..Balancing::default() };
    let (mesh, address) = balanced(slowly.clone(), at(&addresses[..2]));
    let mut client = Peer::dial(address);
    assert_eq!(counts(&mut client, 40), BTreeMap::from([("a".to_owned(), 20), ("b".to_owned(), 20)]));
    mesh.set_these(at(&addresses));
    eventually("it is known", || counts(&mut client, 40).contains_key("new"));
    // A tenth of a share, beside two whole ones.
    let share = counts(&mut client, 420)["new"];
    assert!((17..=23).contains(&share), "{share} of 420");
    mesh.set_balancing(Balancing { slow_start: Some(Duration::from_millis(1)), ..slowly });
    eventually("it is not new any more", || counts(&mut client, 30)["new"] == 10);
}

#[test]
fn nothing_of_this_is_asked_of_connections_that_are_not_looked_into() {
    let server = Server::start(|mut peer| {
        peer.send("hello\n");
        peer.rest();
    });
    let (mesh, address) = Setup { protocol: Protocol::Tcp, ..Setup::default() }.start();
    mesh.set_balancing(by_cookie());
    mesh.set_these(at(&[server.address]));
    assert_eq!(Peer::dial(address).until("\n").as_deref(), Some("hello\n"));
}
