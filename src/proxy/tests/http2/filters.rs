//! What a route does to HTTP/2 requests and responses: changes of fields, rewriting, redirecting.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use leno_core::cors::Cors;
use leno_core::fault::{Abort, AbortStatus, Delay, Fault};
use leno_core::filters::{FieldChanges, Filters, PathChange, Redirect, Rewrite};
use leno_core::matching::{Match, PathMatch};
use leno_core::names::Name;
use leno_core::percentage::Percentage;
use leno_core::route::{RouteTable, Rule};
use tokio::sync::mpsc;

use crate::peers::{Server, ask, dial, eventually, get, grpc, post, setup, trailers};
use crate::support::{Mesh, Setup};

fn fields(lines: &[(&str, &str)]) -> Vec<(Name, Name)> {
    lines.iter().map(|(name, value)| (Name::from(*name), Name::from(*value))).collect()
}

/// The rule holds below `/api` and for the gRPC service.
fn start(server: &Server, filters: Filters) -> (Mesh, std::net::SocketAddr) {
    let under = |prefix: &str| Match { path: Some(PathMatch::Prefix(prefix.into())), ..Match::default() };
    let matches = vec![under("/api"), under("/shop.Payment")];
    let rule = Rule { name: "filters".into(), matches, filters: Some(Arc::new(filters)), ..Rule::default() };
    Setup { routes: RouteTable::new("shop/filters".into(), None, vec![rule]), ..setup(&[server]) }.start()
}

/// Tells the head of every request, and answers it.
async fn telling() -> (Server, mpsc::UnboundedReceiver<http::request::Parts>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = Server::start(move |(request, mut respond)| {
        let tell = tell.clone();
        async move {
            tell.send(request.into_parts().0).unwrap();
            let response = Response::builder().header("server", "app").header("x-a", "1").header("grpc-status", "0").body(()).unwrap();
            respond.send_response(response, true).unwrap();
        }
    })
    .await;
    (server, told)
}

#[tokio::test]
async fn fields_of_requests_and_responses_are_set_added_and_removed() {
    let (server, mut told) = telling().await;
    let request = FieldChanges {
        set: fields(&[("x-team", "shop"), ("x-forwarded-proto", "https")]),
        add: fields(&[("x-list", "c")]),
        remove: vec!["x-internal".into()],
    };
    let response = FieldChanges { set: fields(&[("x-a", "2")]), add: fields(&[("x-a", "3")]), remove: vec!["server".into()] };
    let (_mesh, address) = start(&server, Filters { request, response, ..Filters::default() });
    let client = dial(address).await;
    for mut asked in [get("/api"), grpc()] {
        asked.headers_mut().extend(trailers(&[("x-team", "a"), ("x-list", "b"), ("x-internal", "1"), ("x-kept", "1")]));
        let response = ask(&client, asked, b"").await.unwrap();
        let values: Vec<_> = response.headers.get_all("x-a").into_iter().collect();
        assert_eq!((values, response.headers.get("server")), (["2", "3"].map(|it| it.parse().unwrap()).iter().collect(), None));
        let sent = told.recv().await.unwrap();
        let all = |name: &str| sent.headers.get_all(name).into_iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(
            (all("x-team"), all("x-list"), all("x-internal")),
            (vec!["shop".to_owned()], vec!["b".to_owned(), "c".to_owned()], vec![])
        );
        assert_eq!((all("x-kept"), all("x-forwarded-proto")), (vec!["1".to_owned()], vec!["https".to_owned()]));
    }
    ask(&client, get("/other"), b"").await.unwrap();
    assert!(!told.recv().await.unwrap().headers.contains_key("x-team"), "another route's request is not changed");
}

#[tokio::test]
async fn path_and_authority_are_rewritten_and_the_query_stays() {
    let (server, mut told) = telling().await;
    let rewrite = Rewrite { path: Some(PathChange::Prefix("/v2".into())), host: Some("ledger.example.com".into()) };
    let (_mesh, address) = start(&server, Filters { rewrite: Some(rewrite), ..Filters::default() });
    let client = dial(address).await;
    for (asked, want) in [("/api/pay?a=b", "/v2/pay?a=b"), ("/api", "/v2"), ("/api/", "/v2/")] {
        assert_eq!(ask(&client, post(asked), b"body").await.unwrap().status, 200);
        assert_eq!(told.recv().await.unwrap().uri, format!("http://ledger.example.com{want}").as_str());
    }
    ask(&client, grpc(), b"question").await.unwrap();
    assert_eq!(told.recv().await.unwrap().uri, "http://ledger.example.com/v2/Pay");
}

#[tokio::test]
async fn a_redirect_is_answered_without_asking_anybody() {
    let server = Server::echo().await;
    let redirect = Redirect { scheme: None, host: None, port: Some(81), path: Some(PathChange::Full("/new".into())), status: 302 };
    let (mesh, address) = start(&server, Filters { redirect: Some(redirect), ..Filters::default() });
    let client = dial(address).await;
    let response = ask(&client, get("/api/pay?a=b"), b"").await.unwrap();
    assert_eq!((response.status.as_u16(), response.text()), (302, "the service is elsewhere\n"));
    assert_eq!(response.headers["location"], "http://payment:81/new?a=b");
    let response = ask(&client, grpc(), b"question").await.unwrap();
    assert_eq!((response.status.as_u16(), response.grpc_status()), (200, ("2", true)), "gRPC knows no redirects");
    assert_eq!(server.requests(), 0);
    eventually("the reason is counted", || mesh.metrics().contains("reason=\"redirect\"} 2")).await;
}

fn fault(delay: Option<Duration>, abort: Option<AbortStatus>) -> Filters {
    let delay = delay.map(|duration| Delay { duration, percentage: Percentage::ALL });
    let abort = abort.map(|status| Abort { status, percentage: Percentage::ALL });
    Filters { fault: Some(Fault { delay, abort }), ..Filters::default() }
}

#[tokio::test]
async fn an_abort_is_said_to_each_caller_in_its_own_words() {
    let server = Server::echo().await;
    for (status, http, code) in [(AbortStatus::Http(503), 503, "14"), (AbortStatus::Grpc(8), 429, "8")] {
        let (mesh, address) = start(&server, fault(None, Some(status)));
        let client = dial(address).await;
        let response = ask(&client, get("/api"), b"").await.unwrap();
        assert_eq!((response.status.as_u16(), response.text()), (http, "a fault was injected by the route\n"));
        let response = ask(&client, grpc(), b"question").await.unwrap();
        assert_eq!((response.status.as_u16(), response.grpc_status(), response.body.len()), (200, (code, true), 0), "only a head");
        eventually("the reason is counted", || mesh.metrics().contains("reason=\"fault-injected\"} 2")).await;
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn a_delay_holds_the_request_until_its_client_gives_up_or_its_time_is_over() {
    let server = Server::echo().await;
    let delay = Duration::from_millis(30);
    let (_mesh, address) = start(&server, fault(Some(delay), None));
    let asked = std::time::Instant::now();
    assert_eq!(ask(&dial(address).await, post("/api"), b"echo").await.unwrap().text(), "echo");
    assert!(asked.elapsed() >= delay);

    let (mesh, address) = start(&server, fault(Some(Duration::from_secs(3600)), None));
    let mut client = dial(address).await.ready().await.unwrap();
    let (_response, mut send) = client.send_request(get("/api"), false).unwrap();
    send.send_reset(h2::Reason::CANCEL);
    eventually("the client's end is the request's", || mesh.metrics().contains("reason=\"client-gone\"} 1")).await;

    let rule = Rule { filters: Some(Arc::new(fault(Some(Duration::from_secs(3600)), None))), ..Rule::default() };
    let routes = RouteTable::new("shop/slow".into(), Some(Duration::from_millis(20)), vec![rule]);
    let (_mesh, address) = Setup { routes, ..setup(&[&server]) }.start();
    let response = ask(&dial(address).await, grpc(), b"question").await.unwrap();
    assert_eq!((response.grpc_status(), server.requests()), (("4", true), 1), "a delay counts against the timeout");
}

#[tokio::test]
async fn preflights_are_answered_and_responses_say_who_may_read_them() {
    let (server, _told) = telling().await;
    let origins = vec![Name::from("https://shop.example.com")];
    let cors = Cors { origins, methods: vec!["PUT".into()], ..Cors::default() };
    let (_mesh, address) = start(&server, Filters { cors: Some(cors), ..Filters::default() });
    let client = dial(address).await;
    for (origin, status, told) in [("https://shop.example.com", 200, Some("https://shop.example.com")), ("https://evil.example", 403, None)]
    {
        let mut preflight = get("/api");
        *preflight.method_mut() = http::Method::OPTIONS;
        preflight.headers_mut().extend(trailers(&[("origin", origin), ("access-control-request-method", "PUT")]));
        let answer = ask(&client, preflight, b"").await.unwrap();
        let field = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!((answer.status.as_u16(), field("access-control-allow-origin").as_deref()), (status, told));
        let mut request = get("/api");
        request.headers_mut().extend(trailers(&[("origin", origin)]));
        let response = ask(&client, request, b"").await.unwrap();
        let allowed = response.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!((response.status.as_u16(), allowed), (200, told));
    }
    assert_eq!(server.requests(), 2, "preflights reach nobody");
}
