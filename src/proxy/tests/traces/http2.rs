//! Traces of HTTP/2 requests and gRPC calls, told over gRPC.

use http::Response;
use leno_core::percentage::Percentage;
use leno_core::service::Protocol;
use leno_core::trace::collector::Protocol as Spoken;
use tokio::sync::mpsc;

use crate::collector::{CLIENT, Collector, SERVER, Span};
use crate::peers::{Server, ask, dial, get, grpc};
use crate::{SPAN, TRACE, pair, tracing};

/// Tells the fields of every request, and answers it with this `grpc-status`.
async fn telling(status: &'static str) -> (Server, mpsc::UnboundedReceiver<http::HeaderMap>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = Server::start(move |(request, mut respond)| {
        let tell = tell.clone();
        async move {
            tell.send(request.headers().clone()).unwrap();
            let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", status).body(()).unwrap();
            respond.send_response(response, true).unwrap();
        }
    })
    .await;
    (server, told)
}

/// What waits for spans blocks its thread.
async fn spans(collector: &Collector, count: usize) -> Vec<Span> {
    let collector = collector.clone();
    tokio::task::spawn_blocking(move || collector.spans(count)).await.unwrap()
}

fn both(spans: &[Span]) -> (&Span, &Span) {
    let of = |kind| spans.iter().find(|span| span.kind == kind).unwrap();
    (of(CLIENT), of(SERVER))
}

#[tokio::test]
async fn a_call_through_two_proxies_is_one_trace_with_the_names_of_grpc() {
    let (app, mut told) = telling("5").await;
    let collector = Collector::grpc().await;
    let tracing = tracing(collector.address, Spoken::Grpc, Percentage::NONE, "W3C,B3");
    let (_caller, _callee, address) = pair(app.address, Protocol::Grpc, &tracing);
    let client = dial(address).await;
    let mut call = grpc();
    call.headers_mut().insert("traceparent", format!("00-{TRACE}-{SPAN}-01").parse().unwrap());
    call.headers_mut().insert("tracestate", "a=1".parse().unwrap());
    ask(&client, call, b"").await.unwrap();
    let spans = spans(&collector, 2).await;
    let (caller, callee) = both(&spans);
    assert_eq!((&*caller.trace, &*callee.trace, &*caller.parent, &callee.parent), (TRACE, TRACE, SPAN, &caller.id));
    let sent = told.recv().await.unwrap();
    let field = |name: &str| sent.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(field("traceparent"), Some(&*format!("00-{TRACE}-{}-01", callee.id)));
    assert_eq!((field("tracestate"), field("x-b3-spanid"), field("x-b3-sampled")), (Some("a=1"), Some(&*callee.id), Some("1")));
    for span in &spans {
        let said = ["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code", "server.address"].map(|key| &*span.attributes[key]);
        assert_eq!((&*span.name, said), ("shop.Payment/Pay", ["grpc", "shop.Payment", "Pay", "5", "payment"]));
    }
    assert_eq!((caller.is_error, callee.is_error), (true, false), "NOT_FOUND is a failure for who asks, and none of the server's");
}

#[tokio::test]
async fn a_request_without_a_context_begins_a_trace_and_two_contexts_are_none() {
    let (app, mut told) = telling("0").await;
    let collector = Collector::grpc().await;
    let tracing = tracing(collector.address, Spoken::Grpc, Percentage::ALL, "W3C");
    let (_caller, _callee, address) = pair(app.address, Protocol::Http2, &tracing);
    let client = dial(address).await;
    let mut twice = get("/pay");
    for _ in 0..2 {
        twice.headers_mut().append("traceparent", format!("00-{TRACE}-{SPAN}-01").parse().unwrap());
    }
    for request in [get("/pay"), twice] {
        ask(&client, request, b"").await.unwrap();
        let sent = told.recv().await.unwrap();
        assert_eq!(sent.get_all("traceparent").into_iter().count(), 1);
        assert!(sent["traceparent"].to_str().unwrap().ends_with("-01"));
    }
    let spans = spans(&collector, 4).await;
    assert!(spans.iter().all(|span| span.trace != TRACE && span.name == "GET"), "{spans:?}");
    assert_eq!(spans.iter().filter(|span| span.parent.is_empty()).count(), 2);
}
