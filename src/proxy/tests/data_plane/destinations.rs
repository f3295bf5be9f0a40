//! Requests that a route sends to other services, of its own and of other namespaces.

use leno_core::balance::Algorithm;
use leno_core::endpoints::{Endpoint, EndpointsId};
use leno_core::names::ServiceId;
use leno_core::route::{Destination, RouteTable, Rule, Target};
use leno_core::weight::Weight;

use crate::support::{Mesh, Peer, Server, Setup, eventually, nowhere};

const GET: &str = "GET /a HTTP/1.1\r\nHost: payment\r\n\r\n";

/// A route that sends everything to these, each with the same share.
pub(crate) fn to(services: &[(&ServiceId, Option<u16>)]) -> RouteTable {
    let target = |(service, port): &(&ServiceId, Option<u16>)| Target::Service { service: ServiceId::clone(service), port: *port };
    to_targets(services.iter().map(target).collect())
}

/// A route that sends everything to these, each with the same share.
pub(crate) fn to_targets(targets: Vec<Target>) -> RouteTable {
    let destinations = targets.into_iter().map(|target| Destination { target, weight: Weight::ONE }).collect();
    RouteTable::new("shop/others".into(), None, vec![Rule { name: "others".into(), destinations, ..Rule::default() }])
}

#[test]
fn requests_go_to_the_port_of_another_service_that_the_route_names() {
    let (own, ledger, admin) = (Server::answering("own"), Server::answering("ledger"), Server::answering("admin"));
    let service = ServiceId::new("books", "ledger");
    let (mesh, address) = Setup { routes: to(&[(&service, None)]), ..Setup::to(&[&own]) }.start();
    mesh.set_endpoints_of(&EndpointsId::new(service.clone(), 80), &[ledger.address]);
    mesh.set_endpoints_of(&EndpointsId::new(service.clone(), 81), &[admin.address]);
    let mut client = Peer::dial(address);
    assert_eq!(client.ask(GET).body(), "ledger", "the port that the request was for");
    mesh.set_service(leno_core::service::Protocol::Http, Algorithm::LeastRequest, to(&[(&service, Some(81))]));
    eventually("the new route holds", || client.ask(GET).body() == "admin");
    assert_eq!(own.connections(), 0);
    eventually("the other service is the label", || mesh.metrics().contains("destination=\"books/ledger\""));
}

#[test]
fn each_destination_gets_its_share_and_what_is_missing_answers_500() {
    let (own, ledger) = (Server::answering("own"), Server::answering("ledger"));
    let service = ServiceId::new("books", "ledger");
    let missing = Target::Missing("service bank/vault that namespace shop may name".into());
    let routes = to_targets(vec![Target::Service { service: service.clone(), port: None }, Target::Version("v1".into()), missing]);
    let (mesh, address) = Setup { routes, ..Setup::to(&[&own]) }.start();
    mesh.set_endpoints_of(&EndpointsId::new(service, 80), &[ledger.address]);
    let mut client = Peer::dial(address);
    let (mut counts, mut refused) = ([0, 0], 0);
    for _ in 0..3000 {
        let response = client.ask(GET);
        match (response.status(), response.body()) {
            (200, "ledger") => counts[0] += 1,
            (200, "own") => counts[1] += 1,
            (500, text) => {
                assert_eq!(text, "the chosen destination does not exist\n", "policies are nobody's business");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    for count in [counts[0], counts[1], refused] {
        assert!((850..=1150).contains(&count), "a third of 3000, give or take 5 points: {counts:?}, {refused} refused");
    }
    eventually("refusals are counted", || mesh.metrics().contains("reason=\"missing-destination\""));
}

#[test]
fn endpoints_of_another_service_come_and_go_without_a_word_about_the_route() {
    let (own, first, second) = (Server::answering("own"), Server::answering("first"), Server::answering("second"));
    let service = ServiceId::new("books", "ledger");
    let id = EndpointsId::new(service.clone(), 80);
    let (mesh, address) = Setup { routes: to(&[(&service, None)]), ..Setup::to(&[&own]) }.start();
    mesh.set_endpoints_of(&id, &[nowhere(), first.address]);
    let mut client = Peer::dial(address);
    for _ in 0..20 {
        assert_eq!(client.ask(GET).body(), "first", "an endpoint that does not accept is left for another");
    }
    mesh.set_endpoints_of(&id, &[second.address]);
    eventually("the new endpoint takes over", || client.ask(GET).body() == "second");
    mesh.set_endpoints_of(&id, &[]);
    eventually("without endpoints it is 503", || client.ask(GET).status() == 503);
    assert_eq!(own.connections(), 0);
}

impl Mesh {
    /// Endpoints of any service's port.
    pub(crate) fn set_endpoints_of(&self, id: &EndpointsId, addresses: &[std::net::SocketAddr]) {
        let endpoints = addresses.iter().map(|address| Endpoint::at(*address)).collect();
        self.set_all(leno_core::endpoints::Endpoints { endpoints, ..leno_core::endpoints::Endpoints::new(id.clone()) });
    }
}
