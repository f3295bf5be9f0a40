//! Retries over HTTP/1: what is sent again, where and how often, and what its record says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leno_core::retry::{Backoff, Reason, Retry};
use leno_core::route::{RouteTable, Rule};

use crate::support::{Mesh, Peer, Server, Setup, eventually, nowhere, ok};

const GET: &str = "GET / HTTP/1.1\r\nHost: payment\r\n\r\n";

/// Retries that follow at once.
pub(crate) fn quick(attempts: u32, on: &[Reason]) -> Retry {
    let backoff = Backoff { base: Duration::ZERO, max: Duration::ZERO };
    Retry { attempts, on: on.iter().copied().collect(), backoff, ..Retry::default() }
}

fn with(retry: Retry) -> RouteTable {
    RouteTable::new("shop/payment".into(), Some(Duration::from_secs(10)), Vec::new()).with_retry(Some(Arc::new(retry)))
}

/// Answers the first `failures` requests with `answer`, and those after them with 200.
fn failing_at_first(failures: usize, answer: &'static str) -> (Server, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let server = Server::start(move |mut peer| {
        while let Some(request) = peer.message() {
            let place = counted.fetch_add(1, Ordering::SeqCst);
            let body = String::from_utf8_lossy(&request.body).into_owned();
            peer.send(&if place < failures { answer.to_owned() } else { ok(&format!("at last {body}")) });
        }
    });
    (server, requests)
}

fn counted(mesh: &Mesh, reason: &str, outcome: &str, count: u64) {
    let end = format!("reason=\"{reason}\",outcome=\"{outcome}\"}} {count}");
    eventually(&format!("{end} is counted, and not\n{}", mesh.metrics()), || {
        mesh.metrics().lines().any(|line| line.starts_with("leno_retries_total") && line.ends_with(&end))
    });
}

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

#[test]
fn a_failure_that_the_policy_names_is_tried_again_on_the_same_connection_and_counted() {
    let (server, requests) = failing_at_first(2, UNAVAILABLE);
    let (mesh, address) = Setup { routes: with(quick(3, &[Reason::ServerError])), ..Setup::to(&[&server]) }.start();
    let answer = Peer::dial(address).ask(GET);
    assert_eq!((answer.status(), answer.body()), (200, "at last "));
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!(server.connections(), 1, "a response that is not wanted, and is whole, leaves its connection usable");
    counted(&mesh, "gateway-error", "failed", 1);
    counted(&mesh, "gateway-error", "succeeded", 1);
}

#[test]
fn the_last_failure_goes_to_the_client_when_all_tries_are_made() {
    let (server, requests) = failing_at_first(9, UNAVAILABLE);
    let (mesh, address) = Setup { routes: with(quick(2, &[Reason::GatewayError])), ..Setup::to(&[&server]) }.start();
    let answer = Peer::dial(address).ask(GET);
    assert_eq!((answer.status(), answer.body(), requests.load(Ordering::SeqCst)), (503, "busy", 3));
    counted(&mesh, "gateway-error", "failed", 2);
    counted(&mesh, "gateway-error", "attempts", 1);
}

#[test]
fn a_post_is_not_repeated_unless_the_policy_names_its_method_and_then_with_its_body() {
    let post = "POST / HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody";
    let (server, requests) = failing_at_first(1, UNAVAILABLE);
    let (mesh, address) = Setup { routes: with(quick(2, &[Reason::ServerError])), ..Setup::to(&[&server]) }.start();
    assert_eq!((Peer::dial(address).ask(post).status(), requests.load(Ordering::SeqCst)), (503, 1));
    counted(&mesh, "gateway-error", "method", 1);

    let (server, requests) = failing_at_first(1, UNAVAILABLE);
    let named = Retry { methods: vec!["POST".into()], ..quick(2, &[Reason::ServerError]) };
    let (_mesh, address) = Setup { routes: with(named), ..Setup::to(&[&server]) }.start();
    let answer = Peer::dial(address).ask(post);
    assert_eq!((answer.status(), answer.body(), requests.load(Ordering::SeqCst)), (200, "at last body", 2));
}

#[test]
fn a_body_beyond_the_bound_is_not_repeated_and_one_at_the_bound_is() {
    for (length, tries, outcome) in [(60 * 1024, 2, "succeeded"), (80 * 1024, 1, "body")] {
        let (server, requests) = failing_at_first(1, UNAVAILABLE);
        let (mesh, address) = Setup { routes: with(quick(2, &[Reason::ServerError])), ..Setup::to(&[&server]) }.start();
        let body = "b".repeat(length);
        let answer = Peer::dial(address).ask(&format!("PUT / HTTP/1.1\r\nHost: payment\r\nContent-Length: {length}\r\n\r\n{body}"));
        assert_eq!(requests.load(Ordering::SeqCst), tries, "{length} bytes");
        assert_eq!(answer.status(), if tries == 2 { 200 } else { 503 }, "{length} bytes");
        counted(&mesh, "gateway-error", outcome, 1);
    }
}

#[test]
fn the_next_try_goes_to_another_endpoint() {
    let (bad, requests) = failing_at_first(usize::MAX, UNAVAILABLE);
    let good = Server::answering("good");
    let (_mesh, address) = Setup { routes: with(quick(1, &[Reason::ServerError])), ..Setup::to(&[&bad, &good]) }.start();
    let mut client = Peer::dial(address);
    for _ in 0..20 {
        assert_eq!(client.ask(GET).body(), "good");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 20, "a retry takes a turn as well, so each first try meets the bad one");
}

#[test]
fn no_connection_is_tried_again_for_any_method_and_nothing_is_with_zero_attempts() {
    let good = Server::answering("good");
    let endpoints = vec![(nowhere(), "v1"), (good.address, "v1")];
    let routes = with(quick(1, &[Reason::ConnectFailure]));
    let (_mesh, address) = Setup { endpoints: endpoints.clone(), routes, ..Setup::default() }.start();
    let post = "POST / HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody";
    let mut client = Peer::dial(address);
    assert!((0..4).all(|_| client.ask(post).status() == 200));
    let (_mesh, address) = Setup { endpoints, routes: with(quick(0, &[])), ..Setup::default() }.start();
    let mut client = Peer::dial(address);
    let answered: Vec<u16> = (0..4).map(|_| client.ask(GET).status()).collect();
    assert_eq!(answered.iter().filter(|status| **status == 200).count(), 2, "{answered:?}");
}

#[test]
fn a_try_that_takes_too_long_is_given_up_and_made_elsewhere() {
    let silent = Server::start(|mut peer| while peer.message().is_some() {});
    let good = Server::answering("good");
    let retry = Retry { per_try_timeout: Some(Duration::from_millis(50)), ..quick(1, &[Reason::Timeout]) };
    let (mesh, address) = Setup { routes: with(retry.clone()), ..Setup::to(&[&silent, &good]) }.start();
    let mut client = Peer::dial(address);
    for _ in 0..4 {
        assert_eq!(client.ask(GET).body(), "good");
    }
    counted(&mesh, "timeout", "succeeded", 4);
    let (mesh, address) = Setup { routes: with(retry), ..Setup::to(&[&silent]) }.start();
    assert_eq!(Peer::dial(address).ask(GET).status(), 504);
    counted(&mesh, "timeout", "attempts", 1);
}

#[test]
fn the_time_an_endpoint_asks_for_is_waited_only_within_the_requests_own() {
    let wait = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let short =
        |timeout| RouteTable::new("p".into(), Some(timeout), Vec::new()).with_retry(Some(Arc::new(quick(1, &[Reason::Retriable4xx]))));
    let (server, requests) = failing_at_first(1, wait);
    let (mesh, address) = Setup { routes: short(Duration::from_millis(900)), ..Setup::to(&[&server]) }.start();
    let answer = Peer::dial(address).ask(GET);
    assert_eq!((answer.status(), answer.field("retry-after"), requests.load(Ordering::SeqCst)), (429, Some("1"), 1));
    counted(&mesh, "retriable-4xx", "time", 1);
    let (server, requests) = failing_at_first(1, wait);
    let (_mesh, address) = Setup { routes: short(Duration::from_secs(15)), ..Setup::to(&[&server]) }.start();
    let start = std::time::Instant::now();
    assert_eq!((Peer::dial(address).ask(GET).status(), requests.load(Ordering::SeqCst)), (200, 2));
    assert!(start.elapsed() >= Duration::from_secs(1), "not before");
}

#[test]
fn a_service_gets_no_more_retries_than_its_budget() {
    let (server, requests) = failing_at_first(usize::MAX, UNAVAILABLE);
    let (mesh, address) = Setup { routes: with(quick(10, &[Reason::ServerError])), ..Setup::to(&[&server]) }.start();
    let mut client = Peer::dial(address);
    let start = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(client.ask(GET).status(), 503);
    }
    // 100 that were saved up, 20 for the requests, and 10 each second.
    let most = 100 + 100 + 20 + 10 * (start.elapsed().as_secs() + 1);
    let requests = requests.load(Ordering::SeqCst) as u64;
    assert!((100 + 115..=most).contains(&requests), "{requests} of at most {most}");
    assert!(mesh.metrics().contains("reason=\"gateway-error\",outcome=\"budget\""));
}

#[test]
fn a_response_without_a_byte_for_too_long_is_cut_and_one_that_goes_on_is_not() {
    let server = Server::start(|mut peer| {
        while let Some(request) = peer.message() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
            for byte in ["a", "b", "c", "d", "e", "f"] {
                // The pace of a stream is what is tested here.
                std::thread::sleep(Duration::from_millis(100));
                peer.send(byte);
                if request.head.starts_with("GET /stops") {
                    peer.is_closed();
                    return;
                }
            }
        }
    });
    let rule = Rule { name: "stream".into(), idle_timeout: Some(Duration::from_millis(400)), ..Rule::default() };
    let (mesh, address) = Setup { routes: RouteTable::new("p".into(), None, vec![rule]), ..Setup::to(&[&server]) }.start();
    assert_eq!(Peer::dial(address).ask(GET).body(), "abcdef");
    let mut client = Peer::dial(address);
    client.send("GET /stops HTTP/1.1\r\nHost: payment\r\n\r\n");
    assert_eq!(client.exactly(1000).last(), Some(&b'a'), "the rest never comes, and the connection ends");
    eventually("the reason is counted", || mesh.metrics().contains("origin=\"upstream\",reason=\"idle-timeout\"} 1"));
}

#[test]
fn a_tunnel_without_a_byte_for_too_long_is_cut() {
    let server = Server::start(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        while let Some(line) = peer.until("\n") {
            peer.send(&line);
        }
    });
    let rule = Rule { name: "tunnel".into(), idle_timeout: Some(Duration::from_millis(100)), ..Rule::default() };
    let (mesh, address) = Setup { routes: RouteTable::new("p".into(), None, vec![rule]), ..Setup::to(&[&server]) }.start();
    let mut client = Peer::dial(address);
    client.send("GET / HTTP/1.1\r\nHost: payment\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    client.send("hello\n");
    assert_eq!(client.until("\n").as_deref(), Some("hello\n"));
    assert!(client.is_closed());
    eventually("the reason is counted", || mesh.metrics().contains("origin=\"upstream\",reason=\"idle-timeout\"} 1"));
}
