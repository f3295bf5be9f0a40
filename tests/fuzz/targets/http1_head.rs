//! The HTTP/1 head: what is accepted is read the same way by another parser, and what is sent on by a stricter one.
//!
//! The first byte chooses request or response, the second where reads are split; the rest is the head.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use leno_core::percentage::Percentage;
use leno_core::request::Caller;
use leno_core::trace::{Incoming, Propagation, Span};
use leno_parsers::buffers::Buffers;
use leno_parsers::http1::head::{self, Head, HeadError};
use leno_parsers::http1::request::{self, Additions, Form, Framing, Request};
use leno_parsers::http1::response::{self, Asked, Keep, Response};
use libfuzzer_sys::fuzz_target;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fuzz_target!(|input: &[u8]| {
    let [choice, step, bytes @ ..] = input else { return };
    let whole = head::find_end(bytes, &mut 0);
    let split = find_end_split(bytes, usize::from(*step).max(1));
    // A head that is too long may be found out earlier, and so for another reason.
    assert_eq!(split.ok().flatten(), whole.ok().flatten(), "split reads find another end");
    let Ok(Some(length)) = whole else { return };
    let Ok(head) = Head::parse(bytes, 0..length) else { return };
    // More than that comes from another proxy alone, and is not sent on to a third.
    if head.within_app_limits().is_err() {
        return;
    }
    check_lines(&head, &bytes[..length]);
    if choice & 1 == 0 { check_request(&head, choice & 2 != 0, choice & 4 != 0) } else { check_response(&head, *choice) }
});

fn find_end_split(bytes: &[u8], step: usize) -> Result<Option<usize>, HeadError> {
    let mut scanned = 0;
    for end in (step..bytes.len()).step_by(step) {
        if let Some(length) = head::find_end(&bytes[..end], &mut scanned)? {
            return Ok(Some(length));
        }
    }
    head::find_end(bytes, &mut scanned)
}

/// Every field stands on its own line, and nothing of the head is in no field.
fn check_lines(head: &Head<'_>, bytes: &[u8]) {
    let text = bytes.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    let lines: Vec<&[u8]> = split_lines(text);
    assert_eq!(lines.len(), head.fields().len() + 1, "another number of lines");
    for (line, field) in lines[1..].iter().zip(head.fields()) {
        let (name, value) = (field.name.of(bytes), head.value(field));
        assert!(line.starts_with(name) && line[name.len()] == b':', "a name that does not begin its line");
        assert_eq!(line[name.len() + 1..].trim_ascii(), value.trim_ascii());
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "a value with a control character");
    }
}

fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    lines
}

fn check_request(head: &Head<'_>, is_outbound: bool, is_traced: bool) {
    let Ok(request) = Request::judge(head) else { return };
    let caller = Caller::default();
    let view = request.view(head, &caller);
    let (method, path) = (view.method.to_owned(), view.path.to_owned());
    assert!(path.starts_with('/') || matches!(request.form, Form::Asterisk | Form::Authority), "a path that is none: {path:?}");

    let sent = sent_on(head, &request, is_outbound, is_traced);
    let again = parse(&sent);
    let judged = Request::judge(&again).expect("what is sent on is accepted by the next proxy");
    assert_eq!(judged.body, request.body, "the next proxy sees another body");
    assert_eq!((judged.method.of(&sent), judged.target.of(&sent)), (request.method.of(head.bytes), request.target.of(head.bytes)));
    assert_eq!(judged.upgrade, request.upgrade);
    assert_eq!(judged.view(&again, &caller).path, path);
    assert_eq!(sent_on(&again, &judged, is_outbound, is_traced), sent, "the next proxy changes what this one left");

    let mut fields = [httparse::EMPTY_HEADER; head::FIELDS_MAX + head::FIELDS_ADDED_MAX];
    let mut other = httparse::Request::new(&mut fields);
    let length = other.parse(&sent).expect("another parser accepts it");
    assert_eq!(length, httparse::Status::Complete(sent.len()));
    assert_eq!((other.method, other.version), (Some(method.as_str()), Some(1)));
    assert_eq!(other_framing(other.headers), Ok(request.body), "another parser sees another body");
}

fn sent_on(head: &Head<'_>, request: &Request, is_outbound: bool, is_traced: bool) -> Vec<u8> {
    let forms = Propagation::default();
    let span = Span::begin(Incoming::read(&forms, head), Percentage::ALL, [1, 2, 3]);
    let trace = is_traced.then(|| span.outgoing(&forms));
    let host = SocketAddr::new(PEER, 80);
    let additions = Additions { peer: PEER, tells: true, is_outbound, request_id: "id", shorten: false, host, path: None, authority: None, changes: None, trace };
    let mut out = Rc::new(Buffers::default()).take();
    request::patch(head, request, &additions, &mut out);
    out.filled().to_vec()
}

fn check_response(head: &Head<'_>, choice: u8) {
    let asked = Asked { is_head: choice & 2 != 0, is_connect: choice & 4 != 0, upgrade: choice & 8 != 0, is_old: choice & 16 != 0 };
    let Ok(response) = Response::judge(head, asked) else { return };
    let mut out = Rc::new(Buffers::default()).take();
    response::patch(head, &response, asked, Keep::Silently, None, &mut out);
    let sent = out.filled().to_vec();
    let again = parse(&sent);
    let judged = Response::judge(&again, asked).expect("what is sent on is accepted by the next proxy");
    // To an HTTP/1.0 client a chunked body goes on without its framing.
    let body = if asked.is_old && response.body == Framing::Chunked { Framing::Close } else { response.body };
    assert_eq!((judged.status, judged.body, judged.tunnel), (response.status, body, response.tunnel));

    let mut fields = [httparse::EMPTY_HEADER; head::FIELDS_MAX + 8];
    let mut other = httparse::Response::new(&mut fields);
    let length = other.parse(&sent).expect("another parser accepts it");
    assert_eq!((length, other.code), (httparse::Status::Complete(sent.len()), Some(response.status)));
    let framing = other_framing(other.headers);
    assert!(framing.is_ok(), "contradicting lengths: {framing:?}");
    let speaks_of_a_body = !(asked.is_head || response.tunnel || matches!(response.status, 100..=199 | 204 | 304));
    match body {
        Framing::Length(_) | Framing::Chunked => assert_eq!(framing, Ok(body)),
        Framing::None | Framing::Close if speaks_of_a_body => assert_eq!(framing, Ok(Framing::None)),
        Framing::None | Framing::Close => {}
    }
}

fn parse(bytes: &[u8]) -> Head<'_> {
    let length = head::find_end(bytes, &mut 0).expect("what is sent on is within the limits").expect("it is whole");
    assert_eq!(length, bytes.len(), "what is sent on ends early");
    Head::parse(bytes, 0..length).expect("what is sent on has the form of a head")
}

/// The framing of a body as a reader sees it that knows nothing but the two fields that state it.
fn other_framing(headers: &[httparse::Header<'_>]) -> Result<Framing, &'static str> {
    let all =
        |name: &str| headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value).collect::<Vec<_>>();
    match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => Ok(Framing::None),
        ([length], []) => {
            let length = std::str::from_utf8(length).map_err(|_| "no text")?.parse().map_err(|_| "no number")?;
            Ok(if length == 0 { Framing::None } else { Framing::Length(length) })
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        _ => Err("two fields state the length"),
    }
}
