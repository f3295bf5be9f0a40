//! Rate limits over HTTP/2 and gRPC.

use std::time::Duration;

use leno_core::rate_limit::{RateKey, RateLimit};
use leno_core::route::{RouteTable, Rule};

use crate::peers::{Server, ask, dial, eventually, get, grpc, post, setup};
use crate::support::Setup;

#[tokio::test]
async fn what_is_beyond_the_limit_is_refused_in_the_words_of_its_protocol() {
    let app = Server::echo().await;
    let limit = RateLimit { requests: 1, per: Duration::from_secs(3600), burst: 2, key: RateKey::Source };
    let rule = Rule { name: "limited".into(), rate_limit: Some(limit), ..Rule::default() };
    let routes = RouteTable::new("shop/limits".into(), None, vec![rule]);
    let (mesh, address) = Setup { routes, ..setup(&[&app]) }.start();
    let client = dial(address).await;
    for request in [post("/"), grpc()] {
        assert_eq!(ask(&client, request, b"hello").await.unwrap().text(), "hello");
    }
    for request in [get("/"), post("/")] {
        let refused = ask(&client, request, b"").await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.text()), (429, "too many requests\n"));
        assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    }
    let refused = ask(&client, grpc(), b"hello").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.grpc_status()), (200, ("8", true)), "RESOURCE_EXHAUSTED, in a head alone");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(app.requests(), 2);
    eventually("it is counted", || mesh.metrics().contains("reason=\"rate-limited\"} 3")).await;
}
