//! What a route does to HTTP/1 requests and responses: changes of fields, rewriting, redirecting.

use std::sync::Arc;

use leno_core::filters::{FieldChanges, Filters, PathChange, Redirect, Rewrite, Scheme};
use leno_core::matching::{Match, PathMatch};
use leno_core::names::Name;
use leno_core::route::{RouteTable, Rule};
use leno_proxy::listen::Accept;

use crate::support::{Peer, Server, Setup, eventually};

fn fields(lines: &[(&str, &str)]) -> Vec<(Name, Name)> {
    lines.iter().map(|(name, value)| (Name::from(*name), Name::from(*value))).collect()
}

/// A table whose one rule holds below `/api`, and does this besides.
fn filtering(filters: Filters) -> RouteTable {
    let matches = vec![Match { path: Some(PathMatch::Prefix("/api".into())), ..Match::default() }];
    RouteTable::new(
        "shop/filters".into(),
        None,
        vec![Rule { name: "filters".into(), matches, filters: Some(Arc::new(filters)), ..Rule::default() }],
    )
}

fn start(server: &Server, filters: Filters) -> (crate::support::Mesh, Peer) {
    let (mesh, address) = Setup { routes: filtering(filters), ..Setup::to(&[server]) }.start();
    (mesh, Peer::dial(address))
}

#[test]
fn fields_of_requests_are_set_added_and_removed_and_all_others_stay_as_they_are() {
    let (server, told) = Server::telling();
    let changes = FieldChanges {
        set: fields(&[("x-team", "shop"), ("x-forwarded-proto", "https")]),
        add: fields(&[("x-list", "c")]),
        remove: vec!["x-internal".into()],
    };
    let (_mesh, mut client) = start(&server, Filters { request: changes, ..Filters::default() });
    client.ask("GET /api HTTP/1.1\r\nHost: payment\r\nX-Team: a\r\nX-KEPT: 1\r\nx-team: b\r\nX-List: a, b\r\nX-Internal: 1\r\nx-request-id: 1\r\n\r\n");
    let sent = told.recv().unwrap();
    let want = "GET /api HTTP/1.1\r\nHost: payment\r\nX-KEPT: 1\r\nX-List: a, b\r\nx-request-id: 1\r\nx-forwarded-for: 127.0.0.1\r\n\
                x-team: shop\r\nx-forwarded-proto: https\r\nx-list: c\r\n\r\n";
    assert_eq!(sent.lines().collect::<std::collections::BTreeSet<_>>(), want.lines().collect(), "{sent}");
    client.ask("GET /other HTTP/1.1\r\nHost: payment\r\nX-Internal: 1\r\n\r\n");
    let sent = told.recv().unwrap();
    assert!(sent.contains("X-Internal: 1\r\n") && !sent.contains("x-team"), "another route's request is not changed: {sent}");
}

#[test]
fn fields_of_responses_are_changed_and_interim_responses_and_bodies_are_not() {
    let server = Server::start(|mut peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 103 Early Hints\r\nServer: early\r\n\r\nHTTP/1.1 200 OK\r\nServer: app\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        }
    });
    let changes = FieldChanges { set: fields(&[("x-a", "2")]), add: fields(&[("x-a-more", "3")]), remove: vec!["server".into()] };
    let (_mesh, mut client) = start(&server, Filters { response: changes, ..Filters::default() });
    for _ in 0..2 {
        client.send("GET /api HTTP/1.1\r\nHost: payment\r\n\r\n");
        assert_eq!(client.head().unwrap(), "HTTP/1.1 103 Early Hints\r\nServer: early\r\n\r\n");
        let response = client.response();
        assert_eq!(response.head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-a: 2\r\nx-a-more: 3\r\n\r\n");
        assert_eq!(response.body(), "3\r\nabc\r\n0\r\n\r\n");
    }
    assert_eq!(server.connections(), 1, "the connection is kept");
}

#[test]
fn path_and_host_are_rewritten_and_the_query_stays() {
    let (server, told) = Server::telling();
    let rewrite = Rewrite { path: Some(PathChange::Prefix("/v2".into())), host: Some("ledger.example.com".into()) };
    let filters = || Filters { rewrite: Some(rewrite.clone()), ..Filters::default() };
    let (_mesh, mut client) = start(&server, filters());
    let cases = [("/api/pay?a=b/c", "/v2/pay?a=b/c"), ("/api", "/v2"), ("/api/?x", "/v2/?x"), ("http://payment/api/pay?q", "/v2/pay?q")];
    for (asked, want) in cases {
        assert_eq!(client.ask(&format!("POST {asked} HTTP/1.1\r\nHost: payment\r\nContent-Length: 2\r\n\r\nhi")).status(), 200);
        let sent = told.recv().unwrap();
        assert!(sent.starts_with(&format!("POST {want} HTTP/1.1\r\n")), "{asked}: {sent}");
        assert_eq!((sent.matches("host: ledger.example.com\r\n").count(), sent.matches("payment").count()), (1, 0), "{sent}");
        assert!(sent.ends_with("\r\n\r\nhi"), "{sent}");
    }
    let (_mesh, address) = Setup { routes: filtering(filters()), ..Setup::to(&[&server]) }.start_with(|| Accept::OutboundExplicit);
    Peer::dial(address).ask("GET http://payment:80/api/a HTTP/1.1\r\nHost: payment:80\r\n\r\n");
    let sent = told.recv().unwrap();
    assert!(sent.starts_with("GET /v2/a HTTP/1.1\r\n") && sent.contains("host: ledger.example.com\r\n"), "{sent}");
}

#[test]
fn a_whole_path_is_rewritten_while_an_absolute_target_keeps_its_authority() {
    let (server, told) = Server::telling();
    let rewrite = Rewrite { path: Some(PathChange::Full("/all".into())), host: None };
    let (_mesh, mut client) = start(&server, Filters { rewrite: Some(rewrite), ..Filters::default() });
    for (asked, want) in [("/api/pay?a", "/all?a"), ("http://payment/api/pay?a", "http://payment/all?a")] {
        client.ask(&format!("GET {asked} HTTP/1.1\r\nHost: payment\r\n\r\n"));
        let sent = told.recv().unwrap();
        assert!(sent.starts_with(&format!("GET {want} HTTP/1.1\r\nHost: payment\r\n")), "{sent}");
    }
}

#[test]
fn a_redirect_is_answered_without_asking_anybody() {
    let server = Server::answering("never");
    let redirect = Redirect {
        scheme: Some(Scheme::Https),
        host: Some("pay.example.com".into()),
        port: Some(8443),
        path: Some(PathChange::Prefix("/v2".into())),
        status: 308,
    };
    let (mesh, mut client) = start(&server, Filters { redirect: Some(redirect), ..Filters::default() });
    for request in
        ["GET /api/pay?a=b HTTP/1.1\r\nHost: payment\r\n\r\n", "POST /api/pay?a=b HTTP/1.1\r\nHost: payment\r\nContent-Length: 2\r\n\r\nhi"]
    {
        let response = client.ask(request);
        assert_eq!(response.status(), 308);
        assert!(response.head.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{}", response.head);
        assert_eq!(response.field("location"), Some("https://pay.example.com:8443/v2/pay?a=b"));
        assert_eq!(response.body(), "the service is elsewhere\n");
    }
    client.send("HEAD /api HTTP/1.1\r\nHost: payment\r\nConnection: close\r\n\r\n");
    let head = client.head().unwrap();
    assert!(head.contains("location: https://pay.example.com:8443/v2\r\n"), "{head}");
    assert!(client.is_closed(), "an answer to HEAD has no body");
    assert_eq!(server.connections(), 0);
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"redirect\"} 3"));
}

/// Whatever the client sends, the fields that frame a message are not the route's to change: it has no such changes, and the
/// proxy looks at them first.
#[test]
fn a_body_is_framed_as_before_whatever_fields_change() {
    let (server, told) = Server::telling();
    let changes = FieldChanges { set: fields(&[("x-a", "1")]), add: Vec::new(), remove: vec!["content-length".into(), "host".into()] };
    let (_mesh, mut client) = start(&server, Filters { request: changes, ..Filters::default() });
    client.ask("POST /api HTTP/1.1\r\nHost: payment\r\nContent-Length: 4\r\n\r\nbody");
    let sent = told.recv().unwrap();
    assert!(sent.contains("Host: payment\r\nContent-Length: 4\r\n") && sent.ends_with("\r\n\r\nbody"), "{sent}");
}
