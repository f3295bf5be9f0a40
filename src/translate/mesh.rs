//! What a MeshService means.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use leno_api as api;
use leno_api::k8s::Labels;
use leno_core::balance::Balancing;
use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::names::{Name, ServiceId};
use leno_core::resilience::Resilience;
use leno_core::service::Protocol;

use crate::balancing;
use crate::fields;
use crate::outside::{self, Outside};
use crate::resilience;

/// A good MeshService.
#[derive(Debug, PartialEq)]
pub(crate) struct Mesh {
    /// Name of the Service it is for.
    pub(crate) service: Name,
    /// Further host names, lower case.
    pub(crate) hosts: Vec<Name>,
    /// Protocols of ports.
    pub(crate) ports: Vec<(u16, Protocol)>,
    /// Named subsets of the endpoints.
    pub(crate) versions: Vec<Version>,
    /// How an endpoint is chosen, where that is said.
    pub(crate) balancing: Option<Arc<Balancing>>,
    /// How it is guarded, where that is said.
    pub(crate) resilience: Option<Arc<Resilience>>,
    /// How its pods' sidecars learn how many requests they bear, where that is said.
    pub(crate) concurrency: Option<AdaptiveConcurrency>,
    /// What it is, where that is outside the cluster: then `service` is its own name.
    pub(crate) outside: Option<Outside>,
    /// The fields that it writes, in words.
    pub(crate) fields: Name,
}

/// A named subset of the endpoints.
#[derive(Debug, PartialEq)]
pub(crate) struct Version {
    /// Its name.
    pub(crate) name: Name,
    /// Labels that its pods have.
    pub(crate) labels: Labels,
}

impl Mesh {
    /// The versions that something with these labels belongs to, in list order.
    pub(crate) fn versions_of<'a>(&'a self, labels: Option<&'a Labels>) -> impl Iterator<Item = &'a Name> {
        let selected = self.versions.iter().filter(move |version| labels.is_some_and(|it| it.contains_all(version.labels.iter())));
        selected.map(|version| &version.name)
    }

    /// The protocol of `port`, if the object says it.
    pub(crate) fn protocol(&self, port: u16) -> Option<Protocol> {
        self.ports.iter().find(|(number, _)| *number == port).map(|(_, protocol)| *protocol)
    }

    /// Whether it has a version called `name`.
    pub(crate) fn has_version(&self, name: &str) -> bool {
        self.versions.iter().any(|version| &*version.name == name)
    }
}

/// Reads a MeshService; otherwise everything that is wrong with it.
pub(crate) fn read(object: &api::MeshService) -> Result<Mesh, Vec<String>> {
    let mut problems = Vec::new();
    let spec = &object.spec;
    for (index, host) in spec.hosts.iter().enumerate().filter(|(_, host)| !is_host(host)) {
        problems.push(format!("spec.hosts[{index}]: {host:?} is not a host name: leave out scheme, port, path and wildcards."));
    }
    let mut names = BTreeSet::new();
    for (index, version) in spec.versions.iter().enumerate() {
        if version.name.is_empty() {
            problems.push(format!("spec.versions[{index}]: a version needs a name."));
        } else if !names.insert(&version.name) {
            problems.push(format!("spec.versions[{index}]: there are two versions called {}: give each a name of its own.", version.name));
        }
        if version.labels.is_empty() {
            problems.push(format!("spec.versions[{index}].labels: name at least one label that the version's pods have."));
        }
    }
    let mut ports = BTreeSet::new();
    for (index, port) in spec.ports.iter().enumerate().filter(|(_, port)| !ports.insert(port.port)) {
        problems.push(format!("spec.ports[{index}]: port {} is listed twice: list it once.", port.port));
    }
    let outside = spec.external.as_ref().map(|external| outside::read(spec, external, &mut problems));
    let resilience = resilience::read(spec, &asked_as(object), &mut problems);
    let concurrency = resilience::concurrency(spec, &mut problems);
    let id = ServiceId::new(object.metadata.namespace.as_deref().unwrap_or("default"), object.service_name());
    let balancing = balancing::read(spec.load_balancer.as_ref(), &id, &mut problems);
    if problems.is_empty() { Ok(Mesh { resilience, concurrency, balancing, ..mesh(object, outside) }) } else { Err(problems) }
}

/// The name by which a service is asked whether it is well: that which its callers use.
fn asked_as(object: &api::MeshService) -> String {
    let outside = object.spec.external.as_ref().and_then(|external| external.addresses.first()).map(|address| match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => address.clone(),
    });
    let inside = || match &object.metadata.namespace {
        Some(namespace) => format!("{}.{namespace}", object.service_name()),
        None => object.service_name().to_owned(),
    };
    outside.unwrap_or_else(inside)
}

fn mesh(object: &api::MeshService, outside: Option<Outside>) -> Mesh {
    let spec = &object.spec;
    let found = outside.iter().flat_map(|outside| &outside.hosts).cloned();
    let mut hosts: Vec<Name> = spec.hosts.iter().map(|host| host.to_ascii_lowercase().into()).chain(found).collect();
    hosts.sort();
    hosts.dedup();
    Mesh {
        service: object.service_name().into(),
        hosts,
        ports: spec.ports.iter().map(|it| (it.port, protocol(it.protocol))).collect(),
        versions: spec.versions.iter().map(|it| Version { name: it.name.as_str().into(), labels: it.labels.iter().collect() }).collect(),
        outside,
        balancing: None,
        resilience: None,
        concurrency: None,
        fields: fields::said(&serde_json::to_value(spec).unwrap_or_default()),
    }
}

fn protocol(protocol: api::mesh_service::Protocol) -> Protocol {
    match protocol {
        api::mesh_service::Protocol::Http => Protocol::Http,
        api::mesh_service::Protocol::Http2 => Protocol::Http2,
        api::mesh_service::Protocol::Grpc => Protocol::Grpc,
        api::mesh_service::Protocol::Tls => Protocol::Tls,
        api::mesh_service::Protocol::Tcp => Protocol::Tcp,
    }
}

/// Whether `host` is one host name: letters, digits, `-` and single dots.
pub(crate) fn is_host(host: &str) -> bool {
    let label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    host.len() <= 253 && host.split('.').all(label)
}
