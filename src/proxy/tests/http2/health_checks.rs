//! Endpoints that are asked whether they are well, over HTTP/2 and by gRPC's health service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use leno_core::health::{HealthCheck, HttpProbe, Probe};
use leno_core::resilience::Resilience;

use crate::peers::{Server, ask, dial, eventually, get, grpc, trailers};
use crate::support::{Mesh, Setup};

fn checked(probe: Probe) -> Resilience {
    let check = HealthCheck { interval: Duration::from_millis(10), timeout: Duration::from_secs(5), ..HealthCheck::new(probe) };
    Resilience { health_check: Some(check), ..Resilience::default() }
}

async fn unhealthy(mesh: &Mesh, count: usize) {
    let line = format!("leno_endpoints_unhealthy{{destination=\"shop/payment\",port=\"80\"}} {count}\n");
    eventually(&format!("{count} are unhealthy"), || mesh.metrics().contains(&line)).await;
}

/// A gRPC server with the standard health service, which says of `shop.Payment` what it is told to; and how many calls it has had
/// besides.
async fn with_health(says: Arc<AtomicU8>) -> (Server, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let server = Server::start(move |(request, mut respond)| {
        let (says, counted) = (says.load(Ordering::SeqCst), Arc::clone(&counted));
        async move {
            let head = Response::builder().header("content-type", "application/grpc");
            if request.uri().path() != "/grpc.health.v1.Health/Check" {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                return send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
            }
            let mut body = request.into_body();
            let asked = body.data().await.unwrap().unwrap();
            if &asked[..] != b"\0\0\0\0\x0e\x0a\x0cshop.Payment" {
                // NOT_FOUND
                respond.send_response(head.header("grpc-status", "5").body(()).unwrap(), true).unwrap();
                return;
            }
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            send.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, says]), false).unwrap();
            send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
        }
    })
    .await;
    (server, calls)
}

#[tokio::test]
async fn a_server_that_says_it_does_not_serve_gets_no_calls_until_it_does() {
    let (says, always) = (Arc::new(AtomicU8::new(2)), Arc::new(AtomicU8::new(1)));
    let ((bad, calls), (good, _)) = (with_health(Arc::clone(&says)).await, with_health(always).await);
    let (mesh, address) = Setup::default().start();
    mesh.set_guarded(&[bad.address, good.address], &checked(Probe::Grpc { service: "shop.Payment".into() }));
    let client = dial(address).await;
    ask(&client, grpc(), b"x").await.unwrap();
    unhealthy(&mesh, 1).await;
    let before = calls.load(Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(ask(&client, grpc(), b"x").await.unwrap().grpc_status().0, "0");
    }
    assert_eq!(calls.load(Ordering::SeqCst), before);
    says.store(1, Ordering::SeqCst);
    unhealthy(&mesh, 0).await;
    while calls.load(Ordering::SeqCst) == before {
        ask(&client, grpc(), b"x").await.unwrap();
    }
}

#[tokio::test]
async fn a_service_that_the_server_does_not_know_is_not_well() {
    let (server, _) = with_health(Arc::new(AtomicU8::new(1))).await;
    let (mesh, address) = Setup::default().start();
    mesh.set_guarded(&[server.address], &checked(Probe::Grpc { service: "shop.Other".into() }));
    ask(&dial(address).await, grpc(), b"x").await.unwrap();
    unhealthy(&mesh, 1).await;
}

#[tokio::test]
async fn a_request_of_http2_is_asked_with_where_that_is_spoken() {
    let server = |status: u16| async move {
        Server::start(move |(request, mut respond)| async move {
            let is_check = request.uri() == "http://payment.shop/healthz" && request.headers()["user-agent"] == "leno-health-check";
            let response = Response::builder().status(if is_check { status } else { 200 });
            drop(respond.send_response(response.body(()).unwrap(), true));
        })
        .await
    };
    let (bad, good) = (server(500).await, server(204).await);
    let (path, host) = ("/healthz".into(), "payment.shop".into());
    let probe = Probe::Http(HttpProbe { path, host, port: None, is_http2: true, expected: Vec::new() });
    let (mesh, address) = Setup::default().start();
    mesh.set_guarded(&[bad.address, good.address], &checked(probe));
    let client = dial(address).await;
    ask(&client, get("/"), b"").await.unwrap();
    unhealthy(&mesh, 1).await;
    for _ in 0..10 {
        assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, 200);
    }
}
