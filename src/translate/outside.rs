//! What a MeshService registers outside the cluster: where it is, and how proxies speak to it.
//!
//! Host names are looked up by somebody else; what they mean comes in as [`Lookups`], so that nothing here does I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use leno_api as api;
use leno_api::mesh_service as spec;
use leno_core::endpoints::Origination;
use leno_core::names::{Name, ServiceId};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::mesh::is_host;
use crate::service::Service;

/// Something outside the cluster.
#[derive(Debug, PartialEq)]
pub(crate) struct Outside {
    /// Host names at which it is.
    pub(crate) hosts: Vec<Name>,
    /// IP addresses at which it is, whatever its host names mean.
    pub(crate) addresses: Vec<IpAddr>,
    /// The ports that callers dial, ordered.
    pub(crate) ports: Vec<u16>,
    /// The port at which TLS is spoken, where it is another one than callers dial.
    pub(crate) port: Option<u16>,
    /// The TLS that proxies begin there.
    pub(crate) origination: Option<Arc<Origination>>,
}

/// What came of looking host names up.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    /// The last answers, ordered.
    pub(crate) answers: BTreeMap<Name, Vec<IpAddr>>,
    /// Why the last lookup failed.
    pub(crate) errors: BTreeMap<Name, String>,
}

impl Lookups {
    /// Whether looking `host` up has been tried.
    pub(crate) fn knows(&self, host: &Name) -> bool {
        self.answers.contains_key(host) || self.errors.contains_key(host)
    }
}

impl Outside {
    /// The port at which it is reached where callers dial `port`.
    pub(crate) fn reached_at(&self, port: u16) -> u16 {
        self.port.unwrap_or(port)
    }

    /// It in the form of a Service, called `name` in `namespace`.
    pub(crate) fn service(&self, namespace: &Name, name: &Name, lookups: &Lookups) -> Service {
        let found = self.hosts.iter().filter_map(|host| lookups.answers.get(host)).flatten();
        let mut vips: Vec<IpAddr> = self.addresses.iter().chain(found).copied().collect();
        vips.sort_unstable();
        vips.dedup();
        Service::outside(ServiceId::new(namespace.clone(), name.clone()), vips, &self.ports)
    }
}

/// Reads `spec.external`; what is wrong with it is added to `problems`.
pub(crate) fn read(spec: &api::MeshServiceSpec, external: &spec::External, problems: &mut Vec<String>) -> Outside {
    if spec.service.is_some() {
        problems.push("spec: write service or external, not both.".to_owned());
    }
    if !spec.versions.is_empty() {
        problems.push("spec.versions: leave them out, what is outside the cluster has no pods.".to_owned());
    }
    if external.addresses.is_empty() {
        problems.push("spec.external.addresses: write at least one host name or IP address.".to_owned());
    }
    if external.ports.is_empty() {
        problems.push("spec.external.ports: write at least one port that callers dial.".to_owned());
    }
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for (index, text) in external.addresses.iter().enumerate() {
        match text.parse::<IpAddr>() {
            Ok(address) => addresses.push(address.to_canonical()),
            Err(_) if is_host(text) && !looks_numeric(text) => hosts.push(Name::from(text.to_ascii_lowercase())),
            Err(_) => problems.push(format!("spec.external.addresses[{index}]: {text:?} is neither a host name nor an IP address.")),
        }
    }
    let mut ports = external.ports.clone();
    ports.sort_unstable();
    ports.dedup();
    let origination = external.tls.as_ref().map(|tls| origination(spec, external, tls, problems));
    Outside { hosts, addresses, ports, port: external.tls.as_ref().and_then(|tls| tls.port), origination }
}

fn origination(
    spec: &api::MeshServiceSpec,
    external: &spec::External,
    tls: &spec::OutsideTls,
    problems: &mut Vec<String>,
) -> Arc<Origination> {
    for (index, port) in spec.ports.iter().enumerate().filter(|(_, port)| port.protocol == spec::Protocol::Tls) {
        problems.push(format!(
            "spec.ports[{index}]: apps speak TLS at port {} themselves, so proxies cannot begin it: leave spec.external.tls out, or write \
             what they speak inside.",
            port.port
        ));
    }
    let name = tls.server_name.as_ref().or(external.addresses.first()).cloned().unwrap_or_default();
    if name.parse::<IpAddr>().is_err() && !is_host(&name) {
        problems.push(format!("spec.external.tls.serverName: {name:?} is neither a host name nor an IP address."));
    }
    let roots = tls.ca_bundle.as_deref().map(|pem| roots(pem, problems)).unwrap_or_default();
    Arc::new(Origination { server_name: name.to_ascii_lowercase().into(), roots })
}

fn roots(pem: &str, problems: &mut Vec<String>) -> Vec<Arc<[u8]>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let roots: Vec<Arc<[u8]>> = read.unwrap_or_default().iter().map(|der| Arc::from(&der[..])).collect();
    if roots.is_empty() {
        problems.push("spec.external.tls.caBundle: it holds no certificate in PEM, or a broken one.".to_owned());
    }
    roots
}

/// Whether it was meant to be an IPv4 address: no top-level domain is a number.
fn looks_numeric(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}
