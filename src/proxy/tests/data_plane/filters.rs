//! What a route does to HTTP/1 requests and responses: changes of fields, rewriting, redirecting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_core::cors::Cors;
use leno_core::fault::{Abort, AbortStatus, Delay, Fault};
use leno_core::filters::{FieldChanges, Filters, PathChange, Redirect, Rewrite, Scheme};
use leno_core::matching::{Match, PathMatch};
use leno_core::names::Name;
use leno_core::percentage::Percentage;
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

fn fault(delay: Option<(Duration, f64)>, abort: Option<(AbortStatus, f64)>) -> Filters {
    let share = |percent| Percentage::from_percent(percent).unwrap();
    let delay = delay.map(|(duration, percent)| Delay { duration, percentage: share(percent) });
    let abort = abort.map(|(status, percent)| Abort { status, percentage: share(percent) });
    Filters { fault: Some(Fault { delay, abort }), ..Filters::default() }
}

#[test]
fn an_abort_is_answered_by_the_proxy_with_its_status_and_reason() {
    let server = Server::answering("never");
    for (status, want) in [(AbortStatus::Http(503), 503), (AbortStatus::Http(418), 418), (AbortStatus::Grpc(7), 403)] {
        let (mesh, mut client) = start(&server, fault(None, Some((status, 100.0))));
        for request in ["GET /api HTTP/1.1\r\nHost: payment\r\n\r\n", "POST /api HTTP/1.1\r\nHost: payment\r\nContent-Length: 2\r\n\r\nhi"]
        {
            let response = client.ask(request);
            assert_eq!((response.status(), response.body()), (want, "a fault was injected by the route\n"));
        }
        eventually("the reason is counted", || mesh.metrics().contains("reason=\"fault-injected\"} 2"));
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn an_abort_befalls_its_share_of_requests() {
    let server = Server::answering("passed");
    let (_mesh, mut client) = start(&server, fault(None, Some((AbortStatus::Http(500), 10.0))));
    let aborted = (0..2000).filter(|_| client.ask("GET /api HTTP/1.1\r\nHost: payment\r\n\r\n").status() == 500).count();
    assert!((140..=260).contains(&aborted), "10 % of 2000, give or take 3 points: {aborted}");
    assert_eq!(client.ask("GET /other HTTP/1.1\r\nHost: payment\r\n\r\n").status(), 200);
}

#[test]
fn a_delay_holds_the_request_and_counts_against_its_timeout() {
    let (server, told) = Server::telling();
    let delay = Duration::from_millis(30);
    let (_mesh, mut client) = start(&server, fault(Some((delay, 100.0)), None));
    let asked = Instant::now();
    assert_eq!(client.ask("GET /api HTTP/1.1\r\nHost: payment\r\n\r\n").status(), 200);
    assert!(asked.elapsed() >= delay && told.recv().is_ok());
    let routes = RouteTable::new("shop/slow".into(), Some(Duration::from_millis(20)), {
        let filters = Arc::new(fault(Some((Duration::from_secs(3600), 100.0)), Some((AbortStatus::Http(500), 100.0))));
        vec![Rule { name: "slow".into(), filters: Some(filters), ..Rule::default() }]
    });
    let (_mesh, address) = Setup { routes, ..Setup::to(&[&server]) }.start();
    assert_eq!(Peer::dial(address).ask("GET / HTTP/1.1\r\nHost: payment\r\n\r\n").status(), 504, "the abort would come after the delay");
    assert!(told.try_recv().is_err());
}

fn shop_pages() -> Cors {
    let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
    Cors {
        origins: names(&["https://*.example.com"]),
        methods: names(&["PUT"]),
        headers: names(&["x-team"]),
        expose: names(&["x-total"]),
        max_age: Some(Duration::from_secs(60)),
        credentials: true,
    }
}

#[test]
fn preflights_are_answered_and_responses_say_who_may_read_them() {
    let server = Server::start(|mut peer| {
        while let Some(_request) = peer.message() {
            peer.send("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\nServer: app\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let response = FieldChanges { remove: vec!["server".into()], ..FieldChanges::default() };
    let (mesh, mut client) = start(&server, Filters { cors: Some(shop_pages()), response, ..Filters::default() });
    let preflight =
        |origin: &str| format!("OPTIONS /api HTTP/1.1\r\nHost: payment\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
    let answer = client.ask(&preflight("https://shop.example.com"));
    assert_eq!((answer.status(), answer.body()), (200, ""));
    let fields = ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age"];
    let told = fields.map(|field| answer.field(field).unwrap_or("-"));
    assert_eq!(told, ["https://shop.example.com", "PUT", "x-team", "60"]);
    let refused = client.ask(&preflight("https://evil.example"));
    assert_eq!((refused.status(), refused.field("access-control-allow-origin")), (403, None));
    assert_eq!(server.connections(), 0, "preflights reach nobody");

    let ask = |client: &mut Peer, origin: &str| client.ask(&format!("GET /api HTTP/1.1\r\nHost: payment\r\nOrigin: {origin}\r\n\r\n")).head;
    assert_eq!(
        ask(&mut client, "https://shop.example.com"),
        "HTTP/1.1 200 OK\r\nVary: Accept\r\nContent-Length: 0\r\naccess-control-allow-origin: https://shop.example.com\r\n\
         access-control-allow-credentials: true\r\naccess-control-expose-headers: x-total\r\nvary: Origin\r\n\r\n"
    );
    assert_eq!(ask(&mut client, "https://evil.example"), "HTTP/1.1 200 OK\r\nVary: Accept\r\nContent-Length: 0\r\nvary: Origin\r\n\r\n");
    mesh.set_endpoints(&[]);
    eventually("a page may read the proxy's own answers too", || {
        let head = ask(&mut client, "https://shop.example.com");
        head.starts_with("HTTP/1.1 503 ") && head.contains("access-control-allow-origin: https://shop.example.com\r\n")
    });
    for reason in ["reason=\"cors-preflight\"} 1", "reason=\"cors-refused\"} 1"] {
        eventually(reason, || mesh.metrics().contains(reason));
    }
}
