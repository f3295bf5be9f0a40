//! A proxy before the app, and one beside its caller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leno_core::authorize::{Guard, Mode};
use leno_core::endpoints::Endpoint;
use leno_core::names::WorkloadId;
use leno_core::service::Protocol;
use leno_core::workload::{InboundPort, Workload};
use leno_proxy::control::Update;
use leno_proxy::listen::Accept;
use leno_proxy::worker::Settings;

use crate::authority::{Authority, PAYMENT, WEB};
use crate::support::{Mesh, Setup, eventually, payment};

/// The app's port, as its workload knows it.
pub(crate) const APP_PORT: u16 = 8080;

pub(crate) fn settings(name: &str) -> Settings {
    let mut settings = Settings::new(WorkloadId::new("shop", name));
    settings.identity = true;
    settings.connect_timeout = Duration::from_secs(10);
    settings
}

/// What the app's workload is.
pub(crate) fn workload(mode: Mode, protocol: Protocol) -> Update {
    let guard = Guard { mode, ..Guard::default() };
    let port = InboundPort { port: APP_PORT, protocol, service: payment(), version: None, guard, concurrency: None };
    let id = WorkloadId::new("shop", "payment-1");
    Update::Workload(Arc::new(Workload { inbound: vec![port], ..Workload::new(id) }))
}

/// The proxy before `app`, with settings of the test's own.
pub(crate) fn inbound_with(
    app: SocketAddr,
    authority: &Authority,
    mode: Mode,
    protocol: Protocol,
    settings: Settings,
) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup { settings, ..Setup::default() }.start_with(|| Accept::InboundApp { app, port: APP_PORT });
    mesh.tell(Update::Trust(authority.trust()));
    mesh.tell(Update::Credentials(authority.credentials(PAYMENT)));
    mesh.tell(workload(mode, protocol));
    (mesh, address)
}

pub(crate) fn inbound(app: SocketAddr, authority: &Authority, mode: Mode, protocol: Protocol) -> (Mesh, SocketAddr) {
    inbound_with(app, authority, mode, protocol, settings("payment-1"))
}

/// The proxy beside the caller; whoever answers at `endpoints` must be who is said.
pub(crate) fn outbound(authority: &Authority, protocol: Protocol, endpoints: &[(SocketAddr, Option<&str>)]) -> (Mesh, SocketAddr) {
    let (mesh, address) = Setup { settings: settings("web-1"), protocol, ..Setup::default() }.start();
    mesh.tell(Update::Trust(authority.trust()));
    mesh.tell(Update::Credentials(authority.credentials(WEB)));
    mesh.set_these(endpoints.iter().map(|(address, identity)| endpoint(*address, *identity)).collect());
    (mesh, address)
}

pub(crate) fn endpoint(address: SocketAddr, identity: Option<&str>) -> Endpoint {
    let identity = identity.map(|identity| Arc::new(identity.parse().unwrap()));
    Endpoint { workload: "payment".into(), versions: vec!["v1".into()], identity, ..Endpoint::at(address) }
}

/// Both proxies before `app`.
pub(crate) struct Pair {
    pub(crate) authority: Authority,
    pub(crate) caller: Mesh,
    pub(crate) callee: Mesh,
    pub(crate) address: SocketAddr,
}

pub(crate) fn pair(app: SocketAddr, protocol: Protocol) -> Pair {
    let authority = Authority::new();
    let (callee, inbound) = inbound(app, &authority, Mode::Strict, protocol);
    let (caller, address) = outbound(&authority, protocol, &[(inbound, Some(PAYMENT))]);
    Pair { authority, caller, callee, address }
}

/// The value of a counter whose line has all of `parts`; lines are summed.
pub(crate) fn counted(mesh: &Mesh, parts: &[&str]) -> u64 {
    let page = mesh.metrics();
    let lines = page.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Handshakes that went well.
pub(crate) fn handshakes(mesh: &Mesh) -> u64 {
    counted(mesh, &["leno_tls_handshakes_total", r#"result="ok""#])
}

/// Waits until a counter whose line has all of `parts` is at least `least`.
pub(crate) fn eventually_counted(mesh: &Mesh, parts: &[&str], least: u64) {
    eventually(&format!("{parts:?} reaches {least}"), || counted(mesh, parts) >= least);
}
