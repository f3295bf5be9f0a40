//! The life of a connection, before and beside HTTP: which service is meant, what is spoken, who carries it.
//!
//! Reading order: [`carry`], `outbound`, `inbound`, `detect_outbound`.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use leno_core::names::Name;
use leno_core::service::Protocol;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::buffers::Buffer;
use crate::control::Alias;
use crate::detect::{Verdict, detect};
use crate::directory::{EndpointState, ServiceState};
use crate::http1;
use crate::http2;
use crate::io::Io;
use crate::listen::Accept;
use crate::original_dst::original_destination;
use crate::pool::{InFlight, Peer};
use crate::target::{self, OTHERS_MAX, Refusal};
use crate::tcp;
use crate::telemetry::{Destination, Direction, TcpRecord};
use crate::worker::Context;

/// A connection somebody opened to this proxy.
pub struct Connection {
    /// The connection.
    pub io: Io,
    /// Who opened it.
    pub peer: SocketAddr,
    /// Which way its traffic goes, and to whom.
    pub side: Side,
    /// What was read of it already.
    pub first: Option<Buffer>,
    /// The worker.
    pub context: Rc<Context>,
    /// When it was accepted.
    pub since: Instant,
}

/// Which way traffic goes, and to whom.
#[derive(Clone)]
pub enum Side {
    /// From the app to a service.
    Outbound {
        /// The service.
        service: Rc<ServiceState>,
        /// Its port.
        port: u16,
    },
    /// From the app to whatever service each request names.
    Explicit,
    /// To the app.
    Inbound {
        /// The app.
        app: Rc<Peer>,
        /// Which service leads here.
        labels: Rc<Destination>,
    },
}

impl Side {
    /// The direction, for telemetry.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Outbound { .. } | Self::Explicit => Direction::Outbound,
            Self::Inbound { .. } => Direction::Inbound,
        }
    }
}

/// Carries one accepted connection to its end.
pub(crate) async fn carry(accept: &Accept, stream: TcpStream, peer: SocketAddr, context: Rc<Context>) {
    let direction = match accept {
        Accept::OutboundTransparent | Accept::OutboundExplicit | Accept::OutboundService { .. } => Direction::Outbound,
        Accept::InboundTransparent | Accept::InboundApp { .. } => Direction::Inbound,
    };
    let _open = context.recorder.connection_opened(direction);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "the client is gone");
        return;
    }
    let original = match accept {
        Accept::OutboundTransparent | Accept::InboundTransparent => match original_destination(&stream) {
            Ok(Some(address)) if !context.own_addresses.contains(&address) => Some(address),
            Ok(_) => {
                tracing::warn!(%peer, ?accept, "closed a connection made straight to a port of the proxy: it has no other destination");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, %peer, ?accept, "closed a connection whose destination cannot be found");
                return;
            }
        },
        Accept::OutboundExplicit | Accept::OutboundService { .. } | Accept::InboundApp { .. } => None,
    };
    let io = Io::Plain(stream);
    match (accept, original) {
        (Accept::OutboundTransparent, Some(address)) => match context.directory.resolve(&Alias::Address(address)).await {
            Some(service) => outbound(io, peer, service, address.port(), None, context).await,
            None => pass_through(io, peer, address, context).await,
        },
        (Accept::InboundTransparent, Some(address)) => inbound(io, peer, address, address.port(), context).await,
        (Accept::InboundApp { app, port }, _) => inbound(io, peer, *app, *port, context).await,
        (Accept::OutboundService { service, port }, _) => match context.directory.resolve(&Alias::Service(service.clone())).await {
            Some(service) => outbound(io, peer, service, *port, None, context).await,
            None => tracing::warn!(%service, %peer, "closed a connection to a service nobody knows"),
        },
        (Accept::OutboundExplicit, _) => {
            let connection = Connection::new(io, peer, Side::Explicit, context);
            http(connection).await;
        }
        (Accept::OutboundTransparent | Accept::InboundTransparent, None) => {}
    }
}

/// To a service of the mesh.
pub(crate) async fn outbound(io: Io, peer: SocketAddr, service: Rc<ServiceState>, port: u16, first: Option<Buffer>, context: Rc<Context>) {
    let protocol = protocol_of(&service, port);
    let mut connection = Connection::new(io, peer, Side::Outbound { service, port }, context);
    connection.first = first;
    by_protocol(connection, protocol).await;
}

fn protocol_of(service: &ServiceState, port: u16) -> Protocol {
    service.view().and_then(|view| view.service.port(port).map(|port| port.protocol)).unwrap_or_default()
}

/// To the app beside this proxy.
async fn inbound(io: Io, peer: SocketAddr, app: SocketAddr, port: u16, context: Rc<Context>) {
    let workload = context.directory.workload();
    let known = workload.as_ref().and_then(|workload| workload.inbound(port));
    let labels = Rc::new(Destination {
        service: known.map(|known| known.service.clone()),
        version: known.and_then(|known| known.version.clone()),
        route: None,
    });
    let protocol = known.map_or(Protocol::Detect, |known| known.protocol);
    let side = Side::Inbound { app: context.app(app), labels };
    by_protocol(Connection::new(io, peer, side, context), protocol).await;
}

async fn by_protocol(connection: Connection, protocol: Protocol) {
    match protocol {
        Protocol::Tls | Protocol::Tcp => opaque(connection, None).await,
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => http(connection).await,
        Protocol::Detect => Box::pin(detected(connection)).await,
    }
}

/// HTTP is declared: the preface tells version 2 from version 1.
async fn http(mut connection: Connection) {
    loop {
        match detect(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            Verdict::Http2 => return http2(connection).await,
            Verdict::Http1 | Verdict::Opaque => return http1(connection).await,
            Verdict::NeedMore => {
                let context = Rc::clone(&connection.context);
                match context.draining.or_else(connection.read_first()).await {
                    Some(Ok(1..)) => {}
                    Some(Ok(0) | Err(_)) | None => return,
                }
            }
        }
    }
}

/// The protocol is not declared: the first bytes tell.
async fn detected(mut connection: Connection) {
    let context = Rc::clone(&connection.context);
    loop {
        let verdict = detect(connection.first.as_ref().map_or(&[], Buffer::filled));
        match verdict {
            Verdict::Http1 => return http1(connection).await,
            Verdict::Http2 => return http2(connection).await,
            Verdict::Opaque => return opaque(connection, None).await,
            Verdict::NeedMore => {}
        }
        match timeout(context.settings.detect_timeout, connection.read_first()).await {
            Ok(Ok(1..)) => {}
            // Closed, or half closed, before it said anything whole: the server may still have something to say.
            Ok(Ok(0)) => return opaque(connection, None).await,
            Ok(Err(_)) => return,
            Err(_) => {
                context.recorder.detection_timed_out();
                if connection.first.is_some() {
                    return opaque(connection, None).await;
                }
                return silent(connection).await;
            }
        }
    }
}

/// The client says nothing: perhaps the server speaks first. It is dialled, and both are listened to.
async fn silent(mut connection: Connection) {
    let dialled = match dial(&connection).await {
        Ok(dialled) => dialled,
        Err(failure) => return refuse(&connection, &failure),
    };
    let server_speaks = tokio::select! {
        biased;
        _ = dialled.io.readable() => true,
        _ = connection.io.readable() => false,
    };
    if server_speaks {
        return opaque(connection, Some(dialled)).await;
    }
    let wait = connection.context.settings.detect_timeout;
    loop {
        match detect(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            Verdict::Http1 => return http1(connection).await,
            Verdict::Http2 => return http2(connection).await,
            Verdict::Opaque => return opaque(connection, Some(dialled)).await,
            Verdict::NeedMore => match timeout(wait, connection.read_first()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) | Err(_) => return opaque(connection, Some(dialled)).await,
                Ok(Err(_)) => return,
            },
        }
    }
}

async fn http1(connection: Connection) {
    Box::pin(http1::serve(connection)).await;
}

async fn http2(connection: Connection) {
    Box::pin(http2::serve(connection)).await;
}

/// The other end of an opaque connection.
pub(crate) struct Dialled {
    pub(crate) io: Io,
    pub(crate) address: SocketAddr,
    pub(crate) labels: Rc<Destination>,
    _in_flight: Option<InFlight>,
}

impl Dialled {
    /// An address that is no endpoint of the mesh.
    pub(crate) fn outside(io: Io, address: SocketAddr, labels: Rc<Destination>) -> Self {
        Self { io, address, labels, _in_flight: None }
    }
}

/// Why there is no other end.
pub(crate) struct DialFailure {
    refusal: Refusal,
    labels: Rc<Destination>,
}

/// Carries the connection as it is, to `dialled` or to whom its side says.
pub(crate) async fn opaque(mut connection: Connection, dialled: Option<Dialled>) {
    let dialled = match dialled {
        Some(dialled) => dialled,
        None => match Box::pin(dial(&connection)).await {
            Ok(dialled) => dialled,
            Err(failure) => return refuse(&connection, &failure),
        },
    };
    let first = connection.first.take();
    let carried = Box::pin(tcp::tunnel(&connection.io, first, &dialled.io, None, &connection.context.buffers)).await;
    connection.record(&dialled.labels, Some(dialled.address), &carried);
}

/// The connection cannot be carried: a reset says so.
fn refuse(connection: &Connection, failure: &DialFailure) {
    connection.io.abort_on_close();
    connection.context.recorder.tcp(&TcpRecord {
        direction: connection.side.direction(),
        destination: &failure.labels,
        peer: connection.peer,
        upstream: None,
        reason: Some(failure.refusal.reason()),
        bytes_in: 0,
        bytes_out: 0,
        duration: connection.since.elapsed(),
    });
}

/// Dials whom the connection's side says, another endpoint when one does not accept.
async fn dial(connection: &Connection) -> Result<Dialled, DialFailure> {
    let context = &*connection.context;
    let nobody = || Rc::new(Destination { service: None, version: None, route: None });
    match &connection.side {
        Side::Explicit => Err(DialFailure { refusal: Refusal::UnknownService, labels: nobody() }),
        Side::Inbound { app, labels } => match dial_peer(app, context.settings.connect_timeout).await {
            Ok(io) => Ok(Dialled { io, address: app.address(), labels: Rc::clone(labels), _in_flight: Some(app.begin()) }),
            Err(_) => Err(DialFailure { refusal: Refusal::ConnectFailed, labels: Rc::clone(labels) }),
        },
        Side::Outbound { service, port } => {
            let gone = || DialFailure { refusal: Refusal::UnknownService, labels: nobody() };
            let view = service.view().ok_or_else(gone)?;
            let route = target::route_connection(&view, *port, &context.directory)
                .map_err(|refusal| DialFailure { refusal, labels: view.labels(&service.id, None, None) })?;
            let mut tried = Vec::new();
            while let Some((endpoint, in_flight)) = route.pick(&tried, context).await {
                let address = endpoint.peer.address();
                match dial_peer(&endpoint.peer, context.settings.connect_timeout).await {
                    Ok(io) => return Ok(Dialled { io, address, labels: route.labels(Some(&endpoint)), _in_flight: Some(in_flight) }),
                    Err(error) => tracing::debug!(%error, %address, service = %service.id, "endpoint does not accept"),
                }
                tried.push(address);
                if tried.len() > OTHERS_MAX {
                    break;
                }
            }
            let refusal = if tried.is_empty() { Refusal::NoEndpoint } else { Refusal::ConnectFailed };
            Err(DialFailure { refusal, labels: route.labels(None::<&EndpointState>) })
        }
    }
}

/// Dials a peer, within `limit`.
pub(crate) async fn dial_peer(peer: &Peer, limit: Duration) -> io::Result<Io> {
    match timeout(limit, Io::dial(peer.address())).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// To an address that is no service of the mesh: as if no proxy were there.
async fn pass_through(io: Io, peer: SocketAddr, address: SocketAddr, context: Rc<Context>) {
    let labels = Rc::new(Destination { service: None, version: None, route: None });
    let target = Rc::new(Destination { service: None, version: None, route: None });
    let connection = Connection::new(io, peer, Side::Explicit, context);
    match Box::pin(Io::dial(address)).await {
        Ok(io) => opaque(connection, Some(Dialled::outside(io, address, target))).await,
        Err(error) => {
            tracing::debug!(%error, %address, "cannot reach an address outside the mesh");
            refuse(&connection, &DialFailure { refusal: Refusal::ConnectFailed, labels });
        }
    }
}

impl Connection {
    pub(crate) fn new(io: Io, peer: SocketAddr, side: Side, context: Rc<Context>) -> Self {
        Self { io, peer, side, first: None, context, since: Instant::now() }
    }

    /// Reads more of the first bytes; holds no buffer before there are any.
    async fn read_first(&mut self) -> io::Result<usize> {
        loop {
            self.io.readable().await?;
            let mut buffer = self.first.take().unwrap_or_else(|| self.context.buffers.take());
            match self.io.try_read(buffer.spare()) {
                Ok(read) => {
                    buffer.fill(read);
                    if read > 0 || !buffer.is_empty() {
                        self.first = Some(buffer);
                    }
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !buffer.is_empty() {
                        self.first = Some(buffer);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the record of an opaque connection.
    pub(crate) fn record(&self, labels: &Destination, upstream: Option<SocketAddr>, carried: &tcp::Carried) {
        self.context.recorder.tcp(&TcpRecord {
            direction: self.side.direction(),
            destination: labels,
            peer: self.peer,
            upstream,
            reason: carried.cut.as_ref().map(|_| "cut"),
            bytes_in: carried.bytes_in,
            bytes_out: carried.bytes_out,
            duration: self.since.elapsed(),
        });
    }
}

/// The host name of an authority as an alias: lower case, without a final dot.
pub(crate) fn host_alias(host: &str) -> Alias {
    let host = host.strip_suffix('.').unwrap_or(host);
    Alias::Host(Name::from(host.to_ascii_lowercase()))
}
