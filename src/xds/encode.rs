//! Model → bytes. The inverse is [`crate::decode`]; `decode(encode(m)) == m`.
//!
//! Equal models give equal bytes on every replica of the controller, so that a [`version`] made of the bytes means the same
//! everywhere and a proxy that reconnects to another replica is sent nothing twice.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::endpoints::{Endpoint, Endpoints};
use leno_core::matching::{FieldMatch, Match, PathMatch, ValueMatch};
use leno_core::names::{Identity, Name};
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::service::{Protocol, Service};
use leno_core::workload::Workload;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::balancing;
use crate::filters;
use crate::resilience;
use crate::retry;
use crate::security::{GuardTables, egress};
use crate::wire::leno as wire;

/// The bytes of a service.
pub fn encode_service(service: &Service) -> Bytes {
    let message = wire::Service {
        id: service.id.to_string(),
        vips: service.vips.iter().map(|ip| ip_bytes(*ip)).collect(),
        hosts: strings(&service.hosts),
        ports: service.ports.iter().map(|it| wire::Port { port: it.port.into(), protocol: protocol(it.protocol).into() }).collect(),
        routes: routes(&service.routes),
        outside: service.outside,
    };
    message.encode_to_vec().into()
}

/// The bytes of a service port's endpoints.
pub fn encode_endpoints(endpoints: &Endpoints) -> Bytes {
    let (mut versions, mut identities, mut zones) = (NameTable::default(), IdentityTable::default(), NameTable::default());
    let list = endpoints.endpoints.iter().map(|it| endpoint(it, &mut versions, &mut identities, &mut zones)).collect();
    let (plain, origination) = match &endpoints.origination {
        None => (list, None),
        Some(origination) => {
            let roots = origination.roots.iter().map(|root| Bytes::copy_from_slice(root)).collect();
            (Vec::new(), Some(wire::Origination { server_name: origination.server_name.to_string(), roots, endpoints: list }))
        }
    };
    let (versions, identities, zones) = (versions.names, identities.names, zones.names);
    let resilience = endpoints.resilience.as_deref().map(resilience::encoded);
    let balancing = endpoints.balancing.as_deref().map(balancing::encoded);
    let id = endpoints.id.to_string();
    let message = wire::Endpoints { id, versions, endpoints: plain, identities, origination, resilience, balancing, zones };
    message.encode_to_vec().into()
}

/// The bytes of a workload.
pub fn encode_workload(workload: &Workload) -> Bytes {
    let mut tables = GuardTables::default();
    let inbound = workload.inbound.iter().map(|it| wire::InboundPort {
        port: it.port.into(),
        protocol: protocol(it.protocol).into(),
        service: it.service.to_string(),
        version: it.version.as_ref().map(ToString::to_string),
        guard: Some(tables.guard(&it.guard)),
        concurrency: it.concurrency.map(|it| wire::AdaptiveConcurrency {
            min_limit: it.min_limit,
            max_limit: it.max_limit,
            tolerance_percent: it.tolerance_percent,
        }),
    });
    let (inbound, others) = (inbound.collect(), Some(tables.guard(&workload.others)));
    let GuardTables { policies, issuers } = tables;
    let message = wire::Workload {
        id: workload.id.to_string(),
        inbound,
        policies,
        issuers,
        others,
        egress: egress(workload.egress).into(),
        outside_ports: workload.outside_ports.iter().copied().map(u32::from).collect(),
        inside: workload.inside.iter().map(ToString::to_string).collect(),
        zone: workload.zone.as_ref().map(ToString::to_string),
    };
    message.encode_to_vec().into()
}

/// The version of a resource with these bytes: 16 hexadecimal digits of their SHA-256.
pub fn version(bytes: &[u8]) -> Name {
    let digest = Sha256::digest(bytes);
    let short: [u8; 8] = digest[..8].try_into().expect("a SHA-256 has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(short)).into()
}

/// Collects the versions or zones of endpoints, each once, in order of first use.
#[derive(Default)]
struct NameTable {
    names: Vec<String>,
    places: HashMap<Name, u32>,
}

impl NameTable {
    fn place(&mut self, name: &Name) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = u32::try_from(self.names.len()).expect("a service has fewer versions and zones than 2³²");
        self.names.push(name.to_string());
        self.places.insert(name.clone(), place);
        place
    }
}

/// Collects the identities of endpoints, each once, in order of first use.
#[derive(Default)]
struct IdentityTable {
    names: Vec<String>,
    places: HashMap<Arc<Identity>, u32>,
}

impl IdentityTable {
    /// One more than the index: 0 says that there is none.
    fn place(&mut self, identity: &Arc<Identity>) -> u32 {
        if let Some(place) = self.places.get(identity) {
            return *place;
        }
        self.names.push(identity.to_string());
        let place = u32::try_from(self.names.len()).expect("a service has fewer identities than 2³²");
        self.places.insert(Arc::clone(identity), place);
        place
    }
}

fn endpoint(endpoint: &Endpoint, versions: &mut NameTable, identities: &mut IdentityTable, zones: &mut NameTable) -> wire::Endpoint {
    let (scope, flow) = match endpoint.address {
        SocketAddr::V4(_) => (0, 0),
        SocketAddr::V6(address) => (address.scope_id(), address.flowinfo()),
    };
    let mut address = Vec::with_capacity(18);
    address.extend_from_slice(&ip_bytes(endpoint.address.ip()));
    address.extend_from_slice(&endpoint.address.port().to_be_bytes());
    wire::Endpoint {
        address: address.into(),
        workload: endpoint.workload.to_string(),
        versions: endpoint.versions.iter().map(|version| versions.place(version)).collect(),
        scope,
        flow,
        identity: endpoint.identity.as_ref().map_or(0, |identity| identities.place(identity)),
        weight: Some(endpoint.weight).filter(|weight| *weight != EndpointWeight::USUAL).map(|weight| weight.get().into()),
        zone: endpoint.zone.as_ref().map_or(0, |zone| zones.place(zone) + 1),
    }
}

/// No message stands for no policy.
fn routes(table: &RouteTable) -> Option<wire::RouteTable> {
    let policy = table.policy()?.to_string();
    let rules = table.rules().iter().map(rule).collect();
    Some(wire::RouteTable { policy, timeout: table.timeout().map(duration), rules, retry: table.retry().map(retry::message) })
}

fn rule(rule: &Rule) -> wire::Rule {
    wire::Rule {
        name: rule.name.to_string(),
        matches: rule.matches.iter().map(conditions).collect(),
        destinations: rule.destinations.iter().map(destination).collect(),
        timeout: rule.timeout.map(duration),
        mirrors: rule.mirrors.iter().map(crate::mirror::encode).collect(),
        filters: rule.filters.as_deref().map(filters::encode),
        idle_timeout: rule.idle_timeout.map(duration),
        retry: rule.retry.as_ref().map(retry::message),
        rate_limit: rule.rate_limit.as_ref().map(crate::rate_limit::encode),
    }
}

fn conditions(conditions: &Match) -> wire::Match {
    wire::Match {
        path: conditions.path.as_ref().map(path),
        method: conditions.method.as_ref().map(ToString::to_string),
        headers: conditions.headers.iter().map(field).collect(),
        query: conditions.query.iter().map(field).collect(),
    }
}

fn path(path: &PathMatch) -> wire::PathMatch {
    use wire::path_match::Kind;
    let kind = match path {
        PathMatch::Exact(path) => Kind::Exact(path.to_string()),
        PathMatch::Prefix(prefix) => Kind::Prefix(prefix.to_string()),
        PathMatch::Regex(pattern) => Kind::Regex(pattern.source().to_string()),
    };
    wire::PathMatch { kind: Some(kind) }
}

fn field(field: &FieldMatch) -> wire::FieldMatch {
    use wire::field_match::Kind;
    let kind = match &field.value {
        ValueMatch::Exact(value) => Kind::Exact(value.to_string()),
        ValueMatch::Regex(pattern) => Kind::Regex(pattern.source().to_string()),
        ValueMatch::Present(present) => Kind::Present(*present),
    };
    wire::FieldMatch { name: field.name.to_string(), kind: Some(kind) }
}

fn destination(destination: &Destination) -> wire::Destination {
    use wire::destination::Target as To;
    let target = match &destination.target {
        Target::Version(version) => To::Version(version.to_string()),
        Target::Service { service, port } => To::Service(wire::OtherService { id: service.to_string(), port: port.map(u32::from) }),
        Target::Missing(what) => To::Missing(what.to_string()),
    };
    wire::Destination { weight: destination.weight.get(), target: Some(target) }
}

fn protocol(protocol: Protocol) -> wire::Protocol {
    match protocol {
        Protocol::Detect => wire::Protocol::Detect,
        Protocol::Http => wire::Protocol::Http,
        Protocol::Http2 => wire::Protocol::Http2,
        Protocol::Grpc => wire::Protocol::Grpc,
        Protocol::Tls => wire::Protocol::Tls,
        Protocol::Tcp => wire::Protocol::Tcp,
    }
}

pub(crate) fn duration(duration: Duration) -> wire::Duration {
    wire::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

fn ip_bytes(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn strings(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
