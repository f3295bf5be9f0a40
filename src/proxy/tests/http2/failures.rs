//! What happens when an endpoint refuses, goes away or breaks off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::peers::{Server, ask, dial, eventually, get, grpc, patient, post, setup};
use crate::support::{Setup, nowhere};

#[tokio::test]
async fn a_request_goes_elsewhere_when_an_endpoint_does_not_accept() {
    let app = Server::echo().await;
    let endpoints = vec![(nowhere(), "v1"), (nowhere(), "v1"), (app.address, "v1")];
    let (_mesh, address) = Setup { endpoints, ..Setup::default() }.start();
    let client = dial(address).await;
    for _ in 0..6 {
        assert_eq!(ask(&client, grpc(), b"question").await.unwrap().text(), "question");
    }
}

#[tokio::test]
async fn when_no_endpoint_accepts_all_who_wait_hear_it() {
    let (_mesh, address) = Setup { endpoints: vec![(nowhere(), "v1")], ..Setup::default() }.start();
    let client = dial(address).await;
    let asked: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { ask(&client, get("/"), b"").await.unwrap().status }
            })
        })
        .collect();
    for one in asked {
        assert_eq!(patient(one).await.unwrap(), 502);
    }
}

#[tokio::test]
async fn a_refused_stream_goes_to_another_endpoint_with_its_body() {
    let refusing = Server::start(|(_request, mut respond)| async move { respond.send_reset(Reason::REFUSED_STREAM) }).await;
    let app = Server::echo().await;
    let (_mesh, address) = setup(&[&refusing, &app]).start();
    let client = dial(address).await;
    for _ in 0..6 {
        assert_eq!(ask(&client, post("/"), b"question").await.unwrap().text(), "question");
    }
    assert!(refusing.requests() > 0);
}

#[tokio::test]
async fn a_stream_that_everybody_refuses_is_refused() {
    let refusing = Server::start(|(_request, mut respond)| async move { respond.send_reset(Reason::REFUSED_STREAM) }).await;
    let (_mesh, address) = setup(&[&refusing]).start();
    let error = ask(&dial(address).await, grpc(), b"question").await.unwrap_err();
    assert_eq!((error.reason(), error.is_remote()), (Some(Reason::REFUSED_STREAM), true), "the client may send it again");
    assert_eq!(refusing.requests(), 4, "it was sent, and three times more");
}

/// A server whose connections go away politely as soon as they have a request.
async fn server_that_goes_away() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut streams = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = streams.accept().await {
                    respond.send_response(Response::new(()), true).unwrap();
                    streams.graceful_shutdown();
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_connection_that_goes_away_is_replaced_and_no_request_fails() {
    let (server, connections) = server_that_goes_away().await;
    let (_mesh, address) = Setup { endpoints: vec![(server, "v1")], ..Setup::default() }.start();
    let client = dial(address).await;
    for _ in 0..50 {
        let asked: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn({
                    let client = client.clone();
                    async move { ask(&client, post("/"), b"question").await.unwrap().status }
                })
            })
            .collect();
        for one in asked {
            assert_eq!(patient(one).await.unwrap(), 200);
        }
    }
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections > 10, "{connections} connections, each of which took few requests");
}

/// A server that breaks its connection in the middle of the first response.
async fn breaking_server() -> Server {
    Server::start(|(_request, mut respond)| async move {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data(Bytes::from_static(b"first"), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await
}

#[tokio::test]
async fn a_response_that_is_cut_is_never_taken_for_a_whole_one() {
    let app = breaking_server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = listener.local_addr().unwrap();
    let cut = Arc::new(tokio::sync::Notify::new());
    let wait = Arc::clone(&cut);
    // A wire that can be cut.
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(app.address).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                () = wait.notified() => {}
            }
            client.shutdown().await.unwrap();
        }
    });
    let (_mesh, address) = Setup { endpoints: vec![(between, "v1")], ..Setup::default() }.start();
    let mut client = dial(address).await;
    for (request, is_grpc) in [(grpc(), true), (get("/"), false)] {
        let (response, _send) = client.send_request(request, true).unwrap();
        let mut body = patient(response).await.unwrap().into_body();
        assert_eq!(patient(body.data()).await.unwrap().unwrap(), "first");
        cut.notify_one();
        if is_grpc {
            assert!(patient(body.data()).await.is_none());
            assert_eq!(patient(body.trailers()).await.unwrap().unwrap()["grpc-status"], "14");
        } else {
            assert_eq!(patient(body.data()).await.unwrap().unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
        }
    }
}

#[tokio::test]
async fn connections_to_an_endpoint_that_is_gone_are_closed_after_their_last_stream() {
    let (gone, app) = (Server::echo().await, Server::echo().await);
    let (mesh, address) = setup(&[&gone]).start();
    let mut client = dial(address).await;
    let (response, mut send) = client.send_request(post("/"), false).unwrap();
    let mut body = patient(response).await.unwrap().into_body();
    mesh.set_endpoints(&[(app.address, "v1")]);
    while app.requests() == 0 {
        assert_eq!(ask(&client, post("/"), b"question").await.unwrap().text(), "question");
    }
    assert_eq!(gone.open(), 1, "a stream is open on it");
    send.send_data(Bytes::from_static(b"last"), true).unwrap();
    assert_eq!(patient(body.data()).await.unwrap().unwrap(), "last");
    assert!(patient(body.data()).await.is_none());
    eventually("the connection to the endpoint that is gone is closed", || gone.open() == 0).await;
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_never_forwarded() {
    let app = Server::echo().await;
    let (_mesh, address) = setup(&[&app]).start();
    let client = dial(address).await;
    let mut request = get("/");
    request.headers_mut().insert("host", "other".parse().unwrap());
    assert_eq!(ask(&client, request, b"").await.unwrap().status, 400);
    for (name, value) in [("connection", "close"), ("transfer-encoding", "chunked"), ("te", "gzip"), ("upgrade", "h2c")] {
        let mut request = get("/");
        request.headers_mut().insert(name, value.parse().unwrap());
        let error = ask(&client, request, b"").await.unwrap_err();
        assert_eq!(error.reason(), if error.is_remote() { Some(Reason::PROTOCOL_ERROR) } else { error.reason() }, "{name}");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn interim_responses_pass_but_not_without_end() {
    let app = Server::start(|(request, mut respond)| async move {
        let count = if request.uri().path() == "/few" { 20 } else { 5000 };
        for _ in 0..count {
            if respond.send_informational(Response::builder().status(103).body(()).unwrap()).is_err() {
                return;
            }
        }
        drop(respond.send_response(Response::new(()), true));
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let client = dial(address).await;
    assert_eq!(ask(&client, get("/few"), b"").await.unwrap().status, 200);
    assert_eq!(ask(&client, get("/many"), b"").await.unwrap().status, 502);
    assert_eq!(ask(&client, get("/few"), b"").await.unwrap().status, 200, "the connection is usable");
}
