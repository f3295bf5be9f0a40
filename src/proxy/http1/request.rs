//! A request's head: what it asks, how long its body is, and the head that is sent on.
//!
//! The head is patched, not rebuilt: every line that is not the proxy's business is copied as it is.
//!
//! `x-forwarded-for` names every workload a request passed once. The outbound side writes the app's address where the
//! field is absent (it is the first hop); the inbound side appends its peer unless the last entry is that already.

use std::borrow::Cow;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use leno_core::filters::FieldChanges;
use leno_core::names::split_authority;
use leno_core::request::{Caller, RequestHead, split_target};
use leno_core::trace::Outgoing;

use super::head::{Field, Head, HeadError, Known, Span, content_length, is_chunked, is_token, trim};
use crate::buffers::Buffer;

/// Longest method token; longer ones are malformed.
const METHOD_BYTES_MAX: usize = 32;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By its length, above 0.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection (responses only).
    Close,
}

/// The form of the target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, with `CONNECT`.
    Authority,
    /// `*`, with `OPTIONS`.
    Asterisk,
}

/// A request's head, judged. Places are places in the bytes it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The method.
    pub method: Span,
    /// The target as sent.
    pub target: Span,
    /// Path and query of the target.
    pub path: Span,
    /// `Host`, or the target's authority; empty when there is neither.
    pub authority: Span,
    /// The form of the target.
    pub form: Form,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    /// How its body is delimited.
    pub body: Framing,
    /// Whether the client keeps the connection open.
    pub keep_alive: bool,
    /// Whether it asks to change the protocol, to one that the proxy passes on.
    pub upgrade: bool,
    /// `x-request-id`, where it is there.
    pub request_id: Span,
}

impl Request {
    /// Judges the head (RFC 9112 sections 2 to 6).
    pub fn judge(head: &Head<'_>) -> Result<Self, HeadError> {
        let (method, target, is_old) = first_line(head)?;
        let (form, path, target_authority) = target_form(head.bytes, method, target)?;
        let host = host(head, is_old)?;
        let authority = match target_authority {
            None => host.unwrap_or_default(),
            Some(authority) => {
                let same = |host: Span| host.of(head.bytes).eq_ignore_ascii_case(authority.of(head.bytes));
                if host.is_some_and(|host| !same(host)) {
                    return Err(HeadError::BadHost);
                }
                authority
            }
        };
        let body = framing(head, is_old)?;
        if form == Form::Authority && body != Framing::None {
            return Err(HeadError::BadFraming);
        }
        let options = Options::of(head)?;
        Ok(Self {
            method,
            target,
            path,
            authority,
            form,
            is_old,
            body,
            keep_alive: !options.close && (!is_old || options.keep_alive),
            upgrade: !is_old && options.upgrade && body == Framing::None && upgrades(head),
            request_id: head.all(Known::RequestId).next().map(|field| field.value).unwrap_or_default(),
        })
    }

    /// The head as decisions see it.
    pub fn view<'h>(&self, head: &'h Head<'h>, caller: &'h Caller) -> RequestHead<'h> {
        let (path, query) = split_target(self.path.text(head.bytes));
        let path = if self.form == Form::Absolute && path.is_empty() { "/" } else { path };
        RequestHead { method: self.method.text(head.bytes), path, query, authority: self.authority.text(head.bytes), headers: head, caller }
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self, bytes: &[u8]) -> bool {
        matches!(self.method.of(bytes), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    /// Whether it is `HEAD`, whose response has no body.
    pub fn is_head(&self, bytes: &[u8]) -> bool {
        self.method.of(bytes) == b"HEAD"
    }
}

/// The request line: method, target, and whether it is HTTP/1.0.
fn first_line(head: &Head<'_>) -> Result<(Span, Span, bool), HeadError> {
    let line = head.first.of(head.bytes);
    let start = head.first.start();
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(HeadError::BadFirstLine);
    };
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !method.iter().all(|byte| is_token(*byte)) {
        return Err(HeadError::BadFirstLine);
    }
    let is_old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(HeadError::BadVersion);
        }
        _ => return Err(HeadError::BadFirstLine),
    };
    // A fragment is never sent; bytes above ASCII are never part of a URI (RFC 3986).
    if target.is_empty() || !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(HeadError::BadTarget);
    }
    let method = Span::new(start..start + method.len());
    let target = Span::new(method.end() + 1..method.end() + 1 + target.len());
    Ok((method, target, is_old))
}

/// The form of the target, its path with query, and its authority where it has one.
fn target_form(bytes: &[u8], method: Span, target: Span) -> Result<(Form, Span, Option<Span>), HeadError> {
    let text = target.of(bytes);
    if method.of(bytes) == b"CONNECT" {
        return match split_authority(target.text(bytes)) {
            Some((_, Some(_))) if is_authority(text) => Ok((Form::Authority, Span::default(), Some(target))),
            Some(_) | None => Err(HeadError::BadTarget),
        };
    }
    if text[0] == b'/' {
        return Ok((Form::Origin, target, None));
    }
    if text == b"*" {
        let asks = method.of(bytes) == b"OPTIONS";
        return if asks { Ok((Form::Asterisk, target, None)) } else { Err(HeadError::BadTarget) };
    }
    let scheme = b"http://".len();
    if !text.get(..scheme).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://")) {
        return Err(HeadError::BadTarget);
    }
    let rest = &text[scheme..];
    let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let start = target.start() + scheme;
    let authority = Span::new(start..start + length);
    if !is_authority(authority.of(bytes)) || split_authority(authority.text(bytes)).is_none() {
        return Err(HeadError::BadTarget);
    }
    // `http://host?query` has no path, and there is no place for the one that would have to be put in.
    if rest.get(length) == Some(&b'?') {
        return Err(HeadError::BadTarget);
    }
    Ok((Form::Absolute, Span::new(start + length..target.end()), Some(authority)))
}

/// The value of `Host`: exactly one in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112 section 3.2).
fn host(head: &Head<'_>, is_old: bool) -> Result<Option<Span>, HeadError> {
    let mut lines = head.all(Known::Host);
    let line = lines.next();
    if lines.next().is_some() || (line.is_none() && !is_old) {
        return Err(HeadError::BadHost);
    }
    match line.map(|line| line.value) {
        Some(value) if !value.of(head.bytes).is_empty() && !is_host(value, head.bytes) => Err(HeadError::BadHost),
        value => Ok(value),
    }
}

fn is_host(value: Span, bytes: &[u8]) -> bool {
    is_authority(value.of(bytes)) && split_authority(value.text(bytes)).is_some()
}

/// The characters of `host[:port]` (RFC 3986): no user, no path, no list.
fn is_authority(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.'
                        | b'_'
                        | b'~'
                        | b':'
                        | b'['
                        | b']'
                        | b'%'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b';'
                        | b'='
                )
        })
}

/// How the body is delimited (RFC 9112 section 6.3); what is uncertain is refused.
fn framing(head: &Head<'_>, is_old: bool) -> Result<Framing, HeadError> {
    let length = content_length(head)?;
    match (is_chunked(head)?, length) {
        (true, Some(_)) => Err(HeadError::BadFraming),
        // A recipient that only knows HTTP/1.0 would not see the coding.
        (true, None) if is_old => Err(HeadError::BadFraming),
        (true, None) => Ok(Framing::Chunked),
        (false, None | Some(0)) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Length(length)),
    }
}

/// What `Connection` says of the connection itself.
#[derive(Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

impl Options {
    pub(super) fn of(head: &Head<'_>) -> Result<Self, HeadError> {
        let mut options = Self::default();
        for option in head.list(Known::Connection) {
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if !option.is_ascii() || matches!(Known::of(option), Known::Host | Known::ContentLength | Known::TransferEncoding) {
                // Some recipients do not read a value with bytes above ASCII at all, and so keep or close where others would not.
                return Err(HeadError::BadConnection);
            }
        }
        Ok(options)
    }
}

/// Whether the protocol asked for may be passed on: everything but HTTP/2, which would carry requests past the proxy.
fn upgrades(head: &Head<'_>) -> bool {
    let mut asked = head.list(Known::Upgrade).peekable();
    asked.peek().is_some() && asked.all(|protocol| !protocol.get(..2).is_some_and(|name| name.eq_ignore_ascii_case(b"h2")))
}

/// What the proxy adds to a request it sends on.
pub struct Additions<'a> {
    /// Who sent it to this proxy.
    pub peer: IpAddr,
    /// Whether the receiver is told who sent it (`x-forwarded-for`, `x-forwarded-proto`): those outside the cluster are not.
    pub tells: bool,
    /// Whether this is the app's own side (see the module's header).
    pub is_outbound: bool,
    /// `x-request-id` for a request that has none.
    pub request_id: &'a str,
    /// Whether an absolute target is shortened to its path: this proxy was addressed as an HTTP proxy.
    pub shorten: bool,
    /// `Host` for an HTTP/1.0 request that has none.
    pub host: SocketAddr,
    /// The path to send on instead of the one that came; the query stays.
    pub path: Option<&'a str>,
    /// The authority to send on instead of the one that came.
    pub authority: Option<&'a str>,
    /// Changes of fields that the route makes. They hold for what the proxy's span says as well.
    pub changes: Option<&'a FieldChanges>,
    /// The proxy's span, where requests are traced: what it says replaces what came.
    pub trace: Option<Outgoing<'a>>,
}

/// Writes the head that is sent on to `out`.
pub fn patch(head: &Head<'_>, request: &Request, additions: &Additions<'_>, out: &mut Buffer) {
    let bytes = head.bytes;
    out.append(request.method.of(bytes));
    out.append(b" ");
    match request.form {
        Form::Origin | Form::Absolute if additions.path.is_some() || additions.authority.is_some() => {
            append_target(head, request, additions, out);
        }
        Form::Absolute if additions.shorten && request.path.of(bytes).is_empty() => out.append(b"/"),
        Form::Absolute if additions.shorten => out.append(request.path.of(bytes)),
        Form::Absolute | Form::Origin | Form::Authority | Form::Asterisk => out.append(request.target.of(bytes)),
    }
    out.append(b" HTTP/1.1\r\n");
    let peer = AddressText::new(additions.peer);
    let forwarded = if additions.tells { forwarded_for(head, additions.is_outbound, peer.as_bytes()) } else { None };
    copy_lines(head, out, |field| match field.known {
        Known::TransferEncoding | Known::ContentLength | Known::RequestId => false,
        Known::Host => additions.authority.is_some(),
        Known::ForwardedProto => is_changed(head, field, additions.changes),
        Known::No => is_named(head, field) || is_changed(head, field, additions.changes) || is_traced(head, field, additions.trace),
        Known::Te => !head.value(field).eq_ignore_ascii_case(b"trailers"),
        Known::ProxyAuth => additions.shorten || is_changed(head, field, additions.changes),
        Known::ForwardedFor => forwarded.is_some(),
        Known::Connection | Known::Http2Settings | Known::KeepAlive | Known::Leno | Known::ProxyConnection => true,
        Known::Upgrade => !request.upgrade,
    });
    match (additions.authority, head.all(Known::Host).next()) {
        (Some(authority), _) => append_line(out, "host", authority.as_bytes()),
        (None, Some(_)) => {}
        (None, None) if request.authority == Span::default() => append_line(out, "host", additions.host.to_string().as_bytes()),
        (None, None) => append_line(out, "host", request.authority.of(bytes)),
    }
    if request.request_id == Span::default() {
        append_line(out, "x-request-id", additions.request_id.as_bytes());
    }
    if let Some(forwarded) = forwarded {
        append_line(out, "x-forwarded-for", &forwarded);
    }
    let proto = head.all(Known::ForwardedProto).next();
    if additions.tells && proto.is_none() && !additions.changes.is_some_and(|changes| changes.drops(b"x-forwarded-proto")) {
        append_line(out, "x-forwarded-proto", b"http");
    }
    append_trace(additions, out);
    append_changes(additions.changes, out);
    match (request.upgrade, sends_te(head)) {
        (true, _) => append_line(out, "connection", b"upgrade"),
        (false, true) => append_line(out, "connection", b"te"),
        (false, false) => {}
    }
    out.append(b"\r\n");
}

/// The target with another path or authority. One that is absolute stays so only while its authority does.
fn append_target(head: &Head<'_>, request: &Request, additions: &Additions<'_>, out: &mut Buffer) {
    let whole = request.path.of(head.bytes);
    let (path, query) = whole.split_at(whole.iter().position(|byte| *byte == b'?').unwrap_or(whole.len()));
    if !additions.shorten && additions.authority.is_none() {
        out.append(&head.bytes[request.target.start()..request.path.start()]);
    }
    out.append(additions.path.map_or(if path.is_empty() { b"/" } else { path }, str::as_bytes));
    out.append(query);
}

/// Whether the field's line goes away because the route changes it.
pub(super) fn is_changed(head: &Head<'_>, field: &Field, changes: Option<&FieldChanges>) -> bool {
    changes.is_some_and(|changes| changes.drops(field.name.of(head.bytes)))
}

fn is_traced(head: &Head<'_>, field: &Field, trace: Option<Outgoing<'_>>) -> bool {
    trace.is_some_and(|trace| trace.owns(field.name.of(head.bytes)))
}

/// The lines that tell the next one of the proxy's span.
fn append_trace(additions: &Additions<'_>, out: &mut Buffer) {
    let Some(trace) = additions.trace else { return };
    trace.each_field(|name, value| {
        if !additions.changes.is_some_and(|changes| changes.drops(name.as_bytes())) {
            append_line(out, name, value);
        }
    });
}

/// The lines that a route's changes bring.
pub(super) fn append_changes(changes: Option<&FieldChanges>, out: &mut Buffer) {
    for (name, value) in changes.into_iter().flat_map(FieldChanges::lines) {
        append_line(out, name, value.as_bytes());
    }
}

fn sends_te(head: &Head<'_>) -> bool {
    head.all(Known::Te).any(|field| head.value(field).eq_ignore_ascii_case(b"trailers"))
}

/// The new value of `x-forwarded-for`; `None` leaves it as it is.
fn forwarded_for<'p>(head: &Head<'_>, is_outbound: bool, peer: &'p [u8]) -> Option<Cow<'p, [u8]>> {
    match head.list(Known::ForwardedFor).last() {
        None => Some(Cow::Borrowed(peer)),
        Some(_) if is_outbound => None,
        Some(last) if last == peer => None,
        Some(_) => {
            let mut value = head.list(Known::ForwardedFor).collect::<Vec<_>>().join(&b", "[..]);
            value.extend_from_slice(b", ");
            value.extend_from_slice(peer);
            Some(Cow::Owned(value))
        }
    }
}

/// An address as text, without an allocation.
struct AddressText {
    bytes: [u8; ADDRESS_BYTES_MAX],
    length: usize,
}

/// Room for the longest text of an address: `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
const ADDRESS_BYTES_MAX: usize = 45;

impl AddressText {
    fn new(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; ADDRESS_BYTES_MAX], length: 0 };
        match address.to_canonical() {
            // By hand: it is written for every request, and the machinery of formatting took a fortieth of the proxy's own time.
            IpAddr::V4(address) => text.dotted(address.octets()),
            IpAddr::V6(address) => {
                let mut room = &mut text.bytes[..];
                let wrote = write!(room, "{address}");
                debug_assert!(wrote.is_ok(), "the longest address fits");
                text.length = ADDRESS_BYTES_MAX - room.len();
            }
        }
        text
    }

    fn dotted(&mut self, octets: [u8; 4]) {
        for (index, octet) in octets.into_iter().enumerate() {
            if index > 0 {
                self.push(b'.');
            }
            let digits = [octet / 100, octet / 10 % 10, octet % 10];
            let zeros = usize::from(octet < 100) + usize::from(octet < 10);
            for digit in &digits[zeros..] {
                self.push(b'0' + digit);
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Copies every field line but those to be dropped, run by run.
pub(super) fn copy_lines(head: &Head<'_>, out: &mut Buffer, drop: impl Fn(&Field) -> bool) {
    let mut from = head.fields().first().map_or(head.end, |field| field.name.start());
    for (index, field) in head.fields().iter().enumerate() {
        if drop(field) {
            out.append(&head.bytes[from..field.name.start()]);
            from = head.line_end(index);
        }
    }
    out.append(&head.bytes[from..head.end]);
}

pub(super) fn append_line(out: &mut Buffer, name: &str, value: &[u8]) {
    out.append(name.as_bytes());
    out.append(b": ");
    out.append(value);
    out.append(b"\r\n");
}

/// Whether `Connection` names the field, so that it is for this hop only (RFC 9110 section 7.6.1).
pub(super) fn is_named(head: &Head<'_>, field: &Field) -> bool {
    let mut lines = head.all(Known::Connection);
    let name = field.name.of(head.bytes);
    lines.any(|line| head.value(line).split(|byte| *byte == b',').any(|option| trim(option).eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_are_written_as_the_standard_library_writes_them(v4: [u8; 4], v6: [u16; 8], is_v4: bool) {
            let address = if is_v4 { IpAddr::from(v4) } else { IpAddr::from(v6) };
            let (ours, theirs) = (AddressText::new(address), address.to_canonical().to_string());
            prop_assert_eq!(ours.as_bytes(), theirs.as_bytes());
        }
    }
}
