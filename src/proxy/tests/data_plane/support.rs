//! A worker without a controller, servers and clients of raw bytes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use leno_core::balance::{Algorithm, Balancing};
use leno_core::endpoints::{Endpoint, Endpoints, EndpointsId, Origination};
use leno_core::names::{Name, ServiceId, WorkloadId};
use leno_core::resilience::Resilience;
use leno_core::route::RouteTable;
use leno_core::service::{Protocol, Service, ServicePort};
use leno_proxy::control::{Alias, Ask, Update};
use leno_proxy::drain::Drain;
use leno_proxy::listen::{Accept, Listener, bind};
use leno_proxy::telemetry::{AccessLog, AccessLogMode, LogSink, Registry};
use leno_proxy::worker::{Settings, Worker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// A test that waits longer than this for anything has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const PORT: u16 = 80;

#[derive(Default)]
struct World {
    services: HashMap<ServiceId, Arc<Service>>,
    endpoints: HashMap<EndpointsId, Arc<Endpoints>>,
    balancing: Arc<Balancing>,
}

/// A worker, and what it is told.
pub(crate) struct Mesh {
    world: Arc<Mutex<World>>,
    updates: UnboundedSender<Update>,
    pub(crate) registry: Arc<Registry>,
    drain: watch::Sender<Drain>,
    worker: Option<JoinHandle<()>>,
}

/// How a mesh of one service is made.
pub(crate) struct Setup {
    pub(crate) protocol: Protocol,
    pub(crate) balancer: Algorithm,
    pub(crate) routes: RouteTable,
    pub(crate) endpoints: Vec<(SocketAddr, &'static str)>,
    pub(crate) settings: Settings,
    /// Where every request is logged, if anywhere.
    pub(crate) log: Option<LogSink>,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = Settings::new(WorkloadId::new("shop", "web-1"));
        Self {
            protocol: Protocol::Http,
            balancer: Algorithm::RoundRobin,
            routes: RouteTable::default(),
            endpoints: Vec::new(),
            settings,
            log: None,
        }
    }
}

pub(crate) fn payment() -> ServiceId {
    ServiceId::new("shop", "payment")
}

impl Setup {
    pub(crate) fn to(servers: &[&Server]) -> Self {
        Self { endpoints: servers.iter().map(|server| (server.address, "v1")).collect(), ..Self::default() }
    }

    /// Starts a worker with an address that stands for `shop/payment:80`.
    pub(crate) fn start(self) -> (Mesh, SocketAddr) {
        let service = payment();
        self.start_with(|| Accept::OutboundService { service, port: PORT })
    }

    pub(crate) fn start_with(self, accept: impl FnOnce() -> Accept) -> (Mesh, SocketAddr) {
        self.start_run(accept, |worker| worker.run().unwrap())
    }

    /// The same with a worker that `run` runs, on a thread of its own.
    pub(crate) fn start_run(self, accept: impl FnOnce() -> Accept, run: impl FnOnce(Worker) + Send + 'static) -> (Mesh, SocketAddr) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (updates, updated) = unbounded_channel();
        let (asks, asked) = unbounded_channel();
        let (drain, drained) = watch::channel(Drain::Running);
        let registry = Arc::new(Registry::default());
        let listeners = vec![Listener { listener, accept: accept() }];
        let (counted, settings) = (Arc::clone(&registry), self.settings);
        let world = Arc::new(Mutex::new(World::default()));
        let log = self.log;
        let worker = thread::spawn(move || {
            let access_log = log.and_then(|sink| AccessLog::new(AccessLogMode::All.into(), "web".into(), sink));
            run(Worker { listeners, asks, updates: updated, registry: counted, access_log, drain: drained, settings });
        });
        let mesh = Mesh { world, updates, registry, drain, worker: Some(worker) };
        mesh.tell(Update::Connected(true));
        mesh.answer(asked);
        mesh.set_service(self.protocol, self.balancer, self.routes);
        mesh.set_endpoints(&self.endpoints);
        (mesh, address)
    }
}

impl Mesh {
    pub(crate) fn tell(&self, update: Update) {
        self.updates.send(update).unwrap();
    }

    pub(crate) fn set_service(&self, protocol: Protocol, balancer: Algorithm, routes: RouteTable) {
        let ports = vec![ServicePort { port: PORT, protocol }];
        let service = Arc::new(Service { ports, routes, ..Service::new(payment()) });
        self.world.lock().unwrap().services.insert(payment(), Arc::clone(&service));
        self.tell(Update::Service(payment(), Some(service)));
        self.set_balancing(Balancing { algorithm: balancer, ..Balancing::default() });
    }

    /// Endpoints are chosen like this from now on.
    pub(crate) fn set_balancing(&self, balancing: Balancing) {
        let known = {
            let mut world = self.world.lock().unwrap();
            world.balancing = Arc::new(balancing);
            world.endpoints.get(&EndpointsId::new(payment(), PORT)).map(|endpoints| Endpoints::clone(endpoints))
        };
        if let Some(endpoints) = known {
            self.set_all(endpoints);
        }
    }

    /// The service is something outside, where the proxy begins TLS.
    pub(crate) fn set_outside(&self, protocol: Protocol, addresses: &[SocketAddr], origination: Arc<Origination>) {
        let ports = vec![ServicePort { port: PORT, protocol }];
        let service = Arc::new(Service { ports, outside: true, ..Service::new(payment()) });
        self.world.lock().unwrap().services.insert(payment(), Arc::clone(&service));
        self.tell(Update::Service(payment(), Some(service)));
        let endpoint = |address: &SocketAddr| Endpoint::at(*address);
        let id = EndpointsId::new(payment(), PORT);
        let endpoints = addresses.iter().map(endpoint).collect();
        let endpoints = Arc::new(Endpoints { endpoints, origination: Some(origination), ..Endpoints::new(id.clone()) });
        self.world.lock().unwrap().endpoints.insert(id.clone(), Arc::clone(&endpoints));
        self.tell(Update::Endpoints(id, Some(endpoints)));
    }

    pub(crate) fn set_endpoints(&self, endpoints: &[(SocketAddr, &str)]) {
        let endpoint = |(address, version): &(SocketAddr, &str)| Endpoint {
            workload: Name::from("payment"),
            versions: vec![Name::from(*version)],
            ..Endpoint::at(*address)
        };
        self.set_these(endpoints.iter().map(endpoint).collect());
    }

    pub(crate) fn set_these(&self, endpoints: Vec<Endpoint>) {
        self.set_all(Endpoints { endpoints, ..Endpoints::new(EndpointsId::new(payment(), PORT)) });
    }

    /// Endpoints that are guarded.
    pub(crate) fn set_guarded(&self, addresses: &[SocketAddr], resilience: &Resilience) {
        let mut endpoints: Vec<_> = addresses.iter().map(|address| Endpoint::at(*address)).collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        let resilience = Some(Arc::new(resilience.clone()));
        self.set_all(Endpoints { endpoints, resilience, ..Endpoints::new(EndpointsId::new(payment(), PORT)) });
    }

    /// Endpoints of which more is known, guarded.
    pub(crate) fn set_guarded_these(&self, endpoints: Vec<Endpoint>, resilience: Option<Arc<Resilience>>) {
        self.set_all(Endpoints { endpoints, resilience, ..Endpoints::new(EndpointsId::new(payment(), PORT)) });
    }

    pub(crate) fn set_all(&self, endpoints: Endpoints) {
        let balancing = Some(Arc::clone(&self.world.lock().unwrap().balancing));
        let (id, endpoints) = (endpoints.id.clone(), Arc::new(Endpoints { balancing, ..endpoints }));
        self.world.lock().unwrap().endpoints.insert(id.clone(), Arc::clone(&endpoints));
        self.tell(Update::Endpoints(id, Some(endpoints)));
    }

    /// Answers asks like a controller that knows the world.
    fn answer(&self, mut asked: UnboundedReceiver<Ask>) {
        let (world, updates) = (Arc::clone(&self.world), self.updates.clone());
        thread::spawn(move || {
            while let Some(ask) = asked.blocking_recv() {
                let world = world.lock().unwrap();
                let told: Vec<Update> = match ask {
                    Ask::Service(alias) => {
                        let id = match &alias {
                            Alias::Service(id) => Some(id.clone()),
                            Alias::Host(host) if &**host == "payment" => Some(payment()),
                            Alias::Host(_) | Alias::Address(_) => None,
                        };
                        let service = id.as_ref().and_then(|id| world.services.get(id)).cloned();
                        let state = service.map(|service| Update::Service(service.id.clone(), Some(service)));
                        [Update::Alias(alias, id)].into_iter().chain(state).collect()
                    }
                    Ask::Endpoints(id) => vec![Update::Endpoints(id.clone(), world.endpoints.get(&id).cloned())],
                    Ask::DropService(_) | Ask::DropEndpoints(_) => Vec::new(),
                };
                for update in told {
                    if updates.send(update).is_err() {
                        return;
                    }
                }
            }
        });
    }

    pub(crate) fn drain(&self, bound: Duration) {
        self.drain.send(Drain::Draining { bound }).unwrap();
    }

    /// Waits until the worker has ended.
    pub(crate) fn join(&mut self) {
        self.worker.take().unwrap().join().unwrap();
    }

    pub(crate) fn metrics(&self) -> String {
        self.registry.render("shop/web-1")
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never came true: {what}");
        thread::yield_now();
    }
}

/// A server whose connections are handled one thread each.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(handle: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (handle, connections) = (Arc::new(handle), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (stream, handle) = (stream.unwrap(), Arc::clone(&handle));
                thread::spawn(move || handle(Peer::new(stream)));
            }
        });
        Self { address, connections }
    }

    /// Answers every request with 200 and `text`, for as long as the connection is open.
    pub(crate) fn answering(text: &'static str) -> Self {
        Self::start(move |mut peer| {
            while let Some(_request) = peer.message() {
                peer.send(&ok(text));
            }
        })
    }

    /// Tells every request's bytes, and answers 200.
    pub(crate) fn telling() -> (Self, mpsc::Receiver<String>) {
        let (tell, told) = mpsc::channel();
        let server = Self::start(move |mut peer| {
            while let Some(request) = peer.message() {
                tell.send(request.text()).unwrap();
                peer.send(&ok("told"));
            }
        });
        (server, told)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub(crate) fn ok(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// An address where nobody listens.
pub(crate) fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One end of a connection, with what was read and not used.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// One HTTP/1 message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.head, String::from_utf8_lossy(&self.body))
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {:?}", self.head))
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .find_map(|line| line.split_once(": ").filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value))
    }

    pub(crate) fn body(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn dial(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).unwrap();
    }

    pub(crate) fn ask(&mut self, bytes: &str) -> Message {
        self.send(bytes);
        self.response()
    }

    fn more(&mut self) -> bool {
        let mut block = [0; 64 * 1024];
        match self.stream.read(&mut block) {
            Ok(read) => {
                self.read.extend_from_slice(&block[..read]);
                read > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}; read so far: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    /// Reads up to and with `end`; `None` when the connection ends before it.
    pub(crate) fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(place) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let text: Vec<u8> = self.read.drain(..place + end.len()).collect();
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads exactly `count` bytes, or fewer at the end.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count && self.more() {}
        let count = count.min(self.read.len());
        self.read.drain(..count).collect()
    }

    /// Reads `count` bytes and forgets them; fewer at the end. Returns how many there were.
    pub(crate) fn skip(&mut self, count: usize) -> usize {
        let mut skipped = std::mem::take(&mut self.read).len();
        let mut block = [0; 64 * 1024];
        while skipped < count {
            match self.stream.read(&mut block).unwrap() {
                0 => break,
                read => skipped += read,
            }
        }
        skipped
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.read)
    }

    pub(crate) fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n")
    }

    /// A whole request, or a response that is delimited by itself; `None` at the end of the connection.
    pub(crate) fn message(&mut self) -> Option<Message> {
        let head = self.head()?;
        let mut message = Message { head, body: Vec::new() };
        if let Some(length) = message.field("content-length") {
            let length = length.parse().unwrap();
            message.body = self.exactly(length);
        } else if message.field("transfer-encoding") == Some("chunked") {
            message.body = self.until("0\r\n")?.into_bytes();
            message.body.extend(self.until("\r\n")?.into_bytes());
            while !message.body.ends_with(b"\r\n\r\n") {
                message.body.extend(self.until("\r\n")?.into_bytes());
            }
        }
        Some(message)
    }

    pub(crate) fn response(&mut self) -> Message {
        self.message().expect("a response, and not the end of the connection")
    }

    /// Whether the other side has closed, with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more()
    }
}
