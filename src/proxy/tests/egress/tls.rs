//! A server outside that speaks ordinary TLS, and who has signed its certificate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;

use leno_core::endpoints::Origination;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

use crate::support::PATIENCE;

pub(crate) const NAME: &str = "api.example.com";

/// An authority that is not of the mesh.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a handshake of the server has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shaken {
    pub(crate) name: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) version: rustls::ProtocolVersion,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn root(&self) -> Arc<[u8]> {
        Arc::from(&**self.0.der())
    }

    /// The TLS that begins with a server that this authority vouches for as `name`.
    pub(crate) fn origination(&self, name: &str) -> Arc<Origination> {
        Arc::new(Origination { server_name: name.into(), roots: vec![self.root()] })
    }

    /// The configuration of a server called [`NAME`].
    pub(crate) fn server(&self, alpn: &[&str], versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap().with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Tells each handshake, then answers what comes by `answer`, which gets what was read so far and says what to send.
pub(crate) fn serve(
    config: Arc<ServerConfig>,
    answer: impl Fn(&str) -> Option<String> + Send + Clone + 'static,
) -> (SocketAddr, mpsc::Receiver<Shaken>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let (tcp, config, tell, answer) = (tcp.unwrap(), Arc::clone(&config), tell.clone(), answer.clone());
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
                let (mut read, mut block) = (String::new(), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut block) {
                    if read.is_empty() {
                        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        let (name, alpn) = (stream.conn.server_name().map(str::to_owned), stream.conn.alpn_protocol().map(text));
                        tell.send(Shaken { name, alpn, version: stream.conn.protocol_version().unwrap() }).unwrap();
                    }
                    read.push_str(std::str::from_utf8(&block[..count]).unwrap());
                    if let Some(response) = answer(&read) {
                        stream.write_all(response.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    (address, told)
}
