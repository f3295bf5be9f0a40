//! Streams: flow control, resets, early and interim responses, changes of protocol.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::peers::{Server, ask, dial, get, grpc, patient, post, send_all, setup, whole};

const BIG: usize = 6 * 1024 * 1024;

fn byte_at(place: usize) -> u8 {
    u8::try_from(place % 251).unwrap()
}

/// Reads all of a stream, and checks that each byte is the one that belongs to its place.
async fn read_big(mut body: RecvStream) -> usize {
    let mut place = 0;
    while let Some(piece) = patient(body.data()).await {
        let piece = piece.unwrap();
        assert!(piece.iter().enumerate().all(|(index, byte)| *byte == byte_at(place + index)), "at {place}");
        place += piece.len();
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    place
}

#[tokio::test]
async fn big_bodies_pass_both_ways_at_once_unharmed() {
    let app = Server::echo().await;
    let (_mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    let mut running = Vec::new();
    for _ in 0..4 {
        let (response, mut send) = client.send_request(post("/"), false).unwrap();
        running.push(tokio::spawn(async move { read_big(response.await.unwrap().into_body()).await }));
        tokio::spawn(async move {
            for start in (0..BIG).step_by(64 * 1024) {
                let piece: Vec<u8> = (start..start + 64 * 1024).map(byte_at).collect();
                send_all(&mut send, piece.into()).await.unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        });
    }
    for one in running {
        assert_eq!(patient(one).await.unwrap(), BIG);
    }
}

/// As a client whose window several streams share, and who gives it back at once: what comes is counted by frames.
#[tokio::test]
async fn a_window_that_several_streams_wait_for_is_not_given_out_in_crumbs() {
    const WINDOW: usize = 65_535;
    let app = Server::start(|(_, mut respond)| async move {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        while send_all(&mut send, vec![0; 16 * 1024].into()).await.is_ok() {}
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    let mut bodies = Vec::new();
    for _ in 0..8 {
        let (response, _) = client.send_request(get("/"), true).unwrap();
        bodies.push(response.await.unwrap().into_body());
    }
    let (mut frames, mut crumbs) = (0, 0);
    for _ in 0..50 {
        // Everything that the window allows is here, and everybody waits for more.
        let (mut window, mut next) = (WINDOW, 0);
        let mut taken = vec![0; bodies.len()];
        while window > 0 {
            let piece = patient(poll_fn(|cx| {
                for _ in 0..bodies.len() {
                    next = (next + 1) % bodies.len();
                    if let Poll::Ready(piece) = bodies[next].poll_data(cx) {
                        return Poll::Ready(piece.unwrap().unwrap().len());
                    }
                }
                Poll::Pending
            }))
            .await;
            (window, taken[next], frames) = (window - piece, taken[next] + piece, frames + 1);
            crumbs += usize::from(piece < 1024);
        }
        for (body, count) in bodies.iter_mut().zip(taken) {
            body.flow_control().release_capacity(count).unwrap();
        }
    }
    assert!(crumbs * 3 <= frames, "{crumbs} of {frames} frames are crumbs");
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_client_and_the_rest_follows_when_it_does() {
    let read = Arc::new(Notify::new());
    let wait = Arc::clone(&read);
    let app = Server::start(move |(request, mut respond)| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            let length = read_big(request.into_body()).await;
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(length.to_string().into(), true).unwrap();
        }
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    let (response, mut send) = client.send_request(post("/"), false).unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        for start in (0..BIG).step_by(16 * 1024) {
            let piece: Vec<u8> = (start..start + 16 * 1024).map(byte_at).collect();
            send_all(&mut send, piece.into()).await.unwrap();
            count.fetch_add(16 * 1024, Ordering::SeqCst);
        }
        send.send_data(Bytes::new(), true).unwrap();
    });
    // Standing still is seen by looking twice, not by waiting for something.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::SeqCst) || before == 0 {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before < 3 * 1024 * 1024, "{before} bytes were taken though nobody reads");
    read.notify_one();
    assert_eq!(whole(patient(response).await.unwrap()).await.unwrap().text(), BIG.to_string());
}

#[tokio::test]
async fn a_client_that_cancels_is_heard_by_the_app_with_its_reason() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Server::start(move |(_request, mut respond)| {
        let tell = tell.clone();
        async move {
            tell.send(None).unwrap();
            tell.send(Some(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap())).unwrap();
        }
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    for (ends, reason) in [(true, Reason::CANCEL), (false, Reason::CANCEL), (true, Reason::ENHANCE_YOUR_CALM)] {
        let (_response, mut send) = client.send_request(grpc(), ends).unwrap();
        assert_eq!(patient(told.recv()).await, Some(None), "the app has the request");
        send.send_reset(reason);
        assert_eq!(patient(told.recv()).await, Some(Some(reason)));
    }
}

#[tokio::test]
async fn a_client_that_cancels_within_the_response_is_heard_by_the_app() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Server::start(move |(_request, mut respond)| {
        let tell = tell.clone();
        async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"first"), false).unwrap();
            tell.send(poll_fn(|cx| send.poll_reset(cx)).await.unwrap()).unwrap();
        }
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    let (response, mut send) = client.send_request(get("/"), true).unwrap();
    let mut body = patient(response).await.unwrap().into_body();
    assert_eq!(patient(body.data()).await.unwrap().unwrap(), "first");
    send.send_reset(Reason::CANCEL);
    assert_eq!(patient(told.recv()).await, Some(Reason::CANCEL));
}

/// What an app has sent by the time it hears that nobody wants it any more is no fault of its own, however often that happens.
#[tokio::test]
async fn responses_that_are_given_up_again_and_again_do_not_end_the_connection_they_came_on() {
    const AT_ONCE: usize = 60;
    let go_on = Arc::new(Notify::new());
    let app = Server::start({
        let go_on = Arc::clone(&go_on);
        move |(request, mut respond)| {
            let go_on = Arc::clone(&go_on);
            async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                if request.uri().path() == "/steady" {
                    go_on.notified().await;
                    return send.send_data(Bytes::from_static(b"whole"), true).unwrap();
                }
                while send_all(&mut send, Bytes::from_static(&[7; 1024])).await.is_ok() {}
            }
        }
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::Builder::new().data_frame_budget(usize::MAX).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let steady = {
        let mut client = client.clone().ready().await.unwrap();
        let (response, _) = client.send_request(get("/steady"), true).unwrap();
        patient(response).await.unwrap()
    };
    for _ in 0..90 {
        let mut bodies = Vec::new();
        for _ in 0..AT_ONCE {
            let mut client = client.clone().ready().await.unwrap();
            bodies.push(client.send_request(get("/endless"), true).unwrap().0);
        }
        for response in bodies {
            let mut body = patient(response).await.unwrap().into_body();
            patient(body.data()).await.unwrap().unwrap();
            // It is given up here, with what is on its way.
        }
    }
    go_on.notify_one();
    assert_eq!(patient(whole(steady)).await.unwrap().text(), "whole");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_reset_of_the_app_reaches_the_client_with_its_reason() {
    let app = Server::start(|(request, mut respond)| async move {
        if request.uri().path() == "/late" {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"first"), false).unwrap();
            send.send_reset(Reason::INADEQUATE_SECURITY);
        } else {
            respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let client = dial(address).await;
    for (path, reason) in [("/early", Reason::ENHANCE_YOUR_CALM), ("/late", Reason::INADEQUATE_SECURITY)] {
        let error = ask(&client, get(path), b"").await.unwrap_err();
        assert_eq!((error.reason(), error.is_remote()), (Some(reason), true), "{path}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_arrives_whole() {
    let app = Server::start(|(request, mut respond)| async move {
        let mut send = respond.send_response(Response::builder().status(413).body(()).unwrap(), false).unwrap();
        send.send_data(Bytes::from_static(b"too much"), true).unwrap();
        // The rest of the request is not wanted: the stream is reset with NO_ERROR (RFC 9113 section 8.1).
        drop((request, respond, send));
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    let (response, mut send) = client.send_request(post("/"), false).unwrap();
    send.send_data(Bytes::from_static(b"beginning"), false).unwrap();
    let response = whole(patient(response).await.unwrap()).await.unwrap();
    assert_eq!((response.status.as_u16(), response.text()), (413, "too much"));
    let reason = patient(poll_fn(|cx| send.poll_reset(cx))).await.unwrap();
    assert_eq!(reason, Reason::NO_ERROR, "the client is told to stop");
}

#[tokio::test]
async fn interim_responses_pass() {
    let app = Server::start(|(_request, mut respond)| async move {
        respond.send_informational(Response::builder().status(103).header("link", "</a>").body(()).unwrap()).unwrap();
        respond.send_response(Response::new(()), true).unwrap();
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let mut client = dial(address).await;
    let (mut response, _send) = client.send_request(get("/"), true).unwrap();
    let interim = patient(poll_fn(|cx| response.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!((interim.status().as_u16(), &interim.headers()["link"]), (103, &"</a>".parse().unwrap()));
    assert_eq!(patient(response).await.unwrap().status(), 200);
}

fn websocket() -> Request<()> {
    let mut request = get("/chat");
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

#[tokio::test]
async fn a_stream_becomes_a_websocket_where_the_app_can_and_is_refused_where_it_cannot() {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let app = Server::with(&builder, |(request, mut respond)| async move {
        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(piece)) = body.data().await {
            send.send_data(piece, false).unwrap();
        }
    })
    .await;
    let plain = Server::echo().await;
    let (mesh, address) = setup(&[&app]).start();
    let client = dial(address).await;
    // The proxy's settings say that it carries such streams; they arrive with the first response at the latest.
    assert!(ask(&client, get("/"), b"").await.is_err(), "the app panics without the protocol");
    let (response, mut send) = client.clone().send_request(websocket(), false).unwrap();
    let mut body = patient(response).await.unwrap().into_body();
    send.send_data(Bytes::from_static(b"ping"), false).unwrap();
    assert_eq!(patient(body.data()).await.unwrap().unwrap(), "ping");
    mesh.set_endpoints(&[(plain.address, "v1")]);
    loop {
        let (response, _send) = client.clone().send_request(websocket(), false).unwrap();
        if patient(response).await.unwrap().status() == 501 {
            break;
        }
    }
}
