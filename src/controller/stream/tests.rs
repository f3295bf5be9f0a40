//! The server over loopback, with a real HTTP/2 client and a source fed by hand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::HeaderMap;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use leno_core::names::WorkloadId;
use leno_translate::{Defaults, Kind, Translator};
use leno_xds::METHOD_PATH;
use leno_xds::client::{Event, Subscriptions};
use leno_xds::frame::Decoder;
use leno_xds::server::Limits;
use leno_xds::subject::Subject;
use leno_xds::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

mod identity;

use super::{Settings, serve};
use crate::publish::tests::{ACKNOWLEDGED_AFTER, address, changed, endpoints_of, id, listed, mesh, service, slice};
use crate::publish::{Publisher, REQUIRED_OF_CLUSTER};
use crate::source::SourceEvent;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    source: mpsc::Sender<SourceEvent>,
    publisher: Publisher,
    cancel: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
    _stop: DropGuard,
}

type RequestBody = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// One proxy's stream.
struct Client {
    subscriptions: Subscriptions,
    requests: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    responses: Incoming,
    decoder: Decoder,
    connection: JoinHandle<Result<(), hyper::Error>>,
}

async fn start(tls: Option<Arc<rustls::ServerConfig>>, settings: Settings) -> Server {
    start_with(tls, None, settings).await
}

async fn start_with(tls: Option<Arc<rustls::ServerConfig>>, signer: Option<Arc<crate::ca::signer::Signer>>, settings: Settings) -> Server {
    let (source, events) = mpsc::channel(64);
    let (publisher, task) = Publisher::new(Translator::new(Defaults::new("cluster.local")), REQUIRED_OF_CLUSTER, events);
    let cancel = CancellationToken::new();
    tokio::spawn(task.run(cancel.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, tls, publisher.clone(), signer, settings, cancel.clone()));
    let _stop = cancel.clone().drop_guard();
    Server { address, source, publisher, cancel, served, _stop }
}

impl Server {
    /// Started, with one service and its endpoint listed.
    async fn with_cart() -> Self {
        let server = start(None, Settings::default()).await;
        server.list_cart().await;
        server
    }

    async fn list_cart(&self) {
        self.feed(listed(Kind::Service, &[service("cart", 1)])).await;
        self.feed(listed(Kind::EndpointSlice, &[slice("cart", &[7])])).await;
        for kind in [Kind::MeshService, Kind::ReferenceGrant, Kind::TrafficPolicy, Kind::SecurityPolicy, Kind::Pod] {
            self.feed(listed(kind, &[])).await;
        }
        self.publisher.ready().wait_for(|ready| *ready).await.unwrap();
    }

    async fn feed(&self, event: SourceEvent) {
        self.source.send(event).await.unwrap();
    }

    /// Until the publisher has applied what was fed.
    async fn applied(&self, is_applied: fn(&Translator) -> bool) {
        while !self.publisher.query(is_applied).await.unwrap() {
            tokio::task::yield_now().await;
        }
    }

    async fn client(&self, name: &str) -> Client {
        Client::open(Subscriptions::new(&WorkloadId::new("shop", name)), self.address, None).await
    }
}

async fn http2_client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    window: Option<u32>,
) -> (http2::SendRequest<RequestBody>, JoinHandle<Result<(), hyper::Error>>) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(path: &str, content_type: &str) -> (mpsc::Sender<Result<Frame<Bytes>, Infallible>>, Request<RequestBody>) {
    let (requests, body) = mpsc::channel(64);
    let request = Request::post(format!("http://controller{path}")).header("content-type", content_type).header("te", "trailers");
    (requests, request.body(StreamBody::new(ReceiverStream::new(body))).unwrap())
}

impl Client {
    async fn open(subscriptions: Subscriptions, address: SocketAddr, window: Option<u32>) -> Self {
        Self::over(subscriptions, TcpStream::connect(address).await.unwrap(), window).await
    }

    async fn over(
        mut subscriptions: Subscriptions,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        window: Option<u32>,
    ) -> Self {
        let (mut sender, connection) = http2_client(stream, window).await;
        let (requests, request) = request(METHOD_PATH, "application/grpc");
        subscriptions.connected();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &"application/grpc".parse().unwrap()));
        Self { subscriptions, requests, responses: response.into_body(), decoder: Decoder::new(1 << 20), connection }
    }

    async fn write(&mut self) {
        while let Some(request) = self.subscriptions.next_request(Instant::now() + ACKNOWLEDGED_AFTER) {
            self.requests.send(Ok(Frame::data(request))).await.unwrap();
        }
    }

    async fn subscribe(&mut self, subjects: &[Subject]) {
        subjects.iter().for_each(|subject| self.subscriptions.subscribe(subject.clone()));
        self.write().await;
    }

    /// The events of the next response, answered; or how the stream ended.
    async fn next(&mut self) -> Result<Vec<Event>, HeaderMap> {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                let events = self.subscriptions.receive(message, Instant::now()).unwrap();
                self.write().await;
                return Ok(events);
            }
            let frame = tokio::time::timeout(PATIENCE, self.responses.frame()).await.expect("a response in time");
            match frame.expect("trailers come before the end").unwrap().into_data() {
                Ok(piece) => self.decoder.push(&piece),
                Err(frame) => return Err(frame.into_trailers().unwrap()),
            }
        }
    }

    /// The next response as it is, not answered.
    async fn unanswered(&mut self) -> DeltaDiscoveryResponse {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return <DeltaDiscoveryResponse as prost::Message>::decode(message).unwrap();
            }
            let frame = tokio::time::timeout(PATIENCE, self.responses.frame()).await.expect("a response in time");
            self.decoder.push(&frame.unwrap().unwrap().into_data().unwrap());
        }
    }

    async fn send(&self, request: &DeltaDiscoveryRequest) {
        self.requests.send(Ok(Frame::data(leno_xds::frame::encode(request)))).await.unwrap();
    }

    async fn events(&mut self) -> Vec<Event> {
        self.next().await.unwrap()
    }

    /// Everything up to the answer to a question asked now: whatever was on its way comes before it.
    async fn until_answered(&mut self, name: &str) -> Vec<Event> {
        let sentinel = Subject::Service(id(name));
        self.write().await;
        self.subscribe(std::slice::from_ref(&sentinel)).await;
        let mut all = Vec::new();
        while !all.contains(&Event::Gone(sentinel.clone())) {
            all.extend(self.events().await);
        }
        all.retain(|event| *event != Event::Gone(sentinel.clone()));
        all
    }
}

/// Events in short.
fn summary(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| match event {
        Event::Service(service) => format!("service {} {}", service.id, service.hosts.join(",")),
        Event::Endpoints(endpoints) => format!("endpoints {} {}", endpoints.id, endpoints.endpoints.len()),
        Event::Workload(workload) => format!("workload {}", workload.id),
        Event::Trust(trust) => format!("trust {}", trust.trust_domain),
        Event::Gone(subject) => format!("gone {subject}"),
        Event::Alias(alias, Some(service)) => format!("{alias} = {service}"),
        Event::Alias(alias, None) => format!("{alias} = nothing"),
        Event::Unused(subject) => format!("unused {subject}"),
        Event::Rejected { name, .. } => format!("rejected {name}"),
    };
    events.iter().map(one).collect()
}

fn hosts(host: &str) -> SourceEvent {
    changed(&mesh("cart", &format!("{{hosts: [{host}]}}")))
}

#[tokio::test]
async fn a_proxy_subscribes_by_alias_is_told_of_changes_and_unsubscribes() {
    let server = Server::with_cart().await;
    let mut client = server.client("web-1").await;
    client.subscribe(&[address(1)]).await;
    assert_eq!(summary(&client.events().await), ["service shop/cart ", "address/10.96.0.1:80 = shop/cart"]);
    client.subscribe(&[endpoints_of("cart")]).await;
    assert_eq!(summary(&client.events().await), ["endpoints shop/cart:80 1"]);

    server.feed(changed(&slice("cart", &[7, 8]))).await;
    assert_eq!(summary(&client.events().await), ["endpoints shop/cart:80 2"]);
    server.feed(hosts("cart.example")).await;
    assert_eq!(summary(&client.events().await), ["service shop/cart cart.example"]);

    client.subscriptions.unsubscribe(&address(1));
    client.write().await;
    assert_eq!(summary(&client.until_answered("ghost").await), Vec::<String>::new());
    server.feed(hosts("other.example")).await;
    server.applied(|translator| translator.find_host("other.example", "shop").is_some()).await;
    assert_eq!(summary(&client.until_answered("ghost-2").await), Vec::<String>::new(), "cart is not subscribed to any more");
}

#[tokio::test]
async fn an_alias_that_means_nothing_is_answered_when_it_comes_to_exist() {
    let server = Server::with_cart().await;
    let mut client = server.client("web-1").await;
    client.subscribe(&[Subject::Host("cart.example".into())]).await;
    assert_eq!(summary(&client.events().await), ["host/cart.example = nothing"]);
    server.feed(hosts("cart.example")).await;
    assert_eq!(summary(&client.events().await), ["service shop/cart cart.example", "host/cart.example = shop/cart"]);
}

#[tokio::test]
async fn a_proxy_that_reconnects_is_sent_only_what_changed_meanwhile() {
    let server = Server::with_cart().await;
    let mut client = server.client("web-1").await;
    client.subscribe(&[address(1), endpoints_of("cart")]).await;
    client.events().await;
    client.events().await;
    let Client { subscriptions, .. } = client;

    let mut client = Client::open(subscriptions, server.address, None).await;
    assert_eq!(summary(&client.until_answered("ghost").await), Vec::<String>::new());
    let Client { subscriptions, .. } = client;

    server.feed(changed(&slice("cart", &[7, 8]))).await;
    server.applied(|translator| translator.endpoints(&"shop/cart:80".parse().unwrap()).unwrap().endpoints.len() == 2).await;
    let mut client = Client::open(subscriptions, server.address, None).await;
    assert_eq!(summary(&client.until_answered("ghost-2").await), ["endpoints shop/cart:80 2"]);
}

#[tokio::test]
async fn a_slow_proxy_is_sent_the_latest_state_and_no_backlog() {
    let server = Server::with_cart().await;
    let subscriptions = Subscriptions::new(&WorkloadId::new("shop", "web-1"));
    // A window smaller than one message: the server may write no further message before this one is read.
    let mut client = Client::open(subscriptions, server.address, Some(16)).await;
    client.subscribe(&[Subject::Service(id("cart"))]).await;
    client.events().await;
    for index in 0..200 {
        server.feed(hosts(&format!("h{index}.example"))).await;
    }
    server.applied(|translator| translator.find_host("h199.example", "shop").is_some()).await;
    let mut told = 0;
    loop {
        told += 1;
        if summary(&client.events().await) == ["service shop/cart h199.example"] {
            break;
        }
    }
    assert!(told < 10, "{told} of 200 states were sent to a proxy that did not read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_proxies_are_told_of_a_change_that_is_encoded_once() {
    let server = Server::with_cart().await;
    let mut clients = Vec::new();
    for index in 0..100 {
        let mut client = server.client(&format!("web-{index}")).await;
        client.subscribe(&[endpoints_of("cart")]).await;
        client.events().await;
        clients.push(client);
    }
    let counters = server.publisher.counters();
    assert_eq!((counters.streams(), counters.encoded()), (100, 1));
    server.feed(changed(&slice("cart", &[7, 8]))).await;
    for client in &mut clients {
        assert_eq!(summary(&client.events().await), ["endpoints shop/cart:80 2"]);
    }
    assert_eq!((counters.encoded(), counters.resources()), (2, 200));
    drop(clients);
    while counters.streams() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A subscription to the cart.
fn first_request(name: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: format!("shop/{name}"), ..Node::default() }),
        type_url: "type.googleapis.com/leno.dev.Service".into(),
        resource_names_subscribe: vec!["shop/cart".into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_proxy_that_acknowledges_nothing_is_sent_so_many_responses_and_then_the_latest_state() {
    let limits = Limits { unanswered: 4, ..Limits::default() };
    let server = start(None, Settings { limits, ..Settings::default() }).await;
    server.list_cart().await;
    let (mut mute, mut other) = (server.client("web-1").await, server.client("web-2").await);
    mute.send(&first_request("web-1")).await;
    let first = mute.unanswered().await;
    other.subscribe(&[Subject::Service(id("cart"))]).await;
    other.events().await;
    for index in 0..20 {
        server.feed(hosts(&format!("h{index}.example"))).await;
        assert_eq!(summary(&other.events().await), [format!("service shop/cart h{index}.example")], "others are told as ever");
    }
    for _ in 1..4 {
        mute.unanswered().await;
    }
    // An answer makes room for one response: what it holds tells that none came between.
    mute.send(&DeltaDiscoveryRequest { type_url: first.type_url, response_nonce: first.nonce, ..Default::default() }).await;
    let last = mute.unanswered().await;
    let [resource] = &last.resources[..] else { panic!("{last:?}") };
    let value = &resource.resource.as_ref().unwrap().value;
    assert!(value.windows(11).any(|bytes| bytes == b"h19.example"), "it is the latest state");
}

#[tokio::test]
async fn a_proxy_that_answers_no_pings_is_let_go() {
    let soon = Duration::from_millis(10);
    let patience = Duration::from_hours(1);
    let server = start(None, Settings { ping_after: soon, ping_timeout: soon, patience, ..Settings::default() }).await;
    let (mut sender, connection) = h2::client::handshake(TcpStream::connect(server.address).await.unwrap()).await.unwrap();
    let mut connection = Box::pin(connection);
    let request = Request::post(format!("http://controller{METHOD_PATH}")).header("content-type", "application/grpc").body(()).unwrap();
    let (response, _requests) = sender.send_request(request, false).unwrap();
    // Who drives the connection answers pings: from here on nobody does.
    tokio::select! {
        ended = &mut connection => panic!("{ended:?}"),
        response = response => assert_eq!(response.unwrap().status(), 200),
    }
    server.publisher.query(|_| ()).await.unwrap();
    let gone = async {
        while server.publisher.counters().streams() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_refusal_reaches_the_receipts_with_its_reason() {
    let server = Server::with_cart().await;
    let mut client = server.client("web-1").await;
    client.send(&first_request("web-1")).await;
    let response = client.unanswered().await;
    server.publisher.receipts().changed().await;
    let refusal = DeltaDiscoveryRequest {
        type_url: response.type_url,
        response_nonce: response.nonce,
        error_detail: Some(Status { code: 3, message: "I do not like it".into(), details: Vec::new() }),
        ..Default::default()
    };
    client.send(&refusal).await;
    let dirty = tokio::time::timeout(PATIENCE, server.publisher.receipts().changed()).await.unwrap();
    assert!(dirty.topics.contains(&crate::publish::topic::Topic::Service(id("cart"))));
    let receipt = server.publisher.receipts().of(&crate::publish::topic::Topic::Service(id("cart")));
    assert_eq!((receipt.subscribed, receipt.current, receipt.refused), (1, 0, 1));
    assert_eq!(receipt.refusals, [(WorkloadId::new("shop", "web-1"), "I do not like it".to_owned())]);
    assert_eq!(server.publisher.counters().refusals(), 1);
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_stream_in_words() {
    let server = start(None, Settings { message_bytes_max: 100, ..Settings::default() }).await;
    server.list_cart().await;
    let mut client = server.client("web-1").await;
    let many: Vec<Subject> = (0..20).map(address).collect();
    client.subscribe(&many).await;
    let trailers = client.next().await.unwrap_err();
    assert_eq!(trailers["grpc-status"], "8");
    assert!(trailers["grpc-message"].to_str().unwrap().contains("the limit is 100"), "{trailers:?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let server = start(None, Settings { patience: Duration::from_millis(20), ..Settings::default() }).await;
    let trailers = server.client("web-1").await.next().await.unwrap_err();
    assert_eq!(trailers["grpc-status"], "4");
}

#[tokio::test]
async fn at_shutdown_every_proxy_is_told_to_connect_again_and_the_server_ends() {
    let server = Server::with_cart().await;
    let mut client = server.client("web-1").await;
    client.subscribe(&[address(1)]).await;
    client.events().await;
    server.cancel.cancel();
    let trailers = client.next().await.unwrap_err();
    assert_eq!(trailers["grpc-status"], "14");
    tokio::time::timeout(PATIENCE, client.connection).await.unwrap().unwrap().expect("GOAWAY ends the connection in good order");
    tokio::time::timeout(PATIENCE, server.served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is free");
}

#[tokio::test]
async fn what_is_no_request_of_ours_is_refused() {
    let server = Server::with_cart().await;
    let (mut sender, _connection) = http2_client(TcpStream::connect(server.address).await.unwrap(), None).await;
    let cases = [("/other.Service/Method", "application/grpc", 200, Some("12")), (METHOD_PATH, "text/html", 415, None)];
    for (path, content_type, status, grpc_status) in cases {
        let (_requests, request) = request(path, content_type);
        let response = sender.send_request(request).await.unwrap();
        let got = response.headers().get("grpc-status").map(|value| value.to_str().unwrap());
        assert_eq!((response.status().as_u16(), got), (status, grpc_status), "{path} {content_type}");
    }
}

#[tokio::test]
async fn the_stream_runs_over_tls_and_agrees_on_http2() {
    let made = rcgen::generate_simple_self_signed(["controller".to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key.into()).unwrap();
    let server = start(Some(Arc::new(config)), Settings::default()).await;
    server.list_cart().await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from("controller").unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));

    let mut client = Client::over(Subscriptions::new(&WorkloadId::new("shop", "web-1")), stream, None).await;
    client.subscribe(&[address(1)]).await;
    assert_eq!(summary(&client.events().await).len(), 2);
}
