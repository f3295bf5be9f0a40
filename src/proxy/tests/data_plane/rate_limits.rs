//! Rate limits over HTTP/1: what passes, what is told, and what is counted together.

use std::sync::Arc;
use std::time::Duration;

use leno_core::balance::Algorithm;
use leno_core::matching::{Match, PathMatch};
use leno_core::rate_limit::{RateKey, RateLimit};
use leno_core::route::{RouteTable, Rule};
use leno_core::service::Protocol;
use leno_proxy::rate_limit::Limiters;

use crate::support::{Mesh, Peer, Server, Setup, eventually};

/// So few in an hour that none is added while a test runs.
fn limit(burst: u32, key: RateKey) -> RateLimit {
    RateLimit { requests: 1, per: Duration::from_secs(3600), burst, key }
}

fn routes(limit: RateLimit) -> RouteTable {
    let limited = Match { path: Some(PathMatch::Prefix("/limited".into())), ..Match::default() };
    let rule = Rule { name: "limited".into(), matches: vec![limited], rate_limit: Some(limit), ..Rule::default() };
    RouteTable::new("shop/limits".into(), None, vec![rule])
}

fn limited(limit: RateLimit) -> (Server, Mesh, Peer) {
    let app = Server::answering("app");
    let (mesh, address) = Setup { routes: routes(limit), ..Setup::to(&[&app]) }.start();
    (app, mesh, Peer::dial(address))
}

fn ask(client: &mut Peer, path: &str, fields: &str) -> u16 {
    client.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).status()
}

#[test]
fn what_is_beyond_the_limit_is_answered_429_with_the_time_to_wait_and_other_routes_go_on() {
    let (app, mesh, mut client) = limited(limit(3, RateKey::Route));
    let statuses: Vec<u16> = (0..5).map(|_| ask(&mut client, "/limited", "")).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = client.ask("POST /limited/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!((refused.status(), refused.body()), (429, "too many requests\n"));
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert!(refused.head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"));
    assert_eq!(ask(&mut client, "/other", ""), 200, "the connection and other routes go on");
    assert_eq!(app.connections(), 1);
    eventually("it is counted with its reason and its route", || {
        let page = mesh.metrics();
        page.contains("leno_errors_total{direction=\"outbound\",origin=\"downstream\",reason=\"rate-limited\"} 3")
            && page.lines().any(|line| line.contains("route=\"limited\"") && line.contains("code=\"4xx\"") && line.ends_with(" 3"))
    });
}

#[test]
fn requests_are_told_apart_by_a_header_or_by_who_sends_them() {
    let (_app, _mesh, mut client) = limited(limit(2, RateKey::Header("x-user".into())));
    for user in ["X-User: a\r\n", "x-user: b\r\n", "", "x-user: \r\n"] {
        let statuses: Vec<u16> = (0..3).map(|_| ask(&mut client, "/limited", user)).collect();
        assert_eq!(statuses, [200, 200, 429], "{user:?}");
    }
    let (_app, _mesh, mut client) = limited(limit(2, RateKey::Source));
    let statuses: Vec<u16> = ["a", "b", "c"].map(|user| ask(&mut client, "/limited", &format!("x-user: {user}\r\n"))).into();
    assert_eq!(statuses, [200, 200, 429], "one caller, whatever its requests say");
}

#[test]
fn a_change_of_the_service_leaves_the_buckets_as_they_are_and_a_change_of_the_limit_makes_new_ones() {
    let (_app, mesh, mut client) = limited(limit(2, RateKey::Route));
    assert_eq!([200, 200, 429], [(); 3].map(|()| ask(&mut client, "/limited", "")));
    mesh.set_service(Protocol::Http, Algorithm::Random, routes(limit(2, RateKey::Route)));
    mesh.set_service(Protocol::Http, Algorithm::LeastRequest, routes(limit(2, RateKey::Route)));
    assert_eq!(ask(&mut client, "/limited", ""), 429);
    mesh.set_service(Protocol::Http, Algorithm::LeastRequest, routes(limit(5, RateKey::Route)));
    eventually("the new limit holds", || ask(&mut client, "/limited", "") == 200);
    mesh.set_service(Protocol::Http, Algorithm::LeastRequest, RouteTable::default());
    eventually("no limit holds", || (0..10).all(|_| ask(&mut client, "/limited", "") == 200));
}

#[test]
fn workers_of_one_proxy_share_one_bucket() {
    let app = Server::answering("app");
    let limiters: Arc<Limiters> = Arc::default();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let mut setup = Setup { routes: routes(limit(100, RateKey::Route)), ..Setup::to(&[&app]) };
            setup.settings.limiters = Arc::clone(&limiters);
            setup.start()
        })
        .collect();
    let clients: Vec<_> = workers.iter().map(|(_, address)| *address).collect();
    let threads = clients.into_iter().map(|address| {
        std::thread::spawn(move || {
            let mut client = Peer::dial(address);
            (0..50).filter(|_| ask(&mut client, "/limited", "") == 200).count()
        })
    });
    let threads: Vec<_> = threads.collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 100);
}
