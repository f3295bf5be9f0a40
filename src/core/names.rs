//! Names: services, workloads, identities, and how a host name finds its service.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A shared, immutable string. Names travel from the snapshot to metric labels without copies.
pub type Name = Arc<str>;

/// A service by namespace and name; displayed `shop/payment`.
///
/// In a cluster this is the v1 Service's own namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Kubernetes namespace.
    pub namespace: Name,
    /// Name within the namespace.
    pub name: Name,
}

/// A workload (a pod, or a process on a laptop) by namespace and name; displayed `shop/web-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// Kubernetes namespace.
    pub namespace: Name,
    /// Pod name.
    pub name: Name,
}

/// The text is not of the form `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form NAMESPACE/NAME, for example shop/payment")]
pub struct InvalidId(pub String);

macro_rules! id {
    ($id:ident) => {
        impl $id {
            /// The id of `name` in `namespace`.
            pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
                Self { namespace: namespace.into(), name: name.into() }
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.namespace, self.name)
            }
        }

        impl FromStr for $id {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                match text.split_once('/') {
                    Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                        Ok(Self::new(namespace, name))
                    }
                    Some(_) | None => Err(InvalidId(text.to_owned())),
                }
            }
        }
    };
}

id!(ServiceId);
id!(WorkloadId);

/// Who a peer has proven to be: a SPIFFE ID, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The SPIFFE trust domain, `cluster.local` unless configured.
    pub trust_domain: Name,
    /// Namespace of the service account.
    pub namespace: Name,
    /// Name of the service account.
    pub service_account: Name,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

/// The text is no SPIFFE ID of a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
pub struct InvalidIdentity(pub String);

impl FromStr for Identity {
    type Err = InvalidIdentity;

    /// Reads a SPIFFE ID. Strict: nothing is decoded, no part may be empty or hold other than letters, digits, `.`, `-` and `_`
    /// (SPIFFE ID specification, section 2).
    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let plain = |part: &&str| {
            !part.is_empty()
                && *part != "."
                && *part != ".."
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        let parts: Vec<&str> = text.strip_prefix("spiffe://").map(|rest| rest.split('/').collect()).unwrap_or_default();
        match parts[..] {
            [trust_domain, "ns", namespace, "sa", account] if [trust_domain, namespace, account].iter().all(plain) => {
                Ok(Self { trust_domain: trust_domain.into(), namespace: namespace.into(), service_account: account.into() })
            }
            _ => Err(InvalidIdentity(text.to_owned())),
        }
    }
}

/// Splits an HTTP authority (RFC 3986 `host[:port]`, IPv6 in brackets) into host and port.
///
/// The host keeps its case. Returns `None` for an empty host, user information or a bad port.
pub fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    if authority.contains('@') {
        return None;
    }
    let (host, rest) = if let Some(inner) = authority.strip_prefix('[') {
        inner.split_once(']')?
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        authority.split_at(end)
    };
    if host.is_empty() {
        return None;
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        Some("") => Some((host, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(|port| (host, Some(port))),
        Some(_) | None => None,
    }
}

/// The service that a cluster host name means to a caller in `namespace`, by the DNS search path of a pod:
/// `payment`, `payment.shop`, `payment.shop.svc`, `payment.shop.svc.<cluster domain>` (a final dot is allowed).
///
/// Returns `None` for a name of another shape; whether the service exists is not asked here.
/// Source: Kubernetes DNS specification, section 2.3.
pub fn service_of_host(host: &str, namespace: &str, cluster_domain: &str) -> Option<ServiceId> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let short = match host.strip_suffix(cluster_domain) {
        Some(rest) => rest.strip_suffix(".svc.")?,
        None => host.strip_suffix(".svc").unwrap_or(&host),
    };
    let qualified = short.len() < host.len();
    let mut labels = short.split('.');
    let name = labels.next().filter(|label| !label.is_empty())?;
    match (labels.next(), labels.next()) {
        (None, _) if qualified => None,
        (None, _) => Some(ServiceId::new(namespace, name)),
        (Some(namespace), None) if !namespace.is_empty() => Some(ServiceId::new(namespace, name)),
        (Some(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_back_what_they_display_and_nothing_else() {
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        assert_eq!(id.parse::<Identity>().unwrap().to_string(), id);
        let bad = ["", "spiffe://cluster.local", "spiffe:///ns/shop/sa/web", "spiffe://a/ns/shop/sa/", "spiffe://a/ns/s%2fb/sa/web"];
        let more = ["http://a/ns/shop/sa/web", "spiffe://a/ns/shop/sa/web/x", "spiffe://a/sa/web/ns/shop", "spiffe://a/ns/../sa/web"];
        for text in bad.into_iter().chain(more) {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_read_back_what_they_display_and_refuse_other_shapes() {
        assert_eq!("shop/payment".parse(), Ok(ServiceId::new("shop", "payment")));
        assert_eq!(ServiceId::new("shop", "payment").to_string(), "shop/payment");
        for bad in ["", "payment", "/payment", "shop/", "a/b/c"] {
            assert_eq!(bad.parse::<WorkloadId>(), Err(InvalidId(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn authority_splits_into_host_and_port() {
        let cases = [
            ("payment", Some(("payment", None))),
            ("payment:80", Some(("payment", Some(80)))),
            ("payment:", Some(("payment", None))),
            ("[fd00::1]:8080", Some(("fd00::1", Some(8080)))),
            ("[fd00::1]", Some(("fd00::1", None))),
            ("10.0.0.1:1", Some(("10.0.0.1", Some(1)))),
            ("", None),
            (":80", None),
            ("payment:x", None),
            ("payment:+80", None),
            ("payment:65536", None),
            ("user@payment", None),
            ("[fd00::1]x", None),
        ];
        for (authority, want) in cases {
            assert_eq!(split_authority(authority), want, "{authority}");
        }
    }

    #[test]
    fn host_names_find_services_along_the_search_path_of_a_pod() {
        let found = |host| service_of_host(host, "shop", "cluster.local").map(|id| id.to_string());
        assert_eq!(found("payment").as_deref(), Some("shop/payment"));
        assert_eq!(found("Payment.OPS").as_deref(), Some("ops/payment"));
        assert_eq!(found("payment.ops.svc").as_deref(), Some("ops/payment"));
        assert_eq!(found("payment.ops.svc.cluster.local.").as_deref(), Some("ops/payment"));
        for none in ["", "a.b.c", "example.com.", "x.payment.ops.svc", "svc.cluster.local", "payment.svc.cluster.local", ".shop"] {
            let id = found(none);
            assert!(id.is_none() || none == "example.com.", "{none}: {id:?}");
        }
    }
}
