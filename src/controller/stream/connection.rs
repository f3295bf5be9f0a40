//! The HTTP/2 connection of one proxy, and all streams on it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_util::FutureExt as _;
use futures_util::future::{Either, join_all};
use h2::server::{Builder, Connection};
use h2::{Ping, PingPong};
use leno_xds::message::Message;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};

use super::bell::Bell;
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
            Ok(Ok(connection)) => self.streams(peer, connection).await,
            Ok(Err(error)) => tracing::debug!(%error, "HTTP/2 could not begin"),
            Err(_elapsed) => tracing::debug!("HTTP/2 took too long to begin"),
        }
    }

    /// Serves the streams of a connection. They have ended, and the publisher knows, when this does.
    async fn streams<T: AsyncRead + AsyncWrite + Unpin>(&self, peer: &Peer, mut connection: Connection<T, Message>) {
        let mut calls: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
        // It is looked at when it was itself woken: what comes from or goes to the proxy touches neither timers nor the token, which all
        // connections share and lock.
        let mut signal: Pin<Box<dyn Future<Output = Signal> + Send + '_>> = Box::pin(self.leave_or_dead(connection.ping_pong()));
        let (for_connection, mut for_signal) = (Bell::new(), Bell::new());
        loop {
            let next = poll_fn(|context| {
                for_connection.mute();
                // What is to be written is gathered before the connection writes.
                calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
                if let Poll::Ready(signal) = for_signal.look(context, |context| signal.as_mut().poll(context)) {
                    return Poll::Ready(Either::Left(signal));
                }
                for_connection.look(context, |context| connection.poll_accept(context)).map(Either::Right)
            });
            match next.await {
                Either::Right(Some(Ok((request, respond)))) => calls.push(Box::pin(self.exchange(peer, request, respond))),
                Either::Right(Some(Err(error))) => {
                    tracing::debug!(%error, "connection ended");
                    break;
                }
                Either::Right(None) => break,
                Either::Left(Signal::Leave) => {
                    connection.graceful_shutdown();
                    signal = Box::pin(tokio::time::sleep(self.settings.farewell).map(|()| Signal::Late));
                    for_signal = Bell::new();
                }
                Either::Left(signal) => {
                    tracing::debug!(?signal, "ending a connection");
                    break;
                }
            }
        }
        // Without their connection all of them end.
        drop(connection);
        join_all(calls).await;
    }

    async fn leave_or_dead(&self, pings: Option<PingPong>) -> Signal {
        tokio::select! {
            () = self.cancel.cancelled() => Signal::Leave,
            () = keep_alive(pings, &self.settings) => Signal::Dead,
        }
    }
}

/// What ends a connection from this side.
#[derive(Clone, Copy, Debug)]
enum Signal {
    /// The process is to end: no new streams.
    Leave,
    /// The proxy has not left in time.
    Late,
    /// The proxy has not answered a ping.
    Dead,
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
    let mut pings = pings.expect("asked for once");
    loop {
        tokio::time::sleep(settings.ping_after).await;
        if !matches!(tokio::time::timeout(settings.ping_timeout, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
