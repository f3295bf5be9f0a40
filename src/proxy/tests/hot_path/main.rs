//! What a request costs where it costs most: allocations of a worker's thread for each request on connections that are there.
//!
//! The bounds are what it takes today. Whoever needs more for every request should know, and say why here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "../http2/peers.rs"]
#[expect(dead_code, reason = "what only the HTTP/2 tests use")]
mod peers;
#[path = "../data_plane/support.rs"]
#[expect(dead_code, reason = "what only the HTTP/1 tests use")]
mod support;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use leno_proxy::listen::Accept;
use support::{Mesh, PORT, Peer, Server, Setup, payment};

/// Requests before those that are counted, until every buffer and table is as large as it will be.
const WARM_UP: u32 = 200;
const COUNTED: u32 = 1000;

/// A worker whose allocations are counted.
struct Counted {
    mesh: Mesh,
    address: SocketAddr,
    allocations: mpsc::Receiver<u64>,
}

impl Counted {
    fn outbound(endpoint: SocketAddr) -> Self {
        Self::start(endpoint, Accept::OutboundService { service: payment(), port: PORT })
    }

    fn inbound(app: SocketAddr) -> Self {
        Self::start(app, Accept::InboundApp { app, port: 8080 })
    }

    fn start(endpoint: SocketAddr, accept: Accept) -> Self {
        let (tell, allocations) = mpsc::channel();
        let setup = Setup { endpoints: vec![(endpoint, "v1")], ..Setup::default() };
        let (mesh, address) = setup.start_run(
            || accept,
            move |worker| {
                let counted = allocation_counter::measure(|| worker.run().unwrap());
                tell.send(counted.count_total).unwrap();
            },
        );
        Self { mesh, address, allocations }
    }

    /// Ends the worker, and tells what it has allocated.
    fn end(mut self) -> u64 {
        self.mesh.drain(Duration::from_secs(10));
        let allocations = self.allocations.recv_timeout(support::PATIENCE).unwrap();
        self.mesh.join();
        allocations
    }
}

/// Allocations for each request, of a worker that `load` sends so many requests to.
fn for_each(load: impl Fn(u32) -> u64) -> f64 {
    let (few, many) = (load(WARM_UP), load(WARM_UP + COUNTED));
    f64::from(u32::try_from(many.saturating_sub(few)).unwrap()) / f64::from(COUNTED)
}

fn http1(worker: &dyn Fn(SocketAddr) -> Counted) -> f64 {
    let app = Server::answering("fine");
    for_each(|requests| {
        let counted = worker(app.address);
        let mut client = Peer::dial(counted.address);
        for _ in 0..requests {
            let answer = client.ask("GET /a HTTP/1.1\r\nHost: payment\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n");
            assert_eq!((answer.status(), answer.body()), (200, "fine"));
        }
        drop(client);
        counted.end()
    })
}

fn grpc(worker: &dyn Fn(SocketAddr) -> Counted) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let app = runtime.block_on(peers::Server::echo());
    for_each(|requests| {
        let counted = worker(app.address);
        runtime.block_on(async {
            let client = peers::dial(counted.address).await;
            for _ in 0..requests {
                let answer = peers::ask(&client, peers::grpc(), b"question").await.unwrap();
                assert_eq!((answer.text(), answer.grpc_status()), ("question", ("0", false)));
            }
        });
        counted.end()
    })
}

/// One: the future that serves it, so that a connection at rest holds none.
#[test]
fn a_request_over_http1_takes_no_more_allocations_than_it_did() {
    let (outbound, inbound) = (http1(&Counted::outbound), http1(&Counted::inbound));
    assert!(outbound <= 1.1 && inbound <= 1.1, "allocations per request: outbound {outbound}, inbound {inbound}");
}

/// Its task, its head once more for another try, and what `h2` makes of frames.
#[test]
fn a_call_over_http2_takes_no_more_allocations_than_it_did() {
    let (outbound, inbound) = (grpc(&Counted::outbound), grpc(&Counted::inbound));
    assert!(outbound <= 12.1 && inbound <= 12.1, "allocations per call: outbound {outbound}, inbound {inbound}");
}
