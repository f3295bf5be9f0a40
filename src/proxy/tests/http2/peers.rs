//! HTTP/2 clients and servers, frame by frame where a test needs it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use leno_proxy::listen::Accept;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Mesh, PATIENCE, Setup};

/// A server; its requests are handled one task each.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

pub(crate) type Handled = (Request<RecvStream>, SendResponse<Bytes>);

impl Server {
    pub(crate) async fn start<F: Future<Output = ()> + Send + 'static>(handle: impl Fn(Handled) -> F + Send + Clone + 'static) -> Self {
        Self::with(&h2::server::Builder::new(), handle).await
    }

    pub(crate) async fn with<F: Future<Output = ()> + Send + 'static>(
        builder: &h2::server::Builder,
        handle: impl Fn(Handled) -> F + Send + Clone + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), requests: Arc::default(), connections: Arc::default(), open: Arc::default() };
        let (counts, builder) = (server.clone(), builder.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                counts.connections.fetch_add(1, Ordering::SeqCst);
                counts.open.fetch_add(1, Ordering::SeqCst);
                let (counts, builder, handle) = (counts.clone(), builder.clone(), handle.clone());
                tokio::spawn(async move {
                    if let Ok(mut streams) = builder.handshake(stream).await {
                        while let Some(Ok(handled)) = streams.accept().await {
                            counts.requests.fetch_add(1, Ordering::SeqCst);
                            tokio::spawn(handle(handled));
                        }
                    }
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    /// Answers every request with its body, and `grpc-status: 0` in the trailers.
    pub(crate) async fn echo() -> Self {
        Self::start(|(request, mut respond)| async move {
            let mut body = request.into_body();
            let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
            while let Some(Ok(piece)) = body.data().await {
                if send_all(&mut send, piece.clone()).await.is_err() {
                    return;
                }
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            send.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
        })
        .await
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Sends `piece` when the window has room for it.
pub(crate) async fn send_all(send: &mut SendStream<Bytes>, mut piece: Bytes) -> Result<(), h2::Error> {
    while !piece.is_empty() {
        send.reserve_capacity(piece.len());
        let room = match poll_fn(|cx| send.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(h2::Reason::CANCEL.into()),
        };
        send.send_data(piece.split_to(room.min(piece.len())), false)?;
    }
    Ok(())
}

pub(crate) fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

/// A client with one connection.
pub(crate) async fn dial(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://payment{path}")).body(()).unwrap()
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::builder().method(Method::POST).uri(format!("http://payment{path}")).body(()).unwrap()
}

pub(crate) fn grpc() -> Request<()> {
    let mut request = post("/shop.Payment/Pay");
    request.headers_mut().extend(trailers(&[("content-type", "application/grpc"), ("te", "trailers")]));
    request
}

/// A response as a whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// `grpc-status` and whether the response is only a head.
    pub(crate) fn grpc_status(&self) -> (&str, bool) {
        let of = |map: &HeaderMap| map.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
        let text = of(&self.headers).or_else(|| self.trailers.as_ref().and_then(of)).unwrap_or_default();
        (Box::leak(text.into_boxed_str()), self.headers.contains_key("grpc-status"))
    }
}

/// Sends a whole request and reads the whole response.
pub(crate) async fn ask(client: &SendRequest<Bytes>, request: Request<()>, body: &'static [u8]) -> Result<Whole, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut send) = client.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        send.send_data(Bytes::from_static(body), true)?;
    }
    patient(whole(response.await?)).await
}

pub(crate) async fn whole(response: Response<RecvStream>) -> Result<Whole, h2::Error> {
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        body.extend_from_slice(&piece);
        stream.flow_control().release_capacity(piece.len())?;
    }
    Ok(Whole { status: parts.status, headers: parts.headers, body, trailers: stream.trailers().await? })
}

/// What comes true late has failed.
pub(crate) async fn patient<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes true in time")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn setup(servers: &[&Server]) -> Setup {
    Setup { endpoints: servers.iter().map(|server| (server.address, "v1")).collect(), ..Setup::default() }
}

/// The inbound side before the app at `app`.
pub(crate) fn inbound(app: SocketAddr) -> (Mesh, SocketAddr) {
    Setup::default().start_with(|| Accept::InboundApp { app, port: 8080 })
}
