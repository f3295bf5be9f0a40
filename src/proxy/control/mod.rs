//! What workers and the control stream say to each other.
//!
//! One control thread holds the stream to the controller. Workers ask it for what their traffic needs ([`Ask`]) and each
//! gets every answer ([`Update`]), so that a worker's configuration is its own and the request path takes no lock.

pub mod client;
pub mod connect;
#[cfg(test)]
pub(crate) mod fake;
mod held;
mod known_keys;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::{Name, ServiceId};
use leno_core::service::Service;
use leno_core::trust::Trust;
use leno_core::workload::Workload;

use crate::identity::Credentials;

pub use client::{Control, ControllerAddress};

/// How traffic names a service before the controller has told its canonical name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alias {
    /// The address an app dialled: a cluster IP and port, perhaps.
    Address(SocketAddr),
    /// A host name, lower case, without port, as the app wrote it (`payment`, `payment.shop`, `payment.example.com`).
    Host(Name),
    /// The canonical name, for the destinations of routes.
    Service(ServiceId),
}

/// What a worker asks of the control thread. Asking again is harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Subscribe to whatever service this means.
    Service(Alias),
    /// Subscribe to the endpoints of a service port.
    Endpoints(EndpointsId),
    /// Nobody has used this for the idle time: unsubscribe.
    DropService(Alias),
    /// The same for endpoints.
    DropEndpoints(EndpointsId),
}

/// What every worker is told.
#[derive(Clone, Debug)]
pub enum Update {
    /// An alias means this service now, or (`None`) no service of the mesh.
    Alias(Alias, Option<ServiceId>),
    /// A service's current state; `None` when it is gone.
    Service(ServiceId, Option<Arc<Service>>),
    /// A service port's current endpoints; `None` when it is gone.
    Endpoints(EndpointsId, Option<Arc<Endpoints>>),
    /// What this proxy itself is.
    Workload(Arc<Workload>),
    /// By which roots peers are verified from now on.
    Trust(Arc<Trust>),
    /// What this proxy proves itself with from now on.
    Credentials(Arc<Credentials>),
    /// Whether the control stream is up. While it is not, nobody waits for an answer.
    Connected(bool),
}
