//! The other end of a connection: dialled, and fed with bytes as they are.
//!
//! Reading order: [`opaque`], [`dial`], [`dial_peer`], [`pass_through`].

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use crate::connection::{Connection, Met, Side};
use crate::directory::EndpointState;
use crate::io::Io;
use crate::pool::{InFlight, Peer};
use crate::target::{self, OTHERS_MAX, Refusal};
use crate::tcp;
use crate::telemetry::{Destination, TcpRecord};
use crate::worker::Context;

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
pub(crate) async fn opaque(mut connection: Box<Connection>, dialled: Option<Dialled>) {
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
pub(crate) fn refuse(connection: &Connection, failure: &DialFailure) {
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
pub(crate) async fn dial(connection: &Connection) -> Result<Dialled, DialFailure> {
    let context = &*connection.context;
    let nobody = || Rc::new(Destination { service: None, version: None, route: None });
    match &connection.side {
        Side::Explicit => Err(DialFailure { refusal: Refusal::UnknownService, labels: nobody() }),
        Side::Inbound { app, labels, .. } => match dial_peer(app, context.settings.connect_timeout).await {
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
pub(crate) async fn pass_through(io: Io, peer: SocketAddr, address: SocketAddr, context: Rc<Context>) -> Option<Met> {
    let labels = Rc::new(Destination { service: None, version: None, route: None });
    let connection = Connection::new(io, peer, Side::Explicit, context);
    match Io::dial(address).await {
        Ok(io) => Some(Met::Opaque(connection, Some(Dialled::outside(io, address, labels)))),
        Err(error) => {
            tracing::debug!(%error, %address, "cannot reach an address outside the mesh");
            refuse(&connection, &DialFailure { refusal: Refusal::ConnectFailed, labels });
            None
        }
    }
}
