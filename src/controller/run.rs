//! The controller process: wires sources, publishing, webhook, certificates, election and status, and ends them in order.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use leno_translate::Translator;
use rustls_pki_types::ServerName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::ca::authenticate::Authenticator;
use crate::ca::authenticate::review::Reviewer;
use crate::ca::keeper::{Events, Keeper};
use crate::ca::signer::{Signer, in_memory, publish_trust};
use crate::ca::store::Store as CaStore;
use crate::certificates::serving::Serving;
use crate::certificates::store::Store;
use crate::certificates::upkeep::{Upkeep, WebhookTrust};
use crate::certificates::{Material, Policy, renew};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::publish::{Publisher, REQUIRED_OF_CLUSTER};
use crate::settings::{Certificates, LogFormat, NAME, SECRET, Settings, WEBHOOK};
use crate::status::actual::Actual;
use crate::status::desk::Desk;
use crate::status::peers::{self, Reader};
use crate::status::writer::Writer;
use crate::webhook::Webhook;
use crate::wiring::{EVENTS_MAX, follow_lists, listen};
use crate::{health, jwks, leader, lookup, source, standalone, stream, tls, webhook};

/// Runs until SIGTERM or SIGINT, or until a part that must run cannot.
///
/// # Errors
/// When the cluster cannot be reached at start, a port cannot be had, or certificates cannot be made.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    log(&settings)?;
    let mut tasks = Tasks { set: JoinSet::new(), cancel: CancellationToken::new() };
    if let Some(folder) = settings.folder.clone() {
        return without_cluster(settings, folder, tasks).await;
    }
    let client = client(&settings).await?;
    let shared = start(settings, client, &mut tasks).await?;

    let reason = ended(&mut tasks).await?;
    tracing::info!(reason, "shutting down");
    shared.health.stops();
    tasks.cancel.cancel();
    while tasks.set.join_next().await.is_some() {}
    Ok(())
}

/// Serves a folder of manifests until a signal.
async fn without_cluster(settings: Settings, folder: PathBuf, mut tasks: Tasks) -> anyhow::Result<()> {
    let serving = serving(&settings, renew(None, &Policy::new(settings.names()), Timestamp::now())?)?;
    let cancel = tasks.cancel.clone();
    tasks.set.spawn(async move {
        if let Err(error) = standalone::run(&settings, folder, &serving, cancel).await {
            tracing::error!(error = format!("{error:#}"), "serving the folder failed");
        }
    });
    let reason = ended(&mut tasks).await?;
    tracing::info!(reason, "shutting down");
    tasks.cancel.cancel();
    while tasks.set.join_next().await.is_some() {}
    Ok(())
}

/// Starts every part.
async fn start(settings: Settings, client: Client, tasks: &mut Tasks) -> anyhow::Result<Shared> {
    let metrics = Arc::new(Metrics::default());
    let actual = Arc::new(Actual::new(&settings.namespace, NAME));
    // Lists take the longest: they come in while everything else is made ready.
    let publisher = publish(&settings, client.clone(), &actual, &metrics, tasks);
    let serving = certificates(&settings, client.clone()).await?;
    let (desk, health) = (Arc::new(Desk::default()), Arc::new(Health::default()));
    let (leading, is_leading) = watch::channel(false);
    let signer = authority(&settings, &client, &publisher, &health, is_leading, tasks).await?;
    let shared = Shared { settings, client, serving, publisher, signer, desk, actual, health, metrics };

    serve_health(&shared, tasks).await?;
    serve_proxies(&shared, tasks).await?;
    serve_https(&shared, tasks).await?;
    keep_certificates(&shared, tasks);
    tasks.spawn(follow_lists(shared.publisher.clone(), Arc::clone(&shared.health)));
    let (desk, receipts) = (Arc::clone(&shared.desk), shared.publisher.receipts().clone());
    tasks.spawn(async move { desk.book(&receipts).await });
    if !shared.settings.no_status {
        write_status(&shared, leading, tasks)?;
    }
    Ok(shared)
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
    Ok(ClientBuilder::try_from(config)?.with_layer(&source::protobuf::Layer).build())
}

/// Certificates to serve from the first moment on.
async fn certificates(settings: &Settings, client: Client) -> anyhow::Result<Serving> {
    let policy = Policy::new(settings.names());
    let material = match settings.certificates {
        Certificates::Memory => renew(None, &policy, Timestamp::now())?,
        Certificates::Secret => store(settings, client).agree(None, Timestamp::now()).await?,
    };
    serving(settings, material)
}

fn serving(settings: &Settings, material: Material) -> anyhow::Result<Serving> {
    if let Some(path) = &settings.ca_file {
        std::fs::write(path, &material.ca_bundle).with_context(|| format!("--ca-file {}", path.display()))?;
    }
    Ok(Serving::new(material)?)
}

/// What every part shares.
#[derive(Clone)]
struct Shared {
    settings: Settings,
    client: Client,
    serving: Serving,
    publisher: Publisher,
    signer: Arc<Signer>,
    desk: Arc<Desk>,
    actual: Arc<Actual>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Watches the cluster and publishes what it says. The status writer's view of the cluster is kept on the way.
fn publish(settings: &Settings, client: Client, actual: &Arc<Actual>, metrics: &Arc<Metrics>, tasks: &mut Tasks) -> Publisher {
    let (seen, mut from_source) = mpsc::channel(EVENTS_MAX);
    let (events, to_publisher) = mpsc::channel(EVENTS_MAX);
    let (publisher, task) = Publisher::new(Translator::new(settings.defaults()), REQUIRED_OF_CLUSTER, to_publisher);
    tasks.set.spawn(source::kube::run(client, seen, Arc::clone(metrics), tasks.cancel.clone()));
    tasks.set.spawn(task.run(tasks.cancel.clone()));
    tasks.spawn(jwks::run(publisher.key_uris(), events.clone()));
    tasks.spawn(lookup::run(publisher.outside_hosts(), events.clone()));
    let actual = Arc::clone(actual);
    tasks.spawn(async move {
        while let Some(event) = from_source.recv().await {
            actual.see(&event);
            if events.send(event).await.is_err() {
                return;
            }
        }
    });
    publisher
}

/// Where the replicas agree on certificates.
fn store(settings: &Settings, client: Client) -> Store {
    Store::new(client, &settings.namespace, SECRET, Policy::new(settings.names()))
}

/// Keeps the certificates of the Secret current; those in memory are as they are.
fn keep_certificates(shared: &Shared, tasks: &mut Tasks) {
    if shared.settings.certificates == Certificates::Memory {
        return shared.health.certificates_are_ready();
    }
    let upkeep = Upkeep {
        store: store(&shared.settings, shared.client.clone()),
        serving: shared.serving.clone(),
        webhook: (!shared.settings.no_webhook).then(|| WebhookTrust::new(shared.client.clone(), WEBHOOK)),
        health: Arc::clone(&shared.health),
        metrics: Arc::clone(&shared.metrics),
    };
    tasks.spawn(upkeep.run());
}

/// The authority that signs proxies' certificates, and who may ask it: kept in a Secret and followed, or in this process.
async fn authority(
    settings: &Settings,
    client: &Client,
    publisher: &Publisher,
    health: &Arc<Health>,
    leading: watch::Receiver<bool>,
    tasks: &mut Tasks,
) -> anyhow::Result<Arc<Signer>> {
    let domains = settings.domains();
    let current = match settings.certificates {
        Certificates::Memory => {
            let current = in_memory(&domains, Timestamp::now())?;
            publish_trust(&current, publisher).await?;
            health.authority_is_ready();
            current
        }
        Certificates::Secret => {
            let (sender, current) = watch::channel(None);
            let keeper = Keeper {
                store: CaStore::new(client.clone(), &settings.namespace, domains.clone()),
                domains,
                current: sender,
                publisher: publisher.clone(),
                health: Arc::clone(health),
                events: Events::new(client.clone(), &settings.namespace, &settings.pod_name, leading),
            };
            tasks.spawn(keeper.run());
            current
        }
    };
    let authenticator = Authenticator::Cluster(Reviewer::new(client.clone()));
    Ok(Arc::new(Signer::new(current, authenticator, settings.certificate_life)))
}

/// Takes part in the election, and writes status while elected.
fn write_status(shared: &Shared, leading: watch::Sender<bool>, tasks: &mut Tasks) -> anyhow::Result<()> {
    let is_leading = leading.subscribe();
    let election = leader::Campaign {
        client: shared.client.clone(),
        namespace: shared.settings.namespace.clone(),
        name: NAME.to_owned(),
        identity: shared.settings.pod_name.clone(),
        leading,
    };
    tasks.set.spawn(election.run(tasks.cancel.clone()));
    let reader = Reader {
        desk: Arc::clone(&shared.desk),
        serving: shared.serving.clone(),
        server_name: ServerName::try_from(shared.settings.service_name()).context("--namespace")?,
        port: shared.settings.webhook_listen.port(),
        own: shared.settings.pod_ip,
    };
    tasks.spawn(reader.run(shared.actual.replicas(), is_leading.clone()));
    let writer = Writer {
        client: shared.client.clone(),
        publisher: shared.publisher.clone(),
        desk: Arc::clone(&shared.desk),
        actual: Arc::clone(&shared.actual),
        leading: is_leading,
        metrics: Arc::clone(&shared.metrics),
    };
    tasks.spawn(writer.run());
    Ok(())
}

/// Serves the control stream.
async fn serve_proxies(shared: &Shared, tasks: &mut Tasks) -> anyhow::Result<()> {
    let listener = listen(shared.settings.control_listen).await?;
    let server = shared.serving.server_config_for_proxies()?;
    let (publisher, signer, cancel) = (shared.publisher.clone(), Arc::clone(&shared.signer), tasks.cancel.clone());
    tasks.set.spawn(async move {
        if let Err(error) = stream::serve(listener, Some(server), publisher, Some(signer), stream::Settings::default(), cancel).await {
            tracing::error!(%error, "the control stream's listener failed");
        }
    });
    Ok(())
}

/// Serves the webhook, and this replica's receipts to the others.
async fn serve_https(shared: &Shared, tasks: &mut Tasks) -> anyhow::Result<()> {
    let listener = listen(shared.settings.webhook_listen).await?;
    let webhook =
        Webhook { config: Arc::new(shared.settings.injector()), serving: shared.serving.clone(), metrics: Arc::clone(&shared.metrics) };
    let router = peers::router(Arc::clone(&shared.desk), shared.publisher.clone(), shared.serving.clone());
    let router = if shared.settings.no_webhook { router } else { router.merge(webhook::router(webhook)) };
    let server = shared.serving.server_config(&["h2", "http/1.1"])?;
    tasks.set.spawn(tls::serve(listener, server, router, tasks.cancel.clone()));
    Ok(())
}

/// Serves health and metrics.
async fn serve_health(shared: &Shared, tasks: &mut Tasks) -> anyhow::Result<()> {
    let listener = listen(shared.settings.admin_listen).await?;
    let (metrics, counters, signer) = (Arc::clone(&shared.metrics), Arc::clone(shared.publisher.counters()), Arc::clone(&shared.signer));
    let render = move || metrics.render() + &counters.render() + &signer.render();
    let router = health::router(Arc::clone(&shared.health), Arc::new(render));
    tasks.spawn(async move { axum::serve(listener, router).await });
    Ok(())
}
