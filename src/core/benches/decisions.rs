//! What decisions cost in instructions, by how much there is to decide from. `tests/instructions` runs this and holds the ratios.

#![expect(missing_docs, clippy::exit, reason = "the macros make items that nobody documents, and a main that ends the process")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gungraun::{library_benchmark, library_benchmark_group, main};
use leno_core::authorize::{self, Action, Authorization, Call, PathRule, Policy, Posture, Request, Source};
use leno_core::balance::{self, Algorithm, Among};
use leno_core::matching::{Match, PathMatch};
use leno_core::names::{Identity, ServiceId};
use leno_core::request::{Caller, RequestHead};
use leno_core::route::{self, RouteTable, Rule};
use leno_core::service::Service;

/// Just the path of the last rule: the worst for whoever looks at one after the other.
const PATH: &str = "/api/v1/orders/last";

/// A service with `count` rules, each with another path by `kind`; the last one is for `PATH`.
fn service(kind: fn(String) -> PathMatch, count: usize) -> Service {
    let rule = |at: usize| {
        let path = if at + 1 == count { PATH.to_owned() } else { format!("/api/v1/orders/{at:04}") };
        Rule { name: format!("r{at}").into(), matches: vec![Match { path: Some(kind(path)), ..Match::default() }], ..Rule::default() }
    };
    let routes = RouteTable::new("shop/p".into(), None, (0..count).map(rule).collect());
    Service { routes, ..Service::new(ServiceId::new("shop", "payment")) }
}

fn exact(count: usize) -> Service {
    service(|path| PathMatch::Exact(path.into()), count)
}

fn prefix(count: usize) -> Service {
    service(|path| PathMatch::Prefix(path.into()), count)
}

/// Decides one request for `path`; whether a rule matched. The service is given back, so that dropping it counts nowhere.
fn decided(service: Service, path: &str) -> (Service, bool) {
    let headers: Vec<(String, String)> = Vec::new();
    let caller = Caller::default();
    let request = RequestHead { method: "GET", path, query: "", authority: "payment", headers: &headers, caller: &caller };
    let matched = route::decide(black_box(&service), 80, black_box(&request), 7, &mut route::Silent).rule.is_some();
    (service, matched)
}

#[library_benchmark]
#[benches::rules(args = [1, 100, 10_000], setup = exact)]
fn route_exact(service: Service) -> (Service, bool) {
    decided(service, PATH)
}

#[library_benchmark]
#[benches::rules(args = [1, 100, 10_000], setup = prefix)]
fn route_prefix(service: Service) -> (Service, bool) {
    decided(service, "/api/v1/orders/last/item/7")
}

#[library_benchmark]
#[benches::rules(args = [1, 100, 10_000], setup = exact)]
fn route_none(service: Service) -> (Service, bool) {
    decided(service, "/nothing/of/this")
}

/// One Allow policy of `count` rules, of which only the last is for the caller's path; and the caller.
fn authorization(count: usize) -> (Authorization, Identity) {
    let rule = |at: usize| {
        let path = if at + 1 == count { PATH.to_owned() } else { format!("/api/v1/orders/{at:04}") };
        let peer = Source::Peer { trust_domain: "cluster.local".into(), namespace: Some("shop".into()), service_account: None };
        authorize::Rule { from: vec![peer], paths: vec![PathRule::new(&path).expect("a path")], ..authorize::Rule::default() }
    };
    let policy = Policy { name: "shop/p".into(), action: Action::Allow, rules: (0..count).map(rule).collect() };
    let caller = Identity { trust_domain: "cluster.local".into(), namespace: "shop".into(), service_account: "web".into() };
    (Authorization::new(Posture::Allow, vec![Arc::new(policy)], Vec::new()), caller)
}

#[library_benchmark]
#[benches::rules(args = [1, 100, 10_000], setup = authorization)]
fn authorize_last((authorization, caller): (Authorization, Identity)) -> (Authorization, Identity, bool) {
    let request = Request { method: "GET", path: PATH, claims: &[] };
    let call = Call { peer: Some(&caller), source: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 80, request: Some(request) };
    let allowed = authorize::authorize(black_box(&authorization), black_box(&call), &mut authorize::Silent).allowed;
    (authorization, caller, allowed)
}

#[library_benchmark]
#[benches::endpoints(args = [10, 100, 10_000])]
fn pick(count: usize) -> Option<usize> {
    balance::pick(
        black_box(&Algorithm::LeastRequest),
        black_box(Among::Equal(count)),
        |at| if at % 2 == 0 { 1.0 } else { 0.0 },
        &mut 3,
        0x1234_5678_9abc_def0,
    )
}

library_benchmark_group!(name = decisions, benchmarks = [route_exact, route_prefix, route_none, authorize_last, pick]);
main!(library_benchmark_groups = decisions);
