//! The rules of the app's port: who passes, in which spelling, and what those hear who do not.

use std::sync::Arc;

use leno_core::authorize::{Action, Authorization, Posture, Rule, Source};
use leno_core::service::Protocol;
use serde_json::json;

use crate::guards::{APP_PORT, TokenMaker, before, before_with, guarded, methods, only_readers, paths, policies};
use crate::support::{Mesh, Peer, Server, Setup, eventually};

fn block(block: &str) -> Rule {
    Rule { from: vec![Source::Block(block.parse().unwrap())], ..Rule::default() }
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: payment\r\n{fields}\r\n")
}

/// How often rules have said `decision` by `policy`.
fn counted(mesh: &Mesh, decision: &str, policy: &str) -> u64 {
    let labels = format!("leno_authorization_total{{decision=\"{decision}\",policy=\"{policy}\",source_identity=\"\"}} ");
    mesh.metrics().lines().find_map(|line| line.strip_prefix(&labels).and_then(|count| count.parse().ok())).unwrap_or(0)
}

#[test]
fn a_refused_request_never_reaches_the_app_and_hears_of_no_policy() {
    let (app, told) = Server::telling();
    let allow = policies(vec![("shop/posts", Action::Allow, vec![methods(&["POST"])])]);
    let (mesh, address) = before(app.address, Protocol::Http, allow);
    let mut client = Peer::dial(address);
    let refused = client.ask(&request("GET", "/", ""));
    assert_eq!((refused.status(), refused.body()), (403, "access denied\n"));
    assert!(!refused.text().contains("posts") && refused.field("x-leno-undelivered").is_none(), "{refused:?}");
    let body = "Content-Length: 2\r\n";
    assert_eq!(client.ask(&format!("{}hi", request("POST", "/", body))).status(), 200, "the connection goes on");
    assert!(told.recv().unwrap().starts_with("POST / "), "the app has seen the second request alone");
    let head = request("HEAD", "/", "");
    client.send(&head);
    assert!(client.head().unwrap().starts_with("HTTP/1.1 403 Forbidden\r\n"));
    eventually("all are counted by the policy that decided", || {
        (counted(&mesh, "deny", "shop/posts"), counted(&mesh, "allow", "shop/posts")) == (2, 1)
    });
    eventually("the reason is counted", || {
        mesh.metrics().contains("leno_errors_total{direction=\"inbound\",origin=\"downstream\",reason=\"denied\"} 2")
    });
    assert!(told.try_recv().is_err());
}

#[test]
fn addresses_are_let_in_and_kept_out() {
    let app = Server::answering("hello");
    for (rules, want) in [
        (policies(vec![("a", Action::Allow, vec![block("127.0.0.0/8")])]), 200),
        (policies(vec![("a", Action::Allow, vec![block("10.0.0.0/8")])]), 403),
        (policies(vec![("a", Action::Deny, vec![block("127.0.0.1/32")])]), 403),
        (Authorization::new(Posture::Deny, Vec::new(), Vec::new()), 403),
    ] {
        let (_mesh, address) = before(app.address, Protocol::Http, rules);
        assert_eq!(Peer::dial(address).ask(&request("GET", "/", "")).status(), want);
    }
}

#[test]
fn no_spelling_gets_past_a_denied_path_and_the_app_sees_the_one_that_was_judged() {
    let (app, told) = Server::telling();
    let rules = policies(vec![("a", Action::Deny, vec![paths(&["/admin/*"])])]);
    let (_mesh, address) = before(app.address, Protocol::Http, rules);
    let mut client = Peer::dial(address);
    for target in [
        "/admin",
        "/admin/",
        "/admin/x?y",
        "/%61dmin",
        "//admin/x",
        "/x/../admin",
        "/x/%2e%2E/admin/y",
        "/./admin",
        "/admin;a=b/x",
        "/;a/admin",
        "http://payment/admin/x",
        "http://payment/x/../admin",
    ] {
        assert_eq!(client.ask(&request("GET", target, "")).status(), 403, "{target}");
    }
    for target in ["/x%2F..%2Fadmin", "/x/..;/admin", "/..\\admin", "/admin%00", "/admin%6", "/%c0%afadmin"] {
        let refused = client.ask(&request("GET", target, ""));
        assert_eq!((refused.status(), refused.body()), (400, "servers could read this path in more than one way\n"), "{target}");
    }
    for (target, want) in [
        ("/a//b/%7e?c=%7e//d", "/a/b/~?c=%7e//d"),
        ("/a/./b", "/a/b"),
        ("http://payment/a//b?", "http://payment/a/b?"),
        ("http://payment", "http://payment"),
        ("/%41%3d;p", "/A%3D;p"),
        ("/plain?x", "/plain?x"),
    ] {
        assert_eq!(client.ask(&request("GET", target, "")).status(), 200, "{target}");
        let seen = told.recv().unwrap();
        assert_eq!(seen.split(' ').nth(1), Some(want), "{target}");
    }
    assert!(told.try_recv().is_err(), "nothing else has reached the app");
}

#[test]
fn where_no_rule_speaks_of_paths_they_pass_untouched() {
    let (app, told) = Server::telling();
    let (_mesh, address) = before(app.address, Protocol::Http, policies(vec![("a", Action::Deny, vec![methods(&["PUT"])])]));
    let mut client = Peer::dial(address);
    for target in ["/a//b/../%7e", "/a%2Fb", "/a/..;/b", "/a\\b"] {
        assert_eq!(client.ask(&request("GET", target, "")).status(), 200);
        assert_eq!(told.recv().unwrap().split(' ').nth(1), Some(target));
    }
    assert_eq!(client.ask(&request("put", "/", "")).status(), 403, "servers may take methods without case");
}

#[test]
fn tokens_must_be_valid_where_they_are_sent_and_their_claims_are_judged() {
    let app = Server::answering("hello");
    let maker = TokenMaker::new();
    let (mesh, address) = before(app.address, Protocol::Http, only_readers(&maker, &[]));
    let mut client = Peer::dial(address);
    let mut bearing = |token: &str| client.ask(&request("GET", "/", &format!("Authorization: Bearer {token}\r\n")));
    let reader = maker.token(&json!({"scope": "write read"}));
    assert_eq!(bearing(&reader).status(), 200);
    assert_eq!(bearing(&maker.token(&json!({"scope": "write"}))).status(), 403);
    let wrong = [
        TokenMaker::new().token(&json!({"scope": "read"})),
        maker.token(&json!({"scope": "read", "iss": "https://other"})),
        maker.token(&json!({"scope": "read", "aud": "ledger"})),
        maker.token(&json!({"scope": "read", "exp": 1})),
        format!("{reader}x"),
        "garbage".to_owned(),
        String::new(),
        format!("{reader}, Bearer {reader}"),
    ];
    for token in &wrong {
        let refused = bearing(token);
        assert_eq!((refused.status(), refused.body()), (401, "the token is not valid here\n"), "{token}");
        assert_eq!(refused.field("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let refused = client.ask(&request("GET", "/", ""));
    assert_eq!((refused.status(), refused.field("www-authenticate")), (403, None), "nobody has said who asks");
    assert_eq!(client.ask(&request("GET", "/", "Authorization: Basic YTpi\r\n")).status(), 403, "no token");
    let twice = format!("Authorization: Bearer {reader}\r\nAuthorization: Bearer {reader}\r\n");
    assert_eq!(client.ask(&request("GET", "/", &twice)).status(), 401);
    for reason in ["token-signature", "token-issuer", "token-audience", "token-expired", "token-malformed"] {
        eventually(reason, || mesh.metrics().contains(&format!("reason=\"{reason}\"")));
    }
}

#[test]
fn a_token_in_a_field_of_its_own_is_looked_for_there_alone() {
    let app = Server::answering("hello");
    let maker = TokenMaker::new();
    let (_mesh, address) = before(app.address, Protocol::Http, only_readers(&maker, &["x-token"]));
    let token = maker.token(&json!({"scope": ["read"]}));
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(&request("GET", "/", &format!("X-Token: {token}\r\n"))).status(), 200);
    assert_eq!(client.ask(&request("GET", "/", &format!("Authorization: Bearer {token}\r\n"))).status(), 403);
    assert_eq!(client.ask(&request("GET", "/", &format!("X-Token: {token}\r\nAuthorization: Bearer x\r\n"))).status(), 200);
    assert_eq!(client.ask(&request("GET", "/", "X-Token: x\r\n")).status(), 401);
}

#[test]
fn audit_blocks_nothing_and_counts_what_it_would_have_blocked() {
    let app = Server::answering("hello");
    let rules = policies(vec![("shop/audit", Action::Audit, vec![methods(&["GET"])])]);
    let (mesh, address) = before(app.address, Protocol::Http, rules);
    let mut client = Peer::dial(address);
    for (method, would) in [("GET", 0), ("DELETE", 1)] {
        assert_eq!(client.ask(&request(method, "/", "")).status(), 200);
        eventually("it is counted", || counted(&mesh, "would-deny", "shop/audit") == would);
    }
    assert_eq!(counted(&mesh, "allow", ""), 1, "{}", mesh.metrics());
}

#[test]
fn a_change_of_the_rules_holds_for_the_next_request_of_a_connection_that_is_there() {
    let app = Server::answering("hello");
    let (mesh, address) = before(app.address, Protocol::Http, Authorization::default());
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(&request("GET", "/", "")).status(), 200);
    assert!(!mesh.metrics().contains("leno_authorization_total{"), "where there are no rules nothing is judged");
    mesh.tell(guarded(Protocol::Http, Authorization::new(Posture::Deny, Vec::new(), Vec::new())));
    eventually("the rules hold", || client.ask(&request("GET", "/", "")).status() == 403);
    mesh.tell(guarded(Protocol::Http, Authorization::default()));
    eventually("they hold no more", || client.ask(&request("GET", "/", "")).status() == 200);
}

#[test]
fn declared_probes_are_not_asked_who_they_are() {
    let app = Server::answering("well");
    let mut setup = Setup::default();
    setup.settings.probes = Arc::new(format!("{APP_PORT}/healthz?full=1").parse().unwrap());
    let rules = policies(vec![("a", Action::Deny, vec![paths(&["/*"])])]);
    let (_mesh, address) = before_with(setup, app.address, Protocol::Http, rules);
    let mut client = Peer::dial(address);
    for (method, target, want) in
        [("GET", "/healthz?full=1", 200), ("GET", "/healthz", 403), ("POST", "/healthz?full=1", 403), ("GET", "/x/../healthz?full=1", 403)]
    {
        assert_eq!(client.ask(&request(method, target, "")).status(), want, "{method} {target}");
    }
}

#[test]
fn a_refused_opaque_connection_is_reset_and_the_app_is_never_dialled() {
    for rules in [
        policies(vec![("shop/a", Action::Deny, vec![block("127.0.0.0/8")])]),
        policies(vec![("shop/a", Action::Allow, vec![block("10.0.0.0/8")])]),
        policies(vec![("shop/a", Action::Allow, vec![methods(&["GET"])])]),
        policies(vec![("shop/a", Action::Deny, vec![paths(&["/admin"])])]),
    ] {
        let app = Server::answering("hello");
        let (mesh, address) = before(app.address, Protocol::Tcp, rules);
        let mut client = Peer::dial(address);
        client.send("GET / HTTP/1.1\r\nHost: payment\r\n\r\n");
        assert!(client.is_closed(), "a reset, and nothing before it");
        eventually("the policy is counted", || counted(&mesh, "deny", "shop/a") == 1);
        assert_eq!(app.connections(), 0);
    }
    let app = Server::answering("hello");
    let (mesh, address) = before(app.address, Protocol::Tcp, policies(vec![("shop/a", Action::Allow, vec![block("127.0.0.0/8")])]));
    assert_eq!(Peer::dial(address).ask("GET / HTTP/1.1\r\n\r\n").body(), "hello");
    assert_eq!(counted(&mesh, "allow", "shop/a"), 1);
}

#[test]
fn bytes_that_are_not_seen_as_a_request_do_not_get_past_rules_on_requests() {
    for rules in [
        policies(vec![("shop/a", Action::Allow, vec![methods(&["GET"])])]),
        policies(vec![("shop/a", Action::Deny, vec![paths(&["/admin"])])]),
    ] {
        let app = Server::answering("hello");
        let (mesh, address) = before(app.address, Protocol::Detect, rules);
        for bytes in
            ["\r\nGET /admin HTTP/1.1\r\nHost: payment\r\n\r\n", "get /admin HTTP/1.1\r\nHost: payment\r\n\r\n", "\x16\x03\x01 hello"]
        {
            let mut client = Peer::dial(address);
            client.send(bytes);
            assert!(client.is_closed(), "{bytes:?}");
        }
        eventually("all are counted", || counted(&mesh, "deny", "shop/a") == 3);
        assert_eq!(app.connections(), 0);
        let mut client = Peer::dial(address);
        assert_eq!(client.ask(&request("GET", "/", "")).body(), "hello", "a request is judged as one");
        assert_eq!(client.ask(&request("DELETE", "/admin", "")).status(), 403);
    }
}

#[test]
fn a_silent_client_has_nobody_dialled_for_it_where_only_requests_may_pass() {
    let app = Server::answering("hello");
    let (mesh, address) = before(app.address, Protocol::Detect, policies(vec![("shop/a", Action::Allow, vec![methods(&["GET"])])]));
    let (mut waiting, mut opaque) = (Peer::dial(address), Peer::dial(address));
    eventually("the wait is over", || mesh.metrics().lines().any(|line| line == "leno_detection_timeouts_total 2"));
    opaque.send("EHLO payment\r\n");
    assert!(opaque.is_closed());
    assert_eq!(app.connections(), 0);
    assert_eq!(waiting.ask(&request("GET", "/", "")).body(), "hello");
}
