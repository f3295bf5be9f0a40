//! Pods, as far as routing and identity need them.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::labels::Labels;
use super::lenient::{addresses, non_empty, or_default, port};
use super::watched::{RawMeta, watched};

/// A v1 Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations that begin with `leno.dev/`.
    pub annotations: Labels,
    /// The first of its owners: a ReplicaSet, a StatefulSet, a Job.
    pub owner: Option<Owner>,
    /// `status.podIPs` (or `podIP`), the primary first.
    pub ips: Box<[IpAddr]>,
    /// `status.phase`.
    pub phase: Phase,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `spec.hostNetwork`: its addresses are the node's.
    pub host_network: bool,
    /// `spec.serviceAccountName`; `default` when it says nothing.
    pub service_account: Box<str>,
    /// `spec.nodeName`: the node it runs on, once it is scheduled.
    pub node: Option<Box<str>>,
    /// Declared ports of its containers, native sidecars included.
    pub ports: Box<[ContainerPort]>,
}

/// A declared port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name, by which a Service's `targetPort` may mean it.
    pub name: Option<Box<str>>,
    /// Its number.
    pub port: u16,
}

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Kind of the owner.
    pub kind: Box<str>,
    /// Name of the owner.
    pub name: Box<str>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have started.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers have ended well.
    Succeeded,
    /// All containers have ended, one of them badly.
    Failed,
    /// Not said, or something this version does not know.
    #[default]
    Unknown,
}

impl Phase {
    /// Whether the pod's containers have ended for good.
    pub fn is_over(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed => true,
            Self::Pending | Self::Running | Self::Unknown => false,
        }
    }
}

impl From<&str> for Phase {
    fn from(text: &str) -> Self {
        match text {
            "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Unknown,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPod {
    #[serde(deserialize_with = "or_default")]
    metadata: RawMeta,
    #[serde(deserialize_with = "or_default")]
    spec: RawSpec,
    #[serde(deserialize_with = "or_default")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    #[serde(deserialize_with = "or_default")]
    service_account_name: String,
    #[serde(deserialize_with = "or_default")]
    node_name: String,
    #[serde(deserialize_with = "or_default")]
    host_network: bool,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<RawContainer>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<RawContainer>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    #[serde(deserialize_with = "or_default")]
    restart_policy: String,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<RawPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    container_port: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    #[serde(deserialize_with = "or_default")]
    phase: String,
    #[serde(rename = "podIP", deserialize_with = "or_default")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pod_ips: Vec<RawIp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawIp {
    #[serde(deserialize_with = "or_default")]
    ip: String,
}

watched!(Pod, RawPod, "", "v1", "Pod", "pods");

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Self {
        let RawPod { mut metadata, spec, status } = raw;
        let ips = addresses(status.pod_ips.iter().map(|it| it.ip.as_str()));
        Self {
            namespace: metadata.namespace(),
            labels: metadata.labels(),
            annotations: metadata.annotations(),
            owner: metadata.owner(),
            deleting: metadata.is_deleting(),
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            ips: if ips.is_empty() { addresses([status.pod_ip.as_str()]) } else { ips },
            phase: status.phase.as_str().into(),
            host_network: spec.host_network,
            node: non_empty(spec.node_name),
            service_account: non_empty(spec.service_account_name).unwrap_or_else(|| "default".into()),
            ports: ports(spec.init_containers, spec.containers),
        }
    }
}

/// The declared ports of all containers that run beside each other.
fn ports(init: Vec<RawContainer>, containers: Vec<RawContainer>) -> Box<[ContainerPort]> {
    let sidecars = init.into_iter().filter(|it| it.restart_policy == "Always");
    let declared = containers.into_iter().chain(sidecars).flat_map(|it| it.ports);
    declared.filter_map(|it| Some(ContainerPort { port: port(it.container_port)?, name: non_empty(it.name) })).collect()
}
