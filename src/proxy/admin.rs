//! The admin port: health for the kubelet, metrics for Prometheus, and probes of the app.
//!
//! | path | answer |
//! |---|---|
//! | `/live` | 200 while the process runs |
//! | `/ready` | 200 once the proxy carries traffic, 503 with the reason before that and while it drains |
//! | `/identity` | the proxy's identity and until when its certificate is good, or why there is none |
//! | `/metrics` | Prometheus text |
//! | `/probe/…` | what the app answers to one of its probes, see [`probe`](crate::probe) |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use leno_core::names::Name;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::identity::keeper::wall_clock;
use crate::identity::shown::Shown;
use crate::probe::Probes;
use crate::telemetry::{Registry, prometheus};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections answered at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// Whether the proxy carries traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The controller has not yet said what this proxy is, or not signed its certificate.
    Waiting,
    /// Traffic is carried.
    Ready,
    /// The proxy is on its way out.
    Draining,
}

impl Readiness {
    /// Why the proxy is not ready, in words.
    fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::Waiting => Some("waiting for the first configuration and certificate from the controller; is leno-controller reachable?"),
            Self::Draining => Some("draining: the proxy finishes what runs and takes nothing new"),
        }
    }
}

/// What the admin port shows.
pub struct Admin {
    /// The proxy's counters.
    pub registry: Arc<Registry>,
    /// The workload's name, the `source` label.
    pub source: Name,
    /// Whether traffic is carried.
    pub readiness: watch::Receiver<Readiness>,
    /// Whether the control stream is up.
    pub connected: watch::Receiver<bool>,
    /// The proxy's certificate; `None` for a proxy without an identity.
    pub identity: Option<Arc<Shown>>,
    /// The app's probes that are made here.
    pub probes: Probes,
}

/// Serves until the task is dropped. A connection that misbehaves ends alone.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin port cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&admin), request));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "admin connection ended early");
            }
            drop(slot);
        });
    }
}

async fn answer(admin: Arc<Admin>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n".into()));
    }
    Ok(match request.uri().path() {
        "/live" => text(StatusCode::OK, "ok\n".into()),
        "/ready" => ready(&admin),
        "/identity" => text(StatusCode::OK, admin.identity()),
        "/metrics" => metrics(&admin),
        _ => match request.uri().path_and_query().and_then(|it| it.as_str().strip_prefix("/probe/")) {
            Some(wanted) => admin.probes.answer(wanted, request.headers()).await,
            None => text(StatusCode::NOT_FOUND, "there are /live, /ready, /identity, /metrics and /probe/…\n".into()),
        },
    })
}

impl Admin {
    /// What there is to say of the proxy's identity: one line.
    fn identity(&self) -> String {
        let sentence = self.identity.as_ref().map(|shown| shown.sentence(wall_clock()));
        sentence.unwrap_or_else(|| "no identity: LENO_TOKEN_FILE is not set, so this proxy speaks plain".to_owned()) + "\n"
    }
}

fn ready(admin: &Admin) -> Response<Full<Bytes>> {
    let refusal = admin.readiness.borrow().refusal();
    let (status, first) = refusal.map_or((StatusCode::OK, "ready"), |reason| (StatusCode::SERVICE_UNAVAILABLE, reason));
    text(status, format!("{first}\n{}", admin.identity()))
}

fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    let mut page = admin.registry.render(&admin.source);
    page.push_str("# HELP leno_control_connected Whether the stream to the controller is up.\n# TYPE leno_control_connected gauge\n");
    page.push_str(if *admin.connected.borrow() { "leno_control_connected 1\n" } else { "leno_control_connected 0\n" });
    if let Some(shown) = &admin.identity {
        shown.render(&mut page);
    }
    let mut response = text(StatusCode::OK, page);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(prometheus::CONTENT_TYPE));
    response
}

pub(crate) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_metrics_and_tcp_probes_are_answered_and_the_rest_is_refused_in_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (readiness, watched) = watch::channel(Readiness::Waiting);
        let (_connected, connected) = watch::channel(true);
        let probes = Probes { app: [127, 0, 0, 1].into(), declared: Vec::new() };
        let admin = Admin { registry: Arc::default(), source: "web".into(), readiness: watched, connected, identity: None, probes };
        let server = tokio::spawn(serve(listener, Arc::new(admin)));

        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
        readiness.send(Readiness::Ready).unwrap();
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.contains("leno_control_connected 1"));
        let port = app.local_addr().unwrap().port();
        assert!(get(address, &format!("/probe/tcp/{port}")).await.starts_with("HTTP/1.1 200"));
        drop(app);
        let down = get(address, &format!("/probe/tcp/{port}")).await;
        assert!(down.starts_with("HTTP/1.1 503") && down.contains("does not accept"), "{down}");
        assert!(get(address, "/probe/tcp/http").await.starts_with("HTTP/1.1 400"));
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }
}
