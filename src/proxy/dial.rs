//! The other end of a connection: dialled, and fed with bytes as they are.
//!
//! Reading order: [`opaque`], [`dial`], [`dial_peer`], [`DialError`], [`pass_through`].

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use leno_core::resilience::Outcome;
use tokio::time::timeout;

use crate::authorization::{self, Admission, Decided};
use crate::buffers::{Buffer, Buffers};
use crate::connection::{Connection, Met, Side};
use crate::endpoints::EndpointState;
use crate::idle::Idle;
use crate::io::Io;
use crate::pool::{InFlight, Peer};
use crate::target::{self, OTHERS_MAX, Refusal, Route};
use crate::tcp;
use crate::telemetry::{Destination, TcpRecord};
use crate::tls::hello::begins_tls;
use crate::tls::{Carries, End, Failed, Inner, Secured, TlsStream, Wrong};
use crate::worker::Context;

/// The other end of an opaque connection.
pub(crate) struct Dialled {
    pub(crate) io: Io,
    pub(crate) address: SocketAddr,
    pub(crate) labels: Rc<Destination>,
    /// Who is at both ends, where it is mutual TLS.
    pub(crate) secured: Option<Rc<Secured>>,
    /// What was heard of it already.
    said: Option<Box<Said>>,
    in_flight: Option<InFlight>,
}

/// What was heard of the other end before anything was carried.
enum Said {
    Bytes(Buffer),
    Broken(io::Error),
}

/// What the other end has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing yet.
    Nothing,
    /// Something, which is kept.
    Bytes,
    /// That it has nothing to say, or that it is gone.
    End,
}

impl Dialled {
    /// An address that is no endpoint of the mesh.
    pub(crate) fn outside(io: Io, address: SocketAddr, labels: Rc<Destination>) -> Self {
        Self { io, address, labels, secured: None, said: None, in_flight: None }
    }

    /// Reads what the other end has said, if anything.
    pub(crate) fn hear(&mut self, buffers: &Rc<Buffers>) -> Heard {
        let mut buffer = buffers.take();
        match self.io.try_read(buffer.spare()) {
            Ok(0) => Heard::End,
            Ok(read) => {
                buffer.fill(read);
                self.said = Some(Box::new(Said::Bytes(buffer)));
                Heard::Bytes
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Err(error) => {
                self.said = Some(Box::new(Said::Broken(error)));
                Heard::End
            }
        }
    }

    /// Whether nothing was heard of it.
    pub(crate) fn has_said_nothing(&self) -> bool {
        self.said.is_none()
    }

    /// It counts as nobody's connection any more.
    pub(crate) fn let_go(&mut self) {
        self.in_flight = None;
    }
}

/// Why there is no other end.
pub(crate) struct DialFailure {
    refusal: Refusal,
    labels: Rc<Destination>,
}

impl DialFailure {
    /// The app is not to be reached, and nothing of it is known but what the connection says.
    pub(crate) fn refused(connection: &Connection, refusal: Refusal) -> Self {
        let labels = match &connection.side {
            Side::Inbound { labels, .. } => Rc::clone(labels),
            Side::Outbound { .. } | Side::Outside { .. } | Side::Explicit => Rc::default(),
        };
        Self { refusal, labels }
    }
}

/// A connection that may pass, and its other end.
struct Joined {
    connection: Connection,
    dialled: Dialled,
    decided: Decided,
}

/// Carries the connection as it is, to `dialled` or to whom its side says.
pub(crate) async fn opaque(connection: Box<Connection>, dialled: Option<Box<Dialled>>) {
    // Boxed apart, so that a connection that rests later holds nothing of how it was dialled.
    let Some(joined) = Box::pin(join(connection, dialled)).await else { return };
    carry(joined).await;
}

/// Finds the other end of a connection that may pass.
async fn join(connection: Box<Connection>, dialled: Option<Box<Dialled>>) -> Option<Box<Joined>> {
    let Admission { refusal, decided, .. } = authorization::of_connection(&connection);
    if let Some(refusal) = refusal {
        refuse(&connection, &DialFailure::refused(&connection, refusal), &decided);
        return None;
    }
    let dialled = match dialled {
        Some(dialled) => *dialled,
        None => match dial(&connection, None).await {
            Ok(dialled) => dialled,
            Err(failure) => {
                refuse(&connection, &failure, &decided);
                return None;
            }
        },
    };
    Some(Box::new(Joined { connection: *connection, dialled, decided }))
}

async fn carry(mut joined: Box<Joined>) {
    let (first, said) = (joined.connection.first.take(), joined.dialled.said.take());
    let Joined { connection, dialled, decided } = &*joined;
    let heard = match said.map(|said| *said) {
        None => None,
        Some(Said::Bytes(heard)) => Some(heard),
        Some(Said::Broken(error)) => {
            connection.io.abort_on_close();
            return connection.record(dialled, decided, &tcp::Carried::cut(error));
        }
    };
    connection.io.established();
    let idle = dialled.in_flight.as_ref().and_then(InFlight::idle_timeout).map(Idle::new);
    let carried = tcp::tunnel(&connection.io, first, &dialled.io, heard, &connection.context.buffers, idle.as_ref()).await;
    connection.record(dialled, decided, &carried);
}

/// The connection cannot be carried: a reset says so.
pub(crate) fn refuse(connection: &Connection, failure: &DialFailure, decided: &Decided) {
    connection.io.refused(failure.refusal.status());
    connection.context.recorder.tcp(&TcpRecord {
        direction: connection.side.direction(),
        destination: &failure.labels,
        access: decided.access(),
        peer: connection.peer,
        upstream: None,
        secured: connection.secured().map(Rc::as_ref),
        reason: Some(failure.refusal.reason()),
        bytes_in: 0,
        bytes_out: 0,
        duration: connection.since.elapsed(),
    });
}

/// Dials whom the connection's side says, another endpoint when one does not accept. `left` is the endpoint that has just ended it:
/// others come first.
pub(crate) async fn dial(connection: &Connection, left: Option<SocketAddr>) -> Result<Dialled, DialFailure> {
    let context = &*connection.context;
    let nobody = || Rc::new(Destination { service: None, version: None, route: None });
    match &connection.side {
        Side::Explicit | Side::Outside { .. } => Err(DialFailure { refusal: Refusal::UnknownService, labels: nobody() }),
        Side::Inbound { app, labels, .. } => match dial_peer(app, Carries::Bytes, context).await {
            Ok(io) => Ok(Dialled { in_flight: Some(app.begin()), ..Dialled::outside(io, app.address(), Rc::clone(labels)) }),
            Err(error) => Err(DialFailure { refusal: error.refusal(), labels: Rc::clone(labels) }),
        },
        Side::Outbound { service, port } => {
            let gone = || DialFailure { refusal: Refusal::UnknownService, labels: nobody() };
            let view = service.view().ok_or_else(gone)?;
            let route = target::route_connection(&view, *port, connection.peer.ip(), &context.directory)
                .map_err(|refusal| DialFailure { refusal, labels: view.labels(&service.id, None, None) })?;
            let failed = |refusal| DialFailure { refusal, labels: route.labels(None::<&EndpointState>) };
            dial_endpoint(&route, left, connection).await.map_err(failed)
        }
    }
}

/// Dials one endpoint after the other, until one accepts or they are enough.
async fn dial_endpoint(route: &Route, left: Option<SocketAddr>, connection: &Connection) -> Result<Dialled, Refusal> {
    let context = &*connection.context;
    // What is TLS already is not encrypted once more.
    let is_tls = connection.first.as_ref().is_some_and(|first| begins_tls(first.filled()));
    let carries = if is_tls { Carries::OwnTls } else { Carries::Bytes };
    let (mut tried, mut refusal) = (Vec::from_iter(left), Refusal::NoEndpoint);
    let mut only = left;
    loop {
        let (endpoint, in_flight) = match route.pick(&tried, context).await {
            Ok(picked) => picked,
            // There is no other than the one that ended it: perhaps it still serves.
            Err(_) if only.take().is_some() => {
                tried.clear();
                continue;
            }
            Err(why) => return Err(if tried.is_empty() { why } else { refusal }),
        };
        only = None;
        let address = endpoint.peer.address();
        in_turn(&in_flight, connection).await?;
        match reach(&endpoint.peer, carries, in_flight.connect_timeout(context), context).await {
            Ok(io) => {
                in_flight.report(Outcome::Success, context);
                let (secured, labels) = (io.secured().cloned(), route.labels(Some(&endpoint)));
                return Ok(Dialled { secured, in_flight: Some(in_flight), ..Dialled::outside(io, address, labels) });
            }
            // Whoever may not pass there may not pass at another endpoint.
            Err(DialError::Refused(Refusal::Denied)) => return Err(Refusal::Denied),
            Err(error) => {
                error.log(address);
                in_flight.report(Outcome::Connect, context);
                refusal = error.refusal();
            }
        }
        tried.push(address);
        if tried.len() > OTHERS_MAX {
            return Err(refusal);
        }
    }
}

/// Why a peer could not be reached.
#[derive(Debug)]
pub(crate) enum DialError {
    /// It does not accept connections.
    Connect(io::Error),
    /// It accepted, and the handshake failed.
    Tls(Failed),
    /// Its proxy has no connection to the app, or lets this one not pass.
    Refused(Refusal),
}

impl DialError {
    /// What the client is told.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(_) => Refusal::ConnectFailed,
            Self::Refused(refusal) => *refusal,
            Self::Tls(Failed::Unproven(_)) => Refusal::NoCertificate,
            Self::Tls(Failed::Wrong(Wrong::Identity { .. })) => Refusal::IdentityMismatch,
            Self::Tls(Failed::Wrong(_) | Failed::Protocol(_) | Failed::Outside(_) | Failed::Io(_) | Failed::Timeout) => Refusal::TlsFailed,
        }
    }

    /// What people are told. Handshakes fail where something is wrong; connections also where pods come and go.
    pub(crate) fn log(&self, address: SocketAddr) {
        match self {
            Self::Connect(error) => tracing::debug!(%error, %address, "endpoint does not accept"),
            Self::Refused(refusal) => tracing::debug!(reason = refusal.reason(), %address, "the endpoint's proxy refused a connection"),
            Self::Tls(error) => tracing::warn!(%error, reason = error.reason(), %address, "no secure connection to an endpoint"),
        }
    }
}

/// Whether a connection to `peer` may be used at all: whoever has to prove itself must still be able to, even where a
/// connection made before goes on, or nobody would hear of a certificate that was not renewed.
pub(crate) fn may_use(peer: &Peer, context: &Context) -> Result<(), DialError> {
    match peer.identity() {
        None => Ok(()),
        Some(_) => context.security.check(crate::tls::now()).map_err(|unproven| DialError::Tls(Failed::Unproven(unproven))),
    }
}

/// Waits until there may be one more connection, for as long as the client is there.
async fn in_turn(in_flight: &InFlight, connection: &Connection) -> Result<(), Refusal> {
    let Some(attempt) = in_flight.attempt().filter(|attempt| attempt.limits_connections()) else { return Ok(()) };
    tokio::select! {
        biased;
        place = attempt.connection(&connection.context) => place?,
        _ = connection.io.dead() => return Err(Refusal::Overflow),
    }
    attempt.make_room();
    Ok(())
}

/// Connects to an endpoint for HTTP/1, or for bytes that are not looked at: through a tunnel, where it has to prove who it is.
pub(crate) async fn reach(peer: &Peer, carries: Carries, limit: Duration, context: &Context) -> Result<Io, DialError> {
    match (peer.identity(), carries) {
        (None, _) | (Some(_), Carries::Http2) => dial_within(peer, carries, limit, context).await,
        (Some(_), Carries::Http1) if peer.goes_alone() => dial_within(peer, carries, limit, context).await,
        (Some(_), Carries::Http1) => peer.http_tunnels.open(peer, carries, limit, context).await,
        (Some(_), Carries::Bytes | Carries::OwnTls) => peer.tunnels.open(peer, carries, limit, context).await,
    }
}

/// Dials a peer and, where it must, has it prove who it is; both within the connect timeout. The connection is nobody else's.
pub(crate) async fn dial_peer(peer: &Peer, carries: Carries, context: &Context) -> Result<Io, DialError> {
    dial_within(peer, carries, context.settings.connect_timeout, context).await
}

/// The same within `limit`.
pub(crate) async fn dial_within(peer: &Peer, carries: Carries, limit: Duration, context: &Context) -> Result<Io, DialError> {
    let inner = match carries {
        Carries::Http1 | Carries::Http2 => Inner::Http,
        Carries::Bytes | Carries::OwnTls => Inner::Tcp,
    };
    dial_for(peer, carries, inner, limit, context).await
}

/// The same for a connection with `inner` in it, where it is mutual TLS.
pub(crate) async fn dial_for(peer: &Peer, carries: Carries, inner: Inner, limit: Duration, context: &Context) -> Result<Io, DialError> {
    let settings = &context.settings;
    let mut is_connected = false;
    let reached = timeout(limit, async {
        let stream = crate::io::dial(peer.address()).await.map_err(DialError::Connect)?;
        is_connected = true;
        if let Some(origination) = peer.origination().filter(|_| carries != Carries::OwnTls) {
            let secured = TlsStream::originate(stream, origination, carries, &context.originator, &context.buffers);
            return secured.await.map(|stream| Io::Tls(Box::new(stream))).map_err(DialError::Tls);
        }
        let Some(identity) = peer.identity() else { return Ok(Io::Plain(stream)) };
        // A call to the pod's own address leads past the proxy: there is nobody to shake hands with but the app.
        if settings.intercepts && stream.local_addr().is_ok_and(|own| own.ip() == peer.address().ip()) {
            return Ok(Io::Plain(stream));
        }
        let secured = TlsStream::connect(stream, peer.address().ip(), identity, inner, &context.security, &context.buffers);
        secured.await.map(|stream| Io::Tls(Box::new(stream))).map_err(DialError::Tls)
    });
    let result = match reached.await {
        Ok(result) => result,
        Err(_) if is_connected => Err(DialError::Tls(Failed::Timeout)),
        Err(_) => Err(DialError::Connect(io::ErrorKind::TimedOut.into())),
    };
    match &result {
        // Those outside are not of the mesh.
        _ if peer.origination().is_some() => {}
        Ok(Io::Tls(stream)) => context.recorder.handshake(End::Client, "ok", stream.agreed().is_resumed),
        Err(DialError::Tls(failed)) => context.recorder.handshake(End::Client, failed.reason(), false),
        Ok(Io::Plain(_) | Io::Tunnelled(_)) | Err(DialError::Connect(_) | DialError::Refused(_)) => {}
    }
    result
}

/// To an address that is no service of the mesh: as if no proxy were there.
pub(crate) async fn pass_through(connection: Box<Connection>, address: SocketAddr) -> Option<Met> {
    let labels = Rc::new(Destination { service: None, version: None, route: None });
    match Io::dial(address).await {
        Ok(io) => Some(Met::Opaque(connection, Some(Box::new(Dialled::outside(io, address, labels))))),
        Err(error) => {
            tracing::debug!(%error, %address, "cannot reach an address outside the mesh");
            refuse(&connection, &DialFailure { refusal: Refusal::ConnectFailed, labels }, &Decided::default());
            None
        }
    }
}
