//! Mirroring over HTTP/2 and gRPC.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use leno_core::mirror::Mirror;
use leno_core::percentage::Percentage;
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::weight::Weight;
use leno_proxy::mirror::BODY_MAX;
use tokio::sync::mpsc;

use crate::peers::{Server, Whole, ask, dial, eventually, get, grpc, patient, post, send_all, trailers, whole};
use crate::support::{Mesh, Setup};

fn mirrored_to(app: &Server, mirror: SocketAddr) -> (Mesh, SocketAddr) {
    let version = |version: &str| Target::Version(version.into());
    let rule = Rule {
        name: "all".into(),
        destinations: vec![Destination { target: version("v1"), weight: Weight::ONE }],
        mirrors: vec![Mirror { target: version("v2"), percentage: Percentage::ALL }],
        ..Rule::default()
    };
    let routes = RouteTable::new("shop/mirrors".into(), None, vec![rule]);
    Setup { endpoints: vec![(app.address, "v1"), (mirror, "v2")], routes, ..Setup::default() }.start()
}

/// Waits until that many copies have ended so, and none is on its way.
async fn ended(mesh: &Mesh, outcome: &str, count: u64) {
    let line = format!("leno_mirrored_total{{outcome=\"{outcome}\"}} {count}\n");
    eventually(&line, || mesh.metrics().contains(&line) && mesh.metrics().contains("leno_mirrors_in_flight 0\n")).await;
}

/// What a server was asked.
#[derive(Debug, PartialEq)]
struct Told {
    uri: String,
    headers: http::HeaderMap,
    body: Vec<u8>,
    trailers: Option<http::HeaderMap>,
}

/// A server that tells what it is asked and answers `text`.
async fn telling(text: &'static str) -> (Server, mpsc::UnboundedReceiver<Told>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = Server::start(move |(request, mut respond)| {
        let tell = tell.clone();
        async move {
            let (parts, body) = request.into_parts();
            let Ok(Whole { body, trailers: last, .. }) = whole(Response::new(body)).await else { return };
            drop(tell.send(Told { uri: parts.uri.to_string(), headers: parts.headers, body, trailers: last }));
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(text.as_bytes()), false).unwrap();
            send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
        }
    })
    .await;
    (server, told)
}

#[tokio::test]
async fn the_mirror_gets_the_request_as_the_app_does_and_its_answer_is_dropped() {
    let (app, mut told) = telling("app").await;
    let (mirror, mut copied) = telling("mirror").await;
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let client = dial(address).await;
    for (sent, (request, body)) in [(get("/a?b"), &b""[..]), (post("/c"), b"hello"), (grpc(), b"\0\0\0\0\x02ok")].into_iter().enumerate() {
        let answer = ask(&client, request, body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "app"));
        let (original, copy) = (patient(told.recv()).await.unwrap(), patient(copied.recv()).await.unwrap());
        assert_eq!(copy, original, "host, request id, body and end are the same");
        assert_eq!(copy.body, body);
        ended(&mesh, "answered", sent as u64 + 1).await;
    }
    assert_eq!(mirror.connections(), 1);
}

#[tokio::test]
async fn a_stream_is_copied_message_by_message_with_its_trailers() {
    let app = Server::echo().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mirror = Server::start(move |(request, mut respond)| {
        let tell = tell.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
                tell.send(piece).unwrap();
            }
            tell.send(format!("{:?}", body.trailers().await.unwrap()).into()).unwrap();
            respond.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let mut client = dial(address).await;
    let (response, mut send) = client.send_request(grpc(), false).unwrap();
    let mut echoed = patient(response).await.unwrap().into_body();
    for message in ["one", "two", "three"] {
        send_all(&mut send, message.into()).await.unwrap();
        assert_eq!(patient(echoed.data()).await.unwrap().unwrap(), message);
        assert_eq!(patient(told.recv()).await.unwrap(), message, "before the next one is sent");
    }
    send.send_trailers(trailers(&[("x-sum", "3")])).unwrap();
    assert!(patient(echoed.data()).await.is_none());
    let last = patient(told.recv()).await.unwrap();
    assert!(String::from_utf8_lossy(&last).contains("\"x-sum\": \"3\""), "{last:?}");
    ended(&mesh, "answered", 1).await;
}

#[tokio::test]
async fn a_stream_beyond_the_bound_goes_on_and_its_copy_is_reset() {
    let app = Server::echo().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mirror = Server::start(move |(request, _respond)| {
        let tell = tell.clone();
        async move { tell.send(whole(Response::new(request.into_body())).await.err().and_then(|error| error.reason())).unwrap() }
    })
    .await;
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let mut client = dial(address).await;
    let (response, mut send) = client.send_request(grpc(), false).unwrap();
    let mut echoed = patient(response).await.unwrap().into_body();
    let mut sent = 0;
    while sent <= BODY_MAX {
        send_all(&mut send, Bytes::from(vec![7; 8 * 1024])).await.unwrap();
        sent += 8 * 1024;
    }
    ended(&mesh, "too-long", 1).await;
    assert_eq!(patient(told.recv()).await.unwrap(), Some(h2::Reason::CANCEL));
    send_all(&mut send, Bytes::from(vec![7; 1000])).await.unwrap();
    send.send_data(Bytes::new(), true).unwrap();
    let mut read = 0;
    while let Some(piece) = patient(echoed.data()).await {
        let piece = piece.unwrap();
        echoed.flow_control().release_capacity(piece.len()).unwrap();
        read += piece.len();
    }
    assert_eq!(read, sent + 1000);
}

#[tokio::test]
async fn whatever_a_mirror_does_the_original_is_answered_and_nothing_is_left() {
    let reset = Server::start(|(_, mut respond)| async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) }).await;
    let early = Server::start(|(_, mut respond)| async move { drop(respond.send_response(Response::new(()), true)) }).await;
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closes = closing.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok(accepted) = closing.accept().await {
            drop(accepted)
        }
    });
    let cases = [(reset.address, "bad-response"), (early.address, "answered"), (refusing, "connect-failed"), (closes, "connect-failed")];
    for (mirror, outcome) in cases {
        let (app, mut told) = telling("app").await;
        let (mesh, address) = mirrored_to(&app, mirror);
        let client = dial(address).await;
        for request in [post("/"), grpc()] {
            let answer = ask(&client, request, b"hello").await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.text(), answer.grpc_status().0), (200, "app", "0"), "{outcome}");
            assert_eq!(patient(told.recv()).await.unwrap().body, b"hello");
        }
        ended(&mesh, outcome, 2).await;
    }
}

#[tokio::test]
async fn a_mirror_that_hangs_holds_back_nobody() {
    let (app, _told) = telling("app").await;
    let hangs = Arc::new(());
    let held = Arc::clone(&hangs);
    let mirror = Server::start(move |handled| {
        let held = Arc::clone(&held);
        async move {
            let _kept = (handled, held);
            pending::<()>().await;
        }
    })
    .await;
    let (mesh, address) = mirrored_to(&app, mirror.address);
    let client = dial(address).await;
    for number in 1..=20 {
        assert_eq!(ask(&client, post("/"), b"hello").await.unwrap().text(), "app");
        let on_their_way = format!("leno_mirrors_in_flight {number}\n");
        assert!(mesh.metrics().contains(&on_their_way), "{on_their_way}");
    }
}
