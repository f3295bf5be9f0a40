//! Retries over HTTP/2 and gRPC: what is sent again, on which answers, and with its body.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason as Code;
use http::{Method, Request, Response};
use leno_core::retry::{Backoff, Reason, Retry};
use leno_core::route::RouteTable;

use crate::peers::{Server, ask, dial, eventually, get, grpc, patient, post, send_all, setup, trailers, whole};
use crate::support::{Mesh, Setup};

/// Two retries that follow at once.
fn with(retry: Retry) -> RouteTable {
    let backoff = Backoff { base: Duration::ZERO, max: Duration::ZERO };
    let retry = Retry { backoff, ..retry };
    RouteTable::new("shop/payment".into(), Some(Duration::from_secs(10)), Vec::new()).with_retry(Some(Arc::new(retry)))
}

fn on(reasons: &[Reason]) -> Retry {
    Retry { on: reasons.iter().copied().collect(), ..Retry::default() }
}

/// How a request fails at first.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Status(u16),
    /// With a head that is the whole answer.
    TrailersOnly(&'static str),
    /// After a head that says nothing of it.
    InTrailers(&'static str),
    Reset,
}

/// Fails the first request as it is told; others are answered with their bodies.
async fn failing_once(fails: Fails) -> Server {
    let requests = Arc::new(AtomicUsize::new(0));
    Server::start(move |(request, mut respond)| {
        let is_first = requests.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let mut body = request.into_body();
            let mut received = Vec::new();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
                received.extend_from_slice(&piece);
            }
            let head = Response::builder().header("content-type", "application/grpc");
            match fails {
                Fails::Status(status) if is_first => {
                    drop(respond.send_response(Response::builder().status(status).body(()).unwrap(), true))
                }
                Fails::TrailersOnly(code) if is_first => {
                    drop(respond.send_response(head.header("grpc-status", code).body(()).unwrap(), true));
                }
                Fails::InTrailers(code) if is_first => {
                    let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    send.send_trailers(trailers(&[("grpc-status", code)])).unwrap();
                }
                Fails::Reset if is_first => respond.send_reset(Code::INTERNAL_ERROR),
                Fails::Status(_) | Fails::TrailersOnly(_) | Fails::InTrailers(_) | Fails::Reset => {
                    let Ok(mut send) = respond.send_response(head.body(()).unwrap(), false) else { return };
                    drop(send_all(&mut send, received.into()).await);
                    send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
                }
            }
        }
    })
    .await
}

async fn counted(mesh: &Mesh, reason: &str, outcome: &str) {
    let end = format!("reason=\"{reason}\",outcome=\"{outcome}\"}} 1");
    let is_there = || mesh.metrics().lines().any(|line| line.starts_with("leno_retries_total") && line.ends_with(&end));
    eventually(&format!("{end} is counted"), is_there).await;
}

#[tokio::test]
async fn a_failure_that_the_policy_names_is_tried_again_and_succeeds() {
    let cases = [
        (Fails::Status(503), Reason::ServerError, "gateway-error"),
        (Fails::Status(500), Reason::ServerError, "5xx"),
        (Fails::Status(429), Reason::Retriable4xx, "retriable-4xx"),
        (Fails::Reset, Reason::Reset, "reset"),
    ];
    for (fails, reason, name) in cases {
        let app = failing_once(fails).await;
        let (mesh, address) = Setup { routes: with(on(&[reason])), ..setup(&[&app]) }.start();
        let response = ask(&dial(address).await, get("/"), b"").await.unwrap();
        assert_eq!((response.status.as_u16(), app.requests()), (200, 2), "{fails:?}");
        assert_eq!(app.connections(), 1, "{fails:?}: the connection is as good as before");
        counted(&mesh, name, "succeeded").await;
    }
}

#[tokio::test]
async fn statuses_of_grpc_are_conditions_for_calls_with_their_messages() {
    let cases = [
        ("1", Reason::GrpcCancelled, "grpc-cancelled"),
        ("4", Reason::GrpcDeadlineExceeded, "grpc-deadline-exceeded"),
        ("8", Reason::GrpcResourceExhausted, "grpc-resource-exhausted"),
        ("13", Reason::GrpcInternal, "grpc-internal"),
        ("14", Reason::GrpcUnavailable, "grpc-unavailable"),
    ];
    for (code, reason, name) in cases {
        let app = failing_once(Fails::TrailersOnly(code)).await;
        let (mesh, address) = Setup { routes: with(on(&[reason])), ..setup(&[&app]) }.start();
        let response = ask(&dial(address).await, grpc(), b"question").await.unwrap();
        assert_eq!((response.grpc_status(), response.text(), app.requests()), (("0", false), "question", 2), "{name}");
        counted(&mesh, name, "succeeded").await;
    }
}

#[tokio::test]
async fn a_status_of_grpc_that_the_policy_does_not_name_is_the_answer_and_so_is_one_that_comes_after_a_head() {
    for (fails, is_only_a_head) in [(Fails::TrailersOnly("5"), true), (Fails::InTrailers("14"), false)] {
        let app = failing_once(fails).await;
        let (_mesh, address) = Setup { routes: with(on(&[Reason::GrpcUnavailable])), ..setup(&[&app]) }.start();
        let response = ask(&dial(address).await, grpc(), b"question").await.unwrap();
        let status = if is_only_a_head { "5" } else { "14" };
        assert_eq!((response.grpc_status(), app.requests()), ((status, is_only_a_head), 1), "{fails:?}");
    }
}

#[tokio::test]
async fn a_status_of_grpc_says_nothing_of_requests_that_are_not_grpc() {
    let app = failing_once(Fails::TrailersOnly("14")).await;
    let (_mesh, address) = Setup { routes: with(on(&[Reason::GrpcUnavailable])), ..setup(&[&app]) }.start();
    let response = ask(&dial(address).await, post("/"), b"question").await.unwrap();
    assert_eq!((response.grpc_status(), app.requests()), (("14", true), 1));
}

/// Puts `length` bytes.
async fn put(address: std::net::SocketAddr, length: usize) -> crate::peers::Whole {
    let request = Request::builder().method(Method::PUT).uri("http://payment/").body(()).unwrap();
    let mut client = dial(address).await.ready().await.unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    let upload = tokio::spawn(async move {
        if send_all(&mut send, Bytes::from(vec![b'x'; length])).await.is_ok() {
            drop(send.send_data(Bytes::new(), true));
        }
    });
    let response = patient(response).await.unwrap();
    let response = patient(whole(response)).await.unwrap();
    upload.abort();
    response
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_not_repeated_and_one_at_the_bound_is() {
    for (length, tries, outcome) in [(64 * 1024, 2, "succeeded"), (64 * 1024 + 1, 1, "body")] {
        let app = failing_once(Fails::Status(503)).await;
        let (mesh, address) = Setup { routes: with(on(&[Reason::ServerError])), ..setup(&[&app]) }.start();
        let response = put(address, length).await;
        assert_eq!(app.requests(), tries, "{length} bytes");
        let expected = if tries == 2 { (200, length) } else { (503, 0) };
        assert_eq!((response.status.as_u16(), response.body.len()), expected);
        counted(&mesh, "gateway-error", outcome).await;
    }
}

#[tokio::test]
async fn a_post_is_not_repeated_unless_the_policy_names_its_method() {
    for (methods, tries) in [(Vec::new(), 1), (vec!["POST".into()], 2)] {
        let app = failing_once(Fails::Status(503)).await;
        let retry = Retry { methods, ..on(&[Reason::ServerError]) };
        let (_mesh, address) = Setup { routes: with(retry), ..setup(&[&app]) }.start();
        let response = ask(&dial(address).await, post("/"), b"question").await.unwrap();
        assert_eq!((response.status.as_u16(), app.requests()), (if tries == 2 { 200 } else { 503 }, tries));
    }
}
