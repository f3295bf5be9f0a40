//! Which endpoint takes a request: weights, keys, costs. HTTP/1 and opaque connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leno_core::balance::key::HashKey;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::balance::{Algorithm, Balancing};
use leno_core::endpoints::Endpoint;
use leno_core::service::Protocol;

use crate::support::{Mesh, Peer, Server, Setup, eventually, nowhere, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";

/// A mesh with these endpoints, each with its weight.
fn weighted(algorithm: Algorithm, protocol: Protocol, endpoints: &[(SocketAddr, u32)]) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup { protocol, ..Setup::default() }.start();
    mesh.set_balancing(Balancing { algorithm, ..Balancing::default() });
    set(&mesh, endpoints);
    (mesh, address)
}

fn set(mesh: &Mesh, endpoints: &[(SocketAddr, u32)]) {
    let endpoint =
        |(address, weight): &(SocketAddr, u32)| Endpoint { weight: EndpointWeight::new(*weight).unwrap(), ..Endpoint::at(*address) };
    let mut endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    mesh.set_these(endpoints);
}

/// Who answers each of `requests`, sent one after the other on one connection, counted.
fn answers(address: SocketAddr, requests: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let (mut client, mut counts) = (Peer::dial(address), BTreeMap::new());
    for request in requests {
        *counts.entry(client.ask(&request).body().to_owned()).or_default() += 1;
    }
    counts
}

fn gets(count: usize) -> impl Iterator<Item = String> {
    std::iter::repeat_n(GET.to_owned(), count)
}

fn counted(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn endpoints_have_turns_by_weight_and_weight_0_is_for_when_there_is_nobody_else() {
    let (one, three, none) = (Server::answering("one"), Server::answering("three"), Server::answering("none"));
    let (mesh, address) = weighted(Algorithm::RoundRobin, Protocol::Http, &[(one.address, 100), (three.address, 300), (none.address, 0)]);
    assert_eq!(answers(address, gets(40)), counted(&[("one", 10), ("three", 30)]));
    set(&mesh, &[(none.address, 0)]);
    eventually("nobody else is left", || answers(address, gets(1)) == counted(&[("none", 1)]));
    set(&mesh, &[(none.address, 0), (nowhere(), 100)]);
    eventually("who has a weight does not accept", || answers(address, gets(5)) == counted(&[("none", 5)]));
}

#[test]
fn every_algorithm_obeys_weight_0_and_serves() {
    let (all, none) = (Server::answering("all"), Server::answering("none"));
    let by_source = Algorithm::ConsistentHash(HashKey::SourceIp);
    use Algorithm::{LeastRequest, PeakEwma, Random, WeightedRandom};
    for algorithm in [LeastRequest, Random, WeightedRandom, PeakEwma, by_source] {
        let (_mesh, address) = weighted(algorithm.clone(), Protocol::Http, &[(all.address, 7), (none.address, 0)]);
        assert_eq!(answers(address, gets(20)), counted(&[("all", 20)]), "{algorithm}");
    }
}

/// A request of `user`, as each kind of key has it.
fn of_user(user: usize) -> [(HashKey, String); 3] {
    [
        (HashKey::Header("x-user".into()), format!("GET / HTTP/1.1\r\nHost: payment\r\nX-User: user-{user}\r\n\r\n")),
        (HashKey::Cookie("user".into()), format!("GET / HTTP/1.1\r\nHost: payment\r\nCookie: a=b; user=user-{user}\r\n\r\n")),
        (HashKey::Query("user".into()), format!("GET /?user=user-{user} HTTP/1.1\r\nHost: payment\r\n\r\n")),
    ]
}

#[test]
fn the_same_key_meets_the_same_endpoint_and_only_keys_of_an_endpoint_that_went_move() {
    let servers = [Server::answering("a"), Server::answering("b"), Server::answering("c")];
    let names = ["a", "b", "c"];
    for kind in 0..3 {
        let key = of_user(0)[kind].0.clone();
        let all: Vec<_> = servers.iter().map(|server| (server.address, 100)).collect();
        let (mesh, address) = weighted(Algorithm::ConsistentHash(key), Protocol::Http, &all);
        let owner = |user: usize, client: &mut Peer| client.ask(&of_user(user)[kind].1).body().to_owned();
        let (mut one, mut two) = (Peer::dial(address), Peer::dial(address));
        let before: Vec<_> = (0..30).map(|user| owner(user, &mut one)).collect();
        assert_eq!(before, (0..30).map(|user| owner(user, &mut two)).collect::<Vec<_>>());
        assert!(names.iter().all(|name| before.iter().any(|owner| owner == name)), "{before:?}");
        set(&mesh, &all[1..]);
        eventually("it is gone", || (0..30).all(|user| owner(user, &mut one) != "a"));
        for (user, before) in before.iter().enumerate().filter(|(_, before)| *before != "a") {
            assert_eq!(owner(user, &mut one), *before);
        }
        let without: Vec<_> = (0..30).map(|_| one.ask(GET).body().to_owned()).collect();
        assert!(without.contains(&"b".to_owned()) && without.contains(&"c".to_owned()), "requests without a key go anywhere");
    }
}

#[test]
fn two_proxies_send_one_key_to_one_endpoint_be_it_the_first_request_or_a_later_one() {
    let servers = [Server::answering("a"), Server::answering("b"), Server::answering("c")];
    let all: Vec<_> = servers.iter().map(|server| (server.address, 100)).collect();
    let by = Algorithm::ConsistentHash(HashKey::Header("x-user".into()));
    let (_known, address) = weighted(by.clone(), Protocol::Http, &all);
    let mut client = Peer::dial(address);
    for user in 0..6 {
        let request = &of_user(user)[0].1;
        let (_new, other) = weighted(by.clone(), Protocol::Http, &all);
        assert_eq!(Peer::dial(other).ask(request).body(), client.ask(request).body(), "user {user}");
    }
}

#[test]
fn the_keys_of_an_endpoint_that_does_not_accept_go_to_one_other() {
    let servers = [Server::answering("a"), Server::answering("b")];
    let all = [(servers[0].address, 100), (servers[1].address, 100), (nowhere(), 100)];
    let (_mesh, address) = weighted(Algorithm::ConsistentHash(HashKey::Header("x-user".into())), Protocol::Http, &all);
    let mut client = Peer::dial(address);
    for user in 0..30 {
        let request = &of_user(user)[0].1;
        let first = client.ask(request).body().to_owned();
        assert!((0..3).all(|_| client.ask(request).body() == first), "user {user}");
    }
}

#[test]
fn peak_ewma_leaves_alone_who_fails_fast() {
    let failing = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nfast");
        }
    });
    let good = Server::answering("good");
    let all = [(failing.address, 100), (good.address, 100)];
    let (_mesh, address) = weighted(Algorithm::PeakEwma, Protocol::Http, &all);
    let counts = answers(address, gets(100));
    assert!(counts.get("fast").is_some_and(|failed| *failed < 10), "{counts:?}");
}

#[test]
fn peak_ewma_sends_one_request_to_who_is_not_known_and_waits_for_its_answer() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Server::start(move |mut peer| {
        while peer.message().is_some() {
            wait.lock().unwrap().recv().unwrap();
            peer.send(&ok("slow"));
        }
    });
    let quick = Server::answering("quick");
    let (mesh, address) = weighted(Algorithm::PeakEwma, Protocol::Http, &[(slow.address, 100), (quick.address, 100)]);
    // Of two requests one goes to each, as nothing is known of either.
    let mut held: Vec<_> = (0..2).map(|_| Peer::dial(address)).collect();
    held.iter_mut().for_each(|client| client.send(GET));
    eventually("one is with the slow one, and the other answered", || slow.connections() == 1 && mesh.metrics().contains("code=\"2xx\""));
    assert_eq!(answers(address, gets(30)), counted(&[("quick", 30)]));
    go.send(()).unwrap();
    drop(held);
}

/// Says its name to everybody, and then nothing.
fn naming(name: &'static str) -> Server {
    Server::start(move |mut peer| {
        peer.send(&format!("{name}\n"));
        peer.rest();
    })
}

#[test]
fn opaque_connections_go_by_source_address_or_to_who_has_the_fewest_open() {
    let (a, b) = (naming("a"), naming("b"));
    let all = [(a.address, 100), (b.address, 100)];
    let (_mesh, address) = weighted(Algorithm::ConsistentHash(HashKey::SourceIp), Protocol::Tcp, &all);
    let first = Peer::dial(address).until("\n");
    assert!((0..8).all(|_| Peer::dial(address).until("\n") == first), "all come from one address");

    let (_mesh, address) = weighted(Algorithm::LeastRequest, Protocol::Tcp, &all);
    let mut open: Vec<_> = (0..10).map(|_| Peer::dial(address)).collect();
    let names: Vec<_> = open.iter_mut().map(|client| client.until("\n").unwrap()).collect();
    assert_eq!(names.iter().filter(|name| *name == "a\n").count(), 5, "{names:?}");

    // A key that needs a request is none here.
    let (_mesh, address) = weighted(Algorithm::ConsistentHash(HashKey::Header("x".into())), Protocol::Tcp, &all);
    let mut open: Vec<_> = (0..2).map(|_| Peer::dial(address)).collect();
    let names: Vec<_> = open.iter_mut().map(|client| client.until("\n").unwrap()).collect();
    assert_ne!(names[0], names[1]);
}

#[test]
fn random_takes_every_endpoint_equally_often_and_in_no_order() {
    let servers = [Server::answering("a"), Server::answering("b"), Server::answering("c")];
    let all: Vec<_> = servers.iter().map(|server| (server.address, 100)).collect();
    let (_mesh, address) = weighted(Algorithm::Random, Protocol::Http, &all);
    let mut client = Peer::dial(address);
    let answers: Vec<String> = (0..3000).map(|_| client.ask(GET).body().to_owned()).collect();
    for name in ["a", "b", "c"] {
        let count = answers.iter().filter(|it| *it == name).count();
        assert!((850..=1150).contains(&count), "a third of 3000, give or take 5 points: {name} {count}");
    }
    let repeated = answers.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((850..=1150).contains(&repeated), "one of three is the same as the one before: {repeated}");
}
