//! TLS that is not Leno's: rustls as it is, on a plain socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::support::PATIENCE;

/// Takes every certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type Served = StreamOwned<ServerConnection, TcpStream>;

pub(crate) fn client_config(alpn: &str, certified: Option<CertifiedKey>, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_protocol_versions(&[version]).unwrap();
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match certified {
        Some(certified) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

/// A client that verifies nothing; nothing has been sent yet.
pub(crate) fn dial(address: SocketAddr, config: ClientConfig) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), address.ip().into()).unwrap(), stream)
}

/// The first message of a client's handshake.
pub(crate) fn hello(alpn: &str) -> Vec<u8> {
    let config = client_config(alpn, None, &rustls::version::TLS13);
    let mut client = ClientConnection::new(Arc::new(config), "payment".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A TLS server that asks nobody for a certificate.
pub(crate) fn serve(certified: CertifiedKey, alpn: &[&str], handle: impl Fn(Served) + Send + Sync + 'static) -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let (config, handle) = (Arc::new(config), Arc::new(handle));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (config, handle) = (Arc::clone(&config), Arc::clone(&handle));
            thread::spawn(move || handle(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)));
        }
    });
    address
}

/// Gives back each line until the end, for as long as the other side speaks.
pub(crate) fn echo(mut stream: Served) {
    let mut block = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut block) {
        if stream.write_all(&block[..read]).is_err() {
            return;
        }
    }
}

/// Reads a head, byte by byte, up to its end.
pub(crate) fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1..) => head.push(byte[0]),
            Ok(0) | Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}
