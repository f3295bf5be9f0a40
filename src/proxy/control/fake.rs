//! A controller for tests: TLS and HTTP/2 on loopback, with answers that the test gives.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use leno_xds::frame::{Decoder, PREFIX_BYTES};
use rcgen::{CertificateParams, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::ControllerAddress;
use crate::identity::testing::Authority;
use crate::sidecar::client_tls;

/// One request as the controller saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) authorization: String,
    /// The client's certificate.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// The first gRPC message with its prefix.
    pub(crate) message: Bytes,
}

/// What it answers: fields of the head, then messages, then fields of the end or nothing more for good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Says {
    pub(crate) status: u16,
    pub(crate) head: Vec<(&'static str, String)>,
    pub(crate) data: Vec<Bytes>,
    pub(crate) end: Option<Vec<(&'static str, String)>>,
}

impl Says {
    /// One message and a good end.
    pub(crate) fn message(bytes: Bytes) -> Self {
        Self { status: 200, data: vec![bytes], end: Some(vec![("grpc-status", "0".to_owned())]), ..Self::default() }
    }

    /// A refusal, in the head or after it.
    pub(crate) fn refusal(status: u8, words: &str, in_head: bool) -> Self {
        let fields = vec![("grpc-status", status.to_string()), ("grpc-message", words.to_owned())];
        let (head, end) = if in_head { (fields, Vec::new()) } else { (Vec::new(), fields) };
        Self { status: 200, head, data: Vec::new(), end: Some(end) }
    }
}

/// A running controller.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: ControllerAddress,
    seen: Arc<Mutex<Vec<Seen>>>,
    said: watch::Sender<Vec<Bytes>>,
}

impl Fake {
    /// Answers each request with what `says` gives. Client certificates are taken from `clients`, where that is given.
    pub(crate) async fn start(clients: Option<&Authority>, says: impl Fn(&Seen) -> Says + Clone + Send + 'static) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let tls = client_tls(&certificate.pem()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(certificate.der().clone(), &key, clients)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fake = Self {
            address: ControllerAddress { address, name: "localhost".try_into().unwrap(), tls },
            seen: Arc::default(),
            said: watch::Sender::default(),
        };
        let (seen, said) = (Arc::clone(&fake.seen), fake.said.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen, said, says) = (acceptor.clone(), Arc::clone(&seen), said.clone(), says.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
                    let service =
                        service_fn(move |request| answer(request, certificate.clone(), (Arc::clone(&seen), said.clone()), says.clone()));
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // A client that goes away is no failure of the test.
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        fake
    }

    /// Everything it was asked, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What comes on streams after their first message, piece by piece.
    pub(crate) fn said(&self) -> watch::Receiver<Vec<Bytes>> {
        self.said.subscribe()
    }
}

fn server_config(certificate: CertificateDer<'static>, key: &KeyPair, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(root) => {
            let mut roots = RootCertStore::empty();
            roots.add(root.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
    };
    let mut config = config.with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

type Answer = Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>;

async fn answer(
    mut request: Request<Incoming>,
    certificate: Option<CertificateDer<'static>>,
    (seen, heard): (Arc<Mutex<Vec<Seen>>>, watch::Sender<Vec<Bytes>>),
    says: impl Fn(&Seen) -> Says,
) -> Result<Response<Answer>, Infallible> {
    let piece = request.body_mut().frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    let message = first_message(&piece);
    let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let one = Seen { path: request.uri().path().to_owned(), authorization: authorization.unwrap_or_default(), certificate, message };
    let said = says(&one);
    seen.lock().unwrap().push(one);
    let mut response = Response::builder().status(said.status);
    response.headers_mut().unwrap().extend(fields(&said.head));
    let end = said.end.as_ref().map(|end| fields(end));
    let frames = said.data.into_iter().map(Frame::data).chain(end.clone().map(Frame::trailers)).map(Ok);
    let body: Answer = if end.is_some() {
        Box::pin(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
    } else {
        // The client's half is kept, as a stream that goes on.
        let open = futures_util::stream::once(async move {
            while let Some(frame) = request.body_mut().frame().await {
                if let Some(data) = frame.ok().and_then(|frame| frame.into_data().ok()) {
                    heard.send_modify(|said| said.push(data));
                }
            }
            std::future::pending().await
        });
        Box::pin(http_body_util::StreamBody::new(futures_util::StreamExt::chain(futures_util::stream::iter(frames), open)))
    };
    Ok(response.body(body).unwrap())
}

/// The first of the gRPC messages in `piece`, with its prefix.
fn first_message(piece: &Bytes) -> Bytes {
    let mut decoder = Decoder::new(piece.len());
    decoder.push(piece);
    let bytes = decoder.next().unwrap().map_or(0, |message| PREFIX_BYTES + message.len());
    piece.slice(..bytes)
}

fn fields(fields: &[(&'static str, String)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}
