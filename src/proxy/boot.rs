//! Boot: from a configuration to running threads.
//!
//! One thread per worker, one for the control stream and the admin port. The same call starts the sidecar of a pod and every
//! sidecar of a mesh on a laptop.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use leno_core::names::Name;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::admin::{self, Admin, Readiness};
use crate::control::client::IdentityEnds;
use crate::control::{Ask, Control, ControllerAddress, Update};
use crate::drain::Drain;
use crate::identity::Token;
use crate::identity::keeper::{Keeper, wall_clock};
use crate::identity::presented::Presented;
use crate::identity::shown::Shown;
use crate::identity::sign::Controller;
use crate::listen::{Accept, Listener, bind};
use crate::probe::Probes;
use crate::telemetry::{AccessLog, AccessLogMode, LogSettings, LogSink, Registry, Tracing, spans};
use crate::worker::{Settings, Worker};

/// How long the last spans may take to be sent once the proxy has ended.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Everything one proxy is started with.
#[derive(Clone)]
pub struct Config {
    /// Names, limits and times of its workers.
    pub settings: Settings,
    /// The workload's name in metrics and logs (the `source` label).
    pub source: Name,
    /// Where it listens, and what that means. Port 0 takes a free one.
    pub listeners: Vec<(SocketAddr, Accept)>,
    /// How many workers share the listeners; at least one.
    pub workers: usize,
    /// Where the admin port listens. Port 0 takes a free one.
    pub admin: SocketAddr,
    /// The app's probes that the admin port makes for it.
    pub probes: Probes,
    /// Where the controller is.
    pub controller: ControllerAddress,
    /// What the workload is given certificates for. Whether its connections are secured with them is in the settings.
    pub token: Option<Token>,
    /// What is logged, and how.
    pub access_log: LogSettings,
    /// How requests are traced, where they are.
    pub tracing: Option<Tracing>,
}

/// A running proxy. Dropping it ends it at once; [`Proxy::drain`] ends it politely.
pub struct Proxy {
    /// Where it listens, in the order of [`Config::listeners`].
    pub addresses: Vec<SocketAddr>,
    /// Where its admin port listens.
    pub admin: SocketAddr,
    /// Its counters.
    pub registry: Arc<Registry>,
    /// Whether it carries traffic.
    pub readiness: watch::Receiver<Readiness>,
    set_readiness: watch::Sender<Readiness>,
    drain: watch::Sender<Drain>,
    /// Closed once the last spans are sent, or given up. The lock only lets others look at the proxy from several threads.
    flushed: Option<Mutex<mpsc::Receiver<()>>>,
    workers: Vec<JoinHandle<io::Result<()>>>,
}

fn named(address: SocketAddr) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

/// Binds everything, then starts the threads. On an error nothing is left running.
pub fn start(mut config: Config) -> io::Result<Proxy> {
    let workers = config.workers.max(1);
    let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for (address, accept) in &config.listeners {
        let first = bind(*address).map_err(named(*address))?;
        let bound = first.local_addr()?;
        listeners[0].push(Listener { listener: first, accept: accept.clone() });
        for worker in &mut listeners[1..] {
            worker.push(Listener { listener: bind(bound).map_err(named(bound))?, accept: accept.clone() });
        }
        addresses.push(bound);
    }
    let admin_listener = bind(config.admin).map_err(named(config.admin))?;
    let admin = admin_listener.local_addr()?;
    let sink = (config.access_log.mode != AccessLogMode::Off).then(|| LogSink::start(io::stdout())).transpose()?;

    let registry = Arc::new(Registry::default());
    let exporter = config.tracing.take().map(|tracing| {
        let (tracer, exporter) = spans::start(&tracing, &config.source, &config.settings.workload);
        registry.traces(tracer.counts());
        config.settings.tracer = Some(tracer);
        exporter
    });
    let (set_readiness, readiness) = watch::channel(Readiness::Waiting);
    let (drain, draining) = watch::channel(Drain::Running);
    let (mut updates, mut asks, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for (index, listeners) in listeners.into_iter().enumerate() {
        let (update, told) = unbounded_channel();
        let (ask, asked) = unbounded_channel();
        updates.push(update);
        asks.push(asked);
        let worker = Spawn {
            listeners,
            asks: ask,
            updates: told,
            registry: Arc::clone(&registry),
            log: sink.clone().map(|sink| (config.access_log.clone(), Name::clone(&config.source), sink)),
            drain: draining.clone(),
            settings: config.settings.clone(),
        };
        threads.push(worker.start(index)?);
    }
    let (flushing, flushed) = exporter
        .map(|exporter| {
            let (done, flushed) = mpsc::channel();
            (flush(exporter, done), Mutex::new(flushed))
        })
        .unzip();
    let proxy = Proxy { addresses, admin, registry, readiness, set_readiness, drain, flushed, workers: threads };
    proxy.start_control(config, updates, asks, admin_listener, flushing)?;
    Ok(proxy)
}

/// Runs the exporter to its end; `done` is closed then.
async fn flush(exporter: impl Future<Output = ()>, done: mpsc::Sender<()>) {
    exporter.await;
    drop(done);
}

/// What a worker's thread is given; the worker itself is made there, because it never leaves its thread.
struct Spawn {
    listeners: Vec<Listener>,
    asks: UnboundedSender<Ask>,
    updates: UnboundedReceiver<Update>,
    registry: Arc<Registry>,
    log: Option<(LogSettings, Name, LogSink)>,
    drain: watch::Receiver<Drain>,
    settings: Settings,
}

impl Spawn {
    fn start(self, index: usize) -> io::Result<JoinHandle<io::Result<()>>> {
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let access_log = self.log.and_then(|(settings, source, sink)| AccessLog::new(settings, source, sink));
            let Self { listeners, asks, updates, registry, drain, settings, .. } = Self { log: None, ..self };
            Worker { listeners, asks, updates, registry, access_log, drain, settings }.run()
        })
    }
}

/// The keeper of a proxy's certificate, which shows `token` to `controller`, and the control stream's ends of its channels. From
/// then on `controller` is shown the certificate.
pub(crate) fn identity(settings: &Settings, controller: &mut ControllerAddress, token: Token) -> (Keeper<Controller>, IdentityEnds) {
    let (heard, hears) = unbounded_channel();
    let (grants, granted) = unbounded_channel();
    let presented = Arc::new(Presented::default());
    let keeper = Keeper {
        signer: Controller { address: controller.clone(), token },
        namespace: Name::clone(&settings.workload.namespace),
        presented: Arc::clone(&presented),
        shown: Arc::new(Shown::default()),
        heard: hears,
        granted: grants,
        clock: wall_clock,
    };
    controller.tls = Arc::new(presented.by(&controller.tls));
    (keeper, IdentityEnds { heard, granted, presented })
}

impl Proxy {
    fn start_control(
        &self,
        config: Config,
        updates: Vec<UnboundedSender<Update>>,
        asks: Vec<UnboundedReceiver<Ask>>,
        listener: std::net::TcpListener,
        exporter: Option<impl Future<Output = ()> + Send + 'static>,
    ) -> io::Result<()> {
        let (set_connected, connected) = watch::channel(false);
        let mut controller = config.controller;
        let (keeper, ends) = config.token.map(|token| identity(&config.settings, &mut controller, token)).unzip();
        let control = Control {
            own: config.settings.workload,
            controller,
            updates,
            asks,
            readiness: self.set_readiness.clone(),
            connected: set_connected,
            identity: ends,
        };
        let admin = Admin {
            registry: Arc::clone(&self.registry),
            source: config.source,
            readiness: self.readiness.clone(),
            connected,
            identity: keeper.as_ref().map(|keeper| Arc::clone(&keeper.shown)),
            probes: config.probes,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(async move {
                listener.set_nonblocking(true).expect("a bound socket can be made non-blocking");
                let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime drives sockets");
                let admin = tokio::spawn(admin::serve(listener, Arc::new(admin)));
                let keeper = keeper.map(|keeper| tokio::spawn(keeper.run()));
                let exporter = exporter.map(tokio::spawn);
                // Ends when the last worker has ended.
                control.run().await;
                admin.abort();
                keeper.iter().for_each(tokio::task::JoinHandle::abort);
                if let Some(exporter) = exporter
                    && timeout(FLUSH_MAX, exporter).await.is_err()
                {
                    tracing::warn!("the last spans are lost: the collector did not take them in time");
                }
            });
        })?;
        Ok(())
    }

    /// Ends politely: says so, finishes what runs, and gives it at most `bound`.
    pub fn drain(&self, bound: Duration) {
        self.set_readiness.send_replace(Readiness::Draining);
        self.drain.send_replace(Drain::Draining { bound });
    }

    /// Waits until every worker has ended. Blocks the thread.
    pub fn join(self) -> io::Result<()> {
        let Self { workers, drain, flushed, .. } = self;
        for worker in workers {
            worker.join().map_err(|_panic| io::Error::other("a worker panicked; its log says why"))??;
        }
        drop(drain);
        if let Some(flushed) = flushed.and_then(|flushed| flushed.into_inner().ok()) {
            // Nothing is ever sent on it: it closes, or the time is over.
            let _closed = flushed.recv_timeout(FLUSH_MAX);
        }
        Ok(())
    }
}
