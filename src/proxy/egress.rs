//! Connections to the outside: to addresses that no Service has.
//!
//! What a MeshService registers outside (`spec.external`) is known by its addresses, but servers outside share addresses and
//! have more of them than one lookup tells. So at the ports where anything is registered the first bytes are looked at: the
//! `Host` of HTTP and the server name of TLS say which of the registered ones is meant. Everything else passes as it is, or,
//! where the app may only connect to what is registered, is refused.
//!
//! Reading order: [`outside`], `hear`, [`registered`].

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use leno_core::names::split_authority;
use leno_core::service::Protocol;
use tokio::time::timeout;

use crate::authorization::Decided;
use crate::buffers::Buffer;
use crate::connection::{Connection, Met, Side, host_alias, outbound};
use crate::detect::{Verdict, detect};
use crate::dial::{DialFailure, pass_through, refuse};
use crate::directory::ServiceState;
use crate::http1::head::{Head, find_end};
use crate::http1::request::Request;
use crate::io::Io;
use crate::target::Refusal;
use crate::tls::hello::{Sni, server_name};
use crate::worker::Context;

/// What the first bytes say.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// An HTTP/1 request, and the host it names.
    Http1(Option<String>),
    /// HTTP/2, whose requests name their hosts one by one.
    Http2,
    /// TLS, and the server it names.
    Tls(Option<String>),
    /// Anything else, or nothing.
    Opaque,
}

/// Carries a connection to `address`, which no Service has; `known` is what is registered there, as far as addresses tell.
pub(crate) async fn outside(
    io: Io,
    peer: SocketAddr,
    address: SocketAddr,
    known: Option<Rc<ServiceState>>,
    context: Rc<Context>,
) -> Option<Met> {
    context.directory.wait_for_workload().await;
    let (port, is_closed) = (address.port(), is_closed_to(&context, address.ip()));
    let protocol = known.as_ref().and_then(|service| Some(service.view()?.service.port(port)?.protocol));
    if let (Some(service), Some(Protocol::Tcp)) = (&known, protocol) {
        // The server may speak first.
        return outbound(io, peer, Rc::clone(service), port, None, context).await;
    }
    let mut connection = Connection::new(io, peer, Side::Outside { port }, context);
    if known.is_none() && !is_closed && !is_port_of_any(&connection.context, port) {
        return pass_through(connection, address).await;
    }
    let heard = hear(&mut connection).await?;
    let named = match &heard {
        Heard::Http1(Some(host)) | Heard::Tls(Some(host)) => registered(host, port, &connection.context).await,
        Heard::Http1(None) | Heard::Tls(None) | Heard::Http2 | Heard::Opaque => None,
    };
    match (named.or(known), heard) {
        (Some(service), _) => {
            let Connection { io, peer, first, context, .. } = *connection;
            outbound(io, peer, service, port, first, context).await
        }
        (None, _) if !is_closed => pass_through(connection, address).await,
        // Each request is answered, or finds what is registered by its host.
        (None, Heard::Http1(_)) => Some(Met::Http1(connection)),
        (None, Heard::Http2) => Some(Met::Http2(connection)),
        (None, Heard::Tls(name)) => not_registered(&connection, address, name.as_deref()),
        (None, Heard::Opaque) => not_registered(&connection, address, None),
    }
}

/// Whether the app may not connect to `address` unless something registered is there.
pub(crate) fn is_closed_to(context: &Context, address: IpAddr) -> bool {
    context.directory.workload().is_some_and(|workload| workload.is_closed_to(address))
}

fn is_port_of_any(context: &Context, port: u16) -> bool {
    context.directory.workload().is_some_and(|workload| workload.outside_ports.binary_search(&port).is_ok())
}

/// What is registered outside by the name `host`, at `port`.
pub(crate) async fn registered(host: &str, port: u16, context: &Context) -> Option<Rc<ServiceState>> {
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let service = Box::pin(context.directory.resolve(&host_alias(host))).await?;
    let is_there = service.view().is_some_and(|view| view.service.outside && view.service.port(port).is_some());
    is_there.then_some(service)
}

fn not_registered(connection: &Connection, address: SocketAddr, name: Option<&str>) -> Option<Met> {
    tracing::info!(%address, name, peer = %connection.peer, "refused a connection to an address outside that nobody registers (RegisteredOnly)");
    refuse(connection, &DialFailure::refused(connection, Refusal::NotRegistered), &Decided::default());
    None
}

/// Reads until it is clear who is meant, as long as the client goes on speaking; `None` when the connection is broken.
async fn hear(connection: &mut Connection) -> Option<Heard> {
    let context = Rc::clone(&connection.context);
    loop {
        if let Some(heard) = heard(connection.first.as_ref().map_or(&[], Buffer::filled)) {
            return Some(heard);
        }
        match timeout(context.settings.detect_timeout, connection.read_first()).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) | Err(_) => return Some(Heard::Opaque),
            Ok(Err(_)) => return None,
        }
    }
}

/// What `bytes`, the first of a connection, say; `None` when more of them are needed.
fn heard(bytes: &[u8]) -> Option<Heard> {
    match server_name(bytes) {
        Sni::Name(name) => return Some(Heard::Tls(Some(name))),
        Sni::Missing => return Some(Heard::Tls(None)),
        Sni::NeedMore => return None,
        Sni::NoTls => {}
    }
    match detect(bytes) {
        Verdict::NeedMore => None,
        Verdict::Opaque => Some(Heard::Opaque),
        Verdict::Http2 => Some(Heard::Http2),
        Verdict::Http1 => match find_end(bytes, &mut 0) {
            Ok(None) => None,
            Ok(Some(length)) => Some(Heard::Http1(host(bytes, length))),
            // The request is refused, or passes, as it is.
            Err(_) => Some(Heard::Http1(None)),
        },
    }
}

/// The host that the request whose head is the first `length` of `bytes` names.
fn host(bytes: &[u8], length: usize) -> Option<String> {
    let head = Head::parse(bytes, 0..length).ok()?;
    let request = Request::judge(&head).ok()?;
    let (host, _) = split_authority(request.authority.text(bytes))?;
    Some(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_who_is_meant() {
        let http = |host: &str| Some(Heard::Http1(Some(host.to_owned())));
        let cases: [(&[u8], Option<Heard>); 8] = [
            (b"", None),
            (b"GET / HTTP/1.1\r\nHost: api.exa", None),
            (b"GET / HTTP/1.1\r\nHost: API.example.com:8080\r\n\r\n", http("API.example.com")),
            (b"GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n", http("other.example")),
            (b"GET / HTTP/1.0\r\n\r\n", Some(Heard::Http1(None))),
            (b"GET / HTTP/1.1\nHost: a\n\n", Some(Heard::Http1(None))),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Heard::Http2)),
            (b"SSH-2.0-x\r\n", Some(Heard::Opaque)),
        ];
        for (bytes, want) in cases {
            assert_eq!(heard(bytes), want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
