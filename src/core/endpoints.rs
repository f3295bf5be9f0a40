//! The endpoints of one service port.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::balance::Balancing;
use crate::balance::weighing::EndpointWeight;
use crate::names::{Identity, InvalidId, Name, ServiceId};
use crate::resilience::Resilience;

/// Names the endpoints of one service port; displayed `shop/payment:80`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointsId {
    /// The service.
    pub service: ServiceId,
    /// The service's port (not the container's).
    pub port: u16,
}

impl EndpointsId {
    /// The endpoints behind `port` of `service`.
    pub fn new(service: ServiceId, port: u16) -> Self {
        Self { service, port }
    }
}

impl fmt::Display for EndpointsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl FromStr for EndpointsId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (service, port) = text.rsplit_once(':').ok_or_else(|| InvalidId(text.to_owned()))?;
        let port = port.parse().ok().ok_or_else(|| InvalidId(text.to_owned()))?;
        Ok(Self { service: service.parse()?, port })
    }
}

/// Everything that may receive a request to one service port, ordered by address.
///
/// Only endpoints that may be picked are listed: ready ones, or, where none is ready, those that still serve while
/// they terminate (the rule kube-proxy follows, KEP-1669).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Whose endpoints these are.
    pub id: EndpointsId,
    /// The endpoints, ordered by address, no address twice.
    pub endpoints: Vec<Endpoint>,
    /// The TLS that proxies begin there, outside the mesh; `None` where bytes go as the app sent them.
    pub origination: Option<Arc<Origination>>,
    /// How the service is guarded against failing endpoints and too many requests; `None` where nothing is said.
    pub resilience: Option<Arc<Resilience>>,
    /// How one of them is chosen, where that is said. Whoever sends requests here chooses like this, whatever routes led here.
    pub balancing: Option<Arc<Balancing>>,
}

impl Endpoints {
    /// No endpoints, and nothing said of them.
    pub fn new(id: EndpointsId) -> Self {
        Self { id, endpoints: Vec::new(), origination: None, resilience: None, balancing: None }
    }
}

/// TLS that proxies begin with something outside the mesh, which knows nothing of Leno.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origination {
    /// The name in the server's certificate: a host name (sent as SNI) or an IP address.
    pub server_name: Name,
    /// Who may have signed that certificate, DER; empty means the public authorities.
    pub roots: Vec<Arc<[u8]>>,
}

/// One address that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens: a pod's address and container port.
    pub address: SocketAddr,
    /// The pod or laptop process behind it (its bare name; the namespace is the service's). Empty when unknown.
    pub workload: Name,
    /// The service's versions it belongs to, in the order the MeshService lists them.
    pub versions: Vec<Name>,
    /// Who must answer there, over mutual TLS; `None` where plain text is spoken.
    pub identity: Option<Arc<Identity>>,
    /// Its share of the requests beside others.
    pub weight: EndpointWeight,
    /// The zone it is in, where that is known and matters ([`Balancing::prefers_zone`]).
    pub zone: Option<Name>,
}

impl Endpoint {
    /// The endpoint at `address`, of which nothing else is known: plain text is spoken there.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, workload: "".into(), versions: Vec::new(), identity: None, weight: EndpointWeight::USUAL, zone: None }
    }

    /// Whether this endpoint may serve a destination of `version`; `None` asks for any.
    pub fn serves(&self, version: Option<&str>) -> bool {
        version.is_none_or(|wanted| self.versions.iter().any(|version| &**version == wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_ids_read_back_what_they_display() {
        let id = EndpointsId::new(ServiceId::new("shop", "payment"), 80);
        assert_eq!(id.to_string(), "shop/payment:80");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["shop/payment", "payment:80", "shop/payment:x", "shop/payment:70000"] {
            assert!(bad.parse::<EndpointsId>().is_err(), "{bad}");
        }
    }
}
