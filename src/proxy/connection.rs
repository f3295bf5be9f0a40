//! The life of a connection, before and beside HTTP: which service is meant, what is spoken, who carries it.
//!
//! Reading order: [`carry`], `meet`, `outbound` and `inbound`, `detected`. The other end is in [`crate::dial`], clients that say
//! nothing in [`crate::first_word`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use leno_core::names::Name;
use leno_core::request::Caller;
use leno_core::service::Protocol;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admit::{Came, admit};
use crate::authorization::Decided;
use crate::buffers::Buffer;
use crate::control::Alias;
use crate::detect::{Verdict, detect};
use crate::dial::{DialFailure, Dialled, opaque, refuse};
use crate::directory::ServiceState;
use crate::egress::outside;
use crate::first_word::silent;
use crate::http1;
use crate::http1::head::HeadError;
use crate::http2;
use crate::io::Io;
use crate::listen::Accept;
use crate::original_dst::original_destination;
use crate::pool::Peer;
use crate::target::Refusal;
use crate::tcp;
use crate::telemetry::{Destination, Direction, TcpRecord};
use crate::tls::{Agreed, Inner, Secured};
use crate::tunnel;
use crate::worker::Context;

/// A connection somebody opened to this proxy.
pub struct Connection {
    /// The connection.
    pub io: Io,
    /// Who opened it.
    pub peer: SocketAddr,
    /// Who that has proven to be: nobody, on a plain connection.
    pub caller: Rc<Caller>,
    /// What the handshake agreed on, where the connection is mutual TLS.
    pub tls: Option<Agreed>,
    /// Which way its traffic goes, and to whom.
    pub side: Side,
    /// What was read of it and is not used yet.
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
    /// From the app to an address outside that nobody registers: each request may name something registered.
    Outside {
        /// The port that was dialled.
        port: u16,
    },
    /// To the app.
    Inbound {
        /// The app.
        app: Rc<Peer>,
        /// The app's port, as the workload and its policies know it.
        port: u16,
        /// Which service leads here.
        labels: Rc<Destination>,
    },
}

impl Side {
    /// The direction, for telemetry.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Outbound { .. } | Self::Outside { .. } | Self::Explicit => Direction::Outbound,
            Self::Inbound { .. } => Direction::Inbound,
        }
    }
}

/// A connection of which it is known what it speaks.
pub(crate) enum Met {
    /// HTTP/1.
    Http1(Box<Connection>),
    /// HTTP/2.
    Http2(Box<Connection>),
    /// Bytes to be carried as they are, to the other end if it has been dialled already.
    Opaque(Box<Connection>, Option<Box<Dialled>>),
    /// A tunnel of another proxy.
    Tunnel(Box<Connection>),
}

/// Carries one accepted connection to its end.
pub(crate) fn carry(accept: Rc<Accept>, stream: TcpStream, peer: SocketAddr, context: Rc<Context>) -> impl Future<Output = ()> {
    let direction = match &*accept {
        Accept::OutboundTransparent | Accept::OutboundExplicit | Accept::OutboundService { .. } => Direction::Outbound,
        Accept::InboundTransparent | Accept::InboundApp { .. } => Direction::Inbound,
    };
    let open = context.recorder.connection_opened(direction);
    // Boxed apart, so that a connection that rests later holds nothing of how it began.
    let met = Box::pin(async move { meet(&accept, stream, peer, context).await });
    async move {
        let Some(met) = met.await else { return };
        // What a tunnel carries is counted instead.
        let _open = (!matches!(met, Met::Tunnel(_))).then_some(open);
        go_on(met).await;
    }
}

/// Carries a connection of which it is known what it speaks, in a box as large as that takes.
pub(crate) fn go_on(met: Met) -> Pin<Box<dyn Future<Output = ()>>> {
    match met {
        Met::Http1(connection) => Box::pin(http1::serve(connection)),
        Met::Http2(connection) => Box::pin(http2::serve(*connection)),
        Met::Opaque(connection, dialled) => Box::pin(opaque(connection, dialled)),
        Met::Tunnel(connection) => Box::pin(tunnel::serve(connection)),
    }
}

/// Finds out which service is meant and what is spoken; `None` when the connection is over by then.
async fn meet(accept: &Accept, stream: TcpStream, peer: SocketAddr, context: Rc<Context>) -> Option<Met> {
    let original = original(accept, &stream, peer, &context)?;
    let io = Io::Plain(stream);
    match (accept, original) {
        (Accept::OutboundTransparent, address) => match context.directory.resolve(&Alias::Address(address)).await {
            Some(service) if !is_outside(&service) => outbound(io, peer, service, address.port(), None, context).await,
            known => Box::pin(outside(io, peer, address, known, context)).await,
        },
        (Accept::InboundTransparent, address) => inbound(io, peer, address, address.port(), context).await,
        (Accept::InboundApp { app, port }, _) => inbound(io, peer, *app, *port, context).await,
        (Accept::OutboundService { service, port }, _) => match context.directory.resolve(&Alias::Service(service.clone())).await {
            Some(service) => outbound(io, peer, service, *port, None, context).await,
            None => {
                tracing::warn!(%service, %peer, "closed a connection to a service nobody knows");
                None
            }
        },
        (Accept::OutboundExplicit, _) => http(Connection::new(io, peer, Side::Explicit, context)).await,
    }
}

/// Whether `service` is something outside the cluster, so that its address may be another one's too.
fn is_outside(service: &ServiceState) -> bool {
    service.view().is_some_and(|view| view.service.outside)
}

/// Where a redirected connection was going; any address where that is known otherwise. `None` is logged, and closes it.
fn original(accept: &Accept, stream: &TcpStream, peer: SocketAddr, context: &Context) -> Option<SocketAddr> {
    match accept {
        Accept::OutboundExplicit | Accept::OutboundService { .. } | Accept::InboundApp { .. } => Some(peer),
        Accept::OutboundTransparent | Accept::InboundTransparent => match original_destination(stream) {
            Ok(Some(address)) if !context.own_addresses.contains(&address) => Some(address),
            Ok(_) => {
                tracing::warn!(%peer, ?accept, "closed a connection made straight to a port of the proxy: it has no other destination");
                None
            }
            Err(error) => {
                tracing::warn!(%error, %peer, ?accept, "closed a connection whose destination cannot be found");
                None
            }
        },
    }
}

/// To a service of the mesh.
pub(crate) async fn outbound(
    io: Io,
    peer: SocketAddr,
    service: Rc<ServiceState>,
    port: u16,
    first: Option<Buffer>,
    context: Rc<Context>,
) -> Option<Met> {
    let protocol = service.view().and_then(|view| view.service.port(port).map(|port| port.protocol)).unwrap_or_default();
    let mut connection = Connection::new(io, peer, Side::Outbound { service, port }, context);
    connection.first = first;
    by_protocol(connection, protocol).await
}

/// To the app beside this proxy.
async fn inbound(io: Io, peer: SocketAddr, app: SocketAddr, port: u16, context: Rc<Context>) -> Option<Met> {
    if context.settings.identity {
        context.directory.wait_for_workload().await;
    }
    let workload = context.directory.workload();
    let known = workload.as_ref().and_then(|workload| workload.inbound(port));
    let labels = Rc::new(Destination {
        service: known.map(|known| known.service.clone()),
        version: known.and_then(|known| known.version.clone()),
        route: None,
    });
    let protocol = known.map_or(Protocol::Detect, |known| known.protocol);
    let side = Side::Inbound { app: context.app(app), port, labels };
    match Box::pin(admit(Connection::new(io, peer, side, context), protocol)).await? {
        // Where rules are to be expected, nothing passes before they are known.
        (connection, Came::Proven(_)) if connection.context.directory.workload().is_none() => {
            refuse(&connection, &DialFailure::refused(&connection, Refusal::NoRules), &Decided::default());
            None
        }
        (connection, Came::Proven(Inner::Http) | Came::ForProbes) => http(connection).await,
        (connection, Came::Proven(inner)) => Some(unread(connection, inner)),
        (connection, Came::Plain) => by_protocol(connection, protocol).await,
        (connection, Came::Silent) => {
            if protocol == Protocol::Detect {
                connection.context.recorder.detection_timed_out();
            }
            Box::pin(silent(connection, protocol)).await
        }
    }
}

/// What another proxy carries without looking at it, or in tunnels: one connection, or many.
pub(crate) fn unread(connection: Box<Connection>, inner: Inner) -> Met {
    if inner.is_tunnel() { Met::Tunnel(connection) } else { Met::Opaque(connection, None) }
}

async fn by_protocol(connection: Box<Connection>, protocol: Protocol) -> Option<Met> {
    match protocol {
        Protocol::Tls | Protocol::Tcp => Some(Met::Opaque(connection, None)),
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => http(connection).await,
        Protocol::Detect => detected(connection).await,
    }
}

/// HTTP is declared: the preface tells version 2 from version 1.
pub(crate) async fn http(mut connection: Box<Connection>) -> Option<Met> {
    loop {
        match detect(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            Verdict::Http2 => return Some(Met::Http2(connection)),
            Verdict::Http1 | Verdict::Opaque => return Some(Met::Http1(connection)),
            Verdict::NeedMore => connection.read_begun().await?,
        }
    }
}

/// The protocol is not declared: the first bytes tell.
async fn detected(mut connection: Box<Connection>) -> Option<Met> {
    let context = Rc::clone(&connection.context);
    loop {
        match detect(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            Verdict::Http1 => return Some(Met::Http1(connection)),
            Verdict::Http2 => return Some(Met::Http2(connection)),
            Verdict::Opaque => return Some(Met::Opaque(connection, None)),
            Verdict::NeedMore => {}
        }
        match timeout(context.settings.detect_timeout, connection.read_first()).await {
            Ok(Ok(1..)) => {}
            // Closed, or half closed, before it said anything whole: the server may still have something to say.
            Ok(Ok(0)) => return Some(Met::Opaque(connection, None)),
            Ok(Err(_)) => return None,
            Err(_) => {
                context.recorder.detection_timed_out();
                if connection.first.is_some() {
                    return Some(Met::Opaque(connection, None));
                }
                return Box::pin(silent(connection, Protocol::Detect)).await;
            }
        }
    }
}

impl Connection {
    pub(crate) fn new(io: Io, peer: SocketAddr, side: Side, context: Rc<Context>) -> Box<Self> {
        let caller = Rc::clone(&context.stranger);
        Box::new(Self { io, peer, caller, tls: None, side, first: None, context, since: Instant::now() })
    }

    /// Reads more of the first bytes; holds no buffer before there are any.
    pub(crate) async fn read_first(&mut self) -> io::Result<usize> {
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

    /// Reads more where the client is to speak first; `None` when it does not. It may rest before its first byte for as long as the
    /// worker goes on, and afterwards for no longer than a head may take.
    pub(crate) async fn read_begun(&mut self) -> Option<()> {
        let context = Rc::clone(&self.context);
        let has_begun = self.first.is_some();
        let read = context.draining.or_else(self.read_first());
        let read = if has_begun {
            match timeout(context.settings.head_timeout, read).await {
                Ok(read) => read,
                Err(_) => {
                    context.recorder.abused(self.side.direction(), HeadError::TooSlow.reason());
                    None
                }
            }
        } else {
            read.await
        };
        matches!(read, Some(Ok(1..))).then_some(())
    }

    /// Who is at both ends, where the client's end is mutual TLS.
    pub(crate) fn secured(&self) -> Option<&Rc<Secured>> {
        self.io.secured()
    }

    /// Keeps the record of an opaque connection.
    pub(crate) fn record(&self, dialled: &Dialled, decided: &Decided, carried: &tcp::Carried) {
        self.context.recorder.tcp(&TcpRecord {
            direction: self.side.direction(),
            destination: &dialled.labels,
            access: decided.access(),
            peer: self.peer,
            upstream: Some(dialled.address),
            secured: dialled.secured.as_deref().or(self.secured().map(Rc::as_ref)),
            reason: carried.reason(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that an async function makes, from its type alone.
    fn size<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_one<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// A resting connection is its task and, boxed in it, the connection and the HTTP loop: all must stay small.
    #[test]
    fn a_resting_connection_is_small() {
        let task = size(carry);
        let serve = size_of_one(http1::serve);
        let all = task + serve + size_of::<Connection>();
        assert!(all <= 352, "task {task}, HTTP loop {serve}, connection {}", size_of::<Connection>());
    }
}
