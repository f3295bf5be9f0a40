//! The control stream's server: gRPC over HTTP/2, with TLS or (in one process, for tests) without.
//!
//! It speaks the method of [`leno_xds::METHOD_PATH`], with responses that are chains of bytes that all subscribers share; where
//! identities are in use, it answers [`leno_xds::SIGN_PATH`] too, and a stream is only for who shows a certificate of the mesh. Each
//! HTTP/2 connection is one task, streams included: a change for a proxy wakes one task, which writes once, and so does the
//! proxy's answer.
//!
//! Everything is bounded: connections, streams of one connection, the time for a handshake and for the first request, the length
//! of a message, subscriptions. Dead peers are found by pings.
//!
//! Reading order: [`serve`], `connection` (with `bell`), `exchange`, `answer`; `peer` (who the client is), `sign`.

mod answer;
mod bell;
mod connection;
mod exchange;
mod peer;
mod sign;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use leno_xds::server::Limits;
use rustls::{ServerConfig, ServerConnection};
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
    async fn connection(&self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%error, "the connection was gone at once");
        }
        let address = stream.peer_addr().ok().map(|address| address.ip().to_canonical());
        let peer = |session: Option<&ServerConnection>| Peer::new(address, session);
        let Some(acceptor) = self.tls.clone() else {
            return self.http2(&peer(None), stream).await;
        };
        match tokio::time::timeout(self.settings.patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let peer = peer(Some(stream.get_ref().1));
                self.http2(&peer, stream).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }
}
