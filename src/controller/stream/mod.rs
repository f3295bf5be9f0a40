//! The control stream's server: gRPC over HTTP/2, with TLS or (in one process, for tests) without.
//!
//! It speaks the method of [`leno_xds::METHOD_PATH`] on hyper's HTTP/2, so that a response can be a chain of bytes that all
//! subscribers share; where identities are in use, it answers [`leno_xds::SIGN_PATH`] too, and a stream is only for who shows a
//! certificate of the mesh. Each HTTP/2 connection is one task and each stream on it one more, that reads; writing is the response's
//! body, polled when there is room.
//!
//! Everything is bounded: connections, streams of one connection, the time for a handshake and for the first request, the length
//! of a message, subscriptions. Dead peers are found by pings.
//!
//! Reading order: [`serve`], `exchange`, `body`; `peer` (who the client is), `sign`.

mod body;
mod exchange;
mod peer;
mod sign;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use leno_xds::server::Limits;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::peer::Peer;
use crate::ca::signer::Signer;
use crate::publish::Publisher;

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bounds of each stream.
    pub limits: Limits,
    /// The longest message a proxy may send.
    pub message_bytes_max: usize,
    /// Most connections at a time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a client may take for its handshake, and then for its first request.
    pub patience: Duration,
    /// A connection that is silent this long is pinged.
    pub ping_after: Duration,
    /// A ping that is not answered this long ends the connection.
    pub ping_timeout: Duration,
    /// How long connections may take to end at shutdown.
    pub farewell: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            message_bytes_max: 1024 * 1024,
            connections_max: 10_000,
            patience: Duration::from_secs(10),
            ping_after: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
            farewell: Duration::from_secs(5),
        }
    }
}

/// Streams of one HTTP/2 connection: a proxy needs one, and one more while it begins anew.
const STREAMS_PER_CONNECTION: u32 = 8;
/// What one stream may have written ahead of the socket: small, so that newer states replace older ones before they are written.
const WRITTEN_AHEAD_BYTES: usize = 64 * 1024;
/// Bytes gathered into one write. Idle connections keep this buffer.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

/// What every connection needs.
struct Server {
    publisher: Publisher,
    signer: Option<Arc<Signer>>,
    settings: Settings,
    tls: Option<TlsAcceptor>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// Serves proxies until `cancel`, then tells each to go elsewhere and lets it.
///
/// * `tls`: with which certificate; `None` is for tests and for proxies in the same process.
/// * `signer`: who signs certificates, and by whose certificates clients are known. It needs a `tls` that asks for certificates
///   (`Serving::server_config_for_proxies`). `None`: identities are not in use, and everybody is who they say.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    publisher: Publisher,
    signer: Option<Arc<Signer>>,
    settings: Settings,
    cancel: CancellationToken,
) -> io::Result<()> {
    let tls = tls.map(|config| TlsAcceptor::from(with_http2(config)));
    let slots = Arc::new(Semaphore::new(settings.connections_max));
    let server = Arc::new(Server { publisher, signer, settings, tls, cancel, tasks: TaskTracker::new() });
    loop {
        let slot = slots.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let stream = tokio::select! {
            () = server.cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or the client has gone: neither ends the server.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let served = server.clone();
        server.tasks.spawn(async move {
            served.connection(stream).await;
            drop(slot);
        });
    }
    server.tasks.close();
    server.tasks.wait().await;
    Ok(())
}

/// gRPC clients insist on agreeing on HTTP/2.
fn with_http2(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if !config.alpn_protocols.is_empty() {
        return config;
    }
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%error, "the connection was gone at once");
        }
        let address = stream.peer_addr().ok().map(|address| address.ip().to_canonical());
        let peer = |session: Option<&ServerConnection>| Arc::new(Peer::new(address, session));
        let Some(acceptor) = self.tls.clone() else {
            let peer = peer(None);
            return self.http2(peer, stream).await;
        };
        match tokio::time::timeout(self.settings.patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let peer = peer(Some(stream.get_ref().1));
                self.http2(peer, stream).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn http2(self: Arc<Self>, peer: Arc<Peer>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        // Head, glue and shared bytes of a response leave in one write and one TLS record.
        let stream = TokioIo::new(BufWriter::with_capacity(WRITE_BUFFER_BYTES, stream));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(self.settings.ping_after)
            .keep_alive_timeout(self.settings.ping_timeout)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .max_send_buf_size(WRITTEN_AHEAD_BYTES)
            .max_header_list_size(16 * 1024);
        let server = self.clone();
        let served = builder.serve_connection(stream, service_fn(move |request| server.clone().exchange(peer.clone(), request)));
        tokio::pin!(served);
        let result = tokio::select! {
            result = served.as_mut() => result,
            () = self.cancel.cancelled() => {
                served.as_mut().graceful_shutdown();
                match tokio::time::timeout(self.settings.farewell, served).await {
                    Ok(result) => result,
                    Err(_elapsed) => return tracing::debug!("a proxy did not leave in time"),
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
    }
}
