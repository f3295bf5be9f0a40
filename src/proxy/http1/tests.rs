//! Tables of heads: which are refused and why, what the others mean, and what is sent on.

use std::net::SocketAddr;
use std::rc::Rc;

use leno_core::request::Caller;
use proptest::prelude::*;

use super::head::{Head, HeadError, find_end};
use super::request::{self, Additions, Form, Framing, Request};
use super::response::{self, Asked, Keep, Response};
use crate::buffers::Buffers;

/// Judges a whole request; `None` when it is not whole.
fn judge(text: &[u8]) -> Option<Result<Request, HeadError>> {
    let end = match find_end(text, &mut 0) {
        Ok(end) => end?,
        Err(error) => return Some(Err(error)),
    };
    Some(Head::parse(text, 0..end).and_then(|head| Request::judge(&head)))
}

fn refused(text: &str) -> Option<HeadError> {
    judge(text.as_bytes()).unwrap_or_else(|| panic!("not whole: {text:?}")).err()
}

/// A request with these lines after the request line and `Host`.
fn with(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn framing_that_two_recipients_could_read_differently_is_refused() {
    use HeadError::{BadFraming, UnknownCoding};
    let cases = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", BadFraming),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", BadFraming),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", BadFraming),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", BadFraming),
        ("Content-Length: 5, 5\r\n", BadFraming),
        ("Content-Length: +5\r\n", BadFraming),
        ("Content-Length: -5\r\n", BadFraming),
        ("Content-Length: 5 5\r\n", BadFraming),
        ("Content-Length: 0x5\r\n", BadFraming),
        ("Content-Length: 5.0\r\n", BadFraming),
        ("Content-Length:\r\n", BadFraming),
        ("Content-Length: 99999999999999999999\r\n", BadFraming),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", BadFraming),
        ("Transfer-Encoding: chunked, chunked\r\n", BadFraming),
        ("Transfer-Encoding: chunked, gzip\r\n", BadFraming),
        ("Transfer-Encoding: gzip\r\n", BadFraming),
        ("Transfer-Encoding: identity\r\n", BadFraming),
        ("Transfer-Encoding: xchunked\r\n", BadFraming),
        ("Transfer-Encoding: \"chunked\"\r\n", BadFraming),
        ("Transfer-Encoding: chunked;q=1\r\n", BadFraming),
        ("Transfer-Encoding:\r\n", BadFraming),
        ("Transfer-Encoding: ,chunked\r\n", BadFraming),
        ("Transfer-Encoding: gzip, chunked\r\n", UnknownCoding),
    ];
    for (lines, want) in cases {
        assert_eq!(refused(&with(lines)), Some(want), "{lines:?}");
    }
    assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Some(BadFraming));
    assert_eq!(refused("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n"), Some(BadFraming));
}

#[test]
fn lines_that_are_malformed_are_refused() {
    use HeadError::{BadFieldLine, BadFieldValue, BadLineEnd};
    let cases = [
        ("X: a\n", BadLineEnd),
        ("X: a\rb\r\n", BadLineEnd),
        ("X: a\r\r\n", BadLineEnd),
        ("X: a\r\n b\r\n", BadFieldLine),
        ("X: a\r\n\tb\r\n", BadFieldLine),
        (" X: a\r\n", BadFieldLine),
        ("X : a\r\n", BadFieldLine),
        ("X\t: a\r\n", BadFieldLine),
        ("Content-Length : 5\r\n", BadFieldLine),
        ("Transfer-Encoding : chunked\r\n", BadFieldLine),
        ("X\r\n", BadFieldLine),
        (": a\r\n", BadFieldLine),
        ("X[]: a\r\n", BadFieldLine),
        ("X\u{e9}: a\r\n", BadFieldLine),
        ("X\0: a\r\n", BadFieldLine),
        ("X: a\0b\r\n", BadFieldValue),
        ("X: a\u{1}\r\n", BadFieldValue),
        ("X: a\u{7f}\r\n", BadFieldValue),
        ("Transfer-Encoding: \u{b}chunked\r\n", BadFieldValue),
        ("Transfer-Encoding: chunked\u{c}\r\n", BadFieldValue),
    ];
    for (lines, want) in cases {
        assert_eq!(refused(&with(lines)), Some(want), "{lines:?}");
    }
}

#[test]
fn first_lines_and_hosts_that_are_malformed_are_refused() {
    use HeadError::{BadConnection, BadFirstLine, BadHost, BadLineEnd, BadTarget, BadVersion};
    let cases = [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", BadLineEnd),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadFirstLine),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BadFirstLine),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BadFirstLine),
        ("GET /\r\nHost: a\r\n\r\n", BadFirstLine),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", BadFirstLine),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BadFirstLine),
        ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", BadFirstLine),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BadFirstLine),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", BadVersion),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", BadVersion),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", BadVersion),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", BadTarget),
        ("GET / HTTP/1.1\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BadHost),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", BadHost),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", BadHost),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:2\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\n\r\n", BadConnection),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, content-length\r\n\r\n", BadConnection),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", BadConnection),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, \u{e9}\r\n\r\n", BadConnection),
    ];
    for (text, want) in cases {
        assert_eq!(refused(text), Some(want), "{text:?}");
    }
}

#[test]
fn well_formed_requests_are_understood() {
    let judged = |text: &str| judge(text.as_bytes()).unwrap().unwrap();
    let get = judged("GET /a?b HTTP/1.1\r\nHost: a:80\r\n\r\n");
    assert_eq!((get.form, get.body, get.keep_alive, get.upgrade), (Form::Origin, Framing::None, true, false));
    assert_eq!(judged(&with("Content-Length: 007\r\n")).body, Framing::Length(7));
    assert_eq!(judged(&with("Content-Length: 0\r\n")).body, Framing::None);
    assert_eq!(judged(&with("transfer-encoding: CHUNKED\r\n")).body, Framing::Chunked);
    assert_eq!(judged("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").form, Form::Asterisk);
    assert_eq!(judged("GET HTTP://a/b HTTP/1.1\r\nHost: A\r\n\r\n").form, Form::Absolute);
    assert_eq!(judged("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n").form, Form::Authority);
    assert!(judged("GET / HTTP/1.1\r\nHost:\r\n\r\n").keep_alive, "an empty Host is allowed");
    assert!(!judged(&with("Connection: foo, Close\r\n")).keep_alive);
    assert!(!judged("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(judged("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
    assert!(judged(&with("Connection: upgrade\r\nUpgrade: websocket\r\n")).upgrade);
    assert!(!judged(&with("Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n")).upgrade, "requests would go past the proxy");
    assert!(!judged(&with("Upgrade: websocket\r\n")).upgrade, "Connection does not name it");
}

#[test]
fn a_request_is_decided_by_what_its_target_says() {
    let text = b"GET http://pay:80/p?q=1 HTTP/1.1\r\nHost: pay:80\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
    let head = Head::parse(text, 0..text.len()).unwrap();
    let caller = Caller::default();
    let view = Request::judge(&head).unwrap().view(&head, &caller);
    assert_eq!((view.method, view.path, view.query, view.authority), ("GET", "/p", "q=1", "pay:80"));
    assert_eq!(view.headers.get("x-a").as_deref(), Some(b"1, 2".as_slice()));
}

/// Found by fuzzing: the fields that one proxy adds made the next one refuse the request.
#[test]
fn a_head_at_the_limit_passes_two_proxies_and_one_above_it_is_an_apps_mistake() {
    let with = |count: usize| {
        let fields: String = (1..count).map(|number| format!("x-{number}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: payment\r\n{fields}\r\n")
    };
    let at_the_limit = with(super::head::FIELDS_MAX);
    assert_eq!(Head::parse(at_the_limit.as_bytes(), 0..at_the_limit.len()).unwrap().within_app_limits(), Ok(()));
    let forwarded = patched(&patched(&at_the_limit, true, false), false, false);
    assert!(Head::parse(forwarded.as_bytes(), 0..forwarded.len()).is_ok());
    let above = with(super::head::FIELDS_MAX + 1);
    assert_eq!(Head::parse(above.as_bytes(), 0..above.len()).unwrap().within_app_limits(), Err(HeadError::TooLarge));
}

fn patched(text: &str, is_outbound: bool, shorten: bool) -> String {
    let buffers = Rc::new(Buffers::default());
    let mut out = buffers.take();
    let head = Head::parse(text.as_bytes(), 0..text.len()).unwrap();
    let request = Request::judge(&head).unwrap();
    let host = SocketAddr::from(([10, 0, 0, 9], 80));
    let additions = Additions {
        peer: [10, 0, 0, 1].into(),
        tells: true,
        is_outbound,
        request_id: "ID",
        trace: None,
        shorten,
        host,
        path: None,
        authority: None,
        changes: None,
    };
    request::patch(&head, &request, &additions, &mut out);
    String::from_utf8(out.filled().to_vec()).unwrap()
}

#[test]
fn a_request_head_is_patched_where_it_must_be() {
    let added = "x-request-id: ID\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http\r\n";
    let cases = [
        ("GET / HTTP/1.0\r\n\r\n", format!("GET / HTTP/1.1\r\nhost: 10.0.0.9:80\r\n{added}\r\n")),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", format!("GET http://a HTTP/1.1\r\nHost: a\r\n{added}\r\n")),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: Trailers\r\nA: 1\r\n\r\n",
            format!("GET / HTTP/1.1\r\nHost: a\r\nTE: Trailers\r\nA: 1\r\n{added}connection: te\r\n\r\n"),
        ),
        (
            "GET / HTTP/1.1\r\nA: 1\r\nProxy-Connection: x\r\nX-Leno-Y: z\r\nHost: a\r\nKeep-Alive: 1\r\n\r\n",
            format!("GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\n{added}\r\n"),
        ),
        (
            "GET / HTTP/1.1\r\nConnection: b ,, C\r\nB: 1\r\nHost: a\r\nc: 2\r\nD: 3\r\n\r\n",
            format!("GET / HTTP/1.1\r\nHost: a\r\nD: 3\r\n{added}\r\n"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: x\r\n\r\n",
            format!("GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: x\r\n{added}\r\n"),
        ),
    ];
    for (text, want) in cases {
        assert_eq!(patched(text, true, false), want, "{text:?}");
    }
    assert_eq!(patched("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", true, true), format!("GET / HTTP/1.1\r\nHost: a\r\n{added}\r\n"));
    let chain = "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 1.1.1.1\r\nx-request-id: i\r\nx-forwarded-for: 2.2.2.2\r\nx-forwarded-proto: https\r\n\r\n";
    assert_eq!(patched(chain, true, false), chain, "the outbound side leaves what is there");
    let inbound =
        "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: i\r\nx-forwarded-proto: https\r\nx-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\n\r\n";
    assert_eq!(patched(chain, false, false), inbound);
}

const ASKED: Asked = Asked { is_head: false, is_connect: false, upgrade: false, is_old: false };

fn response(text: &str, asked: Asked) -> Result<Response, HeadError> {
    let end = find_end(text.as_bytes(), &mut 0)?.unwrap_or_else(|| panic!("not whole: {text:?}"));
    Response::judge(&Head::parse(text.as_bytes(), 0..end)?, asked)
}

#[test]
fn the_length_of_a_response_follows_the_order_of_rfc_9112() {
    let body = |text: &str, asked| response(text, asked).unwrap().body;
    let head = Asked { is_head: true, ..ASKED };
    let connect = Asked { is_connect: true, ..ASKED };
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ASKED), Framing::Length(5));
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head), Framing::None);
    assert_eq!(body("HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", ASKED), Framing::None);
    assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n", ASKED), Framing::None);
    assert_eq!(body("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", ASKED), Framing::Chunked);
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n", ASKED), Framing::Close);
    assert!(response("HTTP/1.1 200 OK\r\n\r\n", connect).unwrap().tunnel);
    assert!(!response("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", connect).unwrap().tunnel);
    assert!(!response("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", ASKED).unwrap().keep_alive);
    assert!(!response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", ASKED).unwrap().keep_alive);
    assert_eq!(response("HTTP/1.1 200 OK\r\nGrpc-Status: 14\r\n\r\n", ASKED).unwrap().grpc_status, Some(14));
}

#[test]
fn a_response_head_is_patched_where_it_must_be() {
    let old = Asked { is_old: true, ..ASKED };
    let cases = [
        ("HTTP/1.0 200\r\nA: 1\r\n\r\n", ASKED, Keep::No, "HTTP/1.1 200 \r\nA: 1\r\nconnection: close\r\n\r\n"),
        ("HTTP/1.1 204 N\r\nContent-Length: 5\r\nA: 1\r\n\r\n", ASKED, Keep::Silently, "HTTP/1.1 204 N\r\nA: 1\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", old, Keep::No, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-Leno-Z: 1\r\n\r\n",
            old,
            Keep::Told,
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nconnection: keep-alive\r\n\r\n",
        ),
        (
            "HTTP/1.1 426 U\r\nUpgrade: h2\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
            ASKED,
            Keep::Silently,
            "HTTP/1.1 426 U\r\nUpgrade: h2\r\nContent-Length: 0\r\nconnection: upgrade\r\n\r\n",
        ),
    ];
    for (text, asked, keep, want) in cases {
        let buffers = Rc::new(Buffers::default());
        let mut out = buffers.take();
        let head = Head::parse(text.as_bytes(), 0..text.len()).unwrap();
        let judged = Response::judge(&head, asked).unwrap();
        response::patch(&head, &judged, asked, keep, None, &mut out);
        assert_eq!(std::str::from_utf8(out.filled()).unwrap(), want, "{text:?}");
    }
}

/// Bytes that look like a request, with some of them wrong.
fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
    let line = "(Host|Content-Length|Transfer-Encoding|Connection|X)[ \t]?:[ \t]?(a|5|chunked|close|[ -~\t]{0,8})(\r\n|\r\n|\r\n|\n)";
    let head = prop::collection::vec(line, 0..5).prop_map(|lines| format!("GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat()));
    let noise = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    (head, noise).prop_map(|(head, noise)| {
        let mut bytes = head.into_bytes();
        if let Some((place, byte)) = noise {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    })
}

proptest! {
    /// What is accepted here, another parser accepts too and reads the same fields.
    #[test]
    fn accepted_heads_mean_the_same_to_another_parser(bytes in nearly_a_request()) {
        let Some(Ok(_)) = judge(&bytes) else { return Ok(()) };
        let end = find_end(&bytes, &mut 0).unwrap().unwrap();
        let head = Head::parse(&bytes, 0..end).unwrap();
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut fields);
        prop_assert_eq!(other.parse(&bytes).unwrap(), httparse::Status::Complete(end));
        prop_assert_eq!(other.headers.len(), head.fields().len());
        for (theirs, ours) in other.headers.iter().zip(head.fields()) {
            prop_assert_eq!(theirs.name.as_bytes(), ours.name.of(&bytes));
            prop_assert_eq!(theirs.value, ours.value.of(&bytes));
        }
    }

    /// Where a head ends does not depend on how it arrives.
    #[test]
    fn the_end_is_found_wherever_the_bytes_are_split(bytes in nearly_a_request(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([bytes.len()]).collect();
        cuts.sort_unstable();
        let mut scanned = 0;
        let in_parts = cuts.iter().map(|cut| find_end(&bytes[..*cut], &mut scanned)).find(|found| *found != Ok(None)).unwrap_or(Ok(None));
        prop_assert_eq!(in_parts, find_end(&bytes, &mut 0));
    }

    /// Whatever is read from the network, judging it ends in an answer.
    #[test]
    fn judging_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        judge(&bytes);
        let whole = [&b"GET / HTTP/1.1\r\n"[..], &bytes, b"\r\n\r\n"].concat();
        judge(&whole);
    }
}
