//! Endpoint slices, as far as routing needs them.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::lenient::{addresses, non_empty, or_default, port};
use super::watched::{RawMeta, watched};

/// A discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The service it is of (label `kubernetes.io/service-name`), in the same namespace.
    pub service: Option<Arc<str>>,
    /// `IPv4`, `IPv6` or `FQDN`. Addresses of the last are left out.
    pub address_type: Box<str>,
    /// Its endpoints that have an address.
    pub endpoints: Box<[Endpoint]>,
    /// The ports of each endpoint.
    pub ports: Box<[EndpointPort]>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address: the first, as consumers are to use it.
    pub address: IpAddr,
    /// Whether it takes new requests. Not said means yes.
    pub ready: bool,
    /// Whether it answers, be it ending or not. Not said means as `ready`.
    pub serving: bool,
    /// Whether it is ending.
    pub terminating: bool,
    /// The pod behind it, if `targetRef` names one. It is in the slice's namespace.
    pub pod: Option<Arc<str>>,
    /// The node it runs on.
    pub node: Option<Box<str>>,
    /// The zone it runs in.
    pub zone: Option<Box<str>>,
}

/// A port of every endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// The name of the service's port that it is for. `None` for the only port of a service.
    pub name: Option<Box<str>>,
    /// What the endpoints listen on. `None` means any port.
    pub port: Option<u16>,
    /// TCP, UDP or SCTP.
    pub protocol: Box<str>,
    /// What is spoken, as the service says it.
    pub app_protocol: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawSlice {
    #[serde(deserialize_with = "or_default")]
    metadata: RawMeta,
    #[serde(deserialize_with = "or_default")]
    address_type: String,
    #[serde(deserialize_with = "or_default")]
    endpoints: Vec<RawEndpoint>,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<RawPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    #[serde(deserialize_with = "or_default")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    conditions: RawConditions,
    #[serde(deserialize_with = "or_default")]
    target_ref: RawReference,
    #[serde(deserialize_with = "or_default")]
    node_name: String,
    #[serde(deserialize_with = "or_default")]
    zone: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawReference {
    #[serde(deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    #[serde(deserialize_with = "or_default")]
    name: String,
    port: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    protocol: String,
    #[serde(deserialize_with = "or_default")]
    app_protocol: String,
}

watched!(EndpointSlice, RawSlice, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");

impl From<RawSlice> for EndpointSlice {
    fn from(raw: RawSlice) -> Self {
        let RawSlice { mut metadata, address_type, endpoints, ports } = raw;
        Self {
            namespace: metadata.namespace(),
            service: metadata.labels.remove("kubernetes.io/service-name").and_then(non_empty).map(Arc::from),
            name: metadata.name.into(),
            address_type: address_type.into(),
            endpoints: endpoints.into_iter().filter_map(RawEndpoint::trim).collect(),
            ports: ports.into_iter().map(RawPort::trim).collect(),
        }
    }
}

impl RawEndpoint {
    /// The endpoint, if it has an address.
    fn trim(self) -> Option<Endpoint> {
        let ready = self.conditions.ready.unwrap_or(true);
        Some(Endpoint {
            address: *addresses(self.addresses.iter().map(String::as_str)).first()?,
            ready,
            serving: self.conditions.serving.unwrap_or(ready),
            terminating: self.conditions.terminating.unwrap_or(false),
            pod: non_empty(self.target_ref.name).filter(|_| self.target_ref.kind == "Pod").map(Arc::from),
            node: non_empty(self.node_name),
            zone: non_empty(self.zone),
        })
    }
}

impl RawPort {
    fn trim(self) -> EndpointPort {
        EndpointPort {
            name: non_empty(self.name),
            port: self.port.and_then(port),
            protocol: non_empty(self.protocol).unwrap_or_else(|| "TCP".into()),
            app_protocol: non_empty(self.app_protocol),
        }
    }
}
