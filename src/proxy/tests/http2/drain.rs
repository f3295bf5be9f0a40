//! Draining: GOAWAY, and what runs is finished.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::peers::{Server, ask, dial, patient, post, setup};

#[tokio::test]
async fn draining_refuses_new_streams_and_finishes_what_runs() {
    let app = Server::echo().await;
    let (mut mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    let (response, mut send) = client.send_request(post("/"), false).unwrap();
    let mut body = patient(response).await.unwrap().into_body();
    mesh.drain(Duration::from_secs(20));
    let refused = async {
        // Before the GOAWAY is there, requests are still served.
        while ask(&client, post("/"), b"question").await.is_ok() {}
    };
    patient(refused).await;
    for _ in 0..3 {
        send.send_data(Bytes::from_static(b"still"), false).unwrap();
        assert_eq!(patient(body.data()).await.unwrap().unwrap(), "still");
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert!(patient(body.data()).await.is_none());
    assert_eq!(patient(body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
    tokio::task::spawn_blocking(move || mesh.join()).await.unwrap();
}

#[tokio::test]
async fn a_connection_at_rest_ends_at_once_and_a_stream_without_end_at_the_bound() {
    let app = Server::echo().await;
    let (mut mesh, address) = setup(&[&app]).start();
    let _resting = dial(address).await;
    let mut client = dial(address).await;
    let (response, _send) = client.send_request(post("/"), false).unwrap();
    let mut body = patient(response).await.unwrap().into_body();
    let bound = Duration::from_millis(300);
    let started = Instant::now();
    mesh.drain(bound);
    tokio::task::spawn_blocking(move || mesh.join()).await.unwrap();
    assert!(started.elapsed() >= bound, "a stream was given its time");
    assert!(patient(body.data()).await.unwrap().is_err());
}
