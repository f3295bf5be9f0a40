//! Adds the sidecar to a pod: a pure function from the pod to a JSON patch.
//!
//! In: the pod as the API server is about to store it, and a [`Config`]. Out: an [`Injection`]. The patch names every place it
//! touches (it is no diff), so fields that this build does not know stay as they are, and injecting twice changes nothing.
//!
//! The order of init containers becomes `leno-init` (redirects the pod's TCP), `leno-proxy` (a native sidecar, which runs as
//! long as the pod), then the pod's own, which so have the mesh already.
//!
//! Reading order: [`inject`], [`annotations`] (what people may set), `containers` and `token` (what is added), `probes` (what is
//! rewritten), `stopping` (how an app's end is delayed).

pub mod annotations;
mod containers;
mod probes;
mod stopping;
mod target;
mod token;
mod workload;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use leno_core::trace::Propagation;
use leno_core::trace::collector::{Endpoint, Protocol};
use serde_json::{Value, json};

pub use self::annotations::{InvalidAnnotation, Settings};
use self::probes::Probes;

/// Name of the container that writes the redirect rules.
pub const INIT_CONTAINER: &str = "leno-init";
/// Name of the sidecar.
pub const PROXY_CONTAINER: &str = "leno-proxy";
/// The user that the sidecar runs as, and whose traffic is not redirected.
pub const PROXY_UID: i64 = 15100;
/// The sidecar's port for health, metrics and probes.
pub const ADMIN_PORT: u16 = 15120;
/// Set on injected pods, with the controller's version as its value.
pub const INJECTED: &str = "leno.dev/injected";

/// What the injector is configured with. Annotations of a pod may say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Image of the proxy.
    pub proxy_image: String,
    /// `Always`, `IfNotPresent` or `Never`; `None` leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// `host:port` of the control stream.
    pub control_address: String,
    /// Domain of the cluster's DNS.
    pub cluster_domain: String,
    /// Certificates (PEM) by which the proxy trusts the controller.
    pub control_ca: String,
    /// How requests are traced, where they are.
    pub tracing: Option<Tracing>,
    /// What a pod without annotations gets.
    pub defaults: Settings,
}

/// How requests are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Who gets the spans.
    pub endpoint: Endpoint,
    /// How OTLP is spoken with it.
    pub protocol: Protocol,
    /// The forms in which traces travel.
    pub propagation: Propagation,
}

/// What happens to a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// It stays as it is.
    Unchanged(Unchanged),
    /// The sidecar is added.
    Patch(Patch),
    /// It may not be created.
    Refused(Refusal),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// It says that it wants no sidecar.
    OptedOut,
    /// It has its sidecar already.
    AlreadyInjected,
}

/// Why a pod that asked for a sidecar may not be created without one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no body to speak of.
    #[error("the pod has no spec")]
    NoSpec,
    /// It has no network of its own.
    #[error(
        "the pod uses the node's network (spec.hostNetwork), where Leno cannot redirect its traffic alone: remove hostNetwork, or annotate the pod with leno.dev/inject: disabled"
    )]
    HostNetwork,
    /// It runs where the proxy does not.
    #[error("the pod runs on Windows and Leno's proxy runs on Linux only: annotate the pod with leno.dev/inject: disabled")]
    Windows,
    /// A container has a name that the injector needs.
    #[error("a container of the pod is named {0}, a name that Leno gives its own: choose another")]
    NameTaken(&'static str),
    /// A volume has a name that the injector needs.
    #[error("a volume of the pod is named {0}, a name that Leno gives its own: choose another")]
    VolumeTaken(&'static str),
    /// Traffic of such a container would bypass the mesh.
    #[error("the pod runs as user {PROXY_UID}, which is the proxy's own, so its traffic would bypass the mesh: choose another runAsUser")]
    ProxyUser,
    /// A container uses a port of the proxy.
    #[error("container port {0} belongs to Leno's proxy (15101, 15106 and 15120 do): choose another")]
    PortTaken(i32),
    /// An annotation cannot be used.
    #[error(transparent)]
    Annotation(#[from] InvalidAnnotation),
}

impl Refusal {
    /// Metric label: a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSpec => "no_spec",
            Self::HostNetwork => "host_network",
            Self::Windows => "windows",
            Self::NameTaken(_) => "name_taken",
            Self::VolumeTaken(_) => "volume_taken",
            Self::ProxyUser => "proxy_user",
            Self::PortTaken(_) => "port_taken",
            Self::Annotation(_) => "annotation",
        }
    }
}

/// What becomes of `pod`, which asked for a sidecar by itself or by its namespace.
pub fn inject(pod: &Pod, config: &Config) -> Injection {
    match try_inject(pod, config) {
        Ok(injection) => injection,
        Err(refusal) => Injection::Refused(refusal),
    }
}

fn try_inject(pod: &Pod, config: &Config) -> Result<Injection, Refusal> {
    if annotations::opted_out(pod)? {
        return Ok(Injection::Unchanged(Unchanged::OptedOut));
    }
    let spec = pod.spec.as_ref().ok_or(Refusal::NoSpec)?;
    if is_injected(pod, spec) {
        return Ok(Injection::Unchanged(Unchanged::AlreadyInjected));
    }
    refuse_what_cannot_work(spec)?;
    let settings = config.defaults.clone().overridden_by(pod)?;

    // Probes first: adding init containers moves the positions of those that are there.
    let Probes { mut patch, passed, asked } = Probes::of(spec, &settings.exclude_inbound_ports);
    let probes = [("LENO_PROBES", passed.join(",")), ("LENO_ADMIN_PROBES", asked.join(" "))];
    let added = [containers::init(&settings, config), containers::proxy(pod, &settings, config, &probes)];
    patch.extend(stopping::delayed(spec, settings.stop_delay_seconds.unwrap_or(stopping::DELAY_DEFAULT)));
    patch.push(token::volume(spec));
    patch.extend(prepend_init_containers(spec, added));
    patch.push(annotate(pod, INJECTED, env!("CARGO_PKG_VERSION")));
    Ok(Injection::Patch(Patch(patch)))
}

/// Both marks are needed: the annotation alone may have been copied from another pod's manifest.
fn is_injected(pod: &Pod, spec: &PodSpec) -> bool {
    let annotated = pod.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(INJECTED));
    annotated && init_containers(spec).iter().any(|container| container.name == PROXY_CONTAINER)
}

fn refuse_what_cannot_work(spec: &PodSpec) -> Result<(), Refusal> {
    if spec.host_network == Some(true) {
        return Err(Refusal::HostNetwork);
    }
    let os_label = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    let os = spec.os.as_ref().map(|os| os.name.as_str()).or(os_label.map(String::as_str));
    if os == Some("windows") {
        return Err(Refusal::Windows);
    }
    if spec.security_context.as_ref().and_then(|context| context.run_as_user) == Some(PROXY_UID) {
        return Err(Refusal::ProxyUser);
    }
    if spec.volumes.iter().flatten().any(|volume| volume.name == token::VOLUME) {
        return Err(Refusal::VolumeTaken(token::VOLUME));
    }
    init_containers(spec).iter().chain(&spec.containers).try_for_each(refuse_container)
}

fn refuse_container(container: &Container) -> Result<(), Refusal> {
    if let Some(name) = [INIT_CONTAINER, PROXY_CONTAINER].into_iter().find(|name| container.name == *name) {
        return Err(Refusal::NameTaken(name));
    }
    if container.security_context.as_ref().and_then(|context| context.run_as_user) == Some(PROXY_UID) {
        return Err(Refusal::ProxyUser);
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    let udp = |protocol: &Option<String>| protocol.as_deref().is_some_and(|protocol| protocol != "TCP");
    match ports.iter().find(|port| containers::PORTS.contains(&port.container_port) && !udp(&port.protocol)) {
        Some(port) => Err(Refusal::PortTaken(port.container_port)),
        None => Ok(()),
    }
}

fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Puts `added` before the init containers that are there.
fn prepend_init_containers(spec: &PodSpec, added: [Value; 2]) -> Vec<PatchOperation> {
    if init_containers(spec).is_empty() {
        return vec![add(&["spec", "initContainers"], Value::from(added.to_vec()))];
    }
    added.into_iter().rev().map(|container| add(&["spec", "initContainers", "0"], container)).collect()
}

fn annotate(pod: &Pod, key: &str, value: &str) -> PatchOperation {
    match &pod.metadata.annotations {
        Some(_) => add(&["metadata", "annotations", key], value.into()),
        None => add(&["metadata", "annotations"], json!({ key: value })),
    }
}

/// Sets what is at `path`.
fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

#[cfg(test)]
mod tests;
