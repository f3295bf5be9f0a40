//! What gRPC needs: unary calls, streams in both directions, trailers, and errors in its own words.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use leno_core::route::RouteTable;
use leno_proxy::listen::Accept;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

use crate::peers::{Server, ask, dial, eventually, get, grpc, inbound, patient, post, send_all, setup, trailers, whole};
use crate::support::{Setup, nowhere};

#[tokio::test]
async fn a_unary_call_passes_both_sides_with_its_trailers_and_fields() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Server::start(move |(request, mut respond)| {
        let tell = tell.clone();
        async move {
            let (parts, mut body) = request.into_parts();
            let piece = body.data().await.unwrap().unwrap();
            tell.send((parts, piece)).unwrap();
            let mut send =
                respond.send_response(Response::builder().header("content-type", "application/grpc").body(()).unwrap(), false).unwrap();
            send.send_data(Bytes::from_static(b"answer"), false).unwrap();
            send.send_trailers(trailers(&[("grpc-status", "0"), ("grpc-message", "fine")])).unwrap();
        }
    })
    .await;
    let (at_app, address) = inbound(app.address);
    let (at_client, address) = Setup { endpoints: vec![(address, "v1")], ..Setup::default() }.start();
    let mut request = grpc();
    request.headers_mut().extend(trailers(&[("x-leno-undelivered", "forged"), ("x-user", "premium")]));
    let response = ask(&dial(address).await, request, b"question").await.unwrap();
    assert_eq!((response.status.as_u16(), response.text()), (200, "answer"));
    assert_eq!(response.trailers.as_ref().unwrap()["grpc-message"], "fine");
    assert_eq!(response.grpc_status(), ("0", false));
    let (parts, piece) = told.recv().await.unwrap();
    assert_eq!(piece, "question");
    assert_eq!(parts.uri, "http://payment/shop.Payment/Pay");
    let field = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!((field("te"), field("x-user"), field("x-leno-undelivered"), field("host")), (Some("trailers"), Some("premium"), None, None));
    assert_eq!((field("x-forwarded-for"), field("x-forwarded-proto")), (Some("127.0.0.1"), Some("http")));
    assert_eq!(field("x-request-id").unwrap().len(), 36);
    for mesh in [&at_client, &at_app] {
        eventually("the call is counted as gRPC", || mesh.metrics().lines().any(|line| line.contains("grpc") && line.ends_with(" 1")))
            .await;
    }
}

#[tokio::test]
async fn a_response_that_is_only_a_head_stays_one() {
    let app = Server::start(|(_request, mut respond)| async move {
        let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "7").body(()).unwrap();
        respond.send_response(response, true).unwrap();
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let response = ask(&dial(address).await, grpc(), b"question").await.unwrap();
    assert_eq!((response.grpc_status(), response.body.len(), &response.trailers), (("7", true), 0, &None));
}

#[tokio::test]
async fn messages_pass_both_ways_one_by_one_while_the_stream_is_open() {
    let app = Server::echo().await;
    let (_at_app, address) = inbound(app.address);
    let (_at_client, address) = Setup { endpoints: vec![(address, "v1")], ..Setup::default() }.start();
    let mut client = dial(address).await.ready().await.unwrap();
    let (response, mut send) = client.send_request(grpc(), false).unwrap();
    let mut body = patient(response).await.unwrap().into_body();
    for turn in 0..50_u8 {
        send.send_data(Bytes::from(vec![turn; 100]), false).unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < 100 {
            let piece = patient(body.data()).await.unwrap().unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            echoed.extend_from_slice(&piece);
        }
        assert_eq!(echoed, [turn; 100]);
    }
    send.send_trailers(HeaderMap::new()).unwrap();
    assert!(patient(body.data()).await.is_none());
    assert_eq!(patient(body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_server_streams_as_long_as_it_likes() {
    let app = Server::start(|(_request, mut respond)| async move {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        for turn in 0..1000_u32 {
            send_all(&mut send, turn.to_be_bytes().repeat(75).into()).await.unwrap();
        }
        send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
    })
    .await;
    let (_mesh, address) = setup(&[&app]).start();
    let response = ask(&dial(address).await, grpc(), b"all of them").await.unwrap();
    let expected: Vec<u8> = (0..1000_u32).flat_map(|turn| turn.to_be_bytes().repeat(75)).collect();
    assert_eq!((response.body == expected, response.grpc_status()), (true, ("0", false)));
}

#[tokio::test]
async fn each_request_of_one_connection_goes_to_its_own_endpoint() {
    let (one, two) = (Server::echo().await, Server::echo().await);
    let (_mesh, address) = setup(&[&one, &two]).start();
    let client = dial(address).await;
    for _ in 0..10 {
        assert_eq!(ask(&client, grpc(), b"question").await.unwrap().text(), "question");
    }
    assert_eq!((one.requests(), two.requests()), (5, 5));
    assert_eq!((one.connections(), two.connections()), (1, 1), "one connection carries many requests");
}

#[tokio::test]
async fn without_an_endpoint_grpc_hears_unavailable_and_others_503() {
    let (mesh, address) = Setup::default().start();
    let client = dial(address).await;
    let response = ask(&client, grpc(), b"question").await.unwrap();
    assert_eq!((response.status.as_u16(), response.grpc_status()), (200, ("14", true)));
    assert_eq!(response.headers["grpc-message"], "the service has no endpoint that is ready");
    let response = ask(&client, post("/"), b"question").await.unwrap();
    assert_eq!((response.status.as_u16(), response.text()), (503, "the service has no endpoint that is ready\n"));
    eventually("the reason is counted", || mesh.metrics().contains("no-endpoint")).await;
}

#[tokio::test]
async fn a_timeout_is_heard_in_the_words_of_the_protocol_and_cancels_the_request() {
    let (tell, told) = mpsc::unbounded_channel();
    let app = Server::start(move |(_request, mut respond)| {
        let tell = tell.clone();
        async move {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
            tell.send(reason).unwrap();
        }
    })
    .await;
    let told = Arc::new(Mutex::new(told));
    let routes = RouteTable::new("shop/payment".into(), Some(Duration::from_millis(50)), Vec::new());
    let (_mesh, address) = Setup { routes, ..setup(&[&app]) }.start();
    let client = dial(address).await;
    assert_eq!(ask(&client, grpc(), b"question").await.unwrap().grpc_status(), ("4", true));
    assert_eq!(patient(told.lock().await.recv()).await, Some(h2::Reason::CANCEL));
    assert_eq!(ask(&client, get("/"), b"").await.unwrap().status, 504);
}

#[tokio::test]
async fn an_app_that_is_down_is_said_to_be_so_and_the_outbound_side_goes_elsewhere() {
    let (_at_app, down) = inbound(nowhere());
    let response = ask(&dial(down).await, grpc(), b"question").await.unwrap();
    assert_eq!((response.grpc_status(), &response.headers["x-leno-undelivered"]), (("14", true), &"connect".parse().unwrap()));
    let response = ask(&dial(down).await, get("/"), b"").await.unwrap();
    assert_eq!((response.status.as_u16(), &response.headers["x-leno-undelivered"]), (502, &"connect".parse().unwrap()));

    let app = Server::echo().await;
    let (mesh, address) = Setup { endpoints: vec![(down, "v1"), (app.address, "v1")], ..Setup::default() }.start();
    let client = dial(address).await;
    for _ in 0..6 {
        let response = ask(&client, grpc(), b"question").await.unwrap();
        assert_eq!((response.text(), response.headers.get("x-leno-undelivered")), ("question", None));
    }
    mesh.set_endpoints(&[(down, "v1")]);
    let mut response = ask(&client, grpc(), b"question").await.unwrap();
    while response.grpc_status().0 != "14" {
        response = ask(&client, grpc(), b"question").await.unwrap();
    }
    assert_eq!(response.headers.get("x-leno-undelivered"), None, "this is said between proxies only");
}

#[tokio::test]
async fn the_authority_names_the_service_where_nothing_else_does() {
    let app = Server::echo().await;
    let (_mesh, address) = setup(&[&app]).start_with(|| Accept::OutboundExplicit);
    let mut client = dial(address).await;
    assert_eq!(ask(&client, grpc(), b"question").await.unwrap().text(), "question");
    let stranger = http::Request::builder().uri("http://stranger/").body(()).unwrap();
    let (response, _) = client.send_request(stranger, true).unwrap();
    assert_eq!(whole(response.await.unwrap()).await.unwrap().status, 404);
}
