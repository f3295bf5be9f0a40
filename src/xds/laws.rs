//! The laws of the wire form: what is encoded is decoded to the same, and it is small.

use std::sync::Arc;

use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
use leno_core::names::ServiceId;
use proptest::prelude::*;
use prost::Message;

use crate::decode::{decode_endpoints, decode_service, decode_workload};
use crate::encode::{encode_endpoints, encode_service, encode_workload, version};
use crate::models;
use crate::security::{decode_held, decode_trust, encode_held, encode_trust};
use crate::wire::leno as wire;

proptest! {
    #[test]
    fn a_service_is_decoded_to_what_was_encoded(service in models::service()) {
        prop_assert_eq!(decode_service(&encode_service(&service)).unwrap(), service);
    }

    #[test]
    fn endpoints_are_decoded_to_what_was_encoded(endpoints in models::endpoints()) {
        prop_assert_eq!(decode_endpoints(&encode_endpoints(&endpoints)).unwrap(), endpoints);
    }

    #[test]
    fn a_workload_is_decoded_to_what_was_encoded(workload in models::workload()) {
        prop_assert_eq!(decode_workload(&encode_workload(&workload)).unwrap(), workload);
    }

    #[test]
    fn trust_is_decoded_to_what_was_encoded(trust in models::trust()) {
        prop_assert_eq!(decode_trust(&encode_trust(&trust)).unwrap(), trust);
    }

    #[test]
    fn a_held_certificate_is_decoded_to_what_was_encoded(held in models::held()) {
        prop_assert_eq!(decode_held(&encode_held(&held)).unwrap(), held);
    }

    /// Whatever bytes come, decoding ends with a value or an error.
    #[test]
    fn random_bytes_never_bring_decoding_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(decode_service(&bytes));
        drop(decode_endpoints(&bytes));
        drop(decode_workload(&bytes));
        drop(decode_trust(&bytes));
        drop(decode_held(&bytes));
    }

    /// Equal bytes have equal versions, and a change of one byte has another.
    #[test]
    fn versions_follow_the_bytes(bytes in prop::collection::vec(any::<u8>(), 1..100), at: prop::sample::Index) {
        let mut other = bytes.clone();
        other[at.index(bytes.len())] ^= 1;
        prop_assert_eq!(version(&bytes), version(&bytes.clone()));
        prop_assert_ne!(version(&bytes), version(&other));
    }
}

/// Names as long as a Deployment's pods have them.
fn ten_endpoints() -> Endpoints {
    let endpoint = |host: u8| Endpoint {
        workload: format!("payment-v1-7d9c6b5f4d-x{host:04}").into(),
        versions: vec!["v1".into()],
        identity: Some(Arc::new("spiffe://cluster.local/ns/shop/sa/payment".parse().unwrap())),
        ..Endpoint::at(([10, 1, 2, host], 8080).into())
    };
    let id = EndpointsId::new(ServiceId::new("shop", "payment"), 80);
    Endpoints { endpoints: (0..10).map(endpoint).collect(), ..Endpoints::new(id) }
}

#[test]
fn ten_endpoints_cost_little_more_than_their_names_and_addresses() {
    let bytes = encode_endpoints(&ten_endpoints()).len();
    assert!(bytes <= 520, "{bytes}");
}

#[test]
fn what_cannot_be_understood_is_refused_in_words() {
    let service = |edit: fn(&mut wire::Service)| {
        let mut message = wire::Service { id: "shop/payment".into(), ..Default::default() };
        edit(&mut message);
        decode_service(&message.encode_to_vec()).unwrap_err().to_string()
    };
    let rule = |rule: wire::Rule| {
        let routes = wire::RouteTable { rules: vec![rule], ..Default::default() };
        let message = wire::Service { id: "shop/payment".into(), routes: Some(routes), ..Default::default() };
        decode_service(&message.encode_to_vec()).unwrap_err().to_string()
    };
    let condition = |matching| rule(wire::Rule { name: "r".into(), matches: vec![matching], ..Default::default() });
    let path = |kind| condition(wire::Match { path: Some(wire::PathMatch { kind }), ..Default::default() });
    let to = |weight, target| wire::Destination { weight, target };
    let destination = |it| rule(wire::Rule { name: "r".into(), destinations: vec![it], ..Default::default() });
    let mirror = |millionths, target| {
        rule(wire::Rule { name: "r".into(), mirrors: vec![wire::Mirror { millionths, target }], ..Default::default() })
    };

    let cases = [
        (service(|it| it.id = "payment".into()), "not of the form NAMESPACE/NAME"),
        (service(|it| it.vips = vec![vec![1, 2, 3].into()]), "has 3 bytes"),
        (service(|it| it.ports = vec![wire::Port { port: 65_536, protocol: 0 }]), "port 65536 is above 65535"),
        (service(|it| it.ports = vec![wire::Port { port: 1, protocol: 99 }]), "unknown protocol: this proxy is older"),
        (path(None), "unknown kind of path condition"),
        (path(Some(wire::path_match::Kind::Regex("(".into()))), "rule \"r\": regular expression"),
        (destination(to(1, None)), "unknown kind of destination"),
        (destination(to(1_000_001, Some(wire::destination::Target::Version("v1".into())))), "rule \"r\": weight 1000001"),
        (mirror(1, None), "unknown kind of mirror"),
        (mirror(1_000_001, Some(wire::mirror::Target::Version("v1".into()))), "no percentage"),
        (rule(wire::Rule { rate_limit: Some(wire::RateLimit::default()), ..Default::default() }), "unknown key of a rate limit"),
        (rule(wire::Rule { timeout: Some(wire::Duration { seconds: 1, nanos: 1_000_000_000 }), ..Default::default() }), "nanoseconds"),
    ];
    for (got, want) in cases {
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    let balancing = |algorithm: i32, weight| {
        let endpoint = wire::Endpoint { address: vec![10, 0, 0, 1, 0, 80].into(), weight, ..Default::default() };
        let balancing = Some(wire::Balancing { algorithm, ..Default::default() });
        let message = wire::Endpoints { id: "shop/payment:80".into(), endpoints: vec![endpoint], balancing, ..Default::default() };
        decode_endpoints(&message.encode_to_vec()).unwrap_err().to_string()
    };
    assert!(balancing(99, None).contains("unknown load-balancer algorithm"));
    assert!(balancing(wire::Balancer::ConsistentHash.into(), None).contains("unknown kind of hash key"));
    assert!(balancing(0, Some(1001)).contains("from 0 to 1000"));
    let dangling = wire::Endpoint { address: vec![10, 0, 0, 1, 0, 80].into(), versions: vec![1], ..Default::default() };
    let message =
        wire::Endpoints { id: "shop/payment:80".into(), versions: vec!["v1".into()], endpoints: vec![dangling], ..Default::default() };
    let got = decode_endpoints(&message.encode_to_vec()).unwrap_err().to_string();
    assert!(got.contains("version number 1 of a list of 1"), "{got}");
    let unguarded = wire::Workload { id: "shop/web-1".into(), ..Default::default() };
    assert!(decode_workload(&unguarded.encode_to_vec()).is_err(), "a port without a guard is not open to everybody");
}
