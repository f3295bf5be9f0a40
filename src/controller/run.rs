//! The controller process: wires sources, publishing, webhook, certificates and election, and ends them in order.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::certificates::serving::Serving;
use crate::certificates::store::Store;
use crate::certificates::upkeep::{Upkeep, WebhookTrust};
use crate::certificates::{Policy, renew};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::settings::{Certificates, LogFormat, NAME, SECRET, Settings, WEBHOOK};
use crate::webhook::Webhook;
use crate::{health, leader, source, tls, webhook};

/// Changes that wait to be translated; a source that is ahead by more waits.
const EVENTS_MAX: usize = 1024;

/// Runs until SIGTERM or SIGINT, or until a part that must run cannot.
///
/// # Errors
/// When the cluster cannot be reached at start, a port cannot be had, or certificates cannot be made.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    log(&settings)?;
    let cancel = CancellationToken::new();
    let client = client(&settings).await?;
    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let serving = certificates(&settings, client.clone()).await?;
    let mut tasks = Tasks { set: JoinSet::new(), cancel: cancel.clone() };

    serve_health(&settings, &health, &metrics, &mut tasks).await?;
    if settings.certificates == Certificates::Memory {
        health.certificates_are_ready();
    } else {
        tasks.spawn(keep_certificates(&settings, client.clone(), &serving, &health, &metrics));
    }
    if !settings.no_webhook {
        serve_webhook(&settings, &serving, &metrics, &mut tasks).await?;
    }
    if !settings.no_status {
        let (leading, _) = watch::channel(false);
        let (settings, client, cancel) = (settings.clone(), client.clone(), cancel.clone());
        tasks.set.spawn(async move {
            leader::run(client, &settings.namespace, NAME, &settings.pod_name, leading, cancel).await;
        });
    }
    let (events, mut receiver) = mpsc::channel(EVENTS_MAX);
    tasks.set.spawn(source::kube::run(client, events, Arc::clone(&metrics), cancel.clone()));
    let listed = Arc::clone(&health);
    tasks.set.spawn(async move {
        while receiver.recv().await.is_some() {
            listed.lists_are_in();
        }
    });

    let reason = ended(&mut tasks).await?;
    tracing::info!(reason, "shutting down");
    health.stops();
    cancel.cancel();
    while tasks.set.join_next().await.is_some() {}
    Ok(())
}

/// The parts that run beside each other.
struct Tasks {
    set: JoinSet<()>,
    cancel: CancellationToken,
}

impl Tasks {
    /// Runs `task`, and drops it at shutdown.
    fn spawn(&mut self, task: impl Future + Send + 'static) {
        let cancel = self.cancel.clone();
        self.set.spawn(async move {
            let _ended = cancel.run_until_cancelled(task).await;
        });
    }
}

/// Waits for a signal. A part that ends before is an error: the process must not go on without it.
async fn ended(tasks: &mut Tasks) -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for SIGINT").map(|()| "SIGINT"),
        part = tasks.set.join_next() => match part {
            Some(Err(panicked)) => Err(panicked).context("a part of the controller failed"),
            Some(Ok(())) | None => bail!("a part of the controller ended, see the log"),
        },
    }
}

fn log(settings: &Settings) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&settings.log).with_context(|| format!("--log {}: write error, warn, info, debug or trace", settings.log))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).init(),
        LogFormat::Text => logs.init(),
    }
    Ok(())
}

async fn client(settings: &Settings) -> anyhow::Result<Client> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("no cluster to talk to: give --kubeconfig FILE")?,
    };
    // A watch is silent while nothing changes, up to its own timeout; other calls bring their own.
    config.read_timeout = None;
    Ok(Client::try_from(config)?)
}

/// Certificates to serve from the first moment on.
async fn certificates(settings: &Settings, client: Client) -> anyhow::Result<Serving> {
    let policy = Policy::new(settings.names());
    let material = match settings.certificates {
        Certificates::Memory => renew(None, &policy, Timestamp::now())?,
        Certificates::Secret => store(settings, client).agree(None, Timestamp::now()).await?,
    };
    if let Some(path) = &settings.ca_file {
        std::fs::write(path, &material.ca_bundle).with_context(|| format!("--ca-file {}", path.display()))?;
    }
    Ok(Serving::new(material)?)
}

fn store(settings: &Settings, client: Client) -> Store {
    Store::new(client, &settings.namespace, SECRET, Policy::new(settings.names()))
}

fn keep_certificates(
    settings: &Settings,
    client: Client,
    serving: &Serving,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
) -> impl Future<Output = std::convert::Infallible> + Send + 'static {
    let upkeep = Upkeep {
        store: store(settings, client.clone()),
        serving: serving.clone(),
        webhook: (!settings.no_webhook).then(|| WebhookTrust::new(client, WEBHOOK)),
        health: Arc::clone(health),
        metrics: Arc::clone(metrics),
    };
    upkeep.run()
}

async fn serve_webhook(settings: &Settings, serving: &Serving, metrics: &Arc<Metrics>, tasks: &mut Tasks) -> anyhow::Result<()> {
    let listener = listen(settings.webhook_listen).await?;
    let webhook = Webhook { config: Arc::new(settings.injector()), serving: serving.clone(), metrics: Arc::clone(metrics) };
    let server = serving.server_config(&["h2", "http/1.1"])?;
    tasks.set.spawn(tls::serve(listener, server, webhook::router(webhook), tasks.cancel.clone()));
    Ok(())
}

async fn serve_health(settings: &Settings, health: &Arc<Health>, metrics: &Arc<Metrics>, tasks: &mut Tasks) -> anyhow::Result<()> {
    let listener = listen(settings.admin_listen).await?;
    let metrics = Arc::clone(metrics);
    let router = health::router(Arc::clone(health), Arc::new(move || metrics.render()));
    tasks.spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Listens at `address`; where the machine has no IPv6, at the same port of IPv4.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && error.raw_os_error() == Some(libc_eafnosupport()) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    };
    listener.with_context(|| format!("cannot listen at {address}"))
}

/// `EAFNOSUPPORT` on Linux: "Address family not supported by protocol".
const fn libc_eafnosupport() -> i32 {
    97
}
