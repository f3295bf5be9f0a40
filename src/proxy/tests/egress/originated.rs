//! TLS that the proxy begins: the app speaks plain text, the server outside sees TLS.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use leno_core::service::Protocol;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;

use crate::support::{Mesh, Peer, Setup, eventually, ok};
use crate::tls::{Authority, NAME, Shaken, serve};

fn mesh(protocol: Protocol) -> (Mesh, std::net::SocketAddr) {
    Setup { protocol, ..Setup::default() }.start()
}

fn get() -> String {
    format!("GET /v1 HTTP/1.1\r\nHost: {NAME}\r\n\r\n")
}

/// Answers each request with what was read of it.
fn echo_head(read: &str) -> Option<String> {
    read.ends_with("\r\n\r\n").then(|| ok(&read[read[..read.len() - 4].rfind("\r\n\r\n").map_or(0, |at| at + 4)..]))
}

#[test]
fn requests_leave_over_tls_to_a_proven_name_and_say_nothing_of_the_inside() {
    let authority = Authority::new();
    let (address, shaken) = serve(authority.server(&["h2", "http/1.1"], &[&TLS13]), echo_head);
    let (mesh, proxy) = mesh(Protocol::Http);
    mesh.set_outside(Protocol::Http, &[address], authority.origination(NAME));
    let mut app = Peer::dial(proxy);
    for _ in 0..2 {
        let response = app.ask(&get());
        assert_eq!(response.status(), 200, "{}", response.text());
        let seen = response.body().to_lowercase();
        assert!(seen.contains("host: api.example.com") && !seen.contains("x-forwarded"), "{seen}");
    }
    let wanted = Shaken { name: Some(NAME.into()), alpn: Some("http/1.1".into()), version: ProtocolVersion::TLSv1_3 };
    assert_eq!(shaken.recv().unwrap(), wanted);
    assert!(shaken.try_recv().is_err(), "the second request took the same connection");
    assert!(mesh.metrics().contains(r#"destination="shop/payment""#), "{}", mesh.metrics());
}

#[test]
fn a_server_of_tls_1_2_without_alpn_is_served_too() {
    let authority = Authority::new();
    let (address, shaken) = serve(authority.server(&[], &[&TLS12]), echo_head);
    let (mesh, proxy) = mesh(Protocol::Http);
    mesh.set_outside(Protocol::Http, &[address], authority.origination(NAME));
    assert_eq!(Peer::dial(proxy).ask(&get()).status(), 200);
    assert_eq!(shaken.recv().unwrap(), Shaken { name: Some(NAME.into()), alpn: None, version: ProtocolVersion::TLSv1_2 });
}

#[test]
fn a_server_that_does_not_prove_its_name_is_told_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (address, shaken) = serve(authority.server(&[], &[&TLS13]), echo_head);
    let (mesh, proxy) = mesh(Protocol::Http);
    let public = Arc::new(leno_core::endpoints::Origination { server_name: NAME.into(), roots: Vec::new() });
    for origination in [other.origination(NAME), authority.origination("other.example.com"), public] {
        mesh.set_outside(Protocol::Http, &[address], origination);
        let response = Peer::dial(proxy).ask(&get());
        assert_eq!((response.status(), response.body()), (502, "no secure connection to the endpoint could be made\n"));
    }
    assert!(shaken.try_recv().is_err());
    mesh.set_outside(Protocol::Http, &[address], authority.origination(NAME));
    eventually("the server itself is well", || Peer::dial(proxy).ask(&get()).status() == 200);
}

#[test]
fn opaque_bytes_leave_over_tls() {
    let authority = Authority::new();
    let (address, shaken) = serve(authority.server(&[], &[&TLS13]), |read| (read == "ping").then(|| "pong".to_owned()));
    let (mesh, proxy) = mesh(Protocol::Tcp);
    mesh.set_outside(Protocol::Tcp, &[address], authority.origination(NAME));
    let mut app = Peer::dial(proxy);
    app.send("ping");
    assert_eq!(app.exactly(4), b"pong");
    assert_eq!(shaken.recv().unwrap().name.as_deref(), Some(NAME));
}

#[test]
fn what_the_app_encrypts_itself_is_not_encrypted_once_more() {
    let authority = Authority::new();
    let (address, shaken) = serve(authority.server(&[], &[&TLS13]), |read| (read == "ping").then(|| "pong".to_owned()));
    let (mesh, proxy) = mesh(Protocol::Detect);
    mesh.set_outside(Protocol::Detect, &[address], authority.origination(NAME));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.root().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let mut app = StreamOwned::new(session, Peer::dial(proxy).stream);
    app.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    app.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
    assert_eq!(shaken.recv().unwrap().name.as_deref(), Some(NAME));
}

#[tokio::test]
async fn http2_leaves_as_https_over_tls() {
    let authority = Authority::new();
    let acceptor = tokio_rustls::TlsAcceptor::from(authority.server(&["h2"], &[&TLS13]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(tcp).await.unwrap();
        let mut streams = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = streams.accept().await {
            let seen = format!("{} {:?}", request.uri(), request.headers().contains_key("x-forwarded-for"));
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(Bytes::from(seen), true).unwrap();
        }
    });
    let (mesh, proxy) = mesh(Protocol::Http2);
    mesh.set_outside(Protocol::Http2, &[address], authority.origination(NAME));
    let tcp = tokio::net::TcpStream::connect(proxy).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{NAME}/v1")).body(()).unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let told = body.data().await.unwrap().unwrap();
    assert_eq!(std::str::from_utf8(&told).unwrap(), format!("https://{NAME}/v1 false"));
}
