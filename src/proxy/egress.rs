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
    use std::sync::Arc;

    use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId};
    use leno_core::names::{ServiceId, WorkloadId};
    use leno_core::service::{Service, ServicePort};
    use leno_core::workload::{Egress, Workload};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    use super::*;
    use crate::connection::go_on;
    use crate::control::{Alias, Update};
    use crate::worker::Settings;

    /// A server that says `word` to whoever has said something, and what was said to it.
    async fn server(word: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{word}", word.len());
                let mut block = [0; 4096];
                if stream.read(&mut block).await.unwrap() > 0 {
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            }
        });
        address
    }

    /// A proxy whose app may go where `egress` says, with `api.example.com:PORT` registered at `endpoint`.
    fn context(egress: Egress, port: u16, endpoint: SocketAddr) -> Rc<Context> {
        let settings = Settings::new(WorkloadId::new("shop", "web-1"));
        let context = Context::testing(settings);
        let directory = &context.directory;
        let workload = Workload { egress, outside_ports: vec![port], ..Workload::new(WorkloadId::new("shop", "web-1")) };
        let id = ServiceId::new("shop", "api");
        let ports = vec![ServicePort { port, protocol: Protocol::Detect }];
        let service = Service { ports, outside: true, ..Service::new(id.clone()) };
        let endpoint = Endpoint::at(endpoint);
        let endpoints_id = EndpointsId::new(id.clone(), port);
        let _asked = directory.endpoints(&id, port);
        let endpoints = Endpoints { endpoints: vec![endpoint], ..Endpoints::new(endpoints_id.clone()) };
        directory.apply(Update::Connected(true));
        directory.apply(Update::Workload(Arc::new(workload)));
        directory.apply(Update::Service(id.clone(), Some(Arc::new(service))));
        directory.apply(Update::Alias(Alias::Host("api.example.com".into()), Some(id)));
        directory.apply(Update::Alias(Alias::Host("other.example".into()), None));
        directory.apply(Update::Endpoints(endpoints_id, Some(Arc::new(endpoints))));
        context
    }

    /// What an app reads that says `bytes` to `address`, which nobody knows; `None`: its connection was reset.
    async fn said(context: &Rc<Context>, address: SocketAddr, bytes: &[u8]) -> Option<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        app.write_all(bytes).await.unwrap();
        let context = Rc::clone(context);
        let carried = tokio::task::spawn_local(async move {
            if let Some(met) = outside(Io::Plain(stream), peer, address, None, context).await {
                go_on(met).await;
            }
        });
        let mut read = Vec::new();
        let result = app.read_to_end(&mut read).await;
        drop(app);
        carried.abort();
        result.ok().map(|_| String::from_utf8(read).unwrap())
    }

    fn hello(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_registered_is_found_by_host_and_server_name_at_addresses_nobody_knows() {
        LocalSet::new()
            .run_until(async {
                let (registered, dialled) = (server("registered").await, server("dialled").await);
                let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes();
                let cases: [(Vec<u8>, &str, Option<&str>); 5] = [
                    (get("api.example.com"), "registered", Some("registered")),
                    (hello("api.example.com"), "registered", Some("registered")),
                    (get("other.example"), "dialled", Some("not-registered")),
                    (hello("other.example"), "dialled", None),
                    (b"SSH-2.0-x\r\n".to_vec(), "dialled", None),
                ];
                for (bytes, open, closed) in cases {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let context_of = |egress| context(egress, dialled.port(), registered);
                    let got = said(&context_of(Egress::Allow), dialled, &bytes).await.unwrap_or_default();
                    assert!(got.ends_with(open), "{text}: {got}");
                    let got = said(&context_of(Egress::RegisteredOnly), dialled, &bytes).await;
                    match closed {
                        Some("not-registered") => {
                            assert!(
                                got.is_some_and(|got| got.starts_with("HTTP/1.1 502 ") && got.contains("nothing outside is registered")),
                                "{text}"
                            );
                        }
                        Some(word) => assert!(got.is_some_and(|got| got.ends_with(word)), "{text}"),
                        None => assert!(got.is_none(), "{text}: {got:?}"),
                    }
                }
            })
            .await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn ports_at_which_nothing_is_registered_are_not_looked_at() {
        LocalSet::new()
            .run_until(async {
                let (registered, dialled) = (server("registered").await, server("dialled").await);
                let context = context(Egress::Allow, 1, registered);
                let got = said(&context, dialled, b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await.unwrap();
                assert!(got.ends_with("dialled"), "{got}");
            })
            .await;
    }

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
