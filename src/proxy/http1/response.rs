//! A response's head: its status, how long its body is, and the head that is sent on.

use std::time::Duration;

use leno_core::filters::FieldChanges;
use time::OffsetDateTime;

use super::head::{Head, HeadError, Known, content_length, is_chunked};
use super::request::{Framing, Options, append_changes, append_line, copy_lines, is_changed, is_named};
use crate::buffers::Buffer;
use crate::retry_after;

/// Field by which an inbound side says that the app never got the request, so that it may go elsewhere.
pub const UNDELIVERED: &str = "x-leno-undelivered";

/// Why the app never got a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// It does not accept connections.
    Connect,
    /// It has as many requests as it bears.
    Overflow,
}

impl Undelivered {
    /// Reads what another proxy says. What this one does not know is as if nobody had accepted the connection.
    pub(crate) fn read(value: &[u8]) -> Self {
        if value == Self::Overflow.as_str().as_bytes() { Self::Overflow } else { Self::Connect }
    }

    /// The value of [`UNDELIVERED`].
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Overflow => "overflow",
        }
    }
}

/// What of the request its response depends on.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The request was `HEAD`.
    pub is_head: bool,
    /// The request was `CONNECT`.
    pub is_connect: bool,
    /// The request asked to change the protocol.
    pub upgrade: bool,
    /// The client speaks HTTP/1.0.
    pub is_old: bool,
}

/// A response's head, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// How its body is delimited.
    pub body: Framing,
    /// Whether the connection becomes a tunnel after it.
    pub tunnel: bool,
    /// Whether the server keeps the connection open.
    pub keep_alive: bool,
    /// Why the app never got the request, where the other proxy says so.
    pub undelivered: Option<Undelivered>,
    /// `grpc-status`, where it is there.
    pub grpc_status: Option<u16>,
    /// `Retry-After` of 429 and 503, where it is there.
    pub retry_after: Option<Duration>,
}

impl Response {
    /// Judges the head (RFC 9112 sections 4 and 6.3).
    pub fn judge(head: &Head<'_>, asked: Asked) -> Result<Self, HeadError> {
        let (status, is_old) = status_line(head)?;
        let options = Options::of(head)?;
        let tunnel = match status {
            101 if asked.upgrade => true,
            // A change nobody asked for, or a status that does not exist.
            101 => return Err(HeadError::BadFirstLine),
            200..=299 => asked.is_connect,
            _ => false,
        };
        let no_body = asked.is_head || tunnel || matches!(status, 100..=199 | 204 | 304);
        let body = framing(head, is_old, no_body)?;
        let keep_alive = !is_old && !options.close && body != Framing::Close && !tunnel;
        let undelivered = head.fields().iter().find(|field| is(head.bytes, field.name, UNDELIVERED));
        let undelivered = undelivered.map(|field| Undelivered::read(field.value.text(head.bytes).as_bytes()));
        let grpc_status = head.fields().iter().find(|field| is(head.bytes, field.name, "grpc-status"));
        let grpc_status = grpc_status.and_then(|field| field.value.text(head.bytes).parse().ok());
        Ok(Self { status, body, tunnel, keep_alive, undelivered, grpc_status, retry_after: retry_after(head, status) })
    }

    /// Whether another response follows to the same request.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }
}

/// What 429 and 503 ask for before the next try.
fn retry_after(head: &Head<'_>, status: u16) -> Option<Duration> {
    if !matches!(status, 429 | 503) {
        return None;
    }
    let field = head.fields().iter().find(|field| is(head.bytes, field.name, "retry-after"))?;
    retry_after::retry_after(field.value.of(head.bytes), OffsetDateTime::now_utc())
}

fn is(bytes: &[u8], name: super::head::Span, wanted: &str) -> bool {
    name.of(bytes).eq_ignore_ascii_case(wanted.as_bytes())
}

/// The status line: status, and whether it is HTTP/1.0.
fn status_line(head: &Head<'_>) -> Result<(u16, bool), HeadError> {
    let line = head.first.of(head.bytes);
    let (version, rest) = line.split_at_checked(b"HTTP/1.1 ".len()).ok_or(HeadError::BadFirstLine)?;
    let is_old = match version {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return Err(HeadError::BadVersion),
    };
    let status = match rest {
        [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9']
        | [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' ', ..] => {
            let digit = |byte: u8| u16::from(byte - b'0');
            digit(*hundreds) * 100 + digit(*tens) * 10 + digit(*ones)
        }
        _ => return Err(HeadError::BadFirstLine),
    };
    if rest.iter().any(|byte| !super::head::is_value(*byte)) {
        return Err(HeadError::BadFirstLine);
    }
    Ok((status, is_old))
}

fn framing(head: &Head<'_>, is_old: bool, no_body: bool) -> Result<Framing, HeadError> {
    let length = content_length(head)?;
    let chunked = is_chunked(head)?;
    if chunked && (length.is_some() || is_old) {
        return Err(HeadError::BadFraming);
    }
    Ok(match (no_body, chunked, length) {
        (true, ..) | (false, false, Some(0)) => Framing::None,
        (false, true, _) => Framing::Chunked,
        (false, false, Some(length)) => Framing::Length(length),
        (false, false, None) => Framing::Close,
    })
}

/// What the proxy says of its own connection to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: it stays open, as HTTP/1.1 has it.
    Silently,
    /// It stays open, which an HTTP/1.0 client must be told.
    Told,
    /// It closes.
    No,
}

/// Writes the head that is sent on to `out`.
///
/// `changes` are those that the route makes; a chunked body goes to an HTTP/1.0 client as plain bytes up to the end of the connection.
pub fn patch(head: &Head<'_>, response: &Response, asked: Asked, keep: Keep, changes: Option<&FieldChanges>, out: &mut Buffer) {
    // Those of the route are for the response itself.
    let changes = if response.is_interim() { None } else { changes };
    let first = head.first.of(head.bytes);
    out.append(b"HTTP/1.1 ");
    out.append(&first[b"HTTP/1.1 ".len()..]);
    if first.len() == b"HTTP/1.1 200".len() {
        out.append(b" ");
    }
    out.append(b"\r\n");
    let bodiless = response.tunnel || matches!(response.status, 100..=199 | 204);
    copy_lines(head, out, |field| match field.known {
        Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::Leno | Known::Http2Settings | Known::Te => true,
        Known::Upgrade => !(response.tunnel || response.status == 426),
        Known::ContentLength => bodiless,
        Known::TransferEncoding => bodiless || asked.is_old,
        Known::No => is_named(head, field) || is_changed(head, field, changes),
        Known::ForwardedProto | Known::ProxyAuth => is_changed(head, field, changes),
        Known::Host | Known::ForwardedFor | Known::RequestId => false,
    });
    append_changes(changes, out);
    match (response.status, keep) {
        (101 | 426, Keep::Silently | Keep::Told) => append_line(out, "connection", b"upgrade"),
        (101, Keep::No) => append_line(out, "connection", b"upgrade"),
        (100..=199, _) => {}
        (_, Keep::Silently) => {}
        (_, Keep::Told) => append_line(out, "connection", b"keep-alive"),
        (426, Keep::No) => append_line(out, "connection", b"upgrade, close"),
        (_, Keep::No) if !response.tunnel => append_line(out, "connection", b"close"),
        (_, Keep::No) => {}
    }
    out.append(b"\r\n");
}
