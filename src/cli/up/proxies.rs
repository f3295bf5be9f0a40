//! The proxies of a mesh on a laptop: a sidecar for each workload, and for each service one that stands at its address.
//!
//! They are the cluster's proxies, started in this process; only their listeners differ, because nothing is redirected here.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use leno_api as api;
use leno_controller::ca::authenticate::tokens::Tokens;
use leno_core::names::{ServiceId, WorkloadId};
use leno_proxy::boot::{self, Config, Proxy};
use leno_proxy::control::ControllerAddress;
use leno_proxy::environment::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT};
use leno_proxy::identity::Token;
use leno_proxy::listen::Accept;
use leno_proxy::probe::Probes;
use leno_proxy::telemetry::{AccessLogMode, Registry, Tracing};
use leno_proxy::worker::Settings;

use super::addresses;
use super::rewrite::Inbound;
use super::state::SidecarState;

/// The name of who calls through a service's address: a person or a program outside the mesh.
const OUTSIDE: &str = "outside";

/// What all proxies are started with.
#[derive(Clone)]
pub struct Start {
    /// Where the control plane is.
    pub controller: ControllerAddress,
    /// Where addresses are taken from.
    pub range: ipnet::Ipv4Net,
    /// Whose certificates the control plane signs.
    pub tokens: Arc<Tokens>,
    /// How requests are traced, where they are.
    pub tracing: Option<Tracing>,
}

/// The sidecar of one workload.
pub struct Sidecar {
    proxy: Proxy,
    app: App,
    /// Where it takes traffic for each port of the app.
    pub inbound: Inbound,
}

/// The proxy at the address of one service.
pub struct Gateway {
    proxy: Proxy,
    /// The address of each port.
    pub addresses: BTreeMap<u16, SocketAddr>,
}

/// Where an app listens, and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    address: IpAddr,
    ports: Vec<u16>,
    service_account: String,
}

impl App {
    /// Where the process of `workload` listens.
    pub fn of(workload: &api::Workload) -> Self {
        let mut ports: Vec<u16> = workload.spec.ports.iter().map(|port| port.port).collect();
        ports.sort_unstable();
        ports.dedup();
        Self { address: workload.spec.address, ports, service_account: workload.spec.service_account.clone() }
    }

    /// Whether it listens on `port`.
    pub fn has(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }
}

impl Start {
    /// Starts the sidecar of a workload. `before` is the one that it replaces: what can stay where it was does.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn sidecar(&self, id: &WorkloadId, app: App, before: Option<&Sidecar>) -> io::Result<Sidecar> {
        let ip = addresses::of(&format!("workload {id}"), self.range);
        let held = before.map(Sidecar::state);
        let outbound = held.as_ref().map_or_else(|| addresses::free(ip, &[OUTBOUND_PORT]), |held| held.outbound);
        let admin = held.map_or_else(|| addresses::free(ip, &[ADMIN_PORT]), |held| held.admin);
        let mut listeners = vec![(outbound, Accept::OutboundExplicit)];
        let inbound = |(place, port): (u16, &u16)| {
            // An app may listen on all addresses, so its own port is left to it.
            let address = match before.and_then(|before| before.inbound.get(port)) {
                Some(address) => *address,
                None => addresses::free(ip, &[INBOUND_PORT.saturating_add(place).saturating_add(100)]),
            };
            (address, Accept::InboundApp { app: SocketAddr::new(app.address, *port), port: *port })
        };
        listeners.extend((0..).zip(&app.ports).map(inbound));
        let mut config = self.config(id.clone(), &id.name, listeners, admin, app.address);
        config.settings.identity = true;
        config.token = Some(Token::Text(self.tokens.give(id, &app.service_account, random())));
        let proxy = boot::start(config)?;
        let inbound = app.ports.iter().copied().zip(proxy.addresses[1..].iter().copied()).collect();
        Ok(Sidecar { proxy, app, inbound })
    }

    /// Starts the proxy at a service's address. `apps` says whether an app of the folder listens on a port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn gateway(&self, id: &ServiceId, ports: &[u16], apps: impl Fn(u16) -> bool, before: Option<&Gateway>) -> io::Result<Gateway> {
        let ip = addresses::of(&format!("service {id}"), self.range);
        let address = |port: u16| match before.and_then(|before| before.addresses.get(&port)) {
            Some(address) => *address,
            None => addresses::free(ip, &addresses::service_ports(port, &apps)),
        };
        let listener = |port: &u16| (address(*port), Accept::OutboundService { service: id.clone(), port: *port });
        let listeners = ports.iter().map(listener).collect();
        let own = WorkloadId::new(Arc::clone(&id.namespace), OUTSIDE);
        let admin = before.map_or_else(|| addresses::free(ip, &[ADMIN_PORT]), |before| before.proxy.admin);
        let mut config = self.config(own, OUTSIDE, listeners, admin, ip.into());
        // It proves itself to the control plane only: who calls here is a stranger to the mesh, and services see one.
        config.token = Some(Token::Text(self.tokens.give(&caller_through(id), OUTSIDE, random())));
        let proxy = boot::start(config)?;
        let addresses = ports.iter().copied().zip(proxy.addresses.iter().copied()).collect();
        Ok(Gateway { proxy, addresses })
    }

    fn config(&self, workload: WorkloadId, source: &str, listeners: Vec<(SocketAddr, Accept)>, admin: SocketAddr, app: IpAddr) -> Config {
        Config {
            settings: Settings::new(workload),
            source: source.into(),
            listeners,
            workers: 1,
            admin,
            probes: Probes { app, declared: Vec::new() },
            controller: self.controller.clone(),
            token: None,
            access_log: AccessLogMode::Off.into(),
            tracing: self.tracing.clone(),
        }
    }
}

/// The holder of the token of the proxy at a service's address: no object can have this name.
pub fn caller_through(service: &ServiceId) -> WorkloadId {
    WorkloadId::new(Arc::clone(&service.namespace), format!("{OUTSIDE} {}", service.name))
}

fn random() -> &'static dyn rustls::crypto::SecureRandom {
    rustls::crypto::aws_lc_rs::default_provider().secure_random
}

impl Sidecar {
    /// Where it is found.
    pub fn state(&self) -> SidecarState {
        SidecarState { outbound: self.proxy.addresses[0], admin: self.proxy.admin, inbound: self.inbound.clone() }
    }

    /// Whether it still is the sidecar of an app that listens there.
    pub fn is_for(&self, app: &App) -> bool {
        self.app == *app
    }

    /// Where its app listens.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Its counters.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.proxy.registry)
    }

    /// The proxy itself, to be ended.
    pub fn into_proxy(self) -> Proxy {
        self.proxy
    }

    /// The proxy itself.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

impl Gateway {
    /// Whether it still has exactly `ports`.
    pub fn has_just(&self, ports: &[u16]) -> bool {
        self.addresses.keys().eq(ports)
    }

    /// Its counters.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.proxy.registry)
    }

    /// The proxy itself, to be ended.
    pub fn into_proxy(self) -> Proxy {
        self.proxy
    }
}

/// Ends proxies politely, all at the same time: what they carry has `bound` to end. Blocks the thread.
pub fn end(proxies: Vec<Proxy>, bound: Duration) {
    for proxy in &proxies {
        proxy.drain(bound);
    }
    for proxy in proxies {
        if let Err(error) = proxy.join() {
            tracing::warn!(%error, "a proxy did not end well");
        }
    }
}
