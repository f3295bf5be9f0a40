//! Tunnels that other proxies have opened: each stream is a connection to the app.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request};

use super::stream::TunnelStream;
use super::{CONNECTION_WINDOW, FRAME_MAX, FRAMES_BUDGET, HEADER_LIST_MAX, SEND_BUFFER_MAX, STREAM_WINDOW};
use crate::connection::{Connection, Met, go_on, http};
use crate::gather::Gather;
use crate::io::Io;
use crate::tls::{Agreed, Inner, Secured, Standing};
use crate::worker::Context;

/// Streams a tunnel may have here; who opens tunnels has a bound of its own, and this leaves it room for another one.
const STREAMS_ALLOWED: u32 = 256;

type Streams = h2::server::Connection<Gather, Bytes>;
type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Carries the connections of a tunnel to its end. From the beginning of draining on no more are opened (GOAWAY), and those that are
/// there go on.
pub(crate) async fn serve(connection: Box<Connection>) {
    let context = Rc::clone(&connection.context);
    let Connection { io, peer, caller, tls, side, .. } = *connection;
    let (Io::Tls(stream), Some(agreed), Some(roots)) = (io, tls, context.security.roots()) else { return };
    let Some(standing) = stream.standing(roots, None) else { return };
    let (inner, secured) = (stream.inner(), stream.secured().cloned());
    let gather = Gather::new(Io::Tls(stream), &context.buffers);
    let mut streams = match Box::pin(server().handshake::<_, Bytes>(gather.clone())).await {
        Ok(streams) => streams,
        Err(error) => return tracing::debug!(%error, %peer, "a tunnel's preface is broken"),
    };
    gather.driven();
    let mut is_ending = false;
    loop {
        let next = next(&mut streams, &gather);
        let asked = if is_ending { Some(next.await) } else { context.draining.or_else(next).await };
        match asked {
            None => {
                is_ending = true;
                streams.graceful_shutdown();
            }
            Some(Ok(Some((request, mut answer)))) => {
                if !stands(&standing, &context) {
                    // Whoever can prove itself again will do so, on another tunnel.
                    answer.send_reset(Reason::REFUSED_STREAM);
                    if !is_ending {
                        tracing::info!(%peer, "a tunnel takes no more connections: its caller's certificate proves nothing any more");
                        is_ending = true;
                        streams.graceful_shutdown();
                    }
                    continue;
                }
                let Some(io) = accepted(request, answer, agreed, secured.clone()) else { continue };
                let asked = Connection::new(io, peer, side.clone(), Rc::clone(&context));
                let asked = Box::new(Connection { caller: Rc::clone(&caller), tls, since: Instant::now(), ..*asked });
                tokio::task::spawn_local(carry(asked, inner));
            }
            Some(Ok(None)) => return,
            Some(Err(error)) => return tracing::debug!(%error, %peer, "a tunnel broke"),
        }
    }
}

/// Carries one connection of a tunnel to its end. Of HTTP it is there as soon as it is asked for: its requests say what they lead to.
async fn carry(connection: Box<Connection>, inner: Option<Inner>) {
    let context = Rc::clone(&connection.context);
    let _counted = context.open.count_one();
    let _open = context.recorder.connection_opened(connection.side.direction());
    let met = if inner == Some(Inner::HttpTunnel) {
        connection.io.established();
        Box::pin(http(connection)).await
    } else {
        Some(Met::Opaque(connection, None))
    };
    if let Some(met) = met {
        go_on(met).await;
    }
}

fn stands(standing: &Standing, context: &Context) -> bool {
    context.security.roots().is_some_and(|roots| standing.check(&roots, crate::tls::now()).is_ok())
}

fn accepted(request: Request<RecvStream>, mut answer: SendResponse<Bytes>, agreed: Agreed, secured: Option<Rc<Secured>>) -> Option<Io> {
    if *request.method() != Method::CONNECT {
        answer.send_reset(Reason::PROTOCOL_ERROR);
        return None;
    }
    Some(Io::Tunnelled(Box::new(TunnelStream::asked(request.into_body(), answer, agreed, secured))))
}

/// The next stream; what was written meanwhile is sent before it is waited for.
async fn next(streams: &mut Streams, gather: &Gather) -> io::Result<Option<Asked>> {
    poll_fn(|cx| {
        let turn = streams.poll_accept(cx);
        gather.poll_driven(turn, cx).map(|turn| turn?.transpose().map_err(io::Error::other))
    })
    .await
}

fn server() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .max_frame_size(FRAME_MAX)
        .data_frame_budget(FRAMES_BUDGET)
        .max_header_list_size(HEADER_LIST_MAX)
        // What was on its way when a stream was reset is no fault of the peer's, over the life of a tunnel however often.
        .max_local_error_reset_streams(None)
        .max_concurrent_streams(STREAMS_ALLOWED)
        .max_pending_accept_reset_streams(STREAMS_ALLOWED as usize);
    builder
}
