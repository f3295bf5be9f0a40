//! Peers: the addresses a worker sends to, with what is in flight there and the connections that rest.
//!
//! A peer is an address and who must answer there. An address that comes to stand for another identity, or for none, is
//! another peer, so that no connection serves whom it was not made for.
//!
//! A [`Peer`] lives as long as an endpoint set or a request holds it. When the last one lets go, its resting
//! connections close; requests in flight finish on theirs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use leno_core::balance::latency::Latency;
use leno_core::endpoints::Origination;
use leno_core::names::Identity;
use leno_core::resilience::Outcome;

use crate::concurrency::Held;
use crate::http2::upstream::Upstreams;
use crate::io::Io;
use crate::resilience::{self, Attempt};
use crate::tls::Inner;
use crate::tunnel::links::Tunnels;
use crate::worker::Context;

/// One address that requests are sent to.
pub struct Peer {
    address: SocketAddr,
    proof: Proof,
    in_flight: Cell<u32>,
    resting: RefCell<Vec<Resting>>,
    pub(crate) http2: Upstreams,
    pub(crate) http_tunnels: Tunnels,
    pub(crate) tunnels: Tunnels,
}

struct Resting {
    io: Io,
    since: Instant,
    time_max: Duration,
}

/// Counts a request as in flight at its peer until dropped.
pub struct InFlight {
    peer: Rc<Peer>,
    attempt: Option<Attempt>,
    /// Its place among those that the app is given at once.
    held: Held,
    measured: Option<Box<Measured>>,
}

/// Measures how long an endpoint takes to answer. Dropped before that, it counts the time waited, where that is longer than was to be
/// expected.
struct Measured {
    latency: Rc<Cell<Latency>>,
    since: Instant,
    /// Once it is known.
    took: Cell<Option<Duration>>,
}

impl Measured {
    /// The endpoint has answered, or it is known that it will not.
    fn answered(&self, is_failure: bool) {
        let now = Instant::now();
        let known = self.took.get();
        let took = known.unwrap_or_else(|| now.saturating_duration_since(self.since));
        if known.is_none() || is_failure {
            self.observe(|latency| latency.observe(took, is_failure, now));
        }
        self.took.set(Some(took));
    }

    fn observe(&self, see: impl FnOnce(&mut Latency)) {
        let mut latency = self.latency.get();
        see(&mut latency);
        self.latency.set(latency);
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if self.took.get().is_none() {
            let now = Instant::now();
            self.observe(|latency| latency.gave_up(now.saturating_duration_since(self.since), now));
        }
    }
}

/// What a peer has to prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Nothing: plain text is spoken.
    None,
    /// To be this identity of the mesh, over mutual TLS.
    Identity(Arc<Identity>),
    /// To be this server outside the mesh, over ordinary TLS.
    Outside(Arc<Origination>),
}

/// Where a peer is, and what it has to prove.
type Place = (SocketAddr, Proof);

/// All peers of a worker, by address and identity, so that services that share a pod share its connections and its load.
#[derive(Default)]
pub struct Peers {
    by_place: RefCell<HashMap<Place, Weak<Peer>, RandomState>>,
}

/// Requests of HTTP/1 under way to a peer of the mesh that have a connection each. What comes beyond shares tunnels.
const ALONE_MAX: u32 = 2;

/// How many connections may rest, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct RestLimits {
    /// Resting HTTP/1 connections per address.
    pub connections_max: usize,
    /// How long one may rest: below what servers allow (Node.js closes after 5 s).
    pub time_max: Duration,
}

impl Default for RestLimits {
    fn default() -> Self {
        Self { connections_max: 128, time_max: Duration::from_millis(4500) }
    }
}

impl Peers {
    /// The peer at `address` that speaks plain text, made when nobody holds it yet.
    pub fn plain(&self, address: SocketAddr) -> Rc<Peer> {
        self.get(address, Proof::None)
    }

    /// The peer at `address` that must give this proof, made when nobody holds it yet.
    pub fn get(&self, address: SocketAddr, proof: Proof) -> Rc<Peer> {
        let mut peers = self.by_place.borrow_mut();
        let place = (address, proof);
        if let Some(peer) = peers.get(&place).and_then(Weak::upgrade) {
            return peer;
        }
        let proof = place.1.clone();
        let peer = Peer {
            address,
            proof,
            in_flight: Cell::new(0),
            resting: RefCell::default(),
            http2: Upstreams::default(),
            http_tunnels: Tunnels::with(Inner::HttpTunnel),
            tunnels: Tunnels::with(Inner::Tunnel),
        };
        let peer = Rc::new(peer);
        peers.insert(place, Rc::downgrade(&peer));
        peer
    }

    /// Closes what has rested too long or was closed by the other side, and forgets peers nobody holds.
    pub fn sweep(&self, now: Instant) {
        self.by_place.borrow_mut().retain(|_, peer| {
            let Some(peer) = peer.upgrade() else { return false };
            peer.resting
                .borrow_mut()
                .retain(|resting| now.saturating_duration_since(resting.since) < resting.time_max && looks_quiet(&resting.io));
            peer.http2.sweep(now);
            peer.http_tunnels.sweep(now);
            peer.tunnels.sweep(now);
            true
        });
    }
}

impl Peer {
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who must answer there, proven by mutual TLS; `None` where plain text is spoken.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.proof {
            Proof::Identity(identity) => Some(identity),
            Proof::None | Proof::Outside(_) => None,
        }
    }

    /// What it has to prove.
    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The TLS that is begun there, outside the mesh.
    pub fn origination(&self) -> Option<&Arc<Origination>> {
        match &self.proof {
            Proof::Outside(origination) => Some(origination),
            Proof::None | Proof::Identity(_) => None,
        }
    }

    /// Requests in flight there, from this worker.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Connections that rest.
    pub fn resting(&self) -> usize {
        self.resting.borrow().len()
    }

    /// One more request is in flight.
    pub fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight { peer: Rc::clone(self), attempt: None, held: Held::default(), measured: None }
    }

    /// Whether a request of HTTP/1 that is under way there has a connection to itself, and no stream of a tunnel.
    ///
    /// Alone it costs least and waits for nobody. Where several are under way at once, their frames share records and system calls.
    pub(crate) fn goes_alone(&self) -> bool {
        self.identity().is_none() || self.in_flight() <= ALONE_MAX
    }

    /// The connection of the kind that a request is to have now which rested last and is still open, as far as is known without asking
    /// the kernel; one of the other kind rather than a new stream of a tunnel. With `sure`,
    /// the kernel is asked, so that a close that has arrived is never overlooked.
    pub fn reuse(&self, now: Instant, sure: Sure) -> Option<Io> {
        let goes_alone = self.goes_alone();
        let mut resting = self.resting.borrow_mut();
        loop {
            let last = resting.iter().rposition(|resting| matches!(resting.io, Io::Tunnelled(_)) != goes_alone);
            let candidate = match last {
                Some(place) => resting.remove(place),
                None if goes_alone => return None,
                None => resting.pop()?,
            };
            let fresh = now.saturating_duration_since(candidate.since) < candidate.time_max;
            let open = match sure {
                Sure::AsKnown => looks_quiet(&candidate.io),
                Sure::AskKernel => candidate.io.is_quiet(),
            };
            if fresh && open {
                return Some(candidate.io);
            }
        }
    }

    /// A connection whose last response is complete comes to rest.
    pub fn rest(&self, io: Io, now: Instant, limits: RestLimits) {
        let mut resting = self.resting.borrow_mut();
        if resting.len() < limits.connections_max {
            resting.push(Resting { io, since: now, time_max: limits.time_max });
        }
    }

    /// Closes the connection that has rested longest; gives how many that were.
    pub(crate) fn close_oldest(&self) -> usize {
        let mut resting = self.resting.borrow_mut();
        if resting.is_empty() {
            return 0;
        }
        drop(resting.remove(0));
        1
    }
}

/// How sure [`Peer::reuse`] must be that a connection is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sure {
    /// For requests that may be sent again.
    AsKnown,
    /// For requests that may not.
    AskKernel,
}

impl InFlight {
    /// Where the request is.
    pub fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    /// The attempt it is, where its service is guarded.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    /// A connection whose last response is complete comes to rest.
    pub(crate) fn rest(&self, io: Io, now: Instant, limits: RestLimits) {
        let time_max = self.idle_timeout().unwrap_or(limits.time_max);
        self.peer.rest(io, now, RestLimits { time_max, ..limits });
    }

    /// A connection is to be made: those that rest make room for it, where there is a limit.
    pub(crate) fn make_room(&self) {
        if let Some(attempt) = &self.attempt {
            attempt.make_room();
        }
    }

    /// How long a connection there is kept without anything to carry, where the service says it.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.attempt.as_ref().and_then(Attempt::idle_timeout)
    }

    /// How long the endpoint may take to accept a connection.
    pub(crate) fn connect_timeout(&self, context: &Context) -> Duration {
        self.attempt.as_ref().and_then(Attempt::connect_timeout).unwrap_or(context.settings.connect_timeout)
    }

    /// The same, as an attempt of which it is to be told how it ended.
    pub(crate) fn watched(mut self, attempt: Option<Attempt>) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same, with its place among those that the app is given at once.
    pub(crate) fn holding(mut self, held: Held) -> Self {
        self.held = held;
        self
    }

    /// The same, and how long the endpoint takes is measured, where that matters.
    pub(crate) fn measured(mut self, latency: Option<&Rc<Cell<Latency>>>) -> Self {
        let measured = |latency: &Rc<_>| Box::new(Measured { latency: Rc::clone(latency), since: Instant::now(), took: Cell::new(None) });
        self.measured = latency.map(measured);
        self
    }

    /// The head of an answer is there, which says this, and its body may take as long as it will.
    pub(crate) fn answered(&self, outcome: Outcome) {
        self.held.answered(outcome);
        if let Some(measured) = &self.measured {
            measured.answered(false);
        }
        if let Some(attempt) = &self.attempt {
            attempt.answered();
        }
    }

    /// The request has ended, with what its record says.
    pub(crate) fn ended(&self, reason: Option<&'static str>, status: u16, grpc_status: Option<u16>, context: &Context) {
        if (self.attempt.is_some() || self.measured.is_some())
            && let Some(outcome) = resilience::outcome(reason, status, grpc_status)
        {
            self.report(outcome, context);
        }
    }

    /// How the attempt ended. What is told first counts; without anything nothing does.
    pub(crate) fn report(&self, outcome: Outcome, context: &Context) {
        if let Some(measured) = &self.measured {
            measured.answered(outcome.is_failure());
        }
        if let Some(attempt) = &self.attempt {
            attempt.report(outcome, context);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.peer.in_flight.set(self.peer.in_flight.get().saturating_sub(1));
    }
}

/// Nothing has arrived on a resting connection: neither its end nor bytes that belong to no request.
fn looks_quiet(io: &Io) -> bool {
    let mut byte = [0];
    matches!(io.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
