//! Services, as far as routing needs them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use super::labels::Labels;
use super::lenient::{addresses, non_empty, or_default, port};
use super::watched::{RawMeta, watched};

/// A v1 Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.generation`, where the API server counts it.
    pub generation: Option<i64>,
    /// `spec.type`: ClusterIP, NodePort, LoadBalancer or ExternalName.
    pub kind: Box<str>,
    /// `spec.clusterIPs` (or `clusterIP`); empty for a headless service and for one that has none yet.
    pub cluster_ips: Box<[IpAddr]>,
    /// Whether its cluster IP is `None`: callers find the pods themselves.
    pub headless: bool,
    /// `spec.selector`; empty when its endpoints are not chosen by labels.
    pub selector: Labels,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// `spec.externalName`.
    pub external_name: Option<Box<str>>,
    /// `spec.publishNotReadyAddresses`: endpoints count as ready before they are.
    pub publish_not_ready_addresses: bool,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; endpoint slices name it. `None` for the only port of a service.
    pub name: Option<Box<str>>,
    /// What callers dial.
    pub port: u16,
    /// What the endpoints listen on; by default the same number.
    pub target_port: TargetPort,
    /// TCP, UDP or SCTP.
    pub protocol: Box<str>,
    /// What is spoken, as the service says it: `http`, `kubernetes.io/h2c`, `grpc` …
    pub app_protocol: Option<Box<str>>,
}

/// The endpoints' port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container's port.
    Name(Box<str>),
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawService {
    #[serde(deserialize_with = "or_default")]
    metadata: RawMeta,
    #[serde(deserialize_with = "or_default")]
    spec: RawSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: String,
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    cluster_ips: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<RawPort>,
    #[serde(deserialize_with = "or_default")]
    external_name: String,
    #[serde(deserialize_with = "or_default")]
    publish_not_ready_addresses: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    port: i64,
    target_port: Option<IntOrString>,
    #[serde(deserialize_with = "or_default")]
    protocol: String,
    #[serde(deserialize_with = "or_default")]
    app_protocol: String,
}

watched!(Service, RawService, "", "v1", "Service", "services");

impl From<RawService> for Service {
    fn from(raw: RawService) -> Self {
        let RawService { metadata, spec } = raw;
        let cluster_ips = addresses(spec.cluster_ips.iter().map(String::as_str));
        Self {
            namespace: metadata.namespace(),
            generation: metadata.generation,
            name: metadata.name.into(),
            kind: non_empty(spec.kind).unwrap_or_else(|| "ClusterIP".into()),
            headless: spec.cluster_ip == "None",
            cluster_ips: if cluster_ips.is_empty() { addresses([spec.cluster_ip.as_str()]) } else { cluster_ips },
            selector: spec.selector.into_iter().collect(),
            ports: spec.ports.into_iter().filter_map(RawPort::trim).collect(),
            external_name: non_empty(spec.external_name),
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
        }
    }
}

impl RawPort {
    /// The port, if its number is one.
    fn trim(self) -> Option<ServicePort> {
        let number = port(self.port)?;
        Some(ServicePort {
            name: non_empty(self.name),
            port: number,
            target_port: match self.target_port {
                Some(IntOrString::Int(target)) => TargetPort::Number(port(i64::from(target)).unwrap_or(number)),
                Some(IntOrString::String(name)) => TargetPort::Name(name.into()),
                None => TargetPort::Number(number),
            },
            protocol: non_empty(self.protocol).unwrap_or_else(|| "TCP".into()),
            app_protocol: non_empty(self.app_protocol),
        })
    }
}
