//! The recorder: one per worker, told of every request and connection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use leno_core::names::{Identity, Name};

use super::access_log::AccessLog;
use super::events::{Checking, Events, Limiters};
use super::series::{Counter, RequestSeries, TcpSeries};
use super::spans::Counts;
use super::{Access, Decision, Destination, Direction, RequestRecord, Spoken};
use crate::mirror::Outcome;
use crate::tls::{End, Secured};

/// Series that nobody has written to for this long are dropped (metrics of vanished peers must not pile up).
const SERIES_IDLE: Duration = Duration::from_secs(15 * 60);
/// Reasons beyond this many are counted together: the set is closed, this only bounds a mistake.
const REASONS_MAX: usize = 64;

/// Handshakes of one kind: which end this proxy was, how they ended, and whether they resumed a session.
pub(super) type Handshake = (End, &'static str, bool);

/// Callers and policies beyond this many are counted without their names: identities come from certificates and policies from
/// configuration, but together they may be many.
const AUTHORIZED_MAX: usize = 1024;

/// What authorization said, by which policy, of whom.
pub(super) type Authorized = (Decision, Option<Name>, Option<Identity>);

/// A request series and whose it is.
type SharedRequests = (Direction, Spoken, Mutual, Destination, Weak<RequestSeries>);
/// The series of opaque connections and whose it is.
type SharedTcp = (Direction, Mutual, Destination, Weak<TcpSeries>);
/// Whether connections between proxies were mutual TLS.
pub(super) type Mutual = bool;
/// A worker's own series by destination.
type Own<S> = HashMap<Destination, Arc<S>, RandomState>;

/// What a worker counts, as the scraper sees it.
#[derive(Debug, Default)]
pub struct WorkerSeries {
    pub(super) requests: Mutex<Vec<SharedRequests>>,
    pub(super) tcp: Mutex<Vec<SharedTcp>>,
    pub(super) reasons: Mutex<Vec<(Direction, &'static str, Arc<Counter>)>>,
    pub(super) authorized: Mutex<Vec<(Authorized, Arc<Counter>)>>,
    pub(super) connections_open: [Counter; 2],
    pub(super) connections_total: [Counter; 2],
    pub(super) handshakes: Mutex<Vec<(Handshake, Counter)>>,
    pub(super) events: Events,
    pub(super) checking: Checking,
    pub(super) limiters: Limiters,
    pub(super) detection_timeouts: Counter,
    pub(super) tasks: Counter,
    pub(super) access_log_dropped: Counter,
    pub(super) mirrored: [Counter; Outcome::ALL.len()],
    pub(super) mirrors_in_flight: Counter,
}

/// All workers' counters of one proxy. Locked only when a series is made and when somebody scrapes.
#[derive(Debug, Default)]
pub struct Registry {
    pub(super) workers: Mutex<Vec<Arc<WorkerSeries>>>,
    pub(super) spans: OnceLock<Arc<Counts>>,
}

/// Counts what one worker does. Cheap to clone; stays on its worker's thread.
#[derive(Clone)]
pub struct Recorder(Rc<Inner>);

struct Inner {
    started: Instant,
    /// Seconds since then, as far as [`Recorder::tick`] has said.
    seconds: Cell<u64>,
    shared: Arc<WorkerSeries>,
    requests: RefCell<[[[Own<RequestSeries>; 2]; Spoken::COUNT]; 2]>,
    tcp: RefCell<[[Own<TcpSeries>; 2]; 2]>,
    reasons: RefCell<Vec<(Direction, &'static str, Arc<Counter>)>>,
    authorized: RefCell<HashMap<Authorized, Arc<Counter>, RandomState>>,
    log: Option<AccessLog>,
}

/// One opaque connection, as it ended.
#[derive(Debug)]
pub struct TcpRecord<'a> {
    /// Which way.
    pub direction: Direction,
    /// Metric labels of the destination.
    pub destination: &'a Destination,
    /// Which rules let it pass, or did not.
    pub access: Access<'a>,
    /// Address of the client.
    pub peer: std::net::SocketAddr,
    /// Address of the other end, where there was one.
    pub upstream: Option<std::net::SocketAddr>,
    /// Who was at both ends, where the connection between proxies was mutual TLS.
    pub secured: Option<&'a Secured>,
    /// Why it could not be carried, or was cut; from a closed set.
    pub reason: Option<&'static str>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// From accept to close.
    pub duration: Duration,
}

/// Counts a connection as open for as long as it lives.
pub struct OpenConnection(Rc<Inner>, Direction);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.shared.connections_open[self.1.index()].sub(1);
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// The page has these counts of spans from now on.
    pub fn traces(&self, counts: &Arc<Counts>) {
        self.spans.get_or_init(|| Arc::clone(counts));
    }

    /// A recorder for one more worker. `log` is where its access records go, if anywhere.
    pub fn recorder(&self, log: Option<AccessLog>) -> Recorder {
        let shared = Arc::new(WorkerSeries::default());
        locked(&self.workers).push(Arc::clone(&shared));
        Recorder(Rc::new(Inner {
            started: Instant::now(),
            seconds: Cell::new(0),
            shared,
            requests: RefCell::default(),
            tcp: RefCell::default(),
            reasons: RefCell::default(),
            authorized: RefCell::default(),
            log,
        }))
    }
}

impl Recorder {
    /// Keeps the record of one request.
    pub fn request(&self, record: &RequestRecord<'_>) {
        let inner = &*self.0;
        inner.with_request_series(record, |series| {
            series.by_class[usize::from((record.status / 100).min(5))].add(1);
            series.duration.observe(record.duration);
            series.bytes_in.add(record.bytes_in);
            series.bytes_out.add(record.bytes_out);
            series.used_at.set(inner.seconds.get());
            for retried in record.tried.retried {
                series.retries.count(*retried);
            }
            series.own.add(u64::from(record.reason.is_some()));
        });
        if let Some(reason) = record.reason {
            inner.count_reason(record.direction, reason);
        }
        if let Some(trace) = record.trace {
            trace.finish(record);
        }
        if let Some(log) = &inner.log {
            log.request(record, &inner.shared.access_log_dropped);
        }
    }

    /// What the scraper sees of this worker.
    pub(super) fn shared(&self) -> &WorkerSeries {
        &self.0.shared
    }

    /// Counts a connection that was accepted, until the guard is dropped.
    pub fn connection_opened(&self, direction: Direction) -> OpenConnection {
        self.0.shared.connections_total[direction.index()].add(1);
        self.0.shared.connections_open[direction.index()].add(1);
        OpenConnection(Rc::clone(&self.0), direction)
    }

    /// Keeps the record of one opaque connection.
    pub fn tcp(&self, record: &TcpRecord<'_>) {
        let inner = &*self.0;
        let series = inner.tcp_series(record.direction, record.secured.is_some(), record.destination);
        series.closed.add(1);
        series.bytes_in.add(record.bytes_in);
        series.bytes_out.add(record.bytes_out);
        series.used_at.set(inner.seconds.get());
        if let Some(reason) = record.reason {
            series.failed.add(1);
            inner.count_reason(record.direction, reason);
        }
        if let Some(log) = &inner.log {
            log.tcp(record, &inner.shared.access_log_dropped);
        }
    }

    /// Counts a handshake of mutual TLS; `result` is `ok` or why it failed, from a closed set.
    pub fn handshake(&self, end: End, result: &'static str, is_resumed: bool) {
        let kind = (end, result, is_resumed);
        let mut handshakes = locked(&self.0.shared.handshakes);
        if let Some((_, counter)) = handshakes.iter().find(|(known, _)| *known == kind) {
            counter.add(1);
        } else if handshakes.len() < REASONS_MAX {
            let counter = Counter::default();
            counter.add(1);
            handshakes.push((kind, counter));
        }
    }

    /// Counts what authorization said, by which policy, of whom.
    pub fn authorized(&self, decision: Decision, policy: Option<&Name>, source: Option<&Identity>) {
        let mut known = self.0.authorized.borrow_mut();
        let key = (decision, policy.cloned(), source.cloned());
        if let Some(counter) = known.get(&key) {
            return counter.add(1);
        }
        let key = if known.len() < AUTHORIZED_MAX { key } else { (decision, None, None) };
        let counter = known.entry(key).or_insert_with_key(|key| {
            let counter = Arc::new(Counter::default());
            locked(&self.0.shared.authorized).push((key.clone(), Arc::clone(&counter)));
            counter
        });
        counter.add(1);
    }

    /// Counts a connection that was ended for what its client did on it; `reason` is from a closed set.
    pub fn abused(&self, direction: Direction, reason: &'static str) {
        self.0.count_reason(direction, reason);
    }

    /// Notes how many tasks the worker has now.
    pub fn tasks(&self, count: usize) {
        self.0.shared.tasks.set(count as u64);
    }

    /// Counts a connection on a port of undeclared protocol whose client stayed silent.
    pub fn detection_timed_out(&self) {
        self.0.shared.detection_timeouts.add(1);
    }

    /// Counts what became of a copy of a request.
    pub fn mirrored(&self, outcome: Outcome) {
        self.0.shared.mirrored[outcome as usize].add(1);
    }

    /// How many copies are on their way.
    pub fn mirrors_in_flight(&self, count: usize) {
        self.0.shared.mirrors_in_flight.set(count as u64);
    }

    /// Notes the time, so that no request asks the clock only for being noted. To be called every second.
    pub fn tick(&self, now: Instant) {
        self.0.seconds.set(now.saturating_duration_since(self.0.started).as_secs());
    }

    /// Drops series that were not written to for 15 minutes. To be called now and then.
    pub fn prune(&self, now: Instant) {
        let before = now.saturating_duration_since(self.0.started).saturating_sub(SERIES_IDLE).as_secs();
        for map in self.0.requests.borrow_mut().iter_mut().flatten().flatten() {
            map.retain(|_, series| series.used_at.get() >= before);
        }
        for map in self.0.tcp.borrow_mut().iter_mut().flatten() {
            map.retain(|_, series| series.used_at.get() >= before);
        }
        locked(&self.0.shared.requests).retain(|(.., series)| series.strong_count() > 0);
        locked(&self.0.shared.tcp).retain(|(.., series)| series.strong_count() > 0);
    }
}

impl Inner {
    /// Lets `count` write to the series that `record` belongs to.
    fn with_request_series(&self, record: &RequestRecord<'_>, count: impl FnOnce(&RequestSeries)) {
        let RequestRecord { direction, spoken, destination, secured, .. } = *record;
        let mut maps = self.requests.borrow_mut();
        let map = &mut maps[direction.index()][spoken.index()][usize::from(secured.is_some())];
        if let Some(series) = map.get(destination) {
            return count(series);
        }
        let series = Arc::new(RequestSeries::default());
        count(&series);
        locked(&self.shared.requests).push((direction, spoken, secured.is_some(), destination.clone(), Arc::downgrade(&series)));
        map.insert(destination.clone(), series);
    }

    fn tcp_series(&self, direction: Direction, mutual: Mutual, destination: &Destination) -> Arc<TcpSeries> {
        let mut maps = self.tcp.borrow_mut();
        let map = &mut maps[direction.index()][usize::from(mutual)];
        if let Some(series) = map.get(destination) {
            return Arc::clone(series);
        }
        let series = Arc::new(TcpSeries::default());
        locked(&self.shared.tcp).push((direction, mutual, destination.clone(), Arc::downgrade(&series)));
        map.insert(destination.clone(), Arc::clone(&series));
        series
    }

    fn count_reason(&self, direction: Direction, reason: &'static str) {
        let mut reasons = self.reasons.borrow_mut();
        let same = |(way, name, _): &&(Direction, &'static str, Arc<Counter>)| *way == direction && *name == reason;
        if let Some((.., counter)) = reasons.iter().find(same) {
            counter.add(1);
        } else if reasons.len() < REASONS_MAX {
            let counter = Arc::new(Counter::default());
            counter.add(1);
            reasons.push((direction, reason, Arc::clone(&counter)));
            locked(&self.shared.reasons).push((direction, reason, counter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_support::{record, somewhere};

    #[test]
    fn a_series_nobody_wrote_to_for_a_while_is_dropped_and_a_used_one_stays() {
        let registry = Registry::default();
        let recorder = registry.recorder(None);
        recorder.request(&record(&somewhere("v1"), 200));
        let soon = Instant::now() + SERIES_IDLE - Duration::from_secs(60);
        recorder.prune(soon);
        assert_eq!(registry.requests().len(), 1);
        recorder.prune(soon + Duration::from_secs(120));
        assert_eq!(registry.requests().len(), 0);
    }

    #[test]
    fn open_connections_are_counted_while_their_guard_lives() {
        let registry = Registry::default();
        let recorder = registry.recorder(None);
        let guard = recorder.connection_opened(Direction::Inbound);
        let open = || locked(&registry.workers)[0].connections_open[Direction::Inbound.index()].get();
        assert_eq!(open(), 1);
        drop(guard);
        assert_eq!(open(), 0);
    }
}
