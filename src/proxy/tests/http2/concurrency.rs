//! Adaptive concurrency: an app gets no more requests at once than it bears. HTTP/2 and gRPC.

use std::sync::Arc;

use http::Response;
use leno_core::service::Protocol;
use tokio::sync::Semaphore;

use crate::limited::{at_most, before};
use crate::peers::{Server, ask, dial, eventually, get, grpc, patient, trailers};
use crate::support::Setup;

/// An app that holds every request until it is given a permit to answer it.
async fn holding(permits: Arc<Semaphore>) -> Server {
    Server::start(move |(_request, mut respond)| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
            send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn calls_beyond_the_limit_are_answered_in_the_words_of_their_protocol_and_go_elsewhere() {
    let permits = Arc::new(Semaphore::new(0));
    let (full, free) = (holding(Arc::clone(&permits)).await, Server::echo().await);
    let (_mesh, full_at) = before(Setup::default(), full.address, Protocol::Grpc, Some(at_most(1)));
    let mut client = dial(full_at).await;
    let (waiting, _send) = client.send_request(grpc(), true).unwrap();
    eventually("the app is full", || full.requests() == 1).await;
    let call = ask(&client, grpc(), b"x").await.unwrap();
    assert_eq!((call.grpc_status(), &call.headers["x-leno-undelivered"]), (("14", true), &"overflow".parse().unwrap()));
    let request = ask(&client, get("/"), b"").await.unwrap();
    assert_eq!((request.status.as_u16(), &request.headers["x-leno-undelivered"]), (503, &"overflow".parse().unwrap()));

    let (caller, address) = Setup { endpoints: vec![(full_at, "v1"), (free.address, "v1")], ..Setup::default() }.start();
    let client = dial(address).await;
    for _ in 0..6 {
        assert_eq!(ask(&client, grpc(), b"question").await.unwrap().text(), "question");
    }
    caller.set_endpoints(&[(full_at, "v1")]);
    let mut call = ask(&client, grpc(), b"x").await.unwrap();
    while call.grpc_status().0 == "0" {
        call = ask(&client, grpc(), b"x").await.unwrap();
    }
    assert_eq!((call.grpc_status().0, call.headers.get("x-leno-undelivered")), ("14", None));
    eventually("the reason is known", || caller.metrics().contains("reason=\"overflow\"} ")).await;
    permits.add_permits(1);
    assert_eq!(patient(waiting).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_that_is_answered_takes_up_no_place() {
    let app = Server::start(|(_request, mut respond)| async move {
        let _open = respond.send_response(Response::new(()), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let (_mesh, address) = before(Setup::default(), app.address, Protocol::Grpc, Some(at_most(1)));
    let mut client = dial(address).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let (response, send) = client.send_request(grpc(), false).unwrap();
        open.push((patient(response).await.unwrap(), send));
    }
    assert!(open.iter().all(|(response, _)| response.headers().get("grpc-status").is_none()), "none was refused");
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_makes_room() {
    let permits = Arc::new(Semaphore::new(0));
    let app = holding(Arc::clone(&permits)).await;
    let (mesh, address) = before(Setup::default(), app.address, Protocol::Grpc, Some(at_most(1)));
    let mut client = dial(address).await;
    let (waiting, send) = client.send_request(grpc(), false).unwrap();
    eventually("the app is full", || app.requests() == 1).await;
    drop((waiting, send));
    eventually("the place is free", || {
        mesh.metrics().contains("leno_concurrency_in_flight{destination=\"shop/payment\",port=\"8080\"} 0\n")
    })
    .await;
    // The app itself may still have the one that was given up.
    permits.add_permits(2);
    assert_eq!(ask(&client, grpc(), b"x").await.unwrap().grpc_status().0, "0");
}
