//! Heads: what a request asks, and the heads that are sent on.
//!
//! `h2` has refused malformed ones already: connection-specific fields, `te` other than `trailers`, pseudo-header fields
//! out of place, an upper-case name (RFC 9113 section 8.2). The map that arrived is changed in place and sent on.
//!
//! `x-forwarded-for` follows the same rule as in HTTP/1: the outbound side writes the app's address where the field is
//! absent, the inbound side appends its peer unless the last entry is that already.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{HOST, HeaderName, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};
use leno_core::filters::FieldChanges;
use leno_core::names::{Name, split_authority};
use leno_core::request::{Caller, Headers, RequestHead, join};

use crate::connection::Side;
use crate::http1::head::HeadError;
use crate::http1::record::RequestId;
use crate::telemetry::Trace;
use crate::worker::Context;

/// Prefix of the fields that proxies of the mesh say things to each other with. Never passed on.
const LENO_PREFIX: &str = "x-leno-";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Fields as decisions look them up.
struct Fields<'a>(&'a HeaderMap);

impl Headers for Fields<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        join(self.0.get_all(name).into_iter().map(HeaderValue::as_bytes))
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(name, value)| visit(name.as_str().as_bytes(), value.as_bytes()));
    }
}

/// Brings the authority to its place, `:authority` (RFC 9113 section 8.3.1): `Host` says it where that is missing, and
/// contradicts it never. A request without either is refused, as in HTTP/1.1.
pub(super) fn settle_authority(parts: &mut Parts) -> Result<(), HeadError> {
    let mut hosts = parts.headers.get_all(HOST).into_iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(HeadError::BadHost);
    }
    match (parts.uri.authority(), host) {
        (None, None) => return Err(HeadError::BadHost),
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            return Err(HeadError::BadHost);
        }
        (None, Some(host)) => {
            let authority = Authority::try_from(host.as_bytes()).ok().ok_or(HeadError::BadHost)?;
            parts.uri = with_authority(&parts.uri, authority)?;
        }
        (Some(_), Some(_) | None) => {}
    }
    if host_is_there(parts) {
        parts.headers.remove(HOST);
    }
    let authority = parts.uri.authority().map_or("", Authority::as_str);
    if split_authority(authority).is_some() { Ok(()) } else { Err(HeadError::BadHost) }
}

fn host_is_there(parts: &Parts) -> bool {
    parts.headers.contains_key(HOST)
}

/// The target that a route rewrites the one of `parts` to.
pub(super) fn rewritten(uri: &Uri, path: Option<&str>, authority: Option<&str>) -> Result<Uri, HeadError> {
    let uri = match path {
        Some(path) => with_path(uri, path)?,
        None => uri.clone(),
    };
    match authority {
        Some(authority) => with_authority(&uri, authority.parse().ok().ok_or(HeadError::BadHost)?),
        None => Ok(uri),
    }
}

/// The target with an authority. Its scheme was lost with the authority that was not there; inside the mesh it is `http`.
fn with_authority(uri: &Uri, authority: Authority) -> Result<Uri, HeadError> {
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(authority);
    parts.scheme = Some(http::uri::Scheme::HTTP);
    Uri::from_parts(parts).ok().ok_or(HeadError::BadTarget)
}

/// Lets `look` see the head as decisions see it.
pub(super) fn view<T>(parts: &Parts, caller: &Caller, look: impl FnOnce(&RequestHead<'_>) -> T) -> T {
    let headers = Fields(&parts.headers);
    look(&RequestHead {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        authority: parts.uri.authority().map_or("", Authority::as_str),
        headers: &headers,
        caller,
    })
}

/// The target over TLS that this proxy has begun.
pub(super) fn with_https(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    if parts.scheme.is_some() {
        parts.scheme = Some(http::uri::Scheme::HTTPS);
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// The target with another path; the query stays.
pub(super) fn with_path(uri: &Uri, path: &str) -> Result<Uri, HeadError> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{path}{query}").parse().ok().ok_or(HeadError::BadTarget)?);
    Uri::from_parts(parts).ok().ok_or(HeadError::BadTarget)
}

/// Makes of the head that arrived the one that is sent on. `address` is who sent it, which those outside the cluster are not told. Returns the request's id, the client's own or one made of
/// `draws`.
pub(super) fn patch(headers: &mut HeaderMap, side: &Side, address: Option<&HeaderValue>, draws: impl FnOnce() -> [u64; 2]) -> HeaderValue {
    strip(headers);
    if matches!(side, Side::Explicit) {
        headers.remove(PROXY_AUTHORIZATION);
    }
    let is_outbound = !matches!(side, Side::Inbound { .. });
    if let Some(address) = address {
        forwarded_for(headers, address, is_outbound);
        if !headers.contains_key(FORWARDED_PROTO) {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        }
    }
    if let Some(id) = headers.get_mut(REQUEST_ID) {
        id.set_sensitive(true);
        return id.clone();
    }
    let mut id = HeaderValue::from_str(RequestId::make(draws()).text(&[])).unwrap_or_else(|_| HeaderValue::from_static(""));
    // Written as it is: in the table that HPACK compresses with, an id would only push out what comes again.
    id.set_sensitive(true);
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Begins the request's span, where requests are traced: what it says replaces what came.
pub(super) fn trace(headers: &mut HeaderMap, context: &Context) -> Option<Box<Trace>> {
    let trace = context.trace(&Fields(headers))?;
    let outgoing = trace.outgoing();
    for name in outgoing.names() {
        headers.remove(name);
    }
    outgoing.each_field(|name, value| {
        if let Ok(mut value) = HeaderValue::from_bytes(value) {
            // Like the request's id, it never comes again.
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
    });
    Some(trace)
}

/// Appends the peer, where it is not the last entry already.
fn forwarded_for(headers: &mut HeaderMap, address: &HeaderValue, is_outbound: bool) {
    let Some(last) = headers.get_all(FORWARDED_FOR).into_iter().next_back() else {
        headers.insert(FORWARDED_FOR, address.clone());
        return;
    };
    let last_entry = last.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if is_outbound || last_entry == address.as_bytes() {
        return;
    }
    let lines = headers.get_all(FORWARDED_FOR).into_iter().map(HeaderValue::as_bytes);
    let whole = lines.chain([address.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
    if let Ok(value) = HeaderValue::from_maybe_shared(whole) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// An address as a value of `x-forwarded-for`.
pub(super) fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_canonical().to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Takes out what only proxies say to each other.
pub(super) fn strip(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with(LENO_PREFIX)).cloned() {
        headers.remove(name);
    }
}

/// Whether the request is gRPC's: its `content-type` is `application/grpc`, alone or with a suffix or parameters.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(http::header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    match value.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

/// Makes the changes of fields that a route makes.
pub(super) fn change(headers: &mut HeaderMap, changes: &FieldChanges) {
    for name in changes.set.iter().map(|(name, _)| name).chain(&changes.remove) {
        headers.remove(&**name);
    }
    for (name, value) in changes.lines() {
        append(headers, name, value);
    }
}

/// One more line. What is no field, which no configuration that was checked holds, is left out.
pub(super) fn append(headers: &mut HeaderMap, name: &Name, value: &Name) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
        headers.append(name, value);
    }
}

/// `grpc-status`, where it is there.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::Request;

    use super::*;
    use crate::pool::Peers;
    use crate::telemetry::Destination;

    fn parts(uri: &str, fields: &[(&'static str, &str)]) -> Parts {
        let mut parts = Request::builder().uri(uri).body(()).unwrap().into_parts().0;
        for (name, value) in fields {
            parts.headers.append(*name, value.parse().unwrap());
        }
        parts
    }

    fn inbound() -> Side {
        let app = Peers::default().plain(([127, 0, 0, 1], 1).into());
        Side::Inbound { app, port: 1, labels: Rc::new(Destination::default()) }
    }

    #[test]
    fn host_gives_the_authority_where_it_is_missing_and_may_not_contradict_it() {
        type Fields = &'static [(&'static str, &'static str)];
        let cases: [(&str, Fields, Result<&str, HeadError>); 7] = [
            ("http://payment:80/a?b", &[], Ok("http://payment:80/a?b")),
            ("http://payment/a", &[("host", "Payment")], Ok("http://payment/a")),
            ("/a", &[("host", "payment:80")], Ok("http://payment:80/a")),
            ("/a", &[], Err(HeadError::BadHost)),
            ("http://payment/a", &[("host", "other")], Err(HeadError::BadHost)),
            ("http://payment/a", &[("host", "payment"), ("host", "payment")], Err(HeadError::BadHost)),
            ("http://user@payment/a", &[], Err(HeadError::BadHost)),
        ];
        for (uri, fields, want) in cases {
            let mut parts = parts(uri, fields);
            let got = settle_authority(&mut parts).map(|()| parts.uri.to_string());
            assert_eq!(got.as_deref(), want.as_ref().map(|uri| &**uri), "{uri} {fields:?}");
            assert!(want.is_err() || !parts.headers.contains_key(HOST), "{uri} {fields:?}");
        }
    }

    #[test]
    fn forwarded_for_names_every_workload_once() {
        let cases: [(&[&str], Side, &str); 5] = [
            (&[], Side::Explicit, "10.0.0.9"),
            (&["10.0.0.1"], Side::Explicit, "10.0.0.1"),
            (&[], inbound(), "10.0.0.9"),
            (&["10.0.0.1, 10.0.0.9"], inbound(), "10.0.0.1, 10.0.0.9"),
            (&["10.0.0.1", "10.0.0.2"], inbound(), "10.0.0.1, 10.0.0.2, 10.0.0.9"),
        ];
        for (lines, side, want) in cases {
            let fields: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let mut parts = parts("http://payment/", &fields);
            patch(&mut parts.headers, &side, Some(&address_value(IpAddr::from([10, 0, 0, 9]))), || [0; 2]);
            let got = join(parts.headers.get_all(FORWARDED_FOR).into_iter().map(HeaderValue::as_bytes)).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), want, "{lines:?}");
        }
    }

    #[test]
    fn what_proxies_say_to_each_other_is_taken_out_and_ids_are_kept_or_made() {
        let mut parts =
            parts("http://payment/", &[("x-leno-undelivered", "1"), ("x-leno-a", "1"), ("x-lenor", "1"), ("x-request-id", "mine")]);
        let id = patch(&mut parts.headers, &inbound(), Some(&address_value(IpAddr::from([10, 0, 0, 9]))), || [0; 2]);
        assert_eq!(id, "mine");
        assert!(parts.headers.keys().all(|name| !name.as_str().starts_with(LENO_PREFIX)));
        assert!(parts.headers.contains_key("x-lenor"));
        parts.headers.remove(REQUEST_ID);
        let made = patch(&mut parts.headers, &inbound(), Some(&address_value(IpAddr::from([10, 0, 0, 9]))), || [0; 2]);
        assert_eq!(made, "00000000-0000-4000-8000-000000000000");
        assert_eq!(parts.headers.get(REQUEST_ID), Some(&made));
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let cases = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;a=b", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ];
        for (value, want) in cases {
            assert_eq!(is_grpc(&parts("http://payment/", &[("content-type", value)]).headers), want, "{value}");
        }
    }
}
