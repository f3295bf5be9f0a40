//! `leno up`: the whole mesh on this machine, from a folder of manifests.
//!
//! The folder is a source like a cluster ([`leno_controller::source::folder`]); translation, publishing, the control stream and
//! the proxies are those of a cluster. What differs is here: [`mesh`] keeps a proxy for each service and workload, [`rewrite`]
//! puts sidecars in front of apps without redirecting anything, [`processes`] starts and ends apps, [`show`] tells people.

pub mod addresses;
pub mod control;
pub mod figures;
pub mod mesh;
pub mod processes;
pub mod proxies;
pub mod rewrite;
pub mod says;
pub mod screen;
pub mod show;
pub mod state;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use ipnet::Ipv4Net;
use leno_controller::source::SourceEvent;
use leno_controller::source::folder::{self, Notes};
use leno_controller::tracing_flags::TracingFlags;
use leno_core::percentage::Percentage;
use leno_proxy::admin::Readiness;
use leno_proxy::telemetry::Tracing;
use leno_translate::Kind;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use control::ControlPlane;
use mesh::Mesh;
use proxies::Start;
use says::Says;
use show::{Layout, Show};
use state::StateFile;

/// How long sidecars may take to learn what they are before the mesh is said to run.
const READY_BOUND: Duration = Duration::from_secs(10);
/// Events that wait to be taken in.
const EVENTS_MAX: usize = 256;

/// Arguments of `leno up`.
#[derive(Args, Debug)]
#[command(
    after_help = "Reads Service, EndpointSlice, Pod, MeshService, TrafficPolicy, SecurityPolicy and Workload from *.yaml and *.yml, and reads them \
                        again whenever a file changes. Ctrl-C ends the mesh and the processes it started.\n\n\
                        Example:\n  leno up -f manifests/demo"
)]
pub struct Arguments {
    /// Folder of manifests, or one file
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    /// Write the addresses of services and workloads to this file, as JSON, whenever they change
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Loopback addresses to use
    #[arg(long, value_name = "CIDR", default_value = addresses::RANGE, value_parser = loopback)]
    bind: Ipv4Net,
    /// Print lines even when the output is a terminal
    #[arg(long)]
    plain: bool,
    /// How long what is being carried may take to end
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    drain_seconds: u64,
    #[command(flatten)]
    tracing: TracingFlags,
}

impl Arguments {
    /// How requests are traced, where they are: every one, unless a share is said.
    fn tracing(&self) -> Option<Tracing> {
        let flags = self.tracing.clone();
        Some(Tracing {
            endpoint: flags.otlp_endpoint?,
            protocol: flags.otlp_protocol,
            share: flags.trace_sampling.unwrap_or(Percentage::ALL),
            propagation: flags.trace_propagation,
        })
    }
}

fn loopback(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text.parse().map_err(|_invalid| format!("write a range such as {}", addresses::RANGE))?;
    if net.network().is_loopback() && net.broadcast().is_loopback() {
        Ok(net)
    } else {
        Err("that is not within 127.0.0.0/8: a mesh on a laptop listens on loopback only".to_owned())
    }
}

/// Runs the mesh until Ctrl-C or SIGTERM.
///
/// # Errors
/// When the folder cannot be read at the start, or loopback ports cannot be had.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    folder::read(&arguments.file)
        .with_context(|| format!("{} cannot be read: give -f a folder of manifests, or one file", arguments.file.display()))?;
    let says = Says::default();
    let filter = std::env::var("LENO_LOG").unwrap_or_else(|_unset| "warn".to_owned());
    let filter = EnvFilter::try_new(&filter)
        .with_context(|| format!("LENO_LOG={filter:?} is no log filter: write warn, info or leno_proxy=debug"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(says.clone()).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(up(arguments, says))?;
    // Blocking tasks that end replaced proxies need not be waited for.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn up(arguments: &Arguments, says: Says) -> anyhow::Result<()> {
    // Before anything is started, so that nothing is left running by a signal that comes early.
    let mut signals = Signals::new()?;
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let control = ControlPlane::start(&tasks, &cancel).await?;
    let start = Start {
        controller: control.address.clone(),
        range: arguments.bind,
        tokens: Arc::clone(&control.tokens),
        tracing: arguments.tracing(),
    };
    let mesh = Mesh::new(start, says.clone());

    let (events, receiver) = mpsc::channel(EVENTS_MAX);
    let (notes, noted) = watch::channel(Notes::default());
    let source = tokio::spawn(folder::run(arguments.file.clone(), events, notes, cancel.clone()));
    let (layout, laid_out) = watch::channel(Layout::default());
    let show = Show { says: says.clone(), publisher: control.publisher.clone(), notes: noted, layout: laid_out };
    let screen = !arguments.plain && std::io::IsTerminal::is_terminal(&std::io::stdout());
    tasks.spawn(show.run(screen, cancel.clone()));

    let runner = Runner { mesh, control, receiver, layout, state: arguments.state.as_deref().map(StateFile::new), says: says.clone() };
    let stop = cancel.child_token();
    let running = tokio::spawn(runner.run(arguments.file.clone(), stop.clone()));
    signals.next().await;
    says.line("ending: what is being carried may finish (once more: at once)");
    stop.cancel();
    let end = async {
        let mesh = running.await??;
        mesh.end(Duration::from_secs(arguments.drain_seconds)).await;
        cancel.cancel();
        tasks.close();
        tasks.wait().await;
        anyhow::Ok(())
    };
    tokio::select! {
        done = end => done?,
        // What still runs is killed with the runtime.
        () = signals.next() => return Ok(()),
    }
    source.await??;
    Ok(())
}

/// Ctrl-C and SIGTERM.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}

/// Takes in events and keeps everything that depends on them current.
struct Runner {
    mesh: Mesh,
    control: ControlPlane,
    receiver: mpsc::Receiver<SourceEvent>,
    layout: watch::Sender<Layout>,
    state: Option<StateFile>,
    says: Says,
}

impl Runner {
    /// Runs until `stop`; gives the mesh back, to be ended.
    async fn run(mut self, folder: PathBuf, stop: CancellationToken) -> anyhow::Result<Mesh> {
        let _stopped = stop.run_until_cancelled(self.follow(&folder)).await.transpose()?;
        Ok(self.mesh)
    }

    async fn follow(&mut self, folder: &Path) -> anyhow::Result<()> {
        let mut lists = Vec::new();
        while lists.len() < Kind::ALL.len() {
            let Some(event) = self.receiver.recv().await else { break };
            lists.push(event);
        }
        for event in self.mesh.begin(lists) {
            self.control.events.send(event).await.context("publishing has ended")?;
        }
        if tokio::time::timeout(READY_BOUND, self.ready()).await.is_err() {
            self.says.line("some sidecars are not ready yet; going on");
        }
        self.says.line(&format!("the mesh of {} runs; Ctrl-C ends it", folder.display()));
        self.tell_state()?;
        while let Some(event) = self.receiver.recv().await {
            let event = self.mesh.take(event);
            self.control.events.send(event).await.context("publishing has ended")?;
            self.tell_state()?;
        }
        Ok(())
    }

    /// Waits until proxies are served and every sidecar knows what it is.
    async fn ready(&self) {
        let mut published = self.control.publisher.ready();
        drop(published.wait_for(|ready| *ready).await);
        for proxy in self.mesh.sidecars() {
            let mut readiness = proxy.readiness.clone();
            drop(readiness.wait_for(|readiness| *readiness != Readiness::Waiting).await);
        }
    }

    fn tell_state(&mut self) -> anyhow::Result<()> {
        let state = self.mesh.state();
        if let Some(file) = &mut self.state {
            file.update(&state).context("the file that --state names cannot be written")?;
        }
        self.layout.send_replace(Layout { state, registries: self.mesh.registries() });
        Ok(())
    }
}
