//! The HTTP/2 connection of one proxy, and all streams on it.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong};
use leno_xds::message::Message;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};

use super::peer::Peer;
use super::{Server, Settings};

/// Streams of one HTTP/2 connection: a proxy needs one, and one more while it begins anew.
const STREAMS_PER_CONNECTION: u32 = 8;
/// What one stream may have written ahead of the socket: small, so that newer states replace older ones before they are written.
const WRITTEN_AHEAD_BYTES: usize = 64 * 1024;
/// Bytes gathered into one write. Idle connections keep this buffer.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
/// What a proxy may send unread, on one stream and in all: it sends little.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Longest head of a request.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

impl Server {
    /// Serves a connection until it ends, by either side.
    pub(super) async fn http2(&self, peer: &Peer, stream: impl AsyncRead + AsyncWrite + Unpin) {
        // Head, glue and shared bytes of all that waits leave in one write and one TLS record.
        let stream = BufWriter::with_capacity(WRITE_BUFFER_BYTES, stream);
        match tokio::time::timeout(self.settings.patience, builder().handshake(stream)).await {
            Ok(Ok(connection)) => {
                tokio::select! {
                    () = self.streams(peer, connection) => (),
                    () = self.farewell() => tracing::debug!("a proxy did not leave in time"),
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "HTTP/2 could not begin"),
            Err(_elapsed) => tracing::debug!("HTTP/2 took too long to begin"),
        }
    }

    /// Serves the streams of a connection. They have ended, and the publisher knows, when this does.
    async fn streams<T: AsyncRead + AsyncWrite + Unpin>(&self, peer: &Peer, mut connection: Connection<T, Message>) {
        let dead = keep_alive(connection.ping_pong(), &self.settings);
        tokio::pin!(dead);
        let (mut calls, mut leaves) = (FuturesUnordered::new(), false);
        loop {
            tokio::select! {
                // What is to be written is gathered before the connection writes.
                biased;
                Some(()) = calls.next(), if !calls.is_empty() => (),
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => calls.push(self.exchange(peer, request, respond)),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "connection ended");
                        break;
                    }
                    None => break,
                },
                () = &mut dead => {
                    tracing::debug!("a proxy did not answer a ping");
                    break;
                }
                () = self.cancel.cancelled(), if !leaves => {
                    leaves = true;
                    connection.graceful_shutdown();
                }
            }
        }
        // Without their connection all of them end.
        drop(connection);
        while calls.next().await.is_some() {}
    }

    /// Ends when connections have had their time to end at shutdown.
    async fn farewell(&self) {
        self.cancel.cancelled().await;
        tokio::time::sleep(self.settings.farewell).await;
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_send_buffer_size(WRITTEN_AHEAD_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// Ends when a ping was not answered in time.
async fn keep_alive(pings: Option<PingPong>, settings: &Settings) {
    let (mut pings, every, timeout): (_, Duration, _) = (pings.expect("asked for once"), settings.ping_after, settings.ping_timeout);
    loop {
        tokio::time::sleep(every).await;
        if !matches!(tokio::time::timeout(timeout, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
