//! Authorization: whether what comes to the app's port may pass.
//!
//! [`leno_core::authorize::authorize`] says it; this file brings together what it judges: the rules of the port as they are now,
//! who calls, the path in its one spelling, and the claims of tokens that were verified. HTTP/1, HTTP/2 and opaque connections
//! all come through here. A port without rules costs one look at its guard.
//!
//! Reading order: [`of_request`], [`of_connection`], [`Admission`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use leno_core::authorize::{Authorization, Call, Claims, Issuer, Request, Silent, Verdict, authorize};
use leno_core::names::{Identity, Name};
use leno_core::path::normalise;
use leno_core::request::{Headers, RequestHead};

use crate::admit::{Asks, is_probe};
use crate::connection::{Connection, Side};
use crate::identity::keeper::wall_clock;
use crate::jwt::{self, TokenError, Trusted};
use crate::target::Refusal;
use crate::telemetry::{Access, Decision};
use crate::tls::Agreed;
use crate::worker::Context;

/// The header field of tokens that no other is named for, and the scheme they have there (RFC 6750 section 2.1).
const AUTHORIZATION: &str = "authorization";
const BEARER: &str = "Bearer";

/// What became of the question whether something may pass. The default: it may, as it is, and nobody was asked.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// Why it may not.
    pub(crate) refusal: Option<Refusal>,
    /// The path to send on, where it is another spelling than the one that came: the one that was judged.
    pub(crate) path: Option<String>,
    /// Who decided.
    pub(crate) decided: Decided,
}

/// Who decided, for the record. Callers are never told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decided {
    policy: Option<Name>,
    would_deny: Option<Name>,
}

impl Decided {
    /// As telemetry has it.
    pub(crate) fn access(&self) -> Access<'_> {
        Access { policy: self.policy.as_ref(), would_deny: self.would_deny.as_ref() }
    }
}

impl Admission {
    fn refused(refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..Self::default() }
    }
}

/// Where a request comes from.
pub(crate) struct Visitor<'a> {
    /// Which way it goes.
    pub(crate) side: &'a Side,
    /// What its connection has agreed on, where that is mutual TLS.
    pub(crate) tls: Option<&'a Agreed>,
    /// The address of whoever opened the connection.
    pub(crate) address: IpAddr,
    /// The worker.
    pub(crate) context: &'a Context,
}

/// Whether a request may pass to the app: what the app itself sends is not asked, nor are declared probes.
pub(crate) fn of_request(visitor: &Visitor<'_>, head: &RequestHead<'_>, asks: &Asks<'_>) -> Admission {
    let Visitor { side, tls, address, context } = *visitor;
    let Side::Inbound { port, .. } = *side else { return Admission::default() };
    judged(context, port, |rules| {
        if is_probe(side, tls, asks, context) {
            return Admission::default();
        }
        let normal = match rules.looks_at_paths().then(|| normalise(head.path)) {
            None => None,
            Some(Ok(normal)) => Some(normal),
            Some(Err(error)) => {
                tracing::debug!(%error, %address, "refused a path");
                return Admission::refused(Refusal::AmbiguousPath);
            }
        };
        let claims = match claims(context, head.headers, &rules.issuers) {
            Ok(claims) => claims,
            Err(error) => return Admission::refused(Refusal::Token(error)),
        };
        let path = normal.as_ref().map_or(head.path, |normal| normal.as_str());
        let request = Request { method: head.method, path, claims: &claims };
        let peer = head.caller.identity.as_ref();
        let verdict = authorize(rules, &Call { peer, source: address, port, request: Some(request) }, &mut Silent);
        let path = normal.filter(|normal| normal.is_changed()).map(|normal| normal.as_str().to_owned());
        Admission { path, ..said(context, &verdict, peer) }
    })
}

/// Whether a connection whose bytes are not looked at may pass to the app; only one that comes from outside is judged.
pub(crate) fn of_connection(connection: &Connection) -> Admission {
    let Side::Inbound { port, .. } = &connection.side else { return Admission::default() };
    let peer = connection.caller.identity.as_ref();
    judged(&connection.context, *port, |rules| said(&connection.context, &opaque(rules, connection, *port), peer))
}

/// As [`of_connection`], for a connection that may still turn out to be another: nothing is counted.
pub(crate) fn may_be_opaque(connection: &Connection) -> bool {
    let Side::Inbound { port, .. } = &connection.side else { return true };
    let is_allowed = |rules: &Authorization| opaque(rules, connection, *port).allowed;
    connection.context.directory.with_guard(*port, |guard| guard.is_none_or(|guard| is_allowed(&guard.authorization)))
}

fn opaque<'r>(rules: &'r Authorization, connection: &Connection, port: u16) -> Verdict<'r> {
    let call = Call { peer: connection.caller.identity.as_ref(), source: connection.peer.ip(), port, request: None };
    authorize(rules, &call, &mut Silent)
}

/// Judges by the rules of `port` as they are now, where there are any.
fn judged(context: &Context, port: u16, judge: impl FnOnce(&Authorization) -> Admission) -> Admission {
    context.directory.with_guard(port, |guard| match guard {
        Some(guard) if !guard.authorization.is_open() => judge(&guard.authorization),
        Some(_) | None => Admission::default(),
    })
}

/// Counts a verdict, and keeps of it what the record needs.
fn said(context: &Context, verdict: &Verdict<'_>, peer: Option<&Identity>) -> Admission {
    let (decision, policy) = match (verdict.allowed, verdict.would_deny) {
        (false, _) => (Decision::Deny, verdict.policy),
        (true, None) => (Decision::Allow, verdict.policy),
        (true, Some(audit)) => (Decision::WouldDeny, Some(audit)),
    };
    context.recorder.authorized(decision, policy, peer);
    let decided = Decided { policy: verdict.policy.cloned(), would_deny: verdict.would_deny.cloned() };
    Admission { refusal: (!verdict.allowed).then_some(Refusal::Denied), path: None, decided }
}

/// The claims of every token that the head presents, each verified. A token that is not valid refuses the request: whoever sends
/// one means to be somebody.
fn claims(context: &Context, headers: &dyn Headers, issuers: &[std::sync::Arc<Issuer>]) -> Result<Vec<Claims>, TokenError> {
    let mut claims = Vec::new();
    let fields: BTreeSet<&str> = issuers.iter().flat_map(|issuer| fields(issuer)).collect();
    for field in fields {
        let Some(value) = headers.get(field) else { continue };
        let Some(token) = token_in(field, &value)? else { continue };
        let takes_it = |issuer: &&std::sync::Arc<Issuer>| fields_contain(issuer, field);
        let trusted: Vec<Trusted<'_>> =
            issuers.iter().filter(takes_it).map(|issuer| Trusted { issuer, keys: context.keys.keys(issuer) }).collect();
        let now = i64::try_from(wall_clock().as_secs()).unwrap_or(i64::MAX);
        claims.push(jwt::verify(token, &trusted, now)?);
    }
    Ok(claims)
}

/// The header fields that tokens of `issuer` come in.
fn fields(issuer: &Issuer) -> impl Iterator<Item = &str> {
    let usual = issuer.headers.is_empty().then_some(AUTHORIZATION);
    usual.into_iter().chain(issuer.headers.iter().map(|field| &**field))
}

fn fields_contain(issuer: &Issuer, field: &str) -> bool {
    fields(issuer).any(|other| other == field)
}

/// The token in a field's value; `None` where there is none. `authorization` may carry something else under another scheme.
fn token_in<'v>(field: &str, value: &'v [u8]) -> Result<Option<&'v str>, TokenError> {
    let text = std::str::from_utf8(value).ok().ok_or(TokenError::Malformed)?.trim();
    let (scheme, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    Ok(match scheme.eq_ignore_ascii_case(BEARER) {
        true => Some(rest.trim_start()),
        false if field == AUTHORIZATION => None,
        false => Some(text).filter(|text| !text.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_with_the_scheme_bearer_and_in_fields_of_their_own_also_without() {
        type Found = Result<Option<&'static str>, TokenError>;
        let cases: [(&str, &[u8], Found); 14] = [
            (AUTHORIZATION, b"Bearer a.b.c", Ok(Some("a.b.c"))),
            (AUTHORIZATION, b"bearer  a.b.c ", Ok(Some("a.b.c"))),
            (AUTHORIZATION, b"Basic YTpi", Ok(None)),
            (AUTHORIZATION, b"a.b.c", Ok(None)),
            (AUTHORIZATION, b"", Ok(None)),
            (AUTHORIZATION, b"Bearer", Ok(Some(""))),
            (AUTHORIZATION, b"Bearer\ta.b.c", Ok(Some("a.b.c"))),
            (AUTHORIZATION, b"Bearera.b.c", Ok(None)),
            (AUTHORIZATION, b"Bearer a, Bearer b", Ok(Some("a, Bearer b"))),
            (AUTHORIZATION, b"Bearer \xff", Err(TokenError::Malformed)),
            ("x-token", b"a.b.c", Ok(Some("a.b.c"))),
            ("x-token", b"Bearer a.b.c", Ok(Some("a.b.c"))),
            ("x-token", b" ", Ok(None)),
            ("x-token", b"Basic YTpi", Ok(Some("Basic YTpi"))),
        ];
        for (field, value, want) in cases {
            assert_eq!(token_in(field, value), want, "{field}: {}", String::from_utf8_lossy(value));
        }
    }
}
