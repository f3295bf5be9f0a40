//! Who is not talked to.

use std::io::{Read, Write};

use leno_core::authorize::Mode;
use leno_core::service::Protocol;
use leno_proxy::control::Update;
use rustls::NamedGroup;
use rustls::sign::CertifiedKey;

use crate::authority::{Authority, Life, PAYMENT, WEB, self_signed};
use crate::peers;
use crate::proxies::{counted, endpoint, eventually_counted, inbound, outbound, pair};
use crate::stranger::{self, client_config};
use crate::support::{Message, PATIENCE, Peer, Server, eventually, nowhere};

const GET: &str = "GET / HTTP/1.1\r\nHost: payment\r\n\r\n";

fn get(address: std::net::SocketAddr) -> Message {
    Peer::dial(address).ask("GET / HTTP/1.1\r\nHost: payment\r\nConnection: close\r\n\r\n")
}

#[test]
fn a_client_that_proves_itself_is_served_with_tls_1_3_and_a_post_quantum_group() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Http);
    let (certified, _) = authority.certified(&[WEB], Life::Now);
    let mut client = stranger::dial(at_app, client_config("leno/http", Some(certified), &rustls::version::TLS13));
    client.write_all(GET.as_bytes()).unwrap();
    assert!(stranger::head(&mut client).unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(client.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.conn.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn clients_that_prove_nothing_or_the_wrong_thing_are_refused_before_the_app_hears_of_them() {
    let app = Server::answering("hello");
    let (authority, other) = (Authority::new(), Authority::new());
    let (callee, at_app) = inbound(app.address, &authority, Mode::Permissive, Protocol::Http);
    let by = |authority: &Authority, uris: &[&str], life| Some(authority.certified(uris, life).0);
    let tls13 = &rustls::version::TLS13;
    let cases: [(&str, Option<CertifiedKey>, &str); 9] = [
        ("no certificate", None, "no-peer-certificate"),
        ("self-signed", Some(self_signed(WEB)), "unknown-root"),
        ("signed by another root", by(&other, &[WEB], Life::Now), "unknown-root"),
        ("expired", by(&authority, &[WEB], Life::Past), "expired"),
        ("not yet valid", by(&authority, &[WEB], Life::Future), "expired"),
        ("another trust domain", by(&authority, &["spiffe://else.where/ns/shop/sa/web"], Life::Now), "other-trust-domain"),
        ("no name", by(&authority, &[], Life::Now), "bad-certificate"),
        ("two names", by(&authority, &[WEB, PAYMENT], Life::Now), "bad-certificate"),
        ("a name that is no identity", by(&authority, &["spiffe://cluster.local/shop/web"], Life::Now), "bad-certificate"),
    ];
    for (case, certified, reason) in cases {
        let before = counted(&callee, &["leno_tls_handshakes_total", reason]);
        let mut client = stranger::dial(at_app, client_config("leno/http", certified, tls13));
        let _early = client.write_all(GET.as_bytes());
        assert!(client.read(&mut [0; 16]).is_err(), "{case}");
        eventually(case, || counted(&callee, &["leno_tls_handshakes_total", reason]) == before + 1);
    }
    let (certified, _) = authority.certified(&[WEB], Life::Now);
    let mut old = stranger::dial(at_app, client_config("leno/http", Some(certified), &rustls::version::TLS12));
    assert!(old.write_all(GET.as_bytes()).is_err(), "TLS 1.2");
    assert_eq!(app.connections(), 0);
}

#[test]
fn endpoints_that_cannot_prove_who_they_are_never_see_the_request() {
    let (authority, other) = (Authority::new(), Authority::new());
    let by = |authority: &Authority, uri: &str, life| authority.certified(&[uri], life).0;
    let cases = [
        ("somebody else", by(&authority, "spiffe://cluster.local/ns/shop/sa/other", Life::Now), "identity-mismatch"),
        ("self-signed", self_signed(PAYMENT), "tls-failed"),
        ("another root", by(&other, PAYMENT, Life::Now), "tls-failed"),
        ("expired", by(&authority, PAYMENT, Life::Past), "tls-failed"),
    ];
    for (case, certified, reason) in cases {
        let server = stranger::serve(certified, &["leno/http", "leno/tcp"], move |mut stream| {
            assert_eq!(stranger::head(&mut stream), None, "{case}: the request was sent");
        });
        let (mesh, address) = outbound(&authority, Protocol::Http, &[(server, Some(PAYMENT))]);
        let answer = get(address);
        assert_eq!(answer.status(), 502, "{case}");
        assert!(!answer.text().contains("shop"), "{case}: the answer names nobody: {}", answer.text());
        eventually_counted(&mesh, &["leno_errors_total", reason], 1);
        let (mesh, address) = outbound(&authority, Protocol::Tcp, &[(server, Some(PAYMENT))]);
        assert!(Peer::dial(address).is_closed(), "{case}");
        eventually_counted(&mesh, &["leno_errors_total", reason], 1);
    }
}

#[test]
fn a_resumed_session_is_refused_once_the_certificate_it_was_made_with_has_expired() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    let (callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Http);
    let (certified, _) = authority.certified(&[WEB], Life::For(4));
    let config = client_config("leno/http", Some(certified), &rustls::version::TLS13);
    let (mut resumed, end) = (0, std::time::Instant::now() + PATIENCE);
    let refused = loop {
        assert!(std::time::Instant::now() < end, "it is let in for ever");
        let mut client = stranger::dial(at_app, config.clone());
        let _early = client.write_all(GET.as_bytes());
        let answered = stranger::head(&mut client);
        let is_resumed = client.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        match answered {
            Some(_) => resumed += usize::from(is_resumed),
            None => break is_resumed,
        }
    };
    assert!(refused && resumed > 0, "the last one was a resumption too, after {resumed}");
    eventually_counted(&callee, &["leno_tls_handshakes_total", r#"result="expired""#], 1);
}

#[test]
fn a_caller_whose_certificate_convinces_nobody_hears_that_no_secure_connection_could_be_made() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Http);
    for protocol in [Protocol::Http, Protocol::Http2] {
        let (caller, address) = outbound(&authority, protocol, &[(at_app, Some(PAYMENT))]);
        caller.tell(Update::Credentials(Authority::new().credentials(WEB)));
        if protocol == Protocol::Http {
            eventually("the other certificate is in force", || get(address).status() == 502);
        } else {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let answer = peers::ask(&peers::dial(address).await, peers::get("/"), b"").await.unwrap();
                assert_eq!(answer.status.as_u16(), 502);
            });
        }
        eventually_counted(&caller, &["leno_errors_total", "tls-failed"], 1);
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn an_endpoint_that_speaks_plain_text_where_it_must_prove_itself_gets_nothing() {
    let (plain, told) = Server::telling();
    let authority = Authority::new();
    let (_mesh, address) = outbound(&authority, Protocol::Http, &[(plain.address, Some(PAYMENT))]);
    assert_eq!(get(address).status(), 502);
    assert!(told.try_recv().is_err());
}

#[test]
fn other_endpoints_are_tried_when_one_cannot_prove_who_it_is() {
    let app = Server::answering("hello");
    let authority = Authority::new();
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Strict, Protocol::Http);
    let (certified, _) = authority.certified(&["spiffe://cluster.local/ns/shop/sa/other"], Life::Now);
    let wrong = stranger::serve(certified, &["leno/http", "leno/tcp"], |mut stream| drop(stranger::head(&mut stream)));
    let endpoints = [(wrong, Some(PAYMENT)), (nowhere(), Some(PAYMENT)), (at_app, Some(PAYMENT))];
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let (_mesh, address) = outbound(&authority, protocol, &endpoints);
        for _ in 0..6 {
            assert_eq!(get(address).body(), "hello", "{protocol:?}");
        }
    }
}

#[test]
fn without_a_valid_certificate_nothing_is_sent_and_the_answer_says_so() {
    let app = Server::answering("hello");
    let pair = pair(app.address, Protocol::Http);
    assert_eq!(get(pair.address).status(), 200);
    let (asked, connections) = (counted(&pair.callee, &["leno_tls_handshakes_total"]), app.connections());
    pair.caller.tell(Update::Credentials(pair.authority.credentials_for(WEB, Life::Past)));
    eventually("the expired certificate is in force", || get(pair.address).status() == 503);
    assert!(get(pair.address).body().contains("no valid certificate"));
    eventually_counted(&pair.caller, &["leno_errors_total", "no-certificate"], 2);
    assert_eq!(counted(&pair.callee, &["leno_tls_handshakes_total"]), asked);
    assert_eq!(app.connections(), connections, "nothing was sent in plain text either");
    pair.caller.tell(Update::Credentials(pair.authority.credentials(WEB)));
    eventually("a new certificate mends it", || get(pair.address).status() == 200);
}

#[test]
fn an_address_that_changes_who_answers_is_another_peer() {
    let (app, told) = Server::telling();
    let authority = Authority::new();
    let (_callee, at_app) = inbound(app.address, &authority, Mode::Permissive, Protocol::Http);
    let (caller, address) = outbound(&authority, Protocol::Http, &[(at_app, None)]);
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).status(), 200);
    let handshakes = || counted(&caller, &["leno_tls_handshakes_total", r#"result="ok""#]);
    assert_eq!(handshakes(), 0, "plain, and the connection rests");
    caller.set_these(vec![endpoint(at_app, Some(PAYMENT))]);
    eventually("the next request proves who answers", || client.ask(GET).status() == 200 && handshakes() == 1);
    caller.set_these(vec![endpoint(at_app, Some("spiffe://cluster.local/ns/shop/sa/other"))]);
    eventually("the connection to another identity is not used", || client.ask(GET).status() == 502);
    caller.set_these(vec![endpoint(at_app, None)]);
    eventually("plain again", || client.ask(GET).status() == 200);
    drop(told);
}
