//! A service: where it is found, which ports it has, how traffic to it behaves.

use std::net::IpAddr;

use crate::names::{Name, ServiceId};
use crate::route::RouteTable;

/// One service of the mesh, as every proxy that talks to it needs to know it.
///
/// Endpoints are apart ([`crate::endpoints::Endpoints`]), with everything that holds for whoever sends requests to them, so that their churn
/// never rebuilds routes.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its own name.
    pub id: ServiceId,
    /// Virtual addresses (cluster IPs) at which callers find it; empty for a headless service.
    pub vips: Vec<IpAddr>,
    /// Further host names its callers use (`MeshService.spec.hosts`), lower case, without port.
    pub hosts: Vec<Name>,
    /// Its ports, ordered by number.
    pub ports: Vec<ServicePort>,
    /// Whether it is something outside the cluster (`MeshService.spec.external`): several of them may share an address.
    pub outside: bool,
    /// Rules of the policy in force, or an empty table.
    pub routes: RouteTable,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port callers dial.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// What is spoken on a port (`MeshService.spec.ports[].protocol`, else `appProtocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Not declared: the first bytes tell.
    #[default]
    Detect,
    /// HTTP/1.1 (a client that opens with the HTTP/2 preface is still understood).
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC: HTTP/2 whose errors are spoken in `grpc-status`.
    Grpc,
    /// TLS of the app's own: carried as it is.
    Tls,
    /// Opaque bytes; the server may speak first.
    Tcp,
}

impl Protocol {
    /// Whether requests on such a port are routed one by one.
    pub fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Http2 | Self::Grpc => true,
            Self::Detect | Self::Tls | Self::Tcp => false,
        }
    }

    /// Whether bytes are carried without being looked at.
    pub fn is_opaque(self) -> bool {
        match self {
            Self::Tls | Self::Tcp => true,
            Self::Detect | Self::Http | Self::Http2 | Self::Grpc => false,
        }
    }
}

impl Service {
    /// A service of which nothing is known but its name: no ports, and the defaults in everything else.
    pub fn new(id: ServiceId) -> Self {
        Self { id, vips: Vec::new(), hosts: Vec::new(), ports: Vec::new(), outside: false, routes: RouteTable::default() }
    }

    /// The port `number`, if the service has it.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}
