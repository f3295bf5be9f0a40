//! Adaptive concurrency: an app gets no more requests at once than it bears. HTTP/1.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::outlier::OutlierDetection;
use leno_core::resilience::Resilience;
use leno_core::service::Protocol;

use crate::limited::{at_most, before};
use crate::support::{Peer, Server, Setup, eventually, ok};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";

/// An app that holds every request until it is told to answer, and counts those it has.
struct Holding {
    server: Server,
    held: Arc<AtomicUsize>,
    open: Arc<(Mutex<bool>, Condvar)>,
}

fn holding() -> Holding {
    let (held, open) = (Arc::new(AtomicUsize::new(0)), Arc::new((Mutex::new(false), Condvar::new())));
    let (count, gate) = (Arc::clone(&held), Arc::clone(&open));
    let server = Server::start(move |mut peer| {
        while peer.message().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            drop(gate.1.wait_while(gate.0.lock().unwrap(), |is_open| !*is_open).unwrap());
            count.fetch_sub(1, Ordering::SeqCst);
            peer.send(&ok("done"));
        }
    });
    Holding { server, held, open }
}

impl Holding {
    fn let_go(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

#[test]
fn what_is_beyond_the_limit_is_answered_at_once_and_the_app_never_sees_it() {
    let app = holding();
    let (mesh, address) = before(Setup::default(), app.server.address, Protocol::Http, Some(at_most(2)));
    let mut waiting: Vec<_> = (0..2).map(|_| Peer::dial(address)).collect();
    waiting.iter_mut().for_each(|client| client.send(GET));
    eventually("the app has as many as it may", || app.held.load(Ordering::SeqCst) == 2);
    let refused = Peer::dial(address).ask(GET);
    assert_eq!((refused.status(), refused.field("x-leno-undelivered")), (503, Some("overflow")));
    assert!(!refused.text().contains("limit"), "why is nobody's business but the operators': {}", refused.text());
    assert!(mesh.metrics().contains("leno_concurrency_in_flight{destination=\"shop/payment\",port=\"8080\"} 2\n"));
    app.let_go();
    assert!(waiting.iter_mut().all(|client| client.response().status() == 200));
    assert_eq!(Peer::dial(address).ask(GET).status(), 200, "there is room again");
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"overflow\"} 1"));
    assert!(mesh.metrics().contains("leno_overflow_total{destination=\"shop/payment\",limit=\"concurrency\"} 1\n"));
    assert!(mesh.metrics().contains("leno_concurrency_in_flight{destination=\"shop/payment\",port=\"8080\"} 0\n"));
}

#[test]
fn a_request_that_is_refused_goes_to_another_pod_with_its_body_and_its_caller_hears_503_where_there_is_none() {
    let (full, free) = (holding(), Server::answering("free"));
    let (_one, full_at) = before(Setup::default(), full.server.address, Protocol::Http, Some(at_most(1)));
    let (_other, free_at) = before(Setup::default(), free.address, Protocol::Http, Some(at_most(1)));
    let mut waiting = Peer::dial(full_at);
    waiting.send(GET);
    eventually("one is full", || full.held.load(Ordering::SeqCst) == 1);
    let (caller, address) = Setup::default().start();
    let outliers = OutlierDetection { consecutive_errors: 1, ..OutlierDetection::default() };
    caller.set_guarded(&[full_at, free_at], &Resilience { outliers: Some(outliers), ..Resilience::default() });
    let mut client = Peer::dial(address);
    for _ in 0..6 {
        let answer = client.ask("POST / HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!((answer.status(), answer.body()), (200, "free"));
    }
    assert!(!caller.metrics().contains("leno_endpoint_ejections_total{"), "to be busy is no failure");
    caller.set_endpoints(&[(full_at, "v1")]);
    let mut answer = client.ask(GET);
    while answer.status() == 200 {
        answer = client.ask(GET);
    }
    assert_eq!((answer.status(), answer.field("x-leno-undelivered")), (503, None), "{answer:?}");
    eventually("the caller's proxy has the reason", || caller.metrics().contains("reason=\"overflow\"} "));
    full.let_go();
    assert_eq!(waiting.response().status(), 200);
}

#[test]
fn an_answer_that_goes_on_for_long_takes_up_no_place() {
    let app = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        }
    });
    let (_mesh, address) = before(Setup::default(), app.address, Protocol::Http, Some(at_most(1)));
    let mut open: Vec<_> = (0..5).map(|_| Peer::dial(address)).collect();
    for client in &mut open {
        client.send(GET);
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn probes_of_the_kubelet_are_never_refused() {
    let app = holding();
    let mut setup = Setup::default();
    setup.settings.probes = Arc::new("8080/healthz".parse().unwrap());
    let (_mesh, address) = before(setup, app.server.address, Protocol::Http, Some(at_most(1)));
    let mut clients: Vec<_> = (0..2).map(|_| Peer::dial(address)).collect();
    clients[0].send(GET);
    eventually("the app is full", || app.held.load(Ordering::SeqCst) == 1);
    clients[1].send("GET /healthz HTTP/1.1\r\nHost: payment\r\n\r\n");
    eventually("the probe reaches it all the same", || app.held.load(Ordering::SeqCst) == 2);
    app.let_go();
    assert!(clients.iter_mut().all(|client| client.response().status() == 200));
}

#[test]
fn two_workers_of_a_proxy_count_together() {
    let app = holding();
    let first = Setup::default();
    let mut second = Setup::default();
    second.settings.concurrency = Arc::clone(&first.settings.concurrency);
    let (_one, one) = before(first, app.server.address, Protocol::Http, Some(at_most(1)));
    let (_two, two) = before(second, app.server.address, Protocol::Http, Some(at_most(1)));
    let mut waiting = Peer::dial(one);
    waiting.send(GET);
    eventually("the app is full", || app.held.load(Ordering::SeqCst) == 1);
    assert_eq!(Peer::dial(two).ask(GET).status(), 503);
    app.let_go();
    assert_eq!(waiting.response().status(), 200);
}

/// Whose turn it is in an app that works off requests in the order they came.
#[derive(Default)]
struct Turns {
    given: usize,
    over: usize,
}

/// What an app that does two requests at a time may have at once, with those that wait in it.
const BEARABLE: usize = 30;

/// How much an app that does two requests at a time has at once in the end, under many more callers than it can serve. It goes on answering
/// all the time.
fn under_load(concurrency: Option<AdaptiveConcurrency>) -> usize {
    const CALLERS: usize = 48;
    const AT_ONCE: usize = 2;
    const WINDOWS_MAX: u32 = 30;
    let (has, served, work) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new((Mutex::new(Turns::default()), Condvar::new())));
    let peak = Arc::new(AtomicUsize::new(0));
    let app = Server::start({
        let (has, served, work, peak) = (Arc::clone(&has), Arc::clone(&served), Arc::clone(&work), Arc::clone(&peak));
        move |mut peer| {
            while peer.message().is_some() {
                peak.fetch_max(has.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mut turns = work.0.lock().unwrap();
                let turn = turns.given;
                turns.given += 1;
                drop(work.1.wait_while(turns, |turns| turn >= turns.over + AT_ONCE).unwrap());
                // The work itself: what queues behind it takes longer.
                thread::sleep(Duration::from_millis(10));
                work.0.lock().unwrap().over += 1;
                work.1.notify_all();
                has.fetch_sub(1, Ordering::SeqCst);
                served.fetch_add(1, Ordering::SeqCst);
                peer.send(&ok("done"));
            }
        }
    });
    let is_limited = concurrency.is_some();
    let (_mesh, address) = before(Setup::default(), app.address, Protocol::Http, concurrency);
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut client = Peer::dial(address);
                while !is_over.load(Ordering::SeqCst) {
                    if client.ask(GET).status() == 503 {
                        // Who is told that there is no room comes again a little later.
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            })
        })
        .collect();
    // The limit is found within some windows, between trials of a lower one.
    for _ in 0..WINDOWS_MAX {
        peak.store(0, Ordering::SeqCst);
        let before = served.load(Ordering::SeqCst);
        eventually("the app goes on answering", || served.load(Ordering::SeqCst) >= before + 200);
        if !is_limited || peak.load(Ordering::SeqCst) <= BEARABLE {
            break;
        }
    }
    is_over.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    peak.load(Ordering::SeqCst)
}

#[test]
fn an_overloaded_app_has_no_more_at_once_than_it_bears() {
    let settings = AdaptiveConcurrency { min_limit: 2, ..AdaptiveConcurrency::default() };
    let with = under_load(Some(settings));
    assert!(with <= BEARABLE, "{with} at once, in an app that does 2");
    let without = under_load(None);
    assert!(without >= 45, "{without} at once: without a limit all callers wait in it");
}
