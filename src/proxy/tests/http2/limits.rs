//! Limits: streams, connections, heads.

use std::sync::Arc;

use http::Response;
use tokio::sync::Barrier;

use crate::peers::{Server, ask, dial, get, grpc, patient, setup};

#[tokio::test]
async fn two_hundred_streams_run_at_once_over_few_connections() {
    const STREAMS: usize = 200;
    let all = Arc::new(Barrier::new(STREAMS));
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(60);
    let app = Server::with(&builder, move |(_request, mut respond)| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let client = dial(address).await;
    let asked: Vec<_> = (0..STREAMS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, grpc(), b"question").await.unwrap().status })
        })
        .collect();
    for one in asked {
        assert_eq!(patient(one).await.unwrap(), 200);
    }
    assert_eq!(app.connections(), 4, "200 streams, 60 on each connection");
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused_with_431_and_one_below_passes() {
    let app = Server::with(h2::server::Builder::new().max_header_list_size(1024 * 1024), |(_request, mut respond)| async move {
        respond.send_response(Response::new(()), true).unwrap();
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let client = dial(address).await;
    // The client's first request may leave before it knows the limit of 64 KiB.
    for (bytes, status) in [(60 * 1024, 200), (70 * 1024, 431)] {
        let mut request = get("/");
        for part in 0..bytes / 4096 {
            let name = http::HeaderName::from_bytes(format!("x-part-{part}").as_bytes()).unwrap();
            request.headers_mut().insert(name, "v".repeat(4040).parse().unwrap());
        }
        assert_eq!(ask(&client, request, b"").await.unwrap().status, status, "{bytes} bytes");
    }
    assert_eq!(app.requests(), 1);
}
