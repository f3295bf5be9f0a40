//! Requests sent to the proxy on purpose, as to an HTTP proxy: `Host`, an absolute target or `CONNECT` names the service.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;

use leno_core::names::split_authority;
use tokio::net::lookup_host;

use super::head::{Head, HeadError};
use super::request::{Form, Request};
use crate::buffers::Buffer;
use crate::connection::{Connection, Met, Side, go_on as carry_on, host_alias, outbound};
use crate::control::Alias;
use crate::dial::{Dialled, dial_peer};
use crate::directory::ServiceState;
use crate::egress::{self, is_closed_to};
use crate::pool::Peer;
use crate::target::Refusal;
use crate::telemetry::Destination;
use crate::tls::Carries;

/// The port of a target that names none.
const HTTP_PORT: u16 = 80;

/// Who is to get a request.
pub(super) enum Whom {
    /// A service, at this port.
    Service(Rc<ServiceState>, u16),
    /// One address, and what is known of it.
    Address(Rc<Peer>, Rc<Destination>),
    /// Nobody.
    Nobody(Refusal),
}

/// What a `CONNECT` leads to.
pub(super) struct Next {
    to: NextTo,
    first: Buffer,
}

enum NextTo {
    Service(Rc<ServiceState>, u16),
    Outside(Box<Dialled>),
}

/// What the head asks for: host, port and form of the target.
struct Asked {
    host: Box<str>,
    port: Option<u16>,
    form: Form,
}

/// Finds who is meant; waits for the controller, or for DNS where a proxy's client may ask for the outside.
pub(super) async fn whom(connection: &Connection, block: &[u8], range: Range<usize>) -> Result<(Whom, Form), HeadError> {
    let Asked { host, port, form } = asked(block, range)?;
    let context = &connection.context;
    let alias = match host.parse::<IpAddr>() {
        Ok(ip) => Alias::Address(SocketAddr::new(ip, port.unwrap_or(HTTP_PORT))),
        Err(_) => host_alias(&host),
    };
    if !host.is_empty()
        && let Some(service) = context.directory.resolve(&alias).await
    {
        let port = port.unwrap_or_else(|| usual_port(&service));
        let is_elsewhere = service.view().is_some_and(|view| view.service.outside && view.service.port(port).is_none());
        if !is_elsewhere {
            return Ok((Whom::Service(service, port), form));
        }
    }
    let asks_a_proxy = matches!(form, Form::Absolute | Form::Authority);
    if !asks_a_proxy {
        return Ok((Whom::Nobody(Refusal::UnknownService), form));
    }
    let found = lookup_host((&*host, port.unwrap_or(HTTP_PORT))).await;
    context.directory.wait_for_workload().await;
    match found.ok().and_then(|mut addresses| addresses.next()) {
        Some(address) if is_closed_to(context, address.ip()) => Ok((Whom::Nobody(Refusal::NotRegistered), form)),
        Some(address) if !context.own_addresses.contains(&address) => {
            let labels = Destination { service: None, version: None, route: None };
            Ok((Whom::Address(context.directory.peers.plain(address), Rc::new(labels)), form))
        }
        Some(_) | None => Ok((Whom::Nobody(Refusal::UnknownService), form)),
    }
}

/// Finds what is registered outside by the host that a request to an address outside names.
pub(super) async fn outside(connection: &Connection, port: u16, block: &[u8], range: Range<usize>) -> Result<Whom, HeadError> {
    let Asked { host, form, .. } = asked(block, range)?;
    if form == Form::Authority {
        return Ok(Whom::Nobody(Refusal::NotRegistered));
    }
    let service = egress::registered(&host, port, &connection.context).await;
    Ok(service.map_or(Whom::Nobody(Refusal::NotRegistered), |service| Whom::Service(service, port)))
}

fn asked(block: &[u8], range: Range<usize>) -> Result<Asked, HeadError> {
    let head = Head::parse(block, range)?;
    let request = Request::judge(&head)?;
    let (host, port) = split_authority(request.authority.text(block)).unwrap_or_default();
    Ok(Asked { host: host.into(), port, form: request.form })
}

/// The port of a service that was named without one: 80, or the first it has.
fn usual_port(service: &ServiceState) -> u16 {
    let view = service.view();
    let ports = view.as_ref().map(|view| view.service.ports.as_slice()).unwrap_or_default();
    if ports.iter().any(|port| port.port == HTTP_PORT) {
        return HTTP_PORT;
    }
    ports.first().map_or(HTTP_PORT, |port| port.port)
}

/// Answers a `CONNECT`; what follows it is a connection of its own.
pub(super) async fn connect(connection: &Connection, whom: Whom, first: Buffer) -> Result<Box<Next>, Refusal> {
    let to = match whom {
        Whom::Service(service, port) => NextTo::Service(service, port),
        Whom::Nobody(refusal) => return Err(refusal),
        Whom::Address(peer, labels) => match dial_peer(&peer, Carries::Bytes, &connection.context).await {
            Ok(io) => NextTo::Outside(Box::new(Dialled::outside(io, peer.address(), labels))),
            Err(error) => {
                error.log(peer.address());
                return Err(error.refusal());
            }
        },
    };
    match connection.io.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await {
        Ok(()) => Ok(Box::new(Next { to, first })),
        Err(_) => Err(Refusal::Disconnected),
    }
}

/// Carries what follows a `CONNECT`, as if the app had dialled the address itself.
pub(super) async fn go_on(connection: Box<Connection>, next: Box<Next>) {
    let Next { to, first } = *next;
    let first = Some(first).filter(|first| !first.is_empty());
    let met = match to {
        NextTo::Service(service, port) => outbound(connection.io, connection.peer, service, port, first, connection.context).await,
        NextTo::Outside(dialled) => {
            let connection = Connection { first, side: Side::Explicit, ..*connection };
            Some(Met::Opaque(Box::new(connection), Some(dialled)))
        }
    };
    if let Some(met) = met {
        carry_on(met).await;
    }
}
