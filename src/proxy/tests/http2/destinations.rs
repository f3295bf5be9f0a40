//! Requests and calls that a route sends to other services, over HTTP/2.

use leno_core::balance::Algorithm;
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
use leno_core::names::ServiceId;
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::service::Protocol;
use leno_core::weight::Weight;

use crate::peers::{Server, ask, dial, eventually, get, grpc, setup};
use crate::support::{Mesh, Setup};

fn to(target: Target) -> RouteTable {
    let destinations = vec![Destination { target, weight: Weight::ONE }];
    RouteTable::new("shop/others".into(), None, vec![Rule { name: "others".into(), destinations, ..Rule::default() }])
}

fn ledger() -> ServiceId {
    ServiceId::new("books", "ledger")
}

fn begin(mesh: &Mesh, port: u16, server: &Server) {
    let endpoints = vec![Endpoint::at(server.address)];
    mesh.set_all(Endpoints { endpoints, ..Endpoints::new(EndpointsId::new(ledger(), port)) });
}

#[tokio::test]
async fn streams_of_one_connection_go_where_the_route_says_at_their_time() {
    let (own, other, admin) = (Server::echo().await, Server::echo().await, Server::echo().await);
    let routes = to(Target::Service { service: ledger(), port: None });
    let (mesh, address) = Setup { routes, ..setup(&[&own]) }.start();
    begin(&mesh, 80, &other);
    begin(&mesh, 81, &admin);
    let client = dial(address).await;
    for request in [get("/"), grpc()] {
        let answer = ask(&client, request, b"hello").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text(), answer.grpc_status()), (200, "hello", ("0", false)));
    }
    assert_eq!((own.requests(), other.requests(), admin.requests()), (0, 2, 0));
    eventually("the other service is the label", || mesh.metrics().contains("destination=\"books/ledger\"")).await;
    mesh.set_service(Protocol::Http2, Algorithm::LeastRequest, to(Target::Service { service: ledger(), port: Some(81) }));
    for _ in 0..1000 {
        assert_eq!(ask(&client, get("/"), b"hello").await.unwrap().text(), "hello");
        if admin.requests() > 0 {
            return;
        }
    }
    panic!("the new route never held");
}

#[tokio::test]
async fn what_is_missing_is_answered_in_the_words_of_its_protocol() {
    let own = Server::echo().await;
    let routes = to(Target::Missing("service bank/vault that namespace shop may name".into()));
    let (_mesh, address) = Setup { routes, ..setup(&[&own]) }.start();
    let client = dial(address).await;
    let refused = ask(&client, get("/"), b"").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.text()), (500, "the chosen destination does not exist\n"));
    let refused = ask(&client, grpc(), b"hello").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.grpc_status().1), (200, true), "a head alone: {:?}", refused.headers);
    assert_eq!(own.requests(), 0);
}
