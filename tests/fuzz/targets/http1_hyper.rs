//! HTTP/1 beside hyper: the bytes of a whole connection, read by the proxy's parsers and by hyper's server.
//!
//! What the proxy accepts hyper must accept, as the same requests: method, target, content, and where the next one begins. What the
//! proxy refuses hyper may take, for the reasons of this table and no others, because two recipients could read it differently:
//!
//! | the proxy refuses | hyper |
//! |---|---|
//! | a line ended by LF alone, a CR within one | takes LF for CR LF |
//! | `Content-Length` and `Transfer-Encoding` together | drops the length |
//! | `Content-Length` twice, though equal | takes them for one |
//! | a length of more than 18 digits | takes what fits 64 bits |
//! | codings before `chunked` (501) | leaves them to the app |
//! | `Transfer-Encoding` in two lines | joins them |
//! | a `Host` that is missing, double, malformed or contradicts the target | leaves that to the app |
//! | a target with a fragment, of another scheme, with a user | takes what its URI type takes |
//! | `Connection` that names `Host`, lengths or codings, or has bytes above ASCII | leaves that to the app, or does not read it |
//! | `CONNECT` with a body | takes it without |
//! | chunk sizes with white space or more than 15 digits, long or odd extensions, malformed trailers, long ones | takes them |
//! | whatever follows `close`, though `keep-alive` or other lines stand beside it | the last line counts |
//! | methods of more than 32 letters; heads and lines above the limits | has higher limits |
//!
//! The other way round hyper refuses targets that its URI type does not know, which the proxy leaves to the app
//! ([`hyper_knows_the_target`]), and an empty value of `Host` or an authority that is none.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body as _, Bytes, Frame, Incoming};
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use leno_parsers::http1::chunked::{Decoder, Piece};
use leno_parsers::http1::head::{self, Head, HeadError, Known};
use leno_parsers::http1::request::{Form, Framing, Request};
use libfuzzer_sys::fuzz_target;

/// One request as somebody has read it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    content: Vec<u8>,
}

/// How the proxy came to the end of a connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// More was to come.
    Cut,
    /// What follows this head's request is not HTTP, or not wanted.
    Closed(Vec<u8>),
    Refused(Option<HeadError>, Vec<u8>),
}

fuzz_target!(|input: &[u8]| {
    let (ours, end, unknown) = ours(input);
    let theirs = theirs(input);
    // A target that hyper's types do not know ends its connection.
    let comparable = unknown.unwrap_or(ours.len());
    assert!(theirs.len() >= comparable, "hyper reads fewer requests: {theirs:?} for {ours:?}");
    assert_eq!(ours[..comparable], theirs[..comparable], "another request");
    if unknown.is_some() || theirs.len() == ours.len() {
        return;
    }
    match &end {
        End::Refused(Some(error), head) => assert!(is_intended(*error, head), "{error:?} is not what is wrong with {:?}", String::from_utf8_lossy(head)),
        End::Refused(None, _) => {}
        End::Closed(head) => assert!(is_closed_in_doubt(head), "hyper reads on after {:?}", String::from_utf8_lossy(head)),
        End::Cut => panic!("hyper reads on where more was to come: {theirs:?}"),
    }
});

/// What the proxy reads, how it ends, and which request is the first whose target hyper does not know.
fn ours(mut rest: &[u8]) -> (Vec<Seen>, End, Option<usize>) {
    let (mut seen, mut unknown) = (Vec::new(), None);
    loop {
        while let Some(more) = rest.strip_prefix(b"\r\n") {
            rest = more;
        }
        let length = match head::find_end(rest, &mut 0) {
            Ok(Some(length)) => length,
            Ok(None) => return (seen, End::Cut, unknown),
            Err(error) => return (seen, End::Refused(Some(error), rest.to_vec()), unknown),
        };
        let refused = |error| End::Refused(Some(error), rest[..length].to_vec());
        let judged = Head::parse(rest, 0..length).and_then(|head| {
            head.within_app_limits()?;
            let request = Request::judge(&head)?;
            Ok((request, hyper_knows_the_target(&head, &request)))
        });
        let (request, is_known) = match judged {
            Ok(judged) => judged,
            Err(error) => return (seen, refused(error), unknown),
        };
        if !is_known {
            unknown.get_or_insert(seen.len());
        }
        let (method, target) = (request.method.text(rest).to_owned(), as_hyper_writes(request.target.text(rest)));
        let (content, used) = match content(request.body, &rest[length..]) {
            Ok(Some(read)) => read,
            Ok(None) => return (seen, End::Cut, unknown),
            Err(()) => return (seen, End::Refused(None, Vec::new()), unknown),
        };
        seen.push(Seen { method, target, content });
        let head = rest[..length].to_vec();
        rest = &rest[length + used..];
        if !request.keep_alive || request.form == Form::Authority {
            return (seen, End::Closed(head), unknown);
        }
    }
}

/// A whole body and how long it is on the wire; `None` when there is more to come.
fn content(framing: Framing, rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
    match framing {
        Framing::None | Framing::Close => Ok(Some((Vec::new(), 0))),
        Framing::Length(length) => {
            let length = usize::try_from(length).map_err(|_| ())?;
            Ok(rest.get(..length).map(|content| (content.to_vec(), length)))
        }
        Framing::Chunked => {
            let (mut decoder, mut content, mut place) = (Decoder::default(), Vec::new(), 0);
            loop {
                let (used, piece) = decoder.step(&rest[place..]).map_err(|_| ())?;
                place += used;
                match piece {
                    Piece::Data(data) => content.extend_from_slice(data),
                    Piece::More => return Ok(None),
                    Piece::End => return Ok(Some((content, place))),
                }
            }
        }
    }
}

/// Whether hyper has a type for the target; it has none for some that apps are sent.
fn hyper_knows_the_target(head: &Head<'_>, request: &Request) -> bool {
    hyper::Uri::try_from(request.target.of(head.bytes)).is_ok()
}

/// Whether `close` stands beside other words on keeping the connection.
fn is_closed_in_doubt(bytes: &[u8]) -> bool {
    let Ok(head) = Head::parse(bytes, 0..bytes.len()) else { return false };
    let values: Vec<&[u8]> = head.all(Known::Connection).map(|field| head.value(field)).collect();
    let says = |wanted: &[u8]| head.list(Known::Connection).any(|option| option.eq_ignore_ascii_case(wanted));
    values.len() > 1 || (says(b"close") && says(b"keep-alive"))
}

/// Whether what is wrong with a head is what the error says.
fn is_intended(error: HeadError, bytes: &[u8]) -> bool {
    let bare = |(place, byte): (usize, &u8)| match byte {
        b'\n' => place == 0 || bytes[place - 1] != b'\r',
        b'\r' => bytes.get(place + 1) != Some(&b'\n'),
        _ => false,
    };
    let parsed = match head::find_end(bytes, &mut 0) {
        Ok(Some(length)) => Head::parse(bytes, 0..length),
        Ok(None) | Err(_) => Err(error),
    };
    let of = |known| parsed.as_ref().map_or(Vec::new(), |head| head.all(known).map(|field| head.value(field).to_vec()).collect());
    let (lengths, codings): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (of(Known::ContentLength), of(Known::TransferEncoding));
    let is_plain = |length: &Vec<u8>| (1..=18).contains(&length.len()) && length.iter().all(u8::is_ascii_digit);
    let is_chunked = |coding: &Vec<u8>| coding.eq_ignore_ascii_case(b"chunked");
    let first = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match error {
        HeadError::BadLineEnd => bytes.iter().enumerate().any(bare),
        HeadError::BadFraming => {
            lengths.len() + codings.len() > 1
                || !lengths.iter().all(is_plain)
                || !codings.iter().all(is_chunked)
                || (first.ends_with(b"HTTP/1.0") && !codings.is_empty())
                || (first.starts_with(b"CONNECT ") && lengths.len() + codings.len() > 0)
        }
        HeadError::UnknownCoding => codings.iter().any(|coding| coding.contains(&b',')),
        HeadError::BadConnection => !of(Known::Connection).is_empty(),
        HeadError::BadHost | HeadError::BadTarget | HeadError::BadFirstLine | HeadError::BadVersion => true,
        HeadError::TooLarge => bytes.len() > head::HEAD_BYTES_MAX || bytes.iter().filter(|byte| **byte == b'\n').count() > head::FIELDS_MAX,
        HeadError::TargetTooLong => first.len() > 8 * 1024,
        // hyper reads these as the proxy does.
        HeadError::BadFieldLine | HeadError::BadFieldValue | HeadError::TooSlow => false,
    }
}

/// What hyper's server reads.
fn theirs(input: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (parts, mut body) = request.into_parts();
            let mut content = Vec::new();
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                if let Ok(data) = frame?.into_data() {
                    content.extend_from_slice(&data);
                }
            }
            seen.borrow_mut().push(Seen { method: parts.method.to_string(), target: parts.uri.to_string(), content });
            Ok::<_, hyper::Error>(hyper::Response::new(Nothing))
        }
    });
    let io = Bytewise { rest: input.to_vec(), place: 0 };
    let mut server = hyper::server::conn::http1::Builder::new();
    let mut connection = pin!(server.half_close(true).auto_date_header(false).header_read_timeout(None).serve_connection(io, service));
    let mut cx = Context::from_waker(Waker::noop());
    // Everything is there at once; it may want to be asked again after it has yielded.
    for _ in 0..input.len() + 64 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    seen.take()
}

/// A target as hyper writes it: it adds the slash that an absolute one may lack.
fn as_hyper_writes(target: &str) -> String {
    hyper::Uri::try_from(target).map_or_else(|_| target.to_owned(), |uri| uri.to_string())
}

/// A body of nothing.
struct Nothing;

impl hyper::body::Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// All of the input, then its end; what is written goes nowhere.
struct Bytewise {
    rest: Vec<u8>,
    place: usize,
}

impl hyper::rt::Read for Bytewise {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let count = into.remaining().min(self.rest.len() - self.place);
        into.put_slice(&self.rest[self.place..self.place + count]);
        self.place += count;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Bytewise {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
