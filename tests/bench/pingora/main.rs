//! pingora as a peer of the benchmark: the smallest proxy it makes, with one worker thread.
//!
//!     pingora-peer plain  HTTP1 TO HTTP2 TO
//!     pingora-peer client HTTP1 TO HTTP2 TO CA CERTIFICATE KEY      begins mutual TLS
//!     pingora-peer server HTTP1 TO HTTP2 TO CA CERTIFICATE KEY      ends it
//!
//! HTTP/1.1 is carried from the address HTTP1, HTTP/2 from HTTP2, each to the TO after it.

use std::sync::Arc;

use pingora::apps::HttpServerOptions;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::protocols::ALPN;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::tls::pkey::PKey;
use pingora::tls::ssl::{SslVerifyMode, SslVersion};
use pingora::tls::x509::X509;
use pingora::utils::tls::CertKey;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The name in the certificates of both hops.
const NAME: &str = "bench.local";
/// As many streams at once on one upstream connection; the bench has 64 under way.
const STREAMS_MAX: usize = 100;

/// What a client shows, and whom it trusts.
#[derive(Clone)]
struct Credentials {
    shown: Arc<CertKey>,
    roots: Arc<Box<[X509]>>,
}

/// Where one listener's requests go.
struct Hop {
    to: String,
    http2: bool,
    credentials: Option<Credentials>,
}

#[async_trait::async_trait]
impl ProxyHttp for Hop {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.to.as_str(), self.credentials.is_some(), NAME.to_owned());
        if let Some(credentials) = &self.credentials {
            peer.client_cert_key = Some(Arc::clone(&credentials.shown));
            peer.options.ca = Some(Arc::clone(&credentials.roots));
        }
        peer.options.alpn = if self.http2 { ALPN::H2 } else { ALPN::H1 };
        if self.http2 {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = STREAMS_MAX;
        }
        Ok(Box::new(peer))
    }
}

fn credentials(files: &[String]) -> Credentials {
    let read = |at: usize| std::fs::read(&files[at]).unwrap_or_else(|error| panic!("{}: {error}", files[at]));
    let certificate = X509::from_pem(&read(1)).expect("the certificate is PEM");
    let key = PKey::private_key_from_pem(&read(2)).expect("the key is PEM");
    let root = X509::from_pem(&read(0)).expect("the CA's certificate is PEM");
    Credentials { shown: Arc::new(CertKey::new(vec![certificate], key)), roots: Arc::new(vec![root].into_boxed_slice()) }
}

/// TLS 1.3 that asks for the client's certificate and verifies it.
fn accepting(files: &[String], http2: bool) -> TlsSettings {
    let mut settings = TlsSettings::intermediate(&files[1], &files[2]).expect("certificate and key can be used");
    settings.set_alpn(if http2 { ALPN::H2 } else { ALPN::H1 });
    settings.set_ca_file(&files[0]).expect("the CA's certificate can be used");
    settings.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    settings.set_min_proto_version(Some(SslVersion::TLS1_3)).expect("TLS 1.3 is known");
    settings
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [hop, http1, http1_to, http2, http2_to, files @ ..] = arguments.as_slice() else {
        panic!("usage: pingora-peer plain|client|server HTTP1 TO HTTP2 TO [CA CERTIFICATE KEY]");
    };
    let conf = ServerConf { threads: 1, work_stealing: false, upstream_keepalive_pool_size: 1024, ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    for (listen, to, http2) in [(http1, http1_to, false), (http2, http2_to, true)] {
        let credentials = (hop == "client").then(|| credentials(files));
        let mut service = http_proxy_service(&server.configuration, Hop { to: to.clone(), http2, credentials });
        if http2 && hop != "server" {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            service.app_logic_mut().expect("the service is not started").server_options = Some(options);
        }
        if hop == "server" {
            service.add_tls_with_settings(listen, None, accepting(files, http2));
        } else {
            service.add_tcp(listen);
        }
        server.add_service(service);
    }
    server.run_forever();
}
