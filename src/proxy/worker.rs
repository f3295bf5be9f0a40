//! A worker: one thread with its own runtime, listeners, directory, pools and counters.
//!
//! Workers share nothing, so the request path takes no lock. A worker is told of the world by [`Update`]s and asks by
//! [`Ask`]s; a test can feed it by hand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use leno_core::names::{Name, WorkloadId};
use leno_core::request::{Caller, Headers};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use crate::buffers::Buffers;
use crate::concurrency::Limiters;
use crate::control::{Ask, Update};
use crate::directory::Directory;
use crate::drain::{Drain, Draining};
use crate::jwt::KeyCache;
use crate::listen::{self, Listener, Open};
use crate::mirror::Mirrors;
use crate::pool::{Peer, RestLimits};
use crate::probes::Probes;
use crate::rate_limit;
use crate::resilience::checker;
use crate::resilience::health::Checks;
use crate::resilience::limits::Budgets;
use crate::silent::SilentPeers;
use crate::telemetry::{AccessLog, Recorder, Registry, Trace, Tracer};
use crate::tls::{Originator, Security};

/// How often resting connections are looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often (in sweeps) what is unused is dropped.
const SWEEPS_PER_CLEANING: u32 = 60;
/// How often a draining worker looks whether it may end.
const DRAIN_CHECK_EVERY: Duration = Duration::from_millis(20);

/// Everything a worker needs to run.
pub struct Worker {
    /// What it accepts from, and what that means.
    pub listeners: Vec<Listener>,
    /// Where it asks for what it does not know.
    pub asks: UnboundedSender<Ask>,
    /// What it is told.
    pub updates: UnboundedReceiver<Update>,
    /// Where its counters are read.
    pub registry: std::sync::Arc<Registry>,
    /// Where its access records go.
    pub access_log: Option<AccessLog>,
    /// When to end.
    pub drain: watch::Receiver<Drain>,
    /// Names, limits and times.
    pub settings: Settings,
}

/// Names, limits and times of a worker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The workload it stands beside.
    pub workload: WorkloadId,
    /// The domain of cluster host names, `cluster.local` unless configured.
    pub cluster_domain: Name,
    /// Whether the workload's connections are secured with its identity; otherwise all of them are plain.
    pub identity: bool,
    /// Whether traffic is redirected to this proxy. What it dials at its own address leads straight to the app then.
    pub intercepts: bool,
    /// The app's probes, which its kubelet makes without an identity.
    pub probes: Arc<Probes>,
    /// How long an endpoint may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long who dials may take for its first message and the whole handshake.
    pub handshake_timeout: Duration,
    /// How long a client may take from a head's first byte to its last.
    pub head_timeout: Duration,
    /// How long a client may leave a body unsent that it has begun, or a response unread that it has asked for.
    pub stall_timeout: Duration,
    /// How long the first bytes of a connection are waited for where the protocol is not declared.
    pub detect_timeout: Duration,
    /// What may rest in the pools.
    pub rest: RestLimits,
    /// The buckets of rate limits, which all workers of the proxy share.
    pub limiters: Arc<rate_limit::Limiters>,
    /// What is under way to services that have limits; workers of one proxy share it.
    pub budgets: Arc<Budgets>,
    /// What requests are traced with, where they are.
    pub tracer: Option<Arc<Tracer>>,
    /// What health checks say of endpoints; workers of one proxy share it, and one of them asks.
    pub checks: Arc<Checks>,
    /// How many requests the app is given at once; workers of one proxy share it.
    pub concurrency: Arc<Limiters>,
}

impl Settings {
    /// The defaults for `workload`.
    pub fn new(workload: WorkloadId) -> Self {
        Self {
            workload,
            cluster_domain: "cluster.local".into(),
            identity: false,
            intercepts: false,
            probes: Arc::default(),
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(300),
            detect_timeout: Duration::from_millis(300),
            rest: RestLimits::default(),
            limiters: Arc::default(),
            budgets: Arc::default(),
            tracer: None,
            checks: Arc::default(),
            concurrency: Arc::default(),
        }
    }
}

/// What a worker's connections share. Single-threaded.
pub struct Context {
    /// Names, limits and times.
    pub settings: Settings,
    /// Services and endpoints.
    pub directory: Directory,
    /// What this proxy proves itself with, and whom it trusts.
    pub security: Security,
    /// Begins TLS with servers outside the mesh.
    pub originator: Originator,
    /// Blocks for bytes in motion.
    pub buffers: Rc<Buffers>,
    /// Counters and the access log.
    pub recorder: Recorder,
    /// How many connections it carries.
    pub(crate) open: Rc<Open>,
    /// Whether the worker is ending.
    pub draining: Draining,
    /// This workload as the caller of what its app sends.
    pub own: Caller,
    /// Who calls over a plain connection: nobody that is known.
    pub stranger: Rc<Caller>,
    /// Copies of requests that are on their way to mirrors.
    pub mirrors: Mirrors,
    /// Who has waited for servers to speak lately.
    pub silent: SilentPeers,
    /// Keys that tokens are verified with.
    pub keys: KeyCache,
    /// Addresses the worker itself listens on.
    pub own_addresses: Vec<SocketAddr>,
    apps: RefCell<HashMap<SocketAddr, Rc<Peer>, RandomState>>,
    random: RefCell<fastrand::Rng>,
}

impl Context {
    fn new(asks: UnboundedSender<Ask>, recorder: Recorder, own_addresses: Vec<SocketAddr>, settings: Settings) -> Self {
        Self {
            own: Caller { namespace: Some(Name::clone(&settings.workload.namespace)), identity: None },
            stranger: Rc::default(),
            directory: Directory::new(asks, &settings),
            security: Security::default(),
            originator: Originator::default(),
            buffers: Rc::default(),
            recorder,
            open: Rc::default(),
            draining: Draining::default(),
            mirrors: Mirrors::default(),
            silent: SilentPeers::default(),
            keys: KeyCache::default(),
            own_addresses,
            apps: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            settings,
        }
    }

    /// That of a worker that listens nowhere and is fed by hand; what it asks goes nowhere.
    #[cfg(test)]
    pub(crate) fn testing(settings: Settings) -> Rc<Self> {
        let (asks, _) = tokio::sync::mpsc::unbounded_channel();
        Rc::new(Self::new(asks, Registry::default().recorder(None), Vec::new(), settings))
    }

    /// A random number.
    pub fn draw(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Begins the span of a request with these fields, where requests are traced.
    pub fn trace(&self, headers: &dyn Headers) -> Option<Box<Trace>> {
        self.settings.tracer.as_ref().map(|tracer| tracer.begin(headers, [self.draw(), self.draw(), self.draw()]))
    }

    /// The app (one of the workload's own ports) at `address`.
    pub fn app(&self, address: SocketAddr) -> Rc<Peer> {
        let mut apps = self.apps.borrow_mut();
        Rc::clone(apps.entry(address).or_insert_with(|| self.directory.peers.plain(address)))
    }
}

impl Worker {
    /// Carries traffic until drained. Blocks the thread.
    pub fn run(self) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> io::Result<()> {
        let Self { listeners, asks, updates, registry, access_log, drain, settings } = self;
        let own_addresses = listeners.iter().map(|listener| listener.listener.local_addr()).collect::<io::Result<_>>()?;
        let context = Rc::new(Context::new(asks, registry.recorder(access_log), own_addresses, settings));
        tokio::task::spawn_local(take_updates(Rc::clone(&context), updates));
        tokio::task::spawn_local(sweep(Rc::clone(&context)));
        for listener in listeners {
            let listener = listener.start()?;
            tokio::task::spawn_local(listen::accept(listener, Rc::clone(&context)));
        }
        wait_for_end(drain, &context).await;
        Ok(())
    }
}

async fn take_updates(context: Rc<Context>, mut updates: UnboundedReceiver<Update>) {
    while let Some(update) = updates.recv().await {
        match update {
            Update::Credentials(credentials) => context.security.set_credentials(credentials),
            Update::Trust(trust) => context.security.set_trust(trust),
            Update::Endpoints(id, endpoints) => {
                context.directory.apply(Update::Endpoints(id.clone(), endpoints));
                if let Some(set) = context.directory.health(&id) {
                    checker::start(&set, &context);
                }
            }
            Update::Workload(workload) => {
                context.directory.apply(Update::Workload(workload));
                context.recorder.limiters(&context.directory.limiters());
            }
            other @ (Update::Alias(..) | Update::Service(..) | Update::Connected(_)) => context.directory.apply(other),
        }
    }
    // The control thread has ended; what is known goes on serving.
    context.directory.apply(Update::Connected(false));
}

async fn sweep(context: Rc<Context>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    for tick in 1_u32.. {
        let now = ticks.tick().await.into_std();
        context.directory.peers.sweep(now);
        context.buffers.trim();
        context.recorder.tick(now);
        context.recorder.tasks(tokio::runtime::Handle::current().metrics().num_alive_tasks());
        if tick.is_multiple_of(SWEEPS_PER_CLEANING) {
            context.directory.sweep(now);
            context.recorder.prune(now);
            context.settings.limiters.sweep(now);
        }
    }
}

/// Ends once draining was asked for and nothing is open, or the bound has passed.
async fn wait_for_end(mut drain: watch::Receiver<Drain>, context: &Context) {
    let bound = loop {
        match *drain.borrow_and_update() {
            Drain::Draining { bound } => break bound,
            Drain::Running => {}
        }
        if drain.changed().await.is_err() {
            // Whoever could ask is gone: end like one who was asked.
            break Duration::ZERO;
        }
    };
    context.draining.start();
    let end = Instant::now() + bound;
    while context.open.count() > 0 && Instant::now() < end {
        tokio::time::sleep(DRAIN_CHECK_EVERY).await;
    }
    if context.open.count() > 0 {
        tracing::warn!(open = context.open.count(), ?bound, "connections are cut: they did not end in the time given to drain");
    }
}
