//! Bytes → model. Whatever cannot be understood is refused in words, which travel back in the NACK.
//!
//! Nothing is skipped: a condition, a destination or an enum value that this program does not know would, if it were
//! ignored, send requests where they must not go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use leno_core::balance::weighing::{EndpointWeight, InvalidEndpointWeight};
use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::endpoints::{Endpoint, Endpoints, Origination};
use leno_core::matching::{FieldMatch, InvalidPattern, Match, PathMatch, Pattern, ValueMatch};
use leno_core::names::{Identity, InvalidId, InvalidIdentity, Name, ServiceId};
use leno_core::percentage::InvalidPercentage;
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::service::{Protocol, Service, ServicePort};
use leno_core::weight::{InvalidWeight, Weight};
use leno_core::workload::{InboundPort, Workload};
use prost::Message;

use crate::balancing;
use crate::filters;
use crate::resilience;
use crate::retry;
use crate::security::{Guards, egress_of};
use crate::wire::leno as wire;

/// Why a resource was refused. The text is what the controller's status shows.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no message of this type.
    #[error("not a protobuf message of this type: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// An id has another shape.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A SPIFFE ID has another shape.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// An address has a wrong number of bytes.
    #[error("an address of {what} has {bytes} bytes; IPv4 and IPv6 have other lengths")]
    Address {
        /// Of what.
        what: &'static str,
        /// How many bytes it has.
        bytes: usize,
    },
    /// A port is not between 0 and 65535.
    #[error("port {0} is above 65535")]
    Port(u32),
    /// A fraction of a second is not one.
    #[error("a timeout has {0} nanoseconds; a second has 1000000000")]
    Nanos(u32),
    /// More tries than a proxy makes.
    #[error("a request is tried {0} times more; 10 is the most")]
    Attempts(u32),
    /// A table has fewer entries than an index says.
    #[error("an endpoint has version number {index} of a list of {count}")]
    VersionIndex {
        /// The index.
        index: u32,
        /// Entries of the table.
        count: usize,
    },
    /// A table has fewer entries than an index says.
    #[error("number {index} of a list of {count}")]
    Index {
        /// The index.
        index: u32,
        /// Entries of the table.
        count: usize,
    },
    /// A weight is out of range.
    #[error("rule {rule:?}: {source}")]
    Weight {
        /// Which rule.
        rule: String,
        /// What is wrong.
        source: InvalidWeight,
    },
    /// A percentage is out of range.
    #[error(transparent)]
    Percentage(#[from] InvalidPercentage),
    /// A regular expression does not compile.
    #[error("rule {rule:?}: {source}")]
    Pattern {
        /// Which rule.
        rule: String,
        /// What is wrong.
        source: InvalidPattern,
    },
    /// A weight of an endpoint is out of range.
    #[error("the weight of an endpoint: {0}")]
    EndpointWeight(#[from] InvalidEndpointWeight),
    /// A percentage is above 100.
    #[error("{0} percent is above 100")]
    Percent(u32),
    /// No status of HTTP.
    #[error("{0} is no HTTP status")]
    Status(u32),
    /// No network.
    #[error("{0:?} is no network in CIDR notation")]
    Network(String),
    /// Something this program does not know.
    #[error("unknown {0}: this proxy is older than the controller; restart its pod with the current sidecar image")]
    Unknown(&'static str),
}

/// The service in `bytes`.
pub fn decode_service(bytes: &[u8]) -> Result<Service, DecodeError> {
    let message = wire::Service::decode(bytes)?;
    Ok(Service {
        id: message.id.parse()?,
        vips: message.vips.iter().map(|bytes| ip("a service", bytes)).collect::<Result<_, _>>()?,
        hosts: message.hosts.iter().map(|host| host.as_str().into()).collect(),
        ports: message.ports.iter().map(service_port).collect::<Result<_, _>>()?,
        routes: message.routes.map(routes).transpose()?.unwrap_or_default(),
        outside: message.outside,
    })
}

/// The endpoints in `bytes`.
pub fn decode_endpoints(bytes: &[u8]) -> Result<Endpoints, DecodeError> {
    let message = wire::Endpoints::decode(bytes)?;
    let versions: Vec<Name> = message.versions.iter().map(|version| version.as_str().into()).collect();
    let identities = message.identities.iter().map(|it| it.parse().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let mut list = message.endpoints;
    let origination = message.origination.map(|it| {
        list.extend(it.endpoints);
        let roots = it.roots.iter().map(|root| Arc::from(&root[..])).collect();
        Arc::new(Origination { server_name: it.server_name.into(), roots })
    });
    let zones: Vec<Name> = message.zones.iter().map(|zone| zone.as_str().into()).collect();
    let endpoints = list.iter().map(|it| endpoint(it, &versions, &identities, &zones)).collect::<Result<_, _>>()?;
    let resilience = message.resilience.map(|it| resilience::decoded(it).map(Arc::new)).transpose()?;
    let balancing = message.balancing.map(|it| balancing::decoded(it).map(Arc::new)).transpose()?;
    Ok(Endpoints { endpoints, origination, resilience, balancing, ..Endpoints::new(message.id.parse()?) })
}

/// The workload in `bytes`.
pub fn decode_workload(bytes: &[u8]) -> Result<Workload, DecodeError> {
    let message = wire::Workload::decode(bytes)?;
    let guards = Guards::new(message.policies, message.issuers)?;
    let inbound = message.inbound.into_iter().map(|it| inbound_port(it, &guards)).collect::<Result<_, _>>()?;
    let network = |text: &String| text.parse().ok().ok_or_else(|| DecodeError::Network(text.clone()));
    Ok(Workload {
        id: message.id.parse()?,
        inbound,
        others: guards.guard(message.others)?,
        egress: egress_of(message.egress)?,
        outside_ports: message.outside_ports.into_iter().map(port).collect::<Result<_, _>>()?,
        inside: message.inside.iter().map(network).collect::<Result<_, _>>()?,
        zone: message.zone.map(Name::from),
    })
}

fn service_port(message: &wire::Port) -> Result<ServicePort, DecodeError> {
    Ok(ServicePort { port: port(message.port)?, protocol: protocol(message.protocol)? })
}

fn inbound_port(message: wire::InboundPort, guards: &Guards) -> Result<InboundPort, DecodeError> {
    Ok(InboundPort {
        port: port(message.port)?,
        protocol: protocol(message.protocol)?,
        service: message.service.parse()?,
        version: message.version.map(Name::from),
        guard: guards.guard(message.guard)?,
        concurrency: message.concurrency.map(|it| AdaptiveConcurrency {
            min_limit: it.min_limit,
            max_limit: it.max_limit,
            tolerance_percent: it.tolerance_percent,
        }),
    })
}

fn endpoint(message: &wire::Endpoint, table: &[Name], identities: &[Arc<Identity>], zones: &[Name]) -> Result<Endpoint, DecodeError> {
    let bytes = &message.address;
    let wrong = || DecodeError::Address { what: "an endpoint", bytes: bytes.len() };
    let (address, number) = bytes.split_last_chunk::<2>().ok_or_else(wrong)?;
    let number = u16::from_be_bytes(*number);
    let address = match ip("an endpoint", address).ok().ok_or_else(wrong)? {
        IpAddr::V4(ip) => SocketAddr::from((ip, number)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, number, message.flow, message.scope).into(),
    };
    let version = |index: &u32| {
        let found = usize::try_from(*index).ok().and_then(|place| table.get(place));
        found.cloned().ok_or(DecodeError::VersionIndex { index: *index, count: table.len() })
    };
    let versions = message.versions.iter().map(version).collect::<Result<_, _>>()?;
    let (identity, zone) = (entry(message.identity, identities)?, entry(message.zone, zones)?);
    let weight = message.weight.map_or(Ok(EndpointWeight::USUAL), EndpointWeight::new)?;
    Ok(Endpoint { address, workload: message.workload.as_str().into(), versions, identity, weight, zone })
}

/// The entry of `table` that `number`, which is one more than its index, means; 0 is none.
fn entry<T: Clone>(number: u32, table: &[T]) -> Result<Option<T>, DecodeError> {
    let Some(index) = number.checked_sub(1) else { return Ok(None) };
    let found = usize::try_from(index).ok().and_then(|place| table.get(place)).cloned();
    found.map(Some).ok_or(DecodeError::Index { index, count: table.len() })
}

fn routes(message: wire::RouteTable) -> Result<RouteTable, DecodeError> {
    let rules = message.rules.into_iter().map(rule).collect::<Result<_, _>>()?;
    Ok(RouteTable::new(message.policy.into(), duration(message.timeout)?, rules).with_retry(retry::read(message.retry)?))
}

fn rule(message: wire::Rule) -> Result<Rule, DecodeError> {
    let name = message.name;
    Ok(Rule {
        matches: message.matches.into_iter().map(|it| conditions(&name, it)).collect::<Result<_, _>>()?,
        destinations: message.destinations.into_iter().map(|it| destination(&name, it)).collect::<Result<_, _>>()?,
        timeout: duration(message.timeout)?,
        rate_limit: message.rate_limit.map(crate::rate_limit::decode).transpose()?,
        mirrors: message.mirrors.into_iter().map(crate::mirror::decode).collect::<Result<_, _>>()?,
        filters: message.filters.map(filters::decode).transpose()?,
        idle_timeout: duration(message.idle_timeout)?,
        retry: retry::read(message.retry)?,
        name: name.into(),
    })
}

fn conditions(rule: &str, message: wire::Match) -> Result<Match, DecodeError> {
    Ok(Match {
        path: message.path.map(|it| path(rule, it)).transpose()?,
        method: message.method.map(Name::from),
        headers: message.headers.into_iter().map(|it| field(rule, it)).collect::<Result<_, _>>()?,
        query: message.query.into_iter().map(|it| field(rule, it)).collect::<Result<_, _>>()?,
    })
}

fn path(rule: &str, message: wire::PathMatch) -> Result<PathMatch, DecodeError> {
    use wire::path_match::Kind;
    Ok(match message.kind.ok_or(DecodeError::Unknown("kind of path condition"))? {
        Kind::Exact(path) => PathMatch::Exact(path.into()),
        Kind::Prefix(prefix) => PathMatch::Prefix(prefix.into()),
        Kind::Regex(source) => PathMatch::Regex(pattern(rule, &source)?),
    })
}

fn field(rule: &str, message: wire::FieldMatch) -> Result<FieldMatch, DecodeError> {
    use wire::field_match::Kind;
    let value = match message.kind.ok_or(DecodeError::Unknown("kind of header or query condition"))? {
        Kind::Exact(value) => ValueMatch::Exact(value.into()),
        Kind::Regex(source) => ValueMatch::Regex(pattern(rule, &source)?),
        Kind::Present(present) => ValueMatch::Present(present),
    };
    Ok(FieldMatch { name: message.name.into(), value })
}

fn destination(rule: &str, message: wire::Destination) -> Result<Destination, DecodeError> {
    use wire::destination::Target as To;
    let target = match message.target.ok_or(DecodeError::Unknown("kind of destination"))? {
        To::Version(version) => Target::Version(version.into()),
        To::Missing(what) => Target::Missing(what.into()),
        To::Service(other) => Target::Service { service: other.id.parse::<ServiceId>()?, port: other.port.map(port).transpose()? },
    };
    let weight = Weight::new(message.weight).map_err(|source| DecodeError::Weight { rule: rule.to_owned(), source })?;
    Ok(Destination { target, weight })
}

fn pattern(rule: &str, source: &str) -> Result<Pattern, DecodeError> {
    Pattern::new(source).map_err(|source| DecodeError::Pattern { rule: rule.to_owned(), source })
}

fn protocol(number: i32) -> Result<Protocol, DecodeError> {
    match wire::Protocol::try_from(number) {
        Ok(wire::Protocol::Detect) => Ok(Protocol::Detect),
        Ok(wire::Protocol::Http) => Ok(Protocol::Http),
        Ok(wire::Protocol::Http2) => Ok(Protocol::Http2),
        Ok(wire::Protocol::Grpc) => Ok(Protocol::Grpc),
        Ok(wire::Protocol::Tls) => Ok(Protocol::Tls),
        Ok(wire::Protocol::Tcp) => Ok(Protocol::Tcp),
        Err(_) => Err(DecodeError::Unknown("protocol")),
    }
}

pub(crate) fn duration(message: Option<wire::Duration>) -> Result<Option<Duration>, DecodeError> {
    match message {
        None => Ok(None),
        Some(it) if it.nanos >= 1_000_000_000 => Err(DecodeError::Nanos(it.nanos)),
        Some(it) => Ok(Some(Duration::new(it.seconds, it.nanos))),
    }
}

pub(crate) fn port(number: u32) -> Result<u16, DecodeError> {
    u16::try_from(number).ok().ok_or(DecodeError::Port(number))
}

fn ip(what: &'static str, bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok().ok_or(DecodeError::Address { what, bytes: bytes.len() })?;
    Ok(Ipv6Addr::from(octets).into())
}
