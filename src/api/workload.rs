//! `Workload`: a process that is not a pod. It exists in folders of manifests only, where it stands for Pods and EndpointSlices.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// A process that is not a pod. It belongs to a Service when the Service's selector matches its `metadata.labels`.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "leno.dev",
    version = "v1alpha1",
    kind = "Workload",
    namespaced,
    derive = "PartialEq",
    doc = "Workload is a process that is not a pod. It belongs to a Service when the Service's selector matches its metadata.labels."
)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// IP address at which it listens. Default: 127.0.0.1.
    pub address: IpAddr,
    /// Ports on which it listens. A Service's targetPort finds them by number or by name. Default: none; it only calls others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<WorkloadPort>,
    /// Name of the service account that it is, in its own namespace: others know it by this name. Default: default.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::list(&[&rules::ACCOUNT_NAME])))]
    pub service_account: String,
    /// Its share of the requests to its services beside others, 0 to 1000; 0 gets nothing while any other can take them. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub weight: Option<u32>,
    /// The program that `leno up` starts, and ends with the mesh, and its arguments; `leno` means the running program itself.
    /// It finds its address in LENO_ADDRESS, its first port in PORT, each named port in `LENO_PORT_<NAME>`, and in
    /// LENO_OUTBOUND where to send what it asks of others, as to an HTTP proxy. Default: none; it is started by somebody else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub command: Vec<String>,
    /// Where its sidecar takes traffic for each port, if it has one. Not part of what people write: `leno up` knows it.
    #[serde(skip)]
    pub sidecar: BTreeMap<u16, SocketAddr>,
}

/// A port on which a workload listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadPort {
    /// Name of the port, for a Service's targetPort. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), extend("x-kubernetes-validations" = rules::list(&[&rules::PORT_NAME])))]
    pub name: Option<String>,
    /// Its number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

impl Default for WorkloadSpec {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: Vec::new(),
            service_account: "default".into(),
            weight: None,
            command: Vec::new(),
            sidecar: BTreeMap::new(),
        }
    }
}
