//! Keys: what a request says that decides which endpoint takes it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::affinity::Affinity;
use super::hash::stable;
use super::{Algorithm, Balancing};
use crate::matching::parameter;
use crate::names::Name;
use crate::request::RequestHead;

/// What of a request is hashed (`MeshService.spec.loadBalancer.consistentHash`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header field, in lower case.
    Header(Name),
    /// The value of this cookie.
    Cookie(Name),
    /// The value of the first query parameter of this name.
    Query(Name),
    /// The address that the connection comes from. The only one there is where no requests are seen.
    SourceIp,
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Query(name) => write!(f, "query parameter {name}"),
            Self::SourceIp => f.write_str("source address"),
        }
    }
}

/// Whom a request belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// Nobody: any endpoint may take it.
    #[default]
    Any,
    /// Whoever owns this place of the ring.
    Hash(u64),
    /// The endpoint that is known by this, and any other where that is not there.
    Endpoint(u64),
}

impl Balancing {
    /// Whom a request belongs to, which comes from `source`; without `request`, a connection whose bytes are not looked at.
    pub fn key(&self, request: Option<&RequestHead<'_>>, source: IpAddr) -> Key {
        if let (Some(affinity), Some(request)) = (&self.affinity, request) {
            return affinity.key(request);
        }
        match &self.algorithm {
            Algorithm::ConsistentHash(key) => key.hash(request, source).map_or(Key::Any, Key::Hash),
            Algorithm::LeastRequest | Algorithm::RoundRobin | Algorithm::Random | Algorithm::WeightedRandom | Algorithm::PeakEwma => {
                Key::Any
            }
        }
    }

    /// Whether anything that a request says decides who takes it.
    pub fn has_keys(&self) -> bool {
        self.affinity.is_some() || self.needs_ring()
    }

    /// Whether requests are told apart by their place on a ring.
    pub(super) fn needs_ring(&self) -> bool {
        matches!(self.algorithm, Algorithm::ConsistentHash(_)) || matches!(self.affinity, Some(Affinity::Header(_)))
    }
}

impl HashKey {
    /// The hash of what the request says; `None` where it does not say it. An empty value is none.
    fn hash(&self, request: Option<&RequestHead<'_>>, source: IpAddr) -> Option<u64> {
        let value = match self {
            Self::SourceIp => return Some(of_address(source)),
            Self::Header(name) => request?.headers.get(name)?,
            Self::Cookie(name) => return request?.headers.get("cookie").and_then(|field| cookie(&field, name).map(stable)),
            Self::Query(name) => parameter(request?.query, name)?.into(),
        };
        (!value.is_empty()).then(|| stable(&value))
    }
}

/// What an endpoint is known by on every proxy: a hash of its address and port.
pub fn endpoint_id(address: SocketAddr) -> u64 {
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&octets(address.ip()));
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    stable(&bytes)
}

fn of_address(address: IpAddr) -> u64 {
    stable(&octets(address))
}

/// An address as IPv6 has it, so that one address is one key however the connection came.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The value of the first cookie called `name` in a `Cookie` field (RFC 6265 section 5.4), if it has one.
///
/// HTTP/2 may send a field for each cookie (RFC 9113 section 8.2.3), which are joined by commas; neither names nor values have any.
pub(super) fn cookie<'f>(field: &'f [u8], name: &str) -> Option<&'f [u8]> {
    let pairs = field.split(|byte| matches!(byte, b';' | b',')).map(<[u8]>::trim_ascii);
    let mut values = pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values
        .next()
        .map(|value| value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Caller, split_target};

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn key(by: HashKey, target: &str, fields: &[(&str, &str)]) -> Key {
        let headers: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let ((path, query), caller) = (split_target(target), Caller::default());
        let head = RequestHead { method: "GET", path, query, authority: "payment", headers: &headers, caller: &caller };
        Balancing { algorithm: Algorithm::ConsistentHash(by), ..Balancing::default() }.key(Some(&head), SOURCE)
    }

    fn of(value: &str) -> Key {
        Key::Hash(stable(value.as_bytes()))
    }

    /// Who asks for what, and the key that has.
    type Case<'c> = (&'c HashKey, &'c str, &'c [(&'c str, &'c str)], Key);

    #[test]
    fn what_the_request_says_is_hashed() {
        let (header, cookie, query) = (HashKey::Header("x-user".into()), HashKey::Cookie("id".into()), HashKey::Query("user".into()));
        let cases: [Case<'_>; 13] = [
            (&header, "/", &[("X-User", "alice")], of("alice")),
            (&header, "/", &[("x-user", "a"), ("x-user", "b")], of("a, b")),
            (&header, "/", &[("x-other", "alice")], Key::Any),
            (&header, "/", &[("x-user", "")], Key::Any),
            (&cookie, "/", &[("cookie", "id=7")], of("7")),
            (&cookie, "/", &[("cookie", "xid=1; id=7; id=8")], of("7")),
            (&cookie, "/", &[("cookie", "a=1"), ("cookie", "id=\"7\"")], of("7")),
            (&cookie, "/", &[("cookie", "id=; id=7")], Key::Any),
            (&cookie, "/", &[("cookie", "ID=7; idx=8")], Key::Any),
            (&cookie, "/", &[], Key::Any),
            (&query, "/a?user=al%69ce&user=bob", &[], of("alice")),
            (&query, "/a?user", &[], Key::Any),
            (&query, "/a", &[], Key::Any),
        ];
        for (by, target, fields, wanted) in cases {
            assert_eq!(key(by.clone(), target, fields), wanted, "{by} {target} {fields:?}");
        }
    }

    #[test]
    fn one_address_is_one_key_however_its_connection_came() {
        let by_source = Balancing { algorithm: Algorithm::ConsistentHash(HashKey::SourceIp), ..Balancing::default() };
        let (plain, mapped) = ("10.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(by_source.key(None, plain), by_source.key(None, mapped));
        assert_ne!(by_source.key(None, plain), by_source.key(None, "10.0.0.2".parse().unwrap()));
        let by_header = Balancing { algorithm: Algorithm::ConsistentHash(HashKey::Header("x".into())), ..Balancing::default() };
        assert_eq!(by_header.key(None, plain), Key::Any);
        assert_eq!(Balancing::default().key(None, plain), Key::Any);
    }
}
