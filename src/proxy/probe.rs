//! The app's probes that the admin port makes in the kubelet's place, because the proxy could not tell them from other traffic.
//!
//! | path below `/probe/` | what is asked |
//! |---|---|
//! | `tcp/PORT` | whether the app accepts a connection |
//! | `http/PORT/TARGET`, `https/PORT/TARGET` | `GET TARGET`: the answer has the app's status |
//!
//! Requests are made only for the targets that the injector declared: whoever reaches the admin port could otherwise ask an app
//! that accepts nobody but the mesh. As the kubelet does, no certificate is verified, and redirects are followed on this pod.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Scheme, Uri};
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use leno_core::names::Name;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::admin::text;
use crate::environment::ADMIN_PORT;

/// How long the app may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long a whole probe may take. The kubelet gives up after the probe's `timeoutSeconds`, which ends it at once.
const PROBE_MAX: Duration = Duration::from_secs(60);
/// Redirects that are followed, as many as the kubelet does.
const REDIRECTS_MAX: usize = 10;

/// The probes that may be asked for.
#[derive(Clone, Debug)]
pub struct Probes {
    /// Where the app listens: the pod's own address.
    pub app: IpAddr,
    /// `SCHEME/PORT/TARGET` of each HTTP probe.
    pub declared: Vec<Name>,
}

/// One request to the app.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    secure: bool,
    port: u16,
    target: String,
}

/// Why the app gave no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it does not accept a connection on {0}: {1}")]
    Connect(SocketAddr, io::Error),
    #[error("it did not accept a connection on {0} within 1 s")]
    ConnectSlow(SocketAddr),
    #[error("it does not speak TLS on {0}: {1}")]
    Tls(SocketAddr, io::Error),
    #[error("it does not answer in HTTP on {0}: {1}")]
    Http(SocketAddr, hyper::Error),
    #[error("it redirects more than {REDIRECTS_MAX} times")]
    Redirects,
    #[error("it did not answer within 60 s")]
    Slow,
    #[error("the probe is no request: {0}")]
    Request(#[from] http::Error),
}

impl Probes {
    /// Answers `GET /probe/{wanted}`, asked with these headers.
    pub(crate) async fn answer(&self, wanted: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let asked = match wanted.strip_prefix("tcp/").map(str::parse) {
            Some(Ok(port)) => self.connect(port).await.map(|_stream| text(StatusCode::OK, "the app accepts connections\n".into())),
            Some(Err(_)) => return text(StatusCode::BAD_REQUEST, "write /probe/tcp/PORT with a port from 1 to 65535\n".into()),
            None => match self.declared.iter().find(|declared| &***declared == wanted).and_then(|declared| Ask::parse(declared)) {
                Some(ask) => self.get(ask, headers).await,
                None => return text(StatusCode::NOT_FOUND, "the pod declares no such probe\n".into()),
            },
        };
        asked.unwrap_or_else(|failure| text(StatusCode::SERVICE_UNAVAILABLE, format!("the app fails its probe: {failure}\n")))
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, Failure> {
        let app = SocketAddr::new(self.app, port);
        let connected = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(app)).await;
        connected.map_err(|_elapsed| Failure::ConnectSlow(app))?.map_err(|error| Failure::Connect(app, error))
    }

    async fn get(&self, ask: Ask, headers: &HeaderMap) -> Result<Response<Full<Bytes>>, Failure> {
        let status = tokio::time::timeout(PROBE_MAX, self.follow(ask, headers)).await.map_err(|_elapsed| Failure::Slow)??;
        Ok(text(status, format!("the app answers {status}\n")))
    }

    /// The status of the answer, or of the one that its redirects lead to. One that leads to elsewhere counts as the answer.
    async fn follow(&self, mut ask: Ask, headers: &HeaderMap) -> Result<StatusCode, Failure> {
        for _hop in 0..=REDIRECTS_MAX {
            let answer = self.once(&ask, headers).await?;
            let location = answer.headers().get(header::LOCATION).filter(|_| answer.status().is_redirection());
            match location.and_then(|location| ask.redirected(location, self.app)) {
                Some(next) => ask = next,
                None => return Ok(answer.status()),
            }
        }
        Err(Failure::Redirects)
    }

    async fn once(&self, ask: &Ask, headers: &HeaderMap) -> Result<Response<hyper::body::Incoming>, Failure> {
        let app = SocketAddr::new(self.app, ask.port);
        let request = ask.request(headers, app)?;
        let stream = self.connect(ask.port).await?;
        if !ask.secure {
            return exchange(TokioIo::new(stream), request).await.map_err(|error| Failure::Http(app, error));
        }
        let connector = TlsConnector::from(Arc::new(unverifying().map_err(|error| Failure::Tls(app, io::Error::other(error)))?));
        let stream = connector.connect(ServerName::from(self.app), stream).await.map_err(|error| Failure::Tls(app, error))?;
        exchange(TokioIo::new(stream), request).await.map_err(|error| Failure::Http(app, error))
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> hyper::Result<Response<hyper::body::Incoming>>
where
    S: Read + Write + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    // It ends with its sender.
    tokio::spawn(connection);
    sender.send_request(request).await
}

/// Whether the text is `SCHEME/PORT/TARGET`.
pub(crate) fn is_well_formed(declared: &str) -> bool {
    Ask::parse(declared).is_some_and(|ask| Request::get(&ask.target).body(()).is_ok())
}

impl Ask {
    /// Reads `SCHEME/PORT/TARGET`.
    fn parse(declared: &str) -> Option<Self> {
        let (scheme, rest) = declared.split_once('/')?;
        let (port, target) = rest.split_at(rest.find('/')?);
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Some(Self { secure, port: port.parse().ok()?, target: target.to_owned() })
    }

    /// The probe's own headers, and the address of the app where the kubelet put that of the admin port.
    fn request(&self, headers: &HeaderMap, app: SocketAddr) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::get(&self.target).body(Empty::new())?;
        let own = [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::HOST];
        let passed = headers.iter().filter(|(name, _)| !own.contains(name));
        request.headers_mut().extend(passed.map(|(name, value)| (name.clone(), value.clone())));
        let named = headers.get(header::HOST).filter(|host| !host.as_bytes().ends_with(format!(":{ADMIN_PORT}").as_bytes()));
        let host = named.map_or_else(|| HeaderValue::from_str(&app.to_string()), |named| Ok(named.clone()))?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    /// What `location` leads to; `None` when that is not on `app`, or cannot be read.
    fn redirected(&self, location: &HeaderValue, app: IpAddr) -> Option<Self> {
        let location = location.to_str().ok()?;
        let uri: Uri = location.parse().ok().filter(|_| !location.starts_with("//"))?;
        let target = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
        let Some(host) = uri.host() else { return location.starts_with('/').then(|| Self { target, ..self.clone() }) };
        let secure = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let here = host.trim_start_matches('[').trim_end_matches(']').parse() == Ok(app);
        here.then(|| Self { secure, port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }), target })
    }
}

/// TLS as the kubelet speaks it to an app: whoever answers is taken.
fn unverifying() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(schemes))).with_no_client_auth())
}

/// Takes every certificate, even one that cannot be read. What is learned of the app is whether it answers.
#[derive(Debug)]
struct Anybody(Vec<rustls::SignatureScheme>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn status_of(path: &str) -> &'static str {
        match path {
            "/healthz?full=1" => "200 OK\r\n",
            "/moved" => "302 Found\r\nlocation: /healthz?full=1\r\n",
            "/broken" => "301 Moved\r\nlocation: /nothing\r\n",
            "/elsewhere" => "307 Temporary\r\nlocation: http://192.0.2.1/\r\n",
            "/round" => "302 Found\r\nlocation: /round\r\n",
            _ => "500 Internal Server Error\r\n",
        }
    }

    /// Answers one request and says what its head was.
    async fn serve_one(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status = status_of(head.split(' ').nth(1).unwrap());
        stream.write_all(format!("HTTP/1.1 {status}content-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        head
    }

    fn acceptor(version: &'static rustls::SupportedProtocolVersion) -> TlsAcceptor {
        let made = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    async fn https_app(version: &'static rustls::SupportedProtocolVersion) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heads, seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let mut stream = acceptor(version).accept(listener.accept().await.unwrap().0).await.unwrap();
                heads.send(serve_one(&mut stream).await).unwrap();
            }
        });
        (port, seen)
    }

    fn probes(declared: &[String]) -> Probes {
        Probes { app: HERE, declared: declared.iter().map(|it| it.as_str().into()).collect() }
    }

    #[tokio::test]
    async fn an_https_probe_is_answered_with_the_apps_status_whoever_signed_its_certificate() {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (port, mut seen) = https_app(version).await;
            let cases =
                [("/healthz?full=1", 200), ("/nothing", 500), ("/moved", 200), ("/broken", 500), ("/elsewhere", 307), ("/round", 503)];
            let declared: Vec<String> = cases.iter().map(|(target, _)| format!("https/{port}{target}")).collect();
            for ((target, status), wanted) in cases.iter().zip(&declared) {
                let answer = probes(&declared).answer(wanted, &HeaderMap::new()).await;
                assert_eq!(answer.status().as_u16(), *status, "{target}");
            }
            assert!(seen.recv().await.unwrap().starts_with("GET /healthz?full=1 HTTP/1.1\r\n"));
        }
    }

    #[tokio::test]
    async fn the_probes_headers_reach_the_app_and_the_host_is_its_own_unless_the_probe_names_one() {
        let (port, mut seen) = https_app(&rustls::version::TLS13).await;
        let wanted = format!("https/{port}/healthz?full=1");
        let own = format!("host: 127.0.0.1:{port}\r\n");
        for (host, expected) in [("10.0.0.7:15120", own.as_str()), ("shop.example", "host: shop.example\r\n")] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            headers.insert("x-probe", HeaderValue::from_static("yes"));
            assert_eq!(probes(std::slice::from_ref(&wanted)).answer(&wanted, &headers).await.status(), 200);
            let head = seen.recv().await.unwrap();
            assert!(head.contains(expected) && head.contains("x-probe: yes\r\n"), "{head}");
        }
    }

    #[tokio::test]
    async fn an_http_probe_is_asked_too_and_what_the_pod_does_not_declare_is_not() {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { serve_one(&mut listener.accept().await.unwrap().0).await });
        let declared = [format!("http/{port}/healthz?full=1")];
        for undeclared in ["/healthz", "/healthz?full=2", "/healthz?full=1&x"] {
            let answer = probes(&declared).answer(&format!("http/{port}{undeclared}"), &HeaderMap::new()).await;
            assert_eq!(answer.status(), 404, "{undeclared}");
        }
        assert_eq!(probes(&declared).answer(&declared[0], &HeaderMap::new()).await.status(), 200);
    }

    #[tokio::test]
    async fn an_app_that_is_not_there_or_speaks_no_tls_fails_its_probe_in_words() {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let declared = [format!("https/{port}/")];
        let plain = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _gone = stream.read_to_end(&mut rest).await;
        });
        assert_eq!(probes(&declared).answer(&declared[0], &HeaderMap::new()).await.status(), 503);
        plain.await.unwrap();
        assert_eq!(probes(&declared).answer(&declared[0], &HeaderMap::new()).await.status(), 503);
    }

    #[test]
    fn redirects_are_followed_on_this_pod_only() {
        let ask = Ask { secure: true, port: 8443, target: "/".into() };
        let to = |secure, port, target: &str| Some(Ask { secure, port, target: target.into() });
        let cases = [
            ("/ready", to(true, 8443, "/ready")),
            ("https://127.0.0.1:9443/ready?x", to(true, 9443, "/ready?x")),
            ("http://127.0.0.1", to(false, 80, "/")),
            ("https://example.com/", None),
            ("//example.com/", None),
            ("ftp://127.0.0.1/", None),
        ];
        for (location, wanted) in cases {
            assert_eq!(ask.redirected(&HeaderValue::from_str(location).unwrap(), HERE), wanted, "{location}");
        }
    }
}
