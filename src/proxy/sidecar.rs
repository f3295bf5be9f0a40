//! The sidecar process: reads its environment, starts the proxy, drains on SIGTERM.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::signal::unix::{SignalKind, signal};

use crate::boot::{self, Config};
use crate::control::ControllerAddress;
use crate::environment::{ControlCa, Environment, INBOUND_PORT, OUTBOUND_PORT};
use crate::identity::Token;
use crate::init::{self, Redirect};
use crate::listen::Accept;
use crate::probe::Probes;
use crate::worker::Settings;

/// What `leno-proxy` prints when it is called wrongly.
const USAGE: &str = "usage: leno-proxy run    carry the pod's traffic, configured by LENO_… variables
       leno-proxy init   program the redirect rules of this network namespace, then end";

/// Runs the process named by `arguments` (without the program's name).
pub fn main(arguments: &[String]) -> anyhow::Result<()> {
    let filter = std::env::var("LENO_LOG").unwrap_or_else(|_unset| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .with_context(|| format!("LENO_LOG={filter:?} is no log filter: write info, debug or leno_proxy=debug"))?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
    match arguments {
        [command] if command == "run" => run(&Environment::read(std::env::vars())?),
        [command] if command == "init" => Ok(init::apply(&Redirect::from_env(std::env::vars())?)?),
        _ => anyhow::bail!("{USAGE}"),
    }
}

/// Carries traffic until SIGTERM or SIGINT, then drains.
fn run(environment: &Environment) -> anyhow::Result<()> {
    let proxy = boot::start(config(environment)?)?;
    tracing::info!(workload = %environment.workload, listening = ?proxy.addresses, admin = %proxy.admin, "carrying traffic");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let name = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        anyhow::Ok(tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" })
    })?;
    tracing::info!(signal = name, bound = ?environment.drain, "draining");
    proxy.drain(environment.drain);
    proxy.join()?;
    Ok(())
}

fn config(environment: &Environment) -> anyhow::Result<Config> {
    let mut settings = Settings::new(environment.workload.clone());
    settings.cluster_domain = Arc::clone(&environment.cluster_domain);
    settings.identity = environment.token_file.is_some();
    settings.probes = Arc::clone(&environment.probes);
    settings.intercepts = environment.intercept;
    let mut listeners = if environment.intercept { intercepting() } else { Vec::new() };
    for (id, address) in &environment.services {
        listeners.push((*address, Accept::OutboundService { service: id.service.clone(), port: id.port }));
    }
    for (port, address) in &environment.inbound {
        let app = SocketAddr::new(environment.pod_ip, *port);
        listeners.push((*address, Accept::InboundApp { app, port: address.port() }));
    }
    Ok(Config {
        settings,
        source: Arc::clone(&environment.source),
        listeners,
        workers: environment.workers,
        admin: if has_ipv6() { environment.admin } else { without_ipv6(environment.admin) },
        probes: Probes { app: environment.pod_ip, declared: environment.admin_probes.clone() },
        controller: controller(environment)?,
        token: environment.token_file.clone().map(Token::File),
        access_log: environment.access_log.clone(),
        tracing: environment.tracing.clone(),
    })
}

/// Redirected outbound connections arrive on loopback, inbound ones on any address of the pod.
fn intercepting() -> Vec<(SocketAddr, Accept)> {
    let outbound = |ip: std::net::IpAddr| (SocketAddr::new(ip, OUTBOUND_PORT), Accept::OutboundTransparent);
    if has_ipv6() {
        let inbound = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), INBOUND_PORT);
        vec![outbound(Ipv4Addr::LOCALHOST.into()), outbound(Ipv6Addr::LOCALHOST.into()), (inbound, Accept::InboundTransparent)]
    } else {
        let inbound = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), INBOUND_PORT);
        vec![outbound(Ipv4Addr::LOCALHOST.into()), (inbound, Accept::InboundTransparent)]
    }
}

/// Whether this network namespace has an IPv6 loopback address; kernels and pods may be without.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn without_ipv6(address: SocketAddr) -> SocketAddr {
    if address.ip() == Ipv6Addr::UNSPECIFIED { SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()) } else { address }
}

fn controller(environment: &Environment) -> anyhow::Result<ControllerAddress> {
    let pem = match &environment.control_ca {
        ControlCa::Pem(pem) => pem.clone(),
        ControlCa::File(path) => std::fs::read_to_string(path).with_context(|| format!("LENO_CONTROL_CA_FILE={path:?} cannot be read"))?,
    };
    let (host, _port) = environment.control_address.rsplit_once(':').context("LENO_CONTROL_ADDRESS was checked when it was read")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(ControllerAddress {
        name: ServerName::try_from(host).context("the host in LENO_CONTROL_ADDRESS is no name that a certificate can carry")?,
        address: environment.control_address.clone(),
        tls: client_tls(&pem)?,
    })
}

/// TLS 1.3 towards a controller that one of the roots in `pem` vouches for.
pub fn client_tls(pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.context("the controller's roots are no PEM certificates")?)?;
    }
    anyhow::ensure!(
        !roots.is_empty(),
        "the controller's roots hold no certificate: give PEM text that begins with -----BEGIN CERTIFICATE-----"
    );
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
