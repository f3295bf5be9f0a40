//! What becomes of the probes of a pod whose traffic the sidecar carries.
//!
//! The kubelet has no identity, so a port that is `Strict` would refuse it. Probes over plain HTTP and gRPC go to the app through
//! the sidecar, which is told their requests and lets just those pass ([`Probes::passed`]). Three kinds it could not tell from
//! other traffic; they become an `httpGet` on its admin port, which asks the app in the kubelet's place ([`Probes::asked`]):
//! `tcpSocket`, because the sidecar accepts any connection before it knows whether the app does; `httpGet` over HTTPS, because it
//! sees nothing of the request; and targets with a comma, which separates the requests it is told. Commands need no network.

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, RemoveOperation};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::target::on_the_wire;
use super::{ADMIN_PORT, add, init_containers};

/// The request that a gRPC probe is (the gRPC health checking protocol).
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";

/// What becomes of a pod's probes.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// The changes to the pod.
    pub(super) patch: Vec<PatchOperation>,
    /// Requests that the sidecar lets pass without an identity: `PORT/TARGET`.
    pub(super) passed: Vec<String>,
    /// Requests that the admin port makes: `SCHEME/PORT/TARGET`.
    pub(super) asked: Vec<String>,
}

/// What the kubelet asks of one port of the pod.
enum Ask {
    Connect,
    Http { secure: bool, target: String },
    Grpc,
}

impl Probes {
    /// The probes of every container. Ports in `excluded` are reached without the sidecar, so probes of them stay.
    pub(super) fn of(spec: &PodSpec, excluded: &[u16]) -> Self {
        let lists = [("initContainers", init_containers(spec)), ("containers", spec.containers.as_slice())];
        let containers = lists.into_iter().flat_map(|(list, containers)| containers.iter().enumerate().map(move |(at, it)| (list, at, it)));
        let mut probes = Self::default();
        for (list, at, container) in containers {
            let at = at.to_string();
            for (field, probe) in declared(container) {
                let Some((port, ask)) = asks(container, probe).filter(|(port, _)| !excluded.contains(port)) else { continue };
                probes.take(&["spec", list, &at, field], port, &ask);
            }
        }
        for list in [&mut probes.passed, &mut probes.asked] {
            list.sort();
            list.dedup();
        }
        probes
    }

    fn take(&mut self, place: &[&str; 4], port: u16, ask: &Ask) {
        match ask {
            Ask::Grpc => self.passed.push(format!("{port}{GRPC_HEALTH}")),
            Ask::Http { secure: false, target } if !target.contains(',') => self.passed.push(format!("{port}{target}")),
            Ask::Http { secure, target } => {
                let request = format!("{}/{port}{target}", if *secure { "https" } else { "http" });
                self.patch.extend(http_to_admin_port(place, &request));
                self.asked.push(request);
            }
            Ask::Connect => self.patch.extend(tcp_to_admin_port(place, port)),
        }
    }
}

fn declared(container: &Container) -> impl Iterator<Item = (&'static str, &Probe)> {
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("readinessProbe", &container.readiness_probe),
        ("livenessProbe", &container.liveness_probe),
    ];
    probes.into_iter().filter_map(|(field, probe)| Some((field, probe.as_ref()?)))
}

/// What a probe asks of the pod; `None` when it asks another host, or a port by a name that the container does not have.
fn asks(container: &Container, probe: &Probe) -> Option<(u16, Ask)> {
    let own = |host: &Option<String>| host.as_deref().is_none_or(str::is_empty);
    match probe {
        Probe { tcp_socket: Some(tcp), .. } if own(&tcp.host) => Some((port(container, &tcp.port)?, Ask::Connect)),
        Probe { http_get: Some(http), .. } if own(&http.host) => Some((port(container, &http.port)?, http_ask(http))),
        Probe { grpc: Some(grpc), .. } => Some((numbered(grpc.port)?, Ask::Grpc)),
        _ => None,
    }
}

fn http_ask(http: &HTTPGetAction) -> Ask {
    let secure = http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    Ask::Http { secure, target: on_the_wire(http.path.as_deref().unwrap_or_default()) }
}

fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => numbered(*number),
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            numbered(ports.iter().find(|port| port.name.as_deref() == Some(name))?.container_port)
        }
    }
}

fn numbered(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn tcp_to_admin_port(probe: &[&str; 4], port: u16) -> [PatchOperation; 2] {
    let http_get = json!({"path": format!("/probe/tcp/{port}"), "port": ADMIN_PORT, "scheme": "HTTP"});
    let [spec, list, at, field] = *probe;
    let removed = PointerBuf::from_tokens([spec, list, at, field, "tcpSocket"]);
    [PatchOperation::Remove(RemoveOperation { path: removed }), add(&[spec, list, at, field, "httpGet"], http_get)]
}

/// The probe's own headers stay: the admin port passes them on.
fn http_to_admin_port(probe: &[&str; 4], request: &str) -> [PatchOperation; 3] {
    let [spec, list, at, field] = *probe;
    let values = [("path", json!(format!("/probe/{request}"))), ("port", json!(ADMIN_PORT)), ("scheme", json!("HTTP"))];
    values.map(|(name, value)| add(&[spec, list, at, field, "httpGet", name], value))
}
