//! Endpoints that fail, over HTTP/2 and gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;
use http::{Response, StatusCode};
use leno_core::breaker::CircuitBreaker;
use leno_core::outlier::OutlierDetection;
use leno_core::resilience::Resilience;

use crate::peers::{Server, ask, dial, eventually, get, grpc, trailers};
use crate::support::Setup;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn breaker(failure_threshold: u32, open_for: Duration) -> Resilience {
    let breaker = CircuitBreaker { failure_threshold, open_for, ..CircuitBreaker::default() };
    Resilience { breaker: Some(breaker), ..Resilience::default() }
}

/// A server that answers with this gRPC status, in the trailers.
async fn answering(status: &'static str) -> Server {
    Server::start(move |(_, mut respond)| async move {
        let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
        send.send_trailers(trailers(&[("grpc-status", status)])).unwrap();
    })
    .await
}

#[tokio::test]
async fn a_grpc_status_in_the_trailers_opens_the_breaker() {
    let server = answering("14").await;
    let (mesh, address) = Setup::default().start();
    mesh.set_guarded(&[server.address], &breaker(2, LONG));
    let client = dial(address).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let whole = ask(&client, grpc(), b"x").await.unwrap();
        let (status, is_only_a_head) = whole.grpc_status();
        statuses.push((status.to_owned(), is_only_a_head));
    }
    let only_heads: Vec<bool> = statuses.iter().map(|(_, is_only_a_head)| *is_only_a_head).collect();
    assert_eq!(only_heads, [false, false, true, true]);
    assert!(statuses.iter().all(|(status, _)| status == "14"), "{statuses:?}");
    assert_eq!(server.requests(), 2);
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"circuit-open\"} 2")).await;
}

#[tokio::test]
async fn a_grpc_status_about_the_request_opens_nothing() {
    let server = answering("5").await;
    let (mesh, address) = Setup::default().start();
    mesh.set_guarded(&[server.address], &breaker(1, LONG));
    let client = dial(address).await;
    for _ in 0..5 {
        assert_eq!(ask(&client, grpc(), b"x").await.unwrap().grpc_status().0, "5");
    }
    assert_eq!(server.requests(), 5);
}

#[tokio::test]
async fn streams_that_are_reset_open_the_breaker_and_trials_close_it() {
    let requests = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |(_, mut respond)| {
        let number = requests.fetch_add(1, Ordering::SeqCst);
        async move {
            if number < 2 {
                return respond.send_reset(Reason::INTERNAL_ERROR);
            }
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let (mesh, address) = Setup::default().start();
    mesh.set_guarded(&[server.address], &breaker(2, Duration::from_millis(20)));
    let client = dial(address).await;
    for _ in 0..2 {
        assert!(ask(&client, get("/"), b"").await.is_err());
    }
    let metric = |to: &str| format!("leno_circuit_breaker_transitions_total{{destination=\"shop/payment\",to=\"{to}\"}} 1\n");
    eventually("it is open", || mesh.metrics().contains(&metric("open"))).await;
    while !mesh.metrics().contains(&metric("closed")) {
        let status = ask(&client, get("/"), b"").await.unwrap().status;
        assert!(status == StatusCode::OK || status == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_is_left_out() {
    let failing = Server::start(|(_, mut respond)| async move {
        let response = Response::builder().status(503).body(()).unwrap();
        respond.send_response(response, true).unwrap();
    })
    .await;
    let good = Server::echo().await;
    let outliers = OutlierDetection { consecutive_gateway_errors: 3, base_ejection_time: LONG, ..OutlierDetection::default() };
    let (mesh, address) = Setup::default().start();
    mesh.set_guarded(&[failing.address, good.address], &Resilience { outliers: Some(outliers), ..Resilience::default() });
    let client = dial(address).await;
    while failing.requests() < 3 {
        ask(&client, get("/"), b"").await.unwrap();
    }
    for _ in 0..10 {
        assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(failing.requests(), 3);
    let metric = "leno_endpoint_ejections_total{destination=\"shop/payment\",cause=\"consecutive-gateway-errors\"} 1\n";
    assert!(mesh.metrics().contains(metric), "{}", mesh.metrics());
}
