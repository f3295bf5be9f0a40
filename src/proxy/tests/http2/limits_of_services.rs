//! Limits on what is under way to a service, over HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use leno_core::limits::Limits;
use leno_core::names::WorkloadId;
use leno_core::resilience::Resilience;
use leno_proxy::worker::Settings;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::peers::{Server, ask, dial, eventually, get, grpc};
use crate::support::{Mesh, Setup};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn limit(mesh: &Mesh, server: &Server, limits: Limits) {
    mesh.set_guarded(&[server.address], &Resilience { limits, ..Resilience::default() });
}

/// A server that answers once its gate is open, and takes so many streams at once.
async fn gated(streams_max: u32) -> (Server, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams_max);
    let server = Server::with(&builder, move |(_, mut respond)| {
        let at = Arc::clone(&at);
        async move {
            at.acquire().await.unwrap().forget();
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    (server, gate)
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_in_the_words_of_their_protocol() {
    let (server, gate) = gated(100).await;
    let (mesh, address) = Setup::default().start();
    limit(&mesh, &server, Limits { requests: Some(1), ..Limits::default() });
    let client = dial(address).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, get("/"), b"").await.unwrap().status }
    });
    eventually("the server is asked", || server.requests() == 1).await;
    assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    let refused = ask(&client, grpc(), b"").await.unwrap();
    assert_eq!((refused.status, refused.grpc_status()), (StatusCode::OK, ("14", true)));
    gate.add_permits(2);
    assert_eq!(first.await.unwrap(), StatusCode::OK);
    assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, StatusCode::OK);
    assert!(mesh.metrics().contains("leno_overflow_total{destination=\"shop/payment\",limit=\"requests\"} 2\n"));
}

#[tokio::test]
async fn beyond_the_limit_on_connections_requests_wait_and_no_more_than_may_wait() {
    let (server, gate) = gated(1).await;
    let (mesh, address) = Setup::default().start();
    limit(&mesh, &server, Limits { connections: Some(2), pending: Some(1), ..Limits::default() });
    let client = dial(address).await;
    let asks: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, get("/"), b"").await.unwrap().status.as_u16() })
        })
        .collect();
    eventually("two are at the server", || server.requests() == 2).await;
    eventually("one finds no room to wait", || {
        mesh.metrics().contains("leno_overflow_total{destination=\"shop/payment\",limit=\"pending\"} 1\n")
    })
    .await;
    gate.add_permits(3);
    let mut statuses = Vec::new();
    for ask in asks {
        statuses.push(ask.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!((statuses, server.connections()), (vec![200, 200, 200, 503], 2));
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_after_the_idle_timeout() {
    let server = Server::echo().await;
    let (mesh, address) = Setup::default().start();
    limit(&mesh, &server, Limits { idle_timeout: Some(Duration::from_millis(10)), ..Limits::default() });
    let client = dial(address).await;
    assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, StatusCode::OK);
    eventually("it is closed", || server.open() == 0).await;
    assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, StatusCode::OK);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn the_service_says_how_long_an_endpoint_may_take_to_be_ready() {
    // It takes connections, as its kernel does, and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = Settings::new(WorkloadId::new("shop", "web-1"));
    settings.connect_timeout = LONG;
    let (mesh, address) = Setup { settings, ..Setup::default() }.start();
    let limits = Limits { connect_timeout: Some(Duration::from_millis(30)), ..Limits::default() };
    mesh.set_guarded(&[silent.local_addr().unwrap()], &Resilience { limits, ..Resilience::default() });
    let client = dial(address).await;
    assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, StatusCode::BAD_GATEWAY);
}
