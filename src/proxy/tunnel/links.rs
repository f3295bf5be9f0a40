//! Tunnels to one peer: one carries many connections, another is opened when it is full.
//!
//! They belong to the [`Peer`]: when nobody holds it any more (its endpoint is gone), they close after their last stream.
//!
//! Reading order: [`Tunnels::open`], [`Link::is_usable`], [`Link::stream`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Method, Request, StatusCode, Uri};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::stream::TunnelStream;
use super::{CONNECTION_WINDOW, FRAME_MAX, FRAMES_BUDGET, HEADER_LIST_MAX, SEND_BUFFER_MAX, STREAM_WINDOW, STREAMS_MAX};
use crate::dial::{DialError, dial_for, dial_within, may_use};
use crate::gather::{Gather, Watched};
use crate::identity::Credentials;
use crate::io::Io;
use crate::pool::Peer;
use crate::target::Refusal;
use crate::tls::{Agreed, Carries, Failed, Inner, Secured, Standing, Unproven};
use crate::worker::Context;

/// How long a tunnel rests without a stream before it is closed: apps that open a connection now and then pay one handshake.
const REST_MAX: Duration = Duration::from_secs(300);
/// How long a peer that knows nothing of tunnels is dialled for each connection, before it is asked again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// Tunnels that a connection tries which turn out to be closed, before it has one made.
const STALE_MAX: usize = 2;

/// The tunnels to one peer that carry the same.
pub(crate) struct Tunnels {
    inner: Inner,
    links: RefCell<Vec<Rc<Link>>>,
    /// Held by the one connection that dials for all.
    dialling: Mutex<()>,
    /// Until when the peer is taken for one that knows nothing of tunnels.
    unknown_until: Cell<Option<Instant>>,
}

struct Link {
    requests: SendRequest<Bytes>,
    /// The peer's address, as a `CONNECT` must name one.
    authority: Uri,
    agreed: Agreed,
    secured: Option<Rc<Secured>>,
    standing: Standing,
    /// What this proxy has proven itself with.
    credentials: Arc<Credentials>,
    watched: Watched,
    streams: Cell<usize>,
    is_closed: Cell<bool>,
    /// Since when it has no stream.
    idle_since: Cell<Instant>,
}

/// One connection's place in a tunnel.
pub(super) struct Lease(Rc<Link>);

impl Lease {
    fn new(link: &Rc<Link>) -> Self {
        link.streams.set(link.streams.get() + 1);
        Self(Rc::clone(link))
    }

    /// Who is at both ends.
    pub(super) fn secured(&self) -> Option<Rc<Secured>> {
        self.0.secured.clone()
    }

    /// Whether the tunnel is open, as the kernel knows it now.
    pub(super) fn is_open(&self) -> bool {
        self.0.watched.is_open()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
    }
}

/// Why a tunnel carries no further connection.
enum NoStream {
    /// The tunnel is not to be used any more.
    Stale(DialError),
    /// The peer's proxy has no connection to its app, or lets this one not pass.
    Refused(StatusCode),
}

impl Tunnels {
    /// Tunnels for what `inner` says.
    pub(crate) fn with(inner: Inner) -> Self {
        Self { inner, links: RefCell::default(), dialling: Mutex::default(), unknown_until: Cell::default() }
    }

    /// A connection to `peer`, which these are the tunnels of: a stream of one, or a connection of its own where the peer's proxy knows
    /// nothing of tunnels. `limit` is for the tunnel to be there, and for the app to accept.
    pub(crate) async fn open(&self, peer: &Peer, carries: Carries, limit: Duration, context: &Context) -> Result<Io, DialError> {
        may_use(peer, context)?;
        for _ in 0..=STALE_MAX {
            if self.is_unknown_there() {
                return dial_within(peer, carries, limit, context).await;
            }
            let lease = match self.existing(context) {
                Some(lease) => lease,
                None => match timeout(limit, Box::pin(self.made(peer, carries, limit, context))).await {
                    Ok(Ok(Made::Tunnel(lease))) => lease,
                    Ok(Ok(Made::Alone(io))) => return Ok(io),
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(DialError::Connect(io::ErrorKind::TimedOut.into())),
                },
            };
            match stream(lease, limit).await {
                Ok(stream) => return Ok(Io::Tunnelled(Box::new(stream))),
                Err(NoStream::Refused(StatusCode::FORBIDDEN)) => return Err(DialError::Refused(Refusal::Denied)),
                Err(NoStream::Refused(_)) => return Err(DialError::Refused(Refusal::ConnectFailed)),
                // What TLS has to say comes after this end's handshake: the peer did not take this proxy's certificate.
                Err(NoStream::Stale(error @ DialError::Tls(_))) => return Err(error),
                Err(NoStream::Stale(error)) => error.log(peer.address()),
            }
        }
        Err(DialError::Connect(io::ErrorKind::ConnectionAborted.into()))
    }

    fn is_unknown_there(&self) -> bool {
        self.unknown_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// A place in a tunnel that is there. Those that are not to be used any more are let go.
    fn existing(&self, context: &Context) -> Option<Lease> {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.is_usable(context));
        links.iter().find(|link| link.has_room()).map(Lease::new)
    }

    /// A place in a tunnel that another connection has made meanwhile, or this one makes.
    async fn made(&self, peer: &Peer, carries: Carries, limit: Duration, context: &Context) -> Result<Made, DialError> {
        let _dialling = self.dialling.lock().await;
        if let Some(lease) = self.existing(context) {
            return Ok(Made::Tunnel(lease));
        }
        let stream = match dial_for(peer, carries, self.inner, limit, context).await? {
            Io::Tls(stream) if stream.inner() == Some(self.inner) => stream,
            alone @ (Io::Plain(_) | Io::Tls(_) | Io::Tunnelled(_)) => {
                self.unknown_until.set(Some(Instant::now() + UNKNOWN_FOR));
                return Ok(Made::Alone(alone));
            }
        };
        let unproven = |why| DialError::Tls(Failed::Unproven(why));
        let roots = context.security.roots().ok_or(unproven(Unproven::NoTrust))?;
        let credentials = context.security.credentials().ok_or(unproven(Unproven::NoCertificate))?;
        let standing = stream.standing(roots, peer.identity()).ok_or(unproven(Unproven::NoTrust))?;
        let (agreed, secured) = (stream.agreed(), stream.secured().cloned());
        let gather = Gather::new(Io::Tls(stream), &context.buffers);
        let (requests, connection) = client().handshake::<_, Bytes>(gather.clone()).await.map_err(failed)?;
        gather.driven();
        let authority = Uri::try_from(peer.address().to_string()).map_err(|error| DialError::Connect(io::Error::other(error)))?;
        let link = Rc::new(Link {
            requests,
            authority,
            agreed,
            secured,
            standing,
            credentials,
            watched: gather.watched(),
            streams: Cell::new(0),
            is_closed: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
        });
        tokio::task::spawn_local(drive(connection, gather, Rc::downgrade(&link)));
        self.links.borrow_mut().push(Rc::clone(&link));
        Ok(Made::Tunnel(Lease::new(&link)))
    }

    /// Closes tunnels that have had nothing to carry for long.
    pub(crate) fn sweep(&self, now: Instant) {
        let rests = |link: &Rc<Link>| {
            link.streams.get() == 0 && (link.is_closed.get() || now.saturating_duration_since(link.idle_since.get()) >= REST_MAX)
        };
        self.links.borrow_mut().retain(|link| !rests(link));
    }
}

enum Made {
    Tunnel(Lease),
    /// The peer's proxy knows nothing of tunnels, or there is none.
    Alone(Io),
}

impl Link {
    /// Whether it takes new connections: open, and both ends can still prove what they have proven.
    fn is_usable(&self, context: &Context) -> bool {
        let mut cx = TaskContext::from_waker(Waker::noop());
        // A handle that has sent nothing never waits: the answer is there at once.
        let is_open = !self.is_closed.get() && matches!(self.requests.clone().poll_ready(&mut cx), Poll::Ready(Ok(())));
        let (Some(roots), Some(credentials)) = (context.security.roots(), context.security.credentials()) else { return false };
        is_open && Arc::ptr_eq(&credentials, &self.credentials) && self.standing.check(&roots, crate::tls::now()).is_ok()
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.requests.current_max_send_streams().min(STREAMS_MAX)
    }
}

/// Opens a connection in a tunnel, and waits until the app has accepted it.
async fn stream(lease: Lease, limit: Duration) -> Result<TunnelStream, NoStream> {
    let link = Rc::clone(&lease.0);
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = link.authority.clone();
    let stale = |error| {
        link.is_closed.set(true);
        NoStream::Stale(error)
    };
    let (response, to) = link.requests.clone().send_request(request, false).map_err(|error| stale(failed(error)))?;
    let response = match timeout(limit, response).await {
        Ok(response) => response.map_err(|error| stale(failed(error)))?,
        Err(_) => return Err(stale(DialError::Connect(io::ErrorKind::TimedOut.into()))),
    };
    match response.status() {
        StatusCode::OK => Ok(TunnelStream::opened(response.into_body(), to, link.agreed, lease)),
        status => Err(NoStream::Refused(status)),
    }
}

/// Drives a tunnel to its end.
async fn drive(mut connection: h2::client::Connection<Gather, Bytes>, gather: Gather, link: Weak<Link>) {
    let ended = poll_fn(|cx| {
        let turn = Pin::new(&mut connection).poll(cx);
        gather.poll_driven(turn, cx).map(|turn| turn?.map_err(io::Error::other))
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a tunnel broke");
    }
    if let Some(link) = link.upgrade() {
        link.is_closed.set(true);
    }
}

/// Why the tunnel does not carry.
fn failed(error: h2::Error) -> DialError {
    if !error.is_io() {
        return DialError::Connect(io::Error::other(error));
    }
    match error.into_io() {
        Some(error) if error.kind() == io::ErrorKind::InvalidData => DialError::Tls(error.into()),
        Some(error) => DialError::Connect(error),
        None => DialError::Connect(io::ErrorKind::ConnectionReset.into()),
    }
}

fn client() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .max_frame_size(FRAME_MAX)
        .data_frame_budget(FRAMES_BUDGET)
        .max_header_list_size(HEADER_LIST_MAX)
        // What was on its way when a stream was reset is no fault of the peer's, over the life of a tunnel however often.
        .max_local_error_reset_streams(None)
        .initial_max_send_streams(STREAMS_MAX)
        .enable_push(false);
    builder
}
