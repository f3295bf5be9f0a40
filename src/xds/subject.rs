//! What can be subscribed to, and how it is named on the wire.

use std::fmt;
use std::net::SocketAddr;

use leno_core::endpoints::EndpointsId;
use leno_core::names::{Name, ServiceId, WorkloadId};

/// The longest name of a resource. Kubernetes allows 63 + 63 characters, host names have at most 253.
pub const NAME_BYTES_MAX: usize = 512;

/// The name of the one resource of type Trust.
const TRUST: &str = "mesh";

/// A type of resource. One request or response is about one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// A service and its routes.
    Service,
    /// The endpoints of one service port.
    Endpoints,
    /// What a proxy's own workload is.
    Workload,
    /// By which roots peers are verified.
    Trust,
}

impl ResourceType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Service, Self::Endpoints, Self::Workload, Self::Trust];

    /// The type's URL on the wire.
    pub fn url(self) -> &'static str {
        match self {
            Self::Service => "type.googleapis.com/leno.dev.Service",
            Self::Endpoints => "type.googleapis.com/leno.dev.Endpoints",
            Self::Workload => "type.googleapis.com/leno.dev.Workload",
            Self::Trust => "type.googleapis.com/leno.dev.Trust",
        }
    }

    /// The type that `url` names.
    pub fn of_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.url() == url)
    }
}

/// Something a proxy subscribes to: a resource by its canonical name, or a service by an alias.
///
/// Displayed as on the wire: `shop/payment`, `address/10.96.0.5:80`, `host/payment.example.com`, `shop/payment:80`, `shop/web-1`,
/// `mesh`.
/// A host name without a dot is followed by a colon, `host/payment:`; `host/payment` is a service in a namespace called `host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A service by its canonical name.
    Service(ServiceId),
    /// The service behind a virtual address and port.
    Address(SocketAddr),
    /// The service that a host name means to the subscriber's namespace; lower case, without port.
    Host(Name),
    /// The endpoints of a service port.
    Endpoints(EndpointsId),
    /// A workload.
    Workload(WorkloadId),
    /// The mesh's trust: there is one.
    Trust,
}

impl Subject {
    /// The type of the resource that answers it.
    pub fn resource_type(&self) -> ResourceType {
        match self {
            Self::Service(_) | Self::Address(_) | Self::Host(_) => ResourceType::Service,
            Self::Endpoints(_) => ResourceType::Endpoints,
            Self::Workload(_) => ResourceType::Workload,
            Self::Trust => ResourceType::Trust,
        }
    }

    /// Whether it is another name for a service, so that the answer says which.
    pub fn is_alias(&self) -> bool {
        match self {
            Self::Address(_) | Self::Host(_) => true,
            Self::Service(_) | Self::Endpoints(_) | Self::Workload(_) | Self::Trust => false,
        }
    }

    /// Reads the wire's name of something of type `of`; `None` when it is no such name.
    pub fn parse(of: ResourceType, name: &str) -> Option<Self> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        match of {
            ResourceType::Endpoints => name.parse().ok().map(Self::Endpoints),
            ResourceType::Workload => name.parse().ok().map(Self::Workload),
            ResourceType::Trust => (name == TRUST).then_some(Self::Trust),
            ResourceType::Service => match name.split_once('/') {
                // No namespace is called `address` and holds `10.96.0.5:80`: a colon is not allowed in a service's name.
                Some(("address", address)) if address.contains(':') => address.parse().ok().map(Self::Address),
                Some(("host", host)) if host.contains('.') => Some(Self::Host(host.into())),
                // The colon tells it from a service in a namespace called `host`.
                Some(("host", host)) if host.ends_with(':') => host.strip_suffix(':').map(|host| Self::Host(host.into())),
                Some(_) | None => name.parse().ok().map(Self::Service),
            },
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => id.fmt(f),
            Self::Address(address) => write!(f, "address/{address}"),
            Self::Host(host) if host.contains('.') => write!(f, "host/{host}"),
            Self::Host(host) => write!(f, "host/{host}:"),
            Self::Endpoints(id) => id.fmt(f),
            Self::Workload(id) => id.fmt(f),
            Self::Trust => f.write_str(TRUST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_read_back_what_they_display() {
        let payment = ServiceId::new("shop", "payment");
        let cases = [
            (Subject::Service(payment.clone()), "shop/payment"),
            (Subject::Service(ServiceId::new("host", "payment")), "host/payment"),
            (Subject::Service(ServiceId::new("address", "payment")), "address/payment"),
            (Subject::Address("10.96.0.5:80".parse().unwrap()), "address/10.96.0.5:80"),
            (Subject::Address("[fd00::1]:80".parse().unwrap()), "address/[fd00::1]:80"),
            (Subject::Host("payment.example.com".into()), "host/payment.example.com"),
            (Subject::Host("payment".into()), "host/payment:"),
            (Subject::Host("fd00::1".into()), "host/fd00::1:"),
            (Subject::Endpoints(EndpointsId::new(payment, 80)), "shop/payment:80"),
            (Subject::Workload(WorkloadId::new("shop", "web-1")), "shop/web-1"),
            (Subject::Trust, "mesh"),
        ];
        for (subject, name) in cases {
            assert_eq!(subject.to_string(), name);
            assert_eq!(Subject::parse(subject.resource_type(), name), Some(subject), "{name}");
        }
    }

    #[test]
    fn names_of_another_shape_or_of_endless_length_are_no_subjects() {
        let long = format!("shop/{}", "x".repeat(NAME_BYTES_MAX));
        for name in ["*", "", "payment", "address/10.96.0.5:x", &long] {
            assert_eq!(Subject::parse(ResourceType::Service, name), None, "{name}");
        }
        assert_eq!(Subject::parse(ResourceType::Endpoints, "shop/payment"), None);
    }

    #[test]
    fn types_are_found_by_their_url() {
        for it in ResourceType::ALL {
            assert_eq!(ResourceType::of_url(it.url()), Some(it));
        }
        assert_eq!(ResourceType::of_url("type.googleapis.com/envoy.config.cluster.v3.Cluster"), None);
    }
}
