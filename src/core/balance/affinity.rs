//! Session affinity: requests of one session stay with one endpoint, for as long as it is there.
//!
//! The session itself says which endpoint that is: the proxy names it in its answer, in a cookie or a header field, and the caller sends that back.
//! So nothing is remembered here, every proxy reads the same, and a session stays where it is whatever other endpoints come and go. Callers
//! learn no address: an endpoint's name is a hash.

use std::time::Duration;

use super::hash::stable;
use super::key::{Key, cookie};
use crate::filters::FieldChanges;
use crate::names::{Name, ServiceId};
use crate::request::RequestHead;

/// How sessions are told apart (`MeshService.spec.loadBalancer.sessionAffinity`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// By a cookie that the proxy sets.
    Cookie(SessionCookie),
    /// By this header field, in lower case, which callers send back. A value that a caller makes up itself belongs to whoever owns it on the
    /// ring ([`super::ring`]).
    Header(Name),
}

/// The cookie of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name.
    pub name: Name,
    /// How long the caller keeps it; `None` is as long as its own session.
    pub ttl: Option<Duration>,
    /// For which paths it is sent.
    pub path: Name,
}

impl SessionCookie {
    /// The name of the cookie of a service that chooses none. It is one of its own for each service, or those of one site would take each
    /// other's, and tells nobody what the service is called.
    pub fn name_for(service: &ServiceId) -> Name {
        format!("leno-{:08x}", stable(service.to_string().as_bytes()) >> 32).into()
    }
}

impl Affinity {
    /// Whom a request belongs to.
    pub(super) fn key(&self, request: &RequestHead<'_>) -> Key {
        match self {
            Self::Cookie(wanted) => {
                let field = request.headers.get("cookie");
                let value = field.as_deref().and_then(|field| cookie(field, &wanted.name));
                value.and_then(endpoint_of).map_or(Key::Any, Key::Endpoint)
            }
            Self::Header(name) => match request.headers.get(name) {
                Some(value) if !value.is_empty() => endpoint_of(&value).map_or_else(|| Key::Hash(stable(&value)), Key::Endpoint),
                Some(_) | None => Key::Any,
            },
        }
    }

    /// What the answer to a request with `key` tells its caller, which the endpoint known as `id` has taken; `None` where that is nothing new.
    pub fn tells(&self, key: Key, id: u64) -> Option<FieldChanges> {
        match (self, key) {
            (_, Key::Endpoint(known)) if known == id => None,
            // The caller has a value of its own.
            (_, Key::Hash(_)) => None,
            (Self::Header(name), _) => Some(FieldChanges { set: vec![(name.clone(), text(id).into())], ..FieldChanges::default() }),
            (Self::Cookie(SessionCookie { name, ttl, path }), _) => {
                let age = ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs().max(1))).unwrap_or_default();
                let value = format!("{name}={}; Path={path}{age}; HttpOnly", text(id));
                Some(FieldChanges { add: vec![("set-cookie".into(), value.into())], ..FieldChanges::default() })
            }
        }
    }
}

/// The name of an endpoint, as callers hear it.
fn text(id: u64) -> String {
    format!("{id:016x}")
}

/// The endpoint that a name means, if it has the form of one.
fn endpoint_of(value: &[u8]) -> Option<u64> {
    let is_name = value.len() == 16 && value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(value).ok().filter(|_| is_name)?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Balancing;
    use crate::request::Caller;

    fn by_cookie(ttl: Option<Duration>) -> Affinity {
        Affinity::Cookie(SessionCookie { name: "s".into(), ttl, path: "/shop".into() })
    }

    fn key(affinity: Affinity, name: &str, value: &str) -> Key {
        let (headers, caller) = (vec![(name.to_owned(), value.to_owned())], Caller::default());
        let head = RequestHead { method: "GET", path: "/", query: "", authority: "payment", headers: &headers, caller: &caller };
        let balancing = Balancing { affinity: Some(affinity), ..Balancing::default() };
        balancing.key(Some(&head), "10.0.0.1".parse().unwrap())
    }

    #[test]
    fn what_an_answer_says_brings_the_next_request_to_the_same_endpoint() {
        let id = 0x00ab_cdef_0123_4567;
        let told = by_cookie(Some(Duration::from_secs(3600))).tells(Key::Any, id).unwrap();
        assert_eq!(told.add, [("set-cookie".into(), "s=00abcdef01234567; Path=/shop; Max-Age=3600; HttpOnly".into())]);
        assert_eq!(key(by_cookie(None), "cookie", "a=b; s=00abcdef01234567"), Key::Endpoint(id));
        assert_eq!(by_cookie(None).tells(Key::Endpoint(id), id), None, "the caller knows");
        let moved = by_cookie(None).tells(Key::Endpoint(id), 1).unwrap();
        assert_eq!(moved.add, [("set-cookie".into(), "s=0000000000000001; Path=/shop; HttpOnly".into())]);

        let header = || Affinity::Header("x-session".into());
        let told = header().tells(Key::Any, id).unwrap();
        assert_eq!(told.set, [("x-session".into(), "00abcdef01234567".into())]);
        assert_eq!(key(header(), "X-Session", "00abcdef01234567"), Key::Endpoint(id));
    }

    #[test]
    fn what_names_no_endpoint_is_no_session_or_a_key_of_the_callers_own() {
        for value in ["", "s=", "s=1", "s=00ABCDEF01234567", "s=00abcdef0123456g", "s=00abcdef012345678", "t=00abcdef01234567"] {
            assert_eq!(key(by_cookie(None), "cookie", value), Key::Any, "{value}");
        }
        let header = || Affinity::Header("x-session".into());
        let own = key(header(), "x-session", "alice");
        assert_eq!(own, Key::Hash(stable(b"alice")));
        assert_eq!(header().tells(own, 7), None, "the caller keeps its own value");
        assert_eq!(key(header(), "x-session", ""), Key::Any);
    }

    #[test]
    fn every_service_has_a_cookie_of_its_own() {
        let name = |name: &str| SessionCookie::name_for(&ServiceId::new("shop", name));
        assert_ne!(name("payment"), name("orders"));
        assert!(name("payment").starts_with("leno-") && name("payment").len() == 13);
    }
}
