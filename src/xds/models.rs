//! Arbitrary models, for the laws.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use leno_core::balance::Algorithm;
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
use leno_core::matching::{FieldMatch, Match, PathMatch, Pattern, ValueMatch};
use leno_core::names::{Name, ServiceId, WorkloadId};
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::service::{Protocol, Service, ServicePort};
use leno_core::weight::Weight;
use leno_core::workload::{InboundPort, Workload};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let port = (any::<u16>(), protocol()).prop_map(|(port, protocol)| ServicePort { port, protocol });
    (service_id(), vec(any::<IpAddr>(), 0..3), vec(text(), 0..3), vec(port, 0..4), algorithm(), routes())
        .prop_map(|(id, vips, hosts, ports, balancer, routes)| Service { id, vips, hosts, ports, balancer, routes })
}

pub(crate) fn endpoints() -> impl Strategy<Value = Endpoints> {
    let endpoint = (any::<SocketAddr>(), text(), vec(version(), 0..3));
    let endpoint = endpoint.prop_map(|(address, workload, versions)| Endpoint { address, workload, versions });
    let id = (service_id(), any::<u16>()).prop_map(|(service, port)| EndpointsId::new(service, port));
    (id, vec(endpoint, 0..20)).prop_map(|(id, endpoints)| Endpoints { id, endpoints })
}

pub(crate) fn workload() -> impl Strategy<Value = Workload> {
    let inbound = (any::<u16>(), protocol(), service_id(), option::of(version()));
    let inbound = inbound.prop_map(|(port, protocol, service, version)| InboundPort { port, protocol, service, version });
    (service_id(), vec(inbound, 0..4)).prop_map(|(id, inbound)| Workload { id: WorkloadId::new(id.namespace, id.name), inbound })
}

fn service_id() -> impl Strategy<Value = ServiceId> {
    ("[a-z][a-z0-9-]{0,8}", "[a-z][a-z0-9-]{0,8}").prop_map(|(namespace, name)| ServiceId::new(namespace, name))
}

fn text() -> impl Strategy<Value = Name> {
    any::<String>().prop_map(Name::from)
}

/// Few names, so that tables share them.
fn version() -> impl Strategy<Value = Name> {
    "v[1-4]".prop_map(Name::from)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::{Detect, Grpc, Http, Http2, Tcp, Tls};
    prop::sample::select(vec![Detect, Http, Http2, Grpc, Tls, Tcp])
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(vec![Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random])
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "[a-z]{1,4}(\\.\\*|\\[0-9\\]\\+)?".prop_map(|source| Pattern::new(&source).unwrap())
}

fn field() -> impl Strategy<Value = FieldMatch> {
    let value = prop_oneof![
        text().prop_map(ValueMatch::Exact),
        pattern().prop_map(ValueMatch::Regex),
        any::<bool>().prop_map(ValueMatch::Present),
    ];
    (text(), value).prop_map(|(name, value)| FieldMatch { name, value })
}

fn conditions() -> impl Strategy<Value = Match> {
    let path = prop_oneof![text().prop_map(PathMatch::Exact), text().prop_map(PathMatch::Prefix), pattern().prop_map(PathMatch::Regex),];
    (option::of(path), option::of(text()), vec(field(), 0..3), vec(field(), 0..3)).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

fn destination() -> impl Strategy<Value = Destination> {
    let target = prop_oneof![
        version().prop_map(Target::Version),
        (service_id(), option::of(any::<u16>())).prop_map(|(service, port)| Target::Service { service, port }),
        text().prop_map(Target::Missing),
    ];
    (target, 0u32..=1_000_000).prop_map(|(target, weight)| Destination { target, weight: Weight::new(weight).unwrap() })
}

fn rule() -> impl Strategy<Value = Rule> {
    (text(), vec(conditions(), 0..3), vec(destination(), 0..3), option::of(any::<Duration>()))
        .prop_map(|(name, matches, destinations, timeout)| Rule { name, matches, destinations, timeout })
}

fn routes() -> impl Strategy<Value = RouteTable> {
    let table = (text(), option::of(any::<Duration>()), vec(rule(), 0..4));
    let table = table.prop_map(|(policy, timeout, rules)| RouteTable::new(policy, timeout, rules));
    prop_oneof![Just(RouteTable::default()), table]
}
