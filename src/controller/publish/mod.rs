//! Publishing: from objects to what each proxy is told.
//!
//! One task owns the [`Translator`] and the index of subscriptions. Each event of the source is applied, the resources it
//! touches that somebody subscribes to are computed and encoded once, and their bytes are put into the outboxes of the
//! connections concerned. There is no timer: a connection that can write does so at once, and for one that cannot the latest
//! state of each resource waits. Events that have piled up are applied together.
//!
//! Nothing is served before the first list of every required kind is in, and fetching the keys of token issuers was tried: proxies
//! that know keys from before are not told to forget them because the controller began anew.
//!
//! Reading order: [`Publisher`], `index`, [`outbox`], [`receipts`].

pub mod counters;
mod index;
pub mod outbox;
pub mod receipts;
pub mod topic;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use leno_core::names::{Identity, Name, WorkloadId};
use leno_core::trust::{Held, Trust};
use leno_translate::{Kind, Translator};
use leno_xds::server::{Intake, Limits};
use leno_xds::subject::Subject;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::counters::Counters;
use self::index::Index;
use self::outbox::{Ending, Outbox};
use self::receipts::Receipts;
use crate::source::SourceEvent;

/// Commands that wait for the publisher; streams that have more to say are not read meanwhile.
const COMMANDS_MAX: usize = 1_024;
/// Events or commands taken in together.
const BATCH: usize = 128;

/// What a cluster's proxies cannot be served without. SecurityPolicies say who may call; Pods say who answers at an endpoint: without them, a proxy would be told to
/// speak plain text to a peer that can prove who it is. Without ReferenceGrants, requests to other namespaces would be answered 500.
pub const REQUIRED_OF_CLUSTER: [Kind; 7] =
    [Kind::Service, Kind::EndpointSlice, Kind::Pod, Kind::MeshService, Kind::ReferenceGrant, Kind::TrafficPolicy, Kind::SecurityPolicy];

/// Names one stream of one proxy; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// Who is at the other end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever it says it is: where identities are not in use.
    Anybody,
    /// Who it has proven to be. It is shown no workload but its own.
    Proven(Identity),
}

/// How far the connected proxies are with the mesh's trust and their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version of what is published; `None` while nothing is.
    pub trust_version: Option<Name>,
    /// The trust that is published.
    pub trust: Option<Arc<Trust>>,
    /// Each connected proxy that has said whose it is.
    pub proxies: Vec<ProxyStanding>,
}

/// One proxy of a [`Standing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyStanding {
    /// Whose proxy it is.
    pub workload: WorkloadId,
    /// The certificate it says it holds.
    pub held: Option<Held>,
    /// The version of the trust it says it runs.
    pub trust: Option<Name>,
}

/// A handle on the publishing task. Clones share it.
#[derive(Clone, Debug)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    ready: watch::Receiver<bool>,
    key_uris: watch::Receiver<BTreeSet<Name>>,
    outside_hosts: watch::Receiver<BTreeSet<Name>>,
    receipts: Receipts,
    counters: Arc<Counters>,
    connections: Arc<AtomicU64>,
}

/// The publishing task has ended: the process is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the controller is shutting down")]
pub struct Stopped;

enum Command {
    Connect(ConnectionId, Arc<Outbox>, Caller),
    Intake(ConnectionId, Vec<Intake>),
    Disconnect(ConnectionId),
    Query(Box<dyn FnOnce(&Translator) + Send>),
    Trust(Arc<Trust>),
    Standing(oneshot::Sender<Standing>),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(id, ..) => f.debug_tuple("Connect").field(id).finish(),
            Self::Intake(id, intake) => f.debug_tuple("Intake").field(id).field(intake).finish(),
            Self::Disconnect(id) => f.debug_tuple("Disconnect").field(id).finish(),
            Self::Query(_) => f.write_str("Query"),
            Self::Trust(_) => f.write_str("Trust"),
            Self::Standing(_) => f.write_str("Standing"),
        }
    }
}

/// The task itself; see [`Task::run`].
#[derive(Debug)]
pub struct Task {
    index: Index,
    events: mpsc::Receiver<SourceEvent>,
    commands: mpsc::Receiver<Command>,
    ready: watch::Sender<bool>,
    key_uris: watch::Sender<BTreeSet<Name>>,
    outside_hosts: watch::Sender<BTreeSet<Name>>,
    counters: Arc<Counters>,
}

impl Publisher {
    /// A publisher that is fed with `events` and serves once every kind of `required` was listed.
    pub fn new(translator: Translator, required: impl IntoIterator<Item = Kind>, events: mpsc::Receiver<SourceEvent>) -> (Self, Task) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let required: BTreeSet<Kind> = required.into_iter().collect();
        let (receipts, counters) = (Receipts::default(), Arc::new(Counters::default()));
        let index = Index::new(translator, required, receipts.clone(), counters.clone());
        let (ready, is_ready) = watch::channel(index.is_ready());
        let (wants_keys, key_uris) = watch::channel(BTreeSet::new());
        let (wants_hosts, outside_hosts) = watch::channel(BTreeSet::new());
        let task =
            Task { index, events, commands: inbox, ready, key_uris: wants_keys, outside_hosts: wants_hosts, counters: counters.clone() };
        (Self { commands, ready: is_ready, key_uris, outside_hosts, receipts, counters, connections: Arc::default() }, task)
    }

    /// Turns true once the first lists are in and proxies are served; never false again.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Where keys of token issuers are to be fetched. What comes of it goes in as [`SourceEvent::Keys`]; nothing is served before
    /// each was tried once.
    pub fn key_uris(&self) -> watch::Receiver<BTreeSet<Name>> {
        self.key_uris.clone()
    }

    /// The host names outside the cluster that are to be looked up. What comes of it goes in as [`SourceEvent::Addresses`]; nothing
    /// is served before each was tried once.
    pub fn outside_hosts(&self) -> watch::Receiver<BTreeSet<Name>> {
        self.outside_hosts.clone()
    }

    /// Which proxies run what.
    pub fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Asks something of the objects as they are now, for example the report on one of them.
    pub async fn query<R: Send + 'static>(&self, question: impl FnOnce(&Translator) -> R + Send + 'static) -> Result<R, Stopped> {
        let (answer, answered) = oneshot::channel();
        let ask = move |translator: &Translator| drop(answer.send(question(translator)));
        self.send(Command::Query(Box::new(ask))).await?;
        answered.await.ok().ok_or(Stopped)
    }

    /// By which roots proxies verify each other from now on.
    ///
    /// # Errors
    /// When the process is shutting down.
    pub async fn set_trust(&self, trust: Arc<Trust>) -> Result<(), Stopped> {
        self.send(Command::Trust(trust)).await
    }

    /// How far the proxies connected to this replica are with trust and certificates, as they say themselves.
    ///
    /// # Errors
    /// When the process is shutting down.
    pub async fn standing(&self) -> Result<Standing, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Standing(answer)).await?;
        answered.await.ok().ok_or(Stopped)
    }

    /// A stream of `caller` begins. It must end with [`Publisher::disconnect`].
    pub(crate) async fn connect(&self, limits: Limits, caller: Caller) -> Result<(ConnectionId, Arc<Outbox>), Stopped> {
        let id = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        let outbox = Arc::new(Outbox::new(limits));
        self.send(Command::Connect(id, outbox.clone(), caller)).await?;
        Ok((id, outbox))
    }

    /// What a proxy said on its stream. That it took endpoints is nobody's concern.
    pub(crate) async fn intake(&self, id: ConnectionId, mut intake: Vec<Intake>) -> Result<(), Stopped> {
        intake.retain(|it| !matches!(it, Intake::Acked(Subject::Endpoints(_), _)));
        if intake.is_empty() { Ok(()) } else { self.send(Command::Intake(id, intake)).await }
    }

    /// A stream has ended.
    pub(crate) async fn disconnect(&self, id: ConnectionId) {
        let _stopped = self.send(Command::Disconnect(id)).await;
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.ok().ok_or(Stopped)
    }
}

impl Task {
    /// Publishes until `cancel`, then tells every proxy to connect again. A source that has ended leaves its last state in force.
    pub async fn run(mut self, cancel: CancellationToken) {
        let (mut events, mut commands) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                () = cancel.cancelled() => return self.farewell(),
                count = self.events.recv_many(&mut events, BATCH), if !self.events.is_closed() || !self.events.is_empty() => {
                    if count > 0 {
                        self.apply(&mut events);
                    }
                }
                count = self.commands.recv_many(&mut commands, BATCH) => {
                    if count == 0 {
                        return; // Nobody holds a handle.
                    }
                    self.obey(&mut commands);
                }
            }
        }
    }

    /// Ends all streams, also those that have just begun.
    fn farewell(mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Connect(id, outbox, caller) = command {
                self.index.connect(id, outbox, caller);
            }
        }
        self.index.outboxes().for_each(|outbox| outbox.end(Ending::shutdown()));
    }

    fn apply(&mut self, events: &mut Vec<SourceEvent>) {
        let began = Instant::now();
        self.index.apply(events.drain(..), SystemTime::now());
        if let Some(uris) = self.index.take_key_uris() {
            tell(&self.key_uris, uris);
        }
        if let Some(hosts) = self.index.take_outside_hosts() {
            tell(&self.outside_hosts, hosts);
        }
        let mut told = false;
        for outbox in self.index.take_wakes() {
            outbox.wake();
            told = true;
        }
        if told {
            self.counters.observe_delay(began.elapsed());
        }
        if self.index.is_ready() && !*self.ready.borrow() {
            tracing::info!("the first lists are in: serving proxies");
            self.ready.send_replace(true);
        }
    }

    fn obey(&mut self, commands: &mut Vec<Command>) {
        let now = SystemTime::now();
        for command in commands.drain(..) {
            match command {
                Command::Connect(id, outbox, caller) => self.index.connect(id, outbox, caller),
                Command::Intake(id, intake) => self.index.intake(id, intake, now),
                Command::Disconnect(id) => self.index.disconnect(id, now),
                Command::Query(question) => question(self.index.translator()),
                Command::Trust(trust) => self.index.set_trust(trust, now),
                Command::Standing(answer) => drop(answer.send(self.index.standing())),
            }
        }
        self.index.take_wakes().for_each(|outbox| outbox.wake());
    }
}

/// Tells of what is wanted now, where that is news.
fn tell(sender: &watch::Sender<BTreeSet<Name>>, wanted: BTreeSet<Name>) {
    sender.send_if_modified(|known| {
        let is_news = *known != wanted;
        *known = wanted;
        is_news
    });
}
