//! HTTP/2 with prior knowledge: one connection, stream by stream, each request routed on its own.
//!
//! Reading order: [`serve`], [`exchange`] (the life of one request), [`head`] (what it says, and what is sent on),
//! [`flow`] (bodies and trailers, both ways), [`upstream`] (connections to endpoints), [`answer`] (what the proxy says
//! itself, in gRPC's terms where gRPC is spoken), [`watch`] (peers that make work for nothing).
//!
//! Built on the `h2` crate itself: a reset keeps its code, interim responses pass, and a request costs one task.
//!
//! Invariants: bytes are given back to the sender's window only when the receiver's window had room for them; a request
//! is sent again only when no app can have seen it, or when seeing it twice does no harm.

mod answer;
mod exchange;
mod flow;
mod head;
mod mirror;
pub(crate) mod probe;
mod rewind;
pub(crate) mod upstream;
mod watch;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Uri};
use leno_core::request::Caller;
use tokio::time::timeout;

use crate::admit::{self, Asks};
use crate::connection::{Connection, Side};
use crate::gather::Gather;
use crate::tls::{Agreed, Secured};
use crate::worker::Context;
use rewind::{Found, Rewind};
use upstream::Who;
use watch::Abuse;

/// What a stream may send before it is read: enough for 1 MiB at any latency inside a cluster.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// What all streams of a connection may send before they are read.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// What may wait in a stream to be written, beyond what the receiver's window allows.
const SEND_BUFFER_MAX: usize = 256 * 1024;
/// What small frames that wait may cost beside their bytes: some 65,000 of them on a connection, as a stream of small
/// messages to a slow reader has.
const FRAMES_BUDGET: usize = 16 * 1024 * 1024;
/// Bytes a head may have that an app sends, as HTTP/1 allows.
const HEADER_LIST_MAX: u32 = 64 * 1024;
/// Room, beyond that, for the fields that another proxy has added (HTTP/2 counts 32 bytes more for each).
const HEADER_LIST_ADDED_MAX: u32 = 2 * 1024;
/// Requests a client may have open on one connection.
const STREAMS_MAX: u32 = 256;

/// Streams of a connection that may be reset before they are looked at: all of them, as when another proxy gives up what one of its
/// many clients had asked for. That this is not done on and on is the business of [`watch`].
const PENDING_RESETS_MAX: usize = STREAMS_MAX as usize;
/// How long a client may take to read that its connection is ended.
const GOAWAY_TIME: Duration = Duration::from_secs(2);

/// What the requests of one connection share.
struct Client {
    peer: SocketAddr,
    caller: Rc<Caller>,
    tls: Option<Agreed>,
    /// Who is at both ends, where the client's end is mutual TLS.
    secured: Option<Rc<Secured>>,
    side: Side,
    context: Rc<Context>,
    /// The peer's address as a value of `x-forwarded-for`.
    address: HeaderValue,
}

impl Client {
    /// This connection, and no other that is open.
    fn who(&self) -> Who {
        Who(std::ptr::from_ref(self).addr())
    }

    /// Who is at both ends, where the client's end is mutual TLS.
    fn secured(&self) -> Option<&Rc<Secured>> {
        self.secured.as_ref()
    }
}

/// A request and the way back; an error of the connection; or its end.
type Accepted = Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;
type Streams = h2::server::Connection<Rewind, Bytes>;

/// Serves requests until the connection ends. From the beginning of draining on, none is accepted any more
/// (GOAWAY), and those that run are finished.
pub(crate) async fn serve(connection: Connection) {
    let Connection { io, peer, caller, tls, side, first, context, since } = connection;
    let secured = io.secured().cloned();
    let client = Rc::new(Client { peer, caller, tls, secured, side, address: head::address_value(peer.ip()), context });
    let gather = Gather::new(io, &client.context.buffers);
    let (io, found) = Rewind::watched(gather.clone(), first, client.context.settings.head_timeout);
    let mut streams = match Box::pin(server(&client.side).handshake::<_, Bytes>(io)).await {
        Ok(streams) => streams,
        Err(error) => {
            tracing::debug!(%error, %peer, "the client's HTTP/2 preface is broken");
            return;
        }
    };
    gather.driven();
    let mut is_ending = false;
    loop {
        let next = next(&mut streams, &found, &gather);
        let accepted = if is_ending { Some(next.await) } else { client.context.draining.or_else(next).await };
        match accepted {
            None => {
                is_ending = true;
                streams.graceful_shutdown();
            }
            Some(Ok(Some(Ok((request, _))))) if is_refused(&client, &request) => {
                admit::refuse(&client.side, peer, since, &client.context);
                streams.abrupt_shutdown(Reason::INADEQUATE_SECURITY);
                is_ending = true;
            }
            Some(Ok(Some(Ok((request, respond))))) => {
                tokio::task::spawn_local(Box::pin(exchange::run(Rc::clone(&client), request, respond)));
            }
            Some(Err(abuse)) => {
                tracing::info!(%peer, reason = abuse.reason(), "ended an HTTP/2 connection that makes work for nothing");
                client.context.recorder.abused(client.side.direction(), abuse.reason());
                return Box::pin(end(streams, abuse.code())).await;
            }
            Some(Ok(Some(Err(error)))) => {
                tracing::debug!(%error, %peer, "an HTTP/2 connection broke");
                if error.is_go_away() && error.is_library() {
                    client.context.recorder.abused(client.side.direction(), broken_rule(error.reason()));
                }
                return;
            }
            Some(Ok(None)) => return,
        }
    }
}

/// What comes next, unless the peer is found to be abusive and nothing that it did before is left. What was written meanwhile is sent
/// before it is waited for.
async fn next(streams: &mut Streams, found: &Found, gather: &Gather) -> Result<Accepted, Abuse> {
    poll_fn(|cx| {
        let turn = streams.poll_accept(cx);
        match (gather.poll_driven(turn, cx), found.get()) {
            (Poll::Ready(Ok(accepted)), _) => Poll::Ready(Ok(accepted)),
            (Poll::Ready(Err(error)), _) => {
                tracing::debug!(%error, "a client takes nothing any more");
                Poll::Ready(Ok(None))
            }
            (Poll::Pending, Some(abuse)) => Poll::Ready(Err(abuse)),
            (Poll::Pending, None) => Poll::Pending,
        }
    })
    .await
}

/// Ends a connection at once; who does not even take the GOAWAY is not waited for long.
async fn end(mut streams: Streams, code: Reason) {
    streams.abrupt_shutdown(code);
    let closed = poll_fn(|cx| streams.poll_closed(cx));
    if timeout(GOAWAY_TIME, closed).await.is_err() {
        tracing::debug!("a client takes no GOAWAY");
    }
}

/// Metric label of a connection that `h2` has ended for what its client sent.
fn broken_rule(reason: Option<Reason>) -> &'static str {
    match reason {
        Some(Reason::ENHANCE_YOUR_CALM) => "http2-flood",
        Some(_) | None => "http2-protocol-error",
    }
}

/// What a request asks, as far as probes are told by it.
fn asks<'r>(headers: &HeaderMap, uri: &'r Uri) -> Asks<'r> {
    if head::is_grpc(headers) { Asks::Grpc(uri.path()) } else { Asks::Other }
}

/// Whether the connection proves nothing, and has to for this request.
fn is_refused<B>(client: &Client, request: &Request<B>) -> bool {
    let asks = asks(request.headers(), request.uri());
    admit::is_refused(&client.side, client.tls.as_ref(), &asks, &client.context)
}

fn server(side: &Side) -> Builder {
    let head_bytes = match side {
        Side::Inbound { .. } => HEADER_LIST_MAX + HEADER_LIST_ADDED_MAX,
        Side::Outbound { .. } | Side::Outside { .. } | Side::Explicit => HEADER_LIST_MAX,
    };
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .data_frame_budget(FRAMES_BUDGET)
        .max_header_list_size(head_bytes)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .enable_connect_protocol();
    builder
}
