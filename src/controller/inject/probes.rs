//! Probes that the sidecar would answer in the app's place are sent to the sidecar instead.
//!
//! The sidecar accepts any TCP connection before it knows whether the app does, so a `tcpSocket` probe through it always
//! succeeds. It becomes an `httpGet` on the sidecar's admin port, which connects to the app and says how that went. HTTP and
//! gRPC probes reach the app through the sidecar and stay, as do those that run a command.

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation};
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{ADMIN_PORT, add, init_containers};

/// The changes to the pod's probes. Ports in `excluded` are reached without the sidecar, so probes of them stay.
pub(super) fn rewritten(spec: &PodSpec, excluded: &[u16]) -> Vec<PatchOperation> {
    let lists = [("initContainers", init_containers(spec)), ("containers", spec.containers.as_slice())];
    let containers = lists.into_iter().flat_map(|(list, containers)| containers.iter().enumerate().map(move |(at, it)| (list, at, it)));
    let mut patch = Vec::new();
    for (list, at, container) in containers {
        let at = at.to_string();
        for (field, probe) in probes(container) {
            let Some(port) = probe.tcp_socket.as_ref().and_then(|tcp| tcp_port(container, tcp)) else { continue };
            if !excluded.contains(&port) {
                patch.extend(to_admin_port(&["spec", list, &at, field], port));
            }
        }
    }
    patch
}

fn probes(container: &Container) -> impl Iterator<Item = (&'static str, &Probe)> {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("readinessProbe", &container.readiness_probe),
        ("livenessProbe", &container.liveness_probe),
    ];
    probes.into_iter().filter_map(|(field, probe)| Some((field, probe.as_ref()?)))
}

/// The port of the pod that is probed; `None` for another host's, or a name that no port of the container has.
fn tcp_port(container: &Container, tcp: &TCPSocketAction) -> Option<u16> {
    if tcp.host.as_deref().is_some_and(|host| !host.is_empty()) {
        return None;
    }
    let number = match &tcp.port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            ports.iter().find(|port| port.name.as_deref() == Some(name))?.container_port
        }
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn to_admin_port(probe: &[&str; 4], port: u16) -> [PatchOperation; 2] {
    let at = |field| {
        let [spec, list, at, probe] = *probe;
        [spec, list, at, probe, field]
    };
    let http_get = json!({"path": format!("/probe/tcp/{port}"), "port": ADMIN_PORT, "scheme": "HTTP"});
    [PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(at("tcpSocket")) }), add(&at("httpGet"), http_get)]
}
