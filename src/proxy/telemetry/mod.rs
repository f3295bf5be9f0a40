//! Telemetry: one record per request, counted in metrics and, if wanted, written to the access log.

pub mod access_log;
pub mod events;
mod line;
mod origin;
pub mod prometheus;
pub mod recorder;
pub mod series;
pub mod spans;
mod tried;

use std::net::SocketAddr;
use std::time::Duration;

use leno_core::names::{Name, ServiceId};

use crate::tls::Secured;

pub use access_log::{AccessLog, AccessLogMode, LogSettings, LogSink};
pub use events::Event;
pub use origin::Origin;
pub use recorder::{OpenConnection, Recorder, Registry, TcpRecord};
pub use spans::{Trace, Tracer, Tracing};
pub use tried::{Retried, Tried, Went};

/// Which way traffic goes through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From another workload to this one's app.
    Inbound,
    /// From this workload's app to a service.
    Outbound,
}

/// What was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spoken {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2 that is not gRPC.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

/// Where traffic goes: the closed set of labels. Everything in it comes from configuration, nothing from a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The service, where it is one of the mesh.
    pub service: Option<ServiceId>,
    /// The version of the endpoint that answered.
    pub version: Option<Name>,
    /// The rule that matched.
    pub route: Option<Name>,
}

/// Which rules let something pass, or did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access<'a> {
    /// The policy that decided whether it may pass.
    pub policy: Option<&'a Name>,
    /// The Audit policy that would have refused it.
    pub would_deny: Option<&'a Name>,
}

/// What authorization said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
    /// It may pass, and an Audit policy would have refused it.
    WouldDeny,
}

impl Decision {
    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::WouldDeny => "would-deny",
        }
    }
}

/// One request, as it ended.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    /// Which way.
    pub direction: Direction,
    /// What was spoken.
    pub spoken: Spoken,
    /// Metric labels of the destination.
    pub destination: &'a Destination,
    /// Which rules let it pass, or did not.
    pub access: Access<'a>,
    /// Method; empty where no head could be read.
    pub method: &'a str,
    /// Target as sent; empty where no head could be read.
    pub path: &'a str,
    /// `Host` or `:authority`.
    pub authority: &'a str,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// Its span, where requests are traced.
    pub trace: Option<&'a Trace>,
    /// Status sent to the client; 0 when the client was gone before there was one.
    pub status: u16,
    /// `grpc-status`, where the response carried one.
    pub grpc_status: Option<u16>,
    /// Why the proxy itself answered or gave up; `None` when the app answered in full. From a closed set.
    pub reason: Option<&'static str>,
    /// What was tried, and tried again.
    pub tried: Tried<'a>,
    /// Address of the client.
    pub peer: SocketAddr,
    /// Address of the endpoint.
    pub upstream: Option<SocketAddr>,
    /// Who was at both ends, where the connection between proxies was mutual TLS.
    pub secured: Option<&'a Secured>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the request's first byte to the response's last.
    pub duration: Duration,
}

impl Direction {
    /// Metric label and log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Inbound => 0,
            Self::Outbound => 1,
        }
    }
}

impl Spoken {
    pub(crate) const COUNT: usize = 4;

    /// Metric label and log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Http1 => 0,
            Self::Http2 => 1,
            Self::Grpc => 2,
            Self::Tcp => 3,
        }
    }
}

#[cfg(test)]
pub(crate) mod test_support {
    use super::*;

    pub(crate) fn somewhere(version: &str) -> Destination {
        Destination { service: Some(ServiceId::new("shop", "payment")), version: Some(version.into()), route: Some("r".into()) }
    }

    pub(crate) fn record(destination: &Destination, status: u16) -> RequestRecord<'_> {
        RequestRecord {
            direction: Direction::Outbound,
            spoken: Spoken::Http1,
            destination,
            access: Access::default(),
            method: "GET",
            path: "/a\"b",
            authority: "payment",
            request_id: "id",
            trace: None,
            status,
            grpc_status: None,
            reason: (status == 503).then_some("no-endpoint"),
            tried: Tried::default(),
            peer: ([127, 0, 0, 1], 1).into(),
            upstream: None,
            secured: None,
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_millis(3),
        }
    }
}
