//! Replicas tell each other their receipts: `GET /receipts` answers with a stream of JSON lines, first all, then each change.
//! `GET /identities` says once who holds which certificate here, for `leno identity` and `leno ca`.
//!
//! Only the leader reads, from every other address behind the controller's Service. Both ends hold the token of the shared
//! Secret, and the reader checks the server's certificate against the shared CA.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::receipts::Line;
use crate::ca::listing::{self, Listing};
use crate::certificates::serving::Serving;
use crate::publish::Publisher;

/// How often a stream with nothing to say shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long the reader waits for anything at all.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How soon a reader comes back after a stream broke.
const RETRY: Duration = Duration::from_millis(500);
/// Where a replica tells its receipts.
const RECEIPTS: &str = "/receipts";
/// Longest line that is read.
const LINE_MAX: usize = 64 * 1024;

/// Where the command line puts the token: the API server, which passes its requests on, takes `authorization` for its own.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-leno-token");

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct Server {
    desk: Arc<Desk>,
    publisher: Publisher,
    serving: Serving,
}

impl Server {
    /// Whether the caller holds the token.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let shows = |name, wanted: String| headers.get(name).is_some_and(|shown| same(shown.as_bytes(), wanted.as_bytes()));
        shows(header::AUTHORIZATION, bearer(&self.serving)) || shows(TOKEN_HEADER, self.serving.peer_token())
    }
}

fn strangers() -> Response {
    (StatusCode::UNAUTHORIZED, "only for the controller's replicas\n").into_response()
}

/// `GET /receipts` and `GET /identities`.
pub fn router(desk: Arc<Desk>, publisher: Publisher, serving: Serving) -> Router {
    let routes = Router::new().route(RECEIPTS, get(tell)).route(listing::PATH, get(list));
    routes.with_state(Server { desk, publisher, serving })
}

async fn list(State(server): State<Server>, headers: HeaderMap) -> Response {
    if !server.admits(&headers) {
        return strangers();
    }
    match server.publisher.standing().await {
        Ok(standing) => Json(Listing::new(standing)).into_response(),
        Err(stopped) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")).into_response(),
    }
}

async fn tell(State(server): State<Server>, headers: HeaderMap) -> Response {
    if !server.admits(&headers) {
        return strangers();
    }
    let (all, later) = server.desk.listen();
    let first: Bytes = all.iter().flat_map(encode).collect::<Vec<u8>>().into();
    let lines = stream::unfold((Some(first), later), async |(first, mut later)| {
        let next = match first {
            Some(first) => Ok(first),
            None => next_line(&mut later).await,
        };
        match next {
            Ok(bytes) => Some((Ok::<_, std::convert::Infallible>(bytes), (None, later))),
            // The reader is too far behind, or the process ends: it comes back and reads everything.
            Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => None,
        }
    });
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}

/// The next line, or an empty one after a while.
async fn next_line(later: &mut broadcast::Receiver<Line>) -> Result<Bytes, broadcast::error::RecvError> {
    match tokio::time::timeout(HEARTBEAT, later.recv()).await {
        Ok(line) => line.map(|line| encode(&line).into()),
        Err(_elapsed) => Ok(Bytes::from_static(b"\n")),
    }
}

fn encode(line: &Line) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("a line is plain data");
    bytes.push(b'\n');
    bytes
}

fn bearer(serving: &Serving) -> String {
    format!("Bearer {}", serving.peer_token())
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

/// Reads the other replicas' receipts while this one leads.
pub struct Reader {
    /// Where they are booked.
    pub desk: Arc<Desk>,
    /// What replicas trust each other by.
    pub serving: Serving,
    /// The name in the replicas' certificate.
    pub server_name: ServerName<'static>,
    /// The replicas' HTTPS port.
    pub port: u16,
    /// This replica's own address.
    pub own: Option<IpAddr>,
}

impl Reader {
    /// Follows every address of `replicas` but its own, whenever `leading` is true.
    pub async fn run(self, mut replicas: watch::Receiver<BTreeSet<IpAddr>>, mut leading: watch::Receiver<bool>) {
        let reader = Arc::new(self);
        let mut followed: BTreeMap<IpAddr, CancellationToken> = BTreeMap::new();
        loop {
            let wanted = match *leading.borrow_and_update() {
                true => replicas.borrow_and_update().iter().copied().filter(|address| Some(*address) != reader.own).collect(),
                false => BTreeSet::new(),
            };
            followed.retain(|address, cancel| {
                let keep = wanted.contains(address);
                if !keep {
                    cancel.cancel();
                }
                keep
            });
            for address in wanted {
                followed.entry(address).or_insert_with(|| {
                    let (cancel, reader) = (CancellationToken::new(), Arc::clone(&reader));
                    let ended = cancel.clone();
                    tokio::spawn(async move { reader.follow(address, &ended).await });
                    cancel
                });
            }
            tokio::select! {
                changed = replicas.changed() => if changed.is_err() { return },
                changed = leading.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn follow(&self, replica: IpAddr, cancel: &CancellationToken) {
        let reading = async {
            loop {
                match self.read(replica).await {
                    Ok(()) => tracing::debug!(%replica, "a replica ended its receipts"),
                    Err(error) => tracing::debug!(%replica, error, "cannot read a replica's receipts"),
                }
                self.desk.gone(replica);
                tokio::time::sleep(RETRY).await;
            }
        };
        let _never: Option<()> = cancel.run_until_cancelled(reading).await;
        self.desk.gone(replica);
    }

    async fn read(&self, replica: IpAddr) -> Result<(), BoxError> {
        let address = SocketAddr::new(replica, self.port);
        let mut body = tokio::time::timeout(SILENCE_MAX, self.ask(address, RECEIPTS)).await??;
        let mut buffer = Vec::new();
        while let Some(frame) = tokio::time::timeout(SILENCE_MAX, body.frame()).await? {
            buffer.extend_from_slice(frame?.data_ref().map(Bytes::as_ref).unwrap_or_default());
            for line in take_lines(&mut buffer)? {
                self.desk.told(replica, line);
            }
        }
        Ok(())
    }

    async fn ask(&self, address: SocketAddr, path: &str) -> Result<hyper::body::Incoming, BoxError> {
        let connector = TlsConnector::from(self.serving.client_config()?);
        let stream = connector.connect(self.server_name.clone(), TcpStream::connect(address).await?).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, self.server_name.to_str().as_ref())
            .header(header::AUTHORIZATION, bearer(&self.serving))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("the replica answered {}", response.status()).into());
        }
        Ok(response.into_body())
    }
}

/// The whole lines at the front of `buffer`.
fn take_lines(buffer: &mut Vec<u8>) -> Result<Vec<Line>, BoxError> {
    let whole = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = buffer.split_off(whole);
    let lines = std::mem::replace(buffer, rest);
    if buffer.len() > LINE_MAX {
        return Err("a line is too long".into());
    }
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(BoxError::from)).collect()
}

#[cfg(test)]
mod tests {
    use leno_core::names::ServiceId;
    use tokio::net::TcpListener;
    use tower::ServiceExt as _;

    use super::*;
    use crate::certificates::{Policy, renew};
    use crate::publish::receipts::Dirty;
    use crate::publish::topic::Topic;
    use crate::tls;

    fn serving() -> Serving {
        let policy = Policy::new(vec!["leno-controller.leno-system.svc".into()]);
        Serving::new(renew(None, &policy, jiff::Timestamp::now()).unwrap()).unwrap()
    }

    fn line(topic: &str, current: usize) -> Line {
        let (version, refusal) = (Some("1".into()), None);
        Line { topic: topic.into(), version, subscribed: 2, current, current_since: None, refused: 0, refusal }
    }

    fn reader(desk: &Arc<Desk>, serving: Serving, port: u16) -> Reader {
        let server_name = ServerName::try_from("leno-controller.leno-system.svc").unwrap();
        Reader { desk: Arc::clone(desk), serving, server_name, port, own: None }
    }

    fn publisher(cancel: &CancellationToken) -> Publisher {
        let translator = leno_translate::Translator::new(leno_translate::Defaults::new("cluster.local"));
        let (publisher, task) = Publisher::new(translator, [], tokio::sync::mpsc::channel(1).1);
        tokio::spawn(task.run(cancel.clone()));
        publisher
    }

    async fn serve(desk: &Arc<Desk>, serving: &Serving, cancel: &CancellationToken) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = router(Arc::clone(desk), publisher(cancel), serving.clone());
        tokio::spawn(tls::serve(listener, serving.server_config(&["http/1.1"]).unwrap(), router, cancel.clone()));
        port
    }

    async fn waits_for(desk: &Desk, topic: &Topic, current: usize) {
        while desk.standing(topic, Some("1")).current != current {
            let _dirty: Dirty = tokio::time::timeout(Duration::from_secs(10), desk.pending()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_leader_hears_what_there_was_what_changes_and_that_a_replica_is_gone() {
        let (serving, cancel) = (serving(), CancellationToken::new());
        let (there, here) = (Arc::new(Desk::default()), Arc::new(Desk::default()));
        let payment = Topic::Service(ServiceId::new("shop", "payment"));
        there.own_for_test(&payment, line("shop/payment", 1));
        let port = serve(&there, &serving, &cancel).await;

        let (replicas, leading) = (watch::channel(BTreeSet::from([IpAddr::from([127, 0, 0, 1])])), watch::channel(true));
        tokio::spawn(reader(&here, serving.clone(), port).run(replicas.1, leading.1));
        waits_for(&here, &payment, 1).await;
        there.own_for_test(&payment, line("shop/payment", 2));
        waits_for(&here, &payment, 2).await;
        replicas.0.send_replace(BTreeSet::new());
        waits_for(&here, &payment, 0).await;
        cancel.cancel();
    }

    #[tokio::test]
    async fn who_does_not_hold_the_token_is_told_nothing() {
        let (serving, cancel) = (serving(), CancellationToken::new());
        let desk = Arc::new(Desk::default());
        let port = serve(&desk, &serving, &cancel).await;
        let material = crate::certificates::Material { peer_token: "other".into(), ..serving.material() };
        let stranger = reader(&desk, Serving::new(material).unwrap(), port);
        for path in [RECEIPTS, listing::PATH] {
            let error = stranger.ask(([127, 0, 0, 1], port).into(), path).await.unwrap_err();
            assert!(error.to_string().contains("401"), "{error}");
        }
        cancel.cancel();
    }

    #[tokio::test]
    async fn who_holds_the_token_is_told_which_certificates_proxies_hold() {
        let (serving, cancel) = (serving(), CancellationToken::new());
        let desk = Arc::new(Desk::default());
        let port = serve(&desk, &serving, &cancel).await;
        let friend = reader(&desk, serving, port);
        let body = friend.ask(([127, 0, 0, 1], port).into(), listing::PATH).await.unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(serde_json::from_slice::<Listing>(&body).unwrap(), Listing::default(), "nobody is connected");
        cancel.cancel();
    }

    #[tokio::test]
    async fn the_listing_is_for_who_holds_the_token_in_a_header_that_the_api_server_passes_on() {
        let (serving, cancel) = (serving(), CancellationToken::new());
        let router = router(Arc::default(), publisher(&cancel), serving.clone());
        let cases = [
            ("x-leno-token", serving.peer_token(), 200),
            ("authorization", bearer(&serving), 200),
            ("authorization", serving.peer_token(), 401),
            ("x-leno-token", bearer(&serving), 401),
            ("x-leno-token", String::new(), 401),
            ("x-other", serving.peer_token(), 401),
        ];
        for (name, value, status) in cases {
            let request = Request::get(listing::PATH).header(name, &value).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{name}");
        }
        cancel.cancel();
    }

    #[test]
    fn lines_are_taken_whole_and_a_line_may_not_grow_without_end() {
        let mut buffer = encode(&line("shop/a", 1));
        buffer.extend_from_slice(b"\n{\"serv");
        let lines = take_lines(&mut buffer).unwrap();
        assert_eq!(lines, [line("shop/a", 1)]);
        assert_eq!(buffer, b"{\"serv");
        assert_eq!(take_lines(&mut vec![b'x'; LINE_MAX]).unwrap(), []);
        assert!(take_lines(&mut vec![b'x'; LINE_MAX + 1]).is_err());
    }
}
