//! Connections to one peer: one carries many requests, another is opened when the peer allows no more on it.
//!
//! They belong to the [`Peer`]: when nobody holds it any more (its endpoint is gone), they close after their last stream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{FlowControl, SendStream};
use http::Request;
use slab::Slab;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::rewind::Rewind;
use super::{FRAMES_BUDGET, HEADER_LIST_MAX, SEND_BUFFER_MAX};
use crate::buffers::Buffers;
use crate::dial::{DialError, dial_within, may_use};
use crate::gather::Gather;
use crate::io::Io;
use crate::pool::Peer;
use crate::resilience::Attempt;
use crate::resilience::limits::{ConnectionPlace, Place};
use crate::target::Refusal;
use crate::tls::{Carries, Secured};
use crate::worker::Context;

/// Connections to one peer. Beyond them requests wait for one another, as the peer's limit says.
const LINKS_MAX: usize = 16;
/// What a response may send before its client takes it: enough for 250 MB/s at a millisecond's distance.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Requests on one connection, as long as there may be others.
const STREAMS_MAX: usize = 64;
/// What all responses of a connection may send before their clients take it: all that those streams may, so that responses which
/// one client leaves unread do not hold up those of another that run beside them.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
const _: () = assert!(CONNECTION_WINDOW as usize == STREAMS_MAX * STREAM_WINDOW as usize);
/// What may be held of a connection's window by responses that their clients do not read, before further requests go elsewhere.
const HELD_MAX: usize = CONNECTION_WINDOW as usize / 2;
/// What stands for "the peer has not said yet how many requests it allows". No request is sent before it has: what is
/// beyond its limit would wait for other streams to end, while another connection had room.
const NOT_SAID: usize = 101;

/// A client's connection, for telling it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who(pub(super) usize);

impl Who {
    /// No client: what is asked is always read.
    pub(super) const NOBODY: Self = Self(0);
}

/// A peer's HTTP/2 connections.
#[derive(Default)]
pub(crate) struct Upstreams {
    links: RefCell<Vec<Rc<Link>>>,
    /// Held by the one request that dials for all.
    dialling: Mutex<()>,
    /// Dials that failed, so that those who waited for one do not dial again in a row.
    failures: Cell<u64>,
    /// Why the last of them failed.
    failure: Cell<Option<Refusal>>,
}

struct Link {
    /// Sends nothing, so it is never waited for: it tells whether the connection takes requests.
    state: RefCell<SendRequest<Bytes>>,
    /// Sends requests; another one does while this one's last waits for its turn.
    requests: RefCell<SendRequest<Bytes>>,
    secured: Option<Rc<Secured>>,
    /// Whether this proxy has begun the TLS on it, so that its requests are `https`.
    originated: bool,
    streams: Cell<usize>,
    /// Responses that wait for their clients: whose each is, and what it holds of the connection's window.
    waiting: RefCell<Slab<(Who, FlowControl)>>,
    is_closed: Cell<bool>,
    /// How long it is kept without a stream, where the service says it, and since when it has none.
    idle: Option<(Duration, Cell<Instant>)>,
    /// Its place among the connections that may be.
    _place: Option<ConnectionPlace>,
}

/// One request's place on a connection, and among those that wait where the connection is full.
pub(super) struct Lease(Rc<Link>, RefCell<Option<Place>>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        if let Some((_, since)) = &self.0.idle {
            since.set(Instant::now());
        }
    }
}

impl Lease {
    fn new(link: &Rc<Link>) -> Self {
        link.streams.set(link.streams.get() + 1);
        Self(Rc::clone(link), RefCell::default())
    }

    /// An answer is there: the request waits for nobody any more.
    pub(super) fn answered(&self) {
        self.1.take();
    }

    /// Sends a request's head. `ends` says that nothing follows it.
    pub(super) fn send(&self, request: Request<()>, ends: bool) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut requests = self.0.requests.borrow_mut();
        if !is_ready(&mut requests) {
            *requests = self.0.state.borrow().clone();
        }
        requests.send_request(request, ends)
    }

    /// A place among the responses that wait for their clients.
    pub(super) fn wait(&self, who: Who, held: FlowControl) -> Waiting {
        let key = self.0.waiting.borrow_mut().insert((who, held));
        Waiting { link: Rc::clone(&self.0), key }
    }

    /// Who is at both ends of the connection, where it is mutual TLS.
    pub(super) fn secured(&self) -> Option<&Rc<Secured>> {
        self.0.secured.as_ref()
    }

    /// Whether this proxy has begun the TLS on it, so that its requests are `https`.
    pub(super) fn is_originated(&self) -> bool {
        self.0.originated
    }

    /// Whether the peer takes requests that change the protocol (RFC 8441).
    pub(super) fn allows_protocols(&self) -> bool {
        self.0.state.borrow().is_extended_connect_protocol_enabled()
    }
}

/// A response that its client does not take, for as long as that is so.
pub(super) struct Waiting {
    link: Rc<Link>,
    key: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let released = self.link.waiting.borrow_mut().try_remove(self.key);
        drop(released);
    }
}

/// Whether a request could be sent now.
fn is_ready(requests: &mut SendRequest<Bytes>) -> bool {
    matches!(requests.poll_ready(&mut TaskContext::from_waker(Waker::noop())), Poll::Ready(Ok(())))
}

impl Link {
    /// Whether it takes new requests: neither closed nor told to go away.
    fn is_usable(&self) -> bool {
        !self.is_closed.get() && is_ready(&mut self.state.borrow_mut())
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.state.borrow().current_max_send_streams().min(STREAMS_MAX) && self.held() <= HELD_MAX
    }

    /// What responses that wait for their clients hold of the connection's window; others can have only what is left.
    fn held(&self) -> usize {
        self.waiting.borrow().iter().map(|(_, (_, response))| response.used_capacity()).sum()
    }

    /// Whether what `who` leaves unread holds up the connection.
    fn is_held_up_by(&self, who: Who) -> bool {
        let waiting = self.waiting.borrow();
        let own = waiting.iter().filter(|(_, (other, _))| *other == who);
        own.map(|(_, (_, response))| response.used_capacity()).sum::<usize>() > HELD_MAX
    }
}

impl Upstreams {
    /// A place for a request of `who` on a connection to `peer`, which these are the connections of; dials where there is none.
    ///
    /// `attempt` has the service's limits: one connection there may always be.
    pub(super) async fn lease(&self, peer: &Peer, who: Who, attempt: Option<&Attempt>, context: &Context) -> Result<Lease, Refusal> {
        if let Err(error) = may_use(peer, context) {
            error.log(peer.address());
            return Err(error.refusal());
        }
        if let Some(lease) = self.existing(who) {
            return Ok(lease);
        }
        let failures = self.failures.get();
        let _dialling = self.dialling.lock().await;
        if let Some(lease) = self.existing(who) {
            return Ok(lease);
        }
        if self.failures.get() != failures {
            return Err(self.failure.get().unwrap_or(Refusal::ConnectFailed));
        }
        let place = match attempt.map_or(Some(None), Attempt::another_connection) {
            Some(place) => place,
            // There may be no more connections: requests share those there are.
            None => match (self.least_busy(), attempt) {
                (Some(lease), Some(attempt)) => {
                    lease.1.replace(attempt.pending(context)?);
                    return Ok(lease);
                }
                (_, _) => None,
            },
        };
        match Box::pin(open(peer, attempt, place, context)).await {
            Ok(link) => {
                let lease = Lease::new(&link);
                self.links.borrow_mut().push(link);
                Ok(lease)
            }
            Err(error) => {
                error.log(peer.address());
                self.failures.set(failures.wrapping_add(1));
                self.failure.set(Some(error.refusal()));
                Err(error.refusal())
            }
        }
    }

    /// A place on a connection that is there; the least busy one where all are full and there may be no more.
    ///
    /// Who holds a connection up stays on it, or one client after the other would be held up on all of them.
    fn existing(&self, who: Who) -> Option<Lease> {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.is_usable());
        if let Some(link) = links.iter().find(|link| link.is_held_up_by(who)) {
            return Some(Lease::new(link));
        }
        if let Some(link) = links.iter().find(|link| link.has_room()) {
            return Some(Lease::new(link));
        }
        if links.len() < LINKS_MAX {
            return None;
        }
        drop(links);
        self.least_busy()
    }

    fn least_busy(&self) -> Option<Lease> {
        self.links.borrow().iter().min_by_key(|link| (link.held() > HELD_MAX, link.streams.get())).map(Lease::new)
    }

    /// Closes connections that have had nothing to carry for too long, where the service says how long that is.
    pub(crate) fn sweep(&self, now: Instant) {
        let is_idle = |link: &Rc<Link>| {
            link.streams.get() == 0 && link.idle.as_ref().is_some_and(|(most, since)| now.saturating_duration_since(since.get()) >= *most)
        };
        self.links.borrow_mut().retain(|link| !is_idle(link));
    }
}

/// Opens a connection and waits for the peer's settings; a task of its own drives it then.
async fn open(peer: &Peer, attempt: Option<&Attempt>, place: Option<ConnectionPlace>, context: &Context) -> Result<Rc<Link>, DialError> {
    let limit = attempt.and_then(Attempt::connect_timeout).unwrap_or(context.settings.connect_timeout);
    let io = dial_within(peer, Carries::Http2, limit, context).await?;
    let kept = Kept { idle: attempt.and_then(Attempt::idle_timeout), place };
    let is_secured = io.agreed().is_some();
    settled(io, peer, limit, kept, &context.buffers).await.map_err(|error| {
        // What TLS has to say comes through `h2` as this kind and words: the peer did not take this proxy's certificate.
        if is_secured && error.kind() == io::ErrorKind::InvalidData { DialError::Tls(error.into()) } else { DialError::Connect(error) }
    })
}

/// What the limits of its service say of a connection.
struct Kept {
    idle: Option<Duration>,
    place: Option<ConnectionPlace>,
}

async fn settled(io: Io, peer: &Peer, connect_timeout: Duration, kept: Kept, buffers: &Rc<Buffers>) -> io::Result<Rc<Link>> {
    let secured = io.secured().cloned();
    let gather = Gather::new(io, buffers);
    let handshake = client().handshake::<_, Bytes>(Rewind::new(gather.clone())).await;
    let (requests, mut connection) = handshake.map_err(broken)?;
    gather.driven();
    let mut turn = move |cx: &mut TaskContext<'_>| {
        let turn = Pin::new(&mut connection).poll(cx);
        gather.poll_driven(turn, cx).map(|turn| turn?.map_err(broken))
    };
    let said = poll_fn(|cx| match turn(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending if requests.current_max_send_streams() == NOT_SAID => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    });
    match timeout(connect_timeout, said).await {
        Ok(result) => result?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    }
    let link = Rc::new(Link {
        requests: RefCell::new(requests.clone()),
        state: RefCell::new(requests),
        secured,
        originated: peer.origination().is_some(),
        streams: Cell::new(0),
        waiting: RefCell::default(),
        is_closed: Cell::new(false),
        idle: kept.idle.map(|most| (most, Cell::new(Instant::now()))),
        _place: kept.place,
    });
    let (weak, address): (Weak<Link>, _) = (Rc::downgrade(&link), peer.address());
    tokio::task::spawn_local(async move {
        if let Err(error) = poll_fn(turn).await {
            tracing::debug!(%error, %address, "a connection to an endpoint broke");
        }
        if let Some(link) = weak.upgrade() {
            link.is_closed.set(true);
        }
    });
    Ok(link)
}

/// The connection's own error, where there is one.
fn broken(error: h2::Error) -> io::Error {
    if error.is_io() { error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()) } else { io::Error::other(error) }
}

fn client() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .data_frame_budget(FRAMES_BUDGET)
        .max_header_list_size(HEADER_LIST_MAX)
        .initial_max_send_streams(NOT_SAID)
        // What was on its way when a response was given up is no fault of the peer's, over the life of a connection however often.
        .max_local_error_reset_streams(None)
        .enable_push(false);
    builder
}
