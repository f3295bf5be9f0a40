//! What it costs a proxy to read the endpoints of a service, in instructions. `tests/instructions` runs this and holds the ratios.

#![expect(missing_docs, clippy::exit, reason = "the macros make items that nobody documents, and a main that ends the process")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use gungraun::{library_benchmark, library_benchmark_group, main};
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
use leno_core::names::{Identity, ServiceId};
use leno_xds::decode::decode_endpoints;
use leno_xds::encode::encode_endpoints;

/// The resource of `count` endpoints, as pods of a Deployment look.
fn resource(count: u32) -> Bytes {
    let identity = Identity { trust_domain: "cluster.local".into(), namespace: "shop".into(), service_account: "payment".into() };
    let identity = Arc::new(identity);
    let endpoint = |number: u32| Endpoint {
        workload: format!("payment-6d4cf56db6-{number:05}").into(),
        versions: vec!["v1".into()],
        identity: Some(Arc::clone(&identity)),
        ..Endpoint::at(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), 8080))
    };
    let id = EndpointsId::new(ServiceId::new("shop", "payment"), 80);
    encode_endpoints(&Endpoints { endpoints: (0..count).map(endpoint).collect(), ..Endpoints::new(id) })
}

#[library_benchmark]
#[benches::endpoints(args = [10, 100, 10_000], setup = resource)]
fn decode(resource: Bytes) -> Endpoints {
    decode_endpoints(black_box(&resource)).expect("what was encoded is decoded")
}

library_benchmark_group!(name = endpoints, benchmarks = [decode]);
main!(library_benchmark_groups = endpoints);
