//! The rules of the app's port, stream by stream: HTTP/2 hears a status, gRPC hears its own.

use leno_core::authorize::Action;
use leno_core::service::Protocol;
use serde_json::json;
use tokio::sync::mpsc;

use crate::guards::{TokenMaker, before, methods, only_readers, paths, policies};
use crate::peers::{Server, ask, dial, get, grpc, post};
use http::Response;

#[tokio::test]
async fn a_refused_stream_hears_it_in_the_words_of_its_protocol_and_others_go_on() {
    let app = Server::echo().await;
    let rules = policies(vec![("shop/a", Action::Deny, vec![paths(&["/shop.Payment/*", "/admin"])])]);
    let (mesh, address) = before(app.address, Protocol::Detect, rules);
    let client = dial(address).await;
    let refused = ask(&client, grpc(), b"question").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.grpc_status()), (200, ("7", true)), "trailers only");
    assert_eq!(refused.headers["grpc-message"], "access denied");
    let refused = ask(&client, get("/x/%2E%2e/admin"), b"").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text()), (403, "access denied\n"));
    assert_eq!(ask(&client, get("/x%2Fadmin"), b"").await.unwrap().status, 400);
    assert_eq!(ask(&client, post("/fine"), b"question").await.unwrap().text(), "question");
    assert_eq!(app.requests(), 1);
    let policy = "leno_authorization_total{decision=\"deny\",policy=\"shop/a\",source_identity=\"\"} 2";
    assert!(mesh.metrics().contains(policy), "{}", mesh.metrics());
}

#[tokio::test]
async fn the_path_that_was_judged_is_the_one_that_is_sent_on() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Server::start(move |(request, mut respond)| {
        tell.send(request.uri().to_string()).unwrap();
        async move { drop(respond.send_response(Response::new(()), true)) }
    })
    .await;
    let with_paths = policies(vec![("shop/a", Action::Deny, vec![paths(&["/admin"])])]);
    let without = policies(vec![("shop/a", Action::Deny, vec![methods(&["PUT"])])]);
    for (rules, want) in [(with_paths, "http://payment/a/b/~?c=%7e//"), (without, "http://payment/a//b/./%7e?c=%7e//")] {
        let (_mesh, address) = before(app.address, Protocol::Http2, rules);
        assert_eq!(ask(&dial(address).await, get("/a//b/./%7e?c=%7e//"), b"").await.unwrap().status, 200);
        assert_eq!(told.recv().await.as_deref(), Some(want));
    }
}

#[tokio::test]
async fn a_token_that_is_not_valid_is_unauthenticated() {
    let app = Server::echo().await;
    let maker = TokenMaker::new();
    let (_mesh, address) = before(app.address, Protocol::Grpc, only_readers(&maker, &[]));
    let client = dial(address).await;
    let bearing = |token: &str| {
        let mut request = grpc();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let reader = maker.token(&json!({"scope": "read"}));
    assert_eq!(ask(&client, bearing(&reader), b"question").await.unwrap().text(), "question");
    assert_eq!(ask(&client, bearing("x.y.z"), b"question").await.unwrap().grpc_status(), ("16", true));
    assert_eq!(ask(&client, grpc(), b"question").await.unwrap().grpc_status(), ("7", true));
    let mut request = get("/");
    request.headers_mut().insert("authorization", "Bearer x.y.z".parse().unwrap());
    let refused = ask(&client, request, b"").await.unwrap();
    assert_eq!((refused.status.as_u16(), &refused.headers["www-authenticate"]), (401, &"Bearer error=\"invalid_token\"".parse().unwrap()));
}
