//! The control stream between controller and proxies, without any I/O.
//!
//! The protocol is delta xDS (`DeltaAggregatedResources` of Envoy's `envoy.service.discovery.v3`) with Leno's own resource
//! types. Both ends are state machines that are fed messages and asked for messages; sockets, clocks and tasks are the
//! proxy's and the controller's business.
//!
//! Reading order: [`subject`] (what can be subscribed to), [`encode`], [`decode`] and [`security`] (model ↔ bytes), [`frame`] (gRPC
//! messages in a byte stream), [`client`] (the proxy's end), [`server`] and [`message`] (the controller's end).

mod balancing;
pub mod client;
pub mod decode;
pub mod encode;
mod filters;
pub mod frame;
pub mod message;
mod mirror;
mod rate_limit;
mod resilience;
mod retry;
pub mod security;
pub mod server;
pub mod subject;
pub mod wire;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod models;
#[cfg(test)]
mod pair;

/// The gRPC method that carries the stream: the `:path` of the HTTP/2 request.
pub const METHOD_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The gRPC method that signs a proxy's certificate: a [`wire::leno::SigningRequest`] for a [`wire::leno::SigningResponse`]. The
/// workload's token travels as `authorization: Bearer …`.
pub const SIGN_PATH: &str = "/leno.dev.CertificateService/Sign";
