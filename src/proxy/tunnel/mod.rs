//! Tunnels: connections carried from proxy to proxy as streams of a few mutual TLS connections.
//!
//! Some carry connections of apps whose bytes are not looked at: a new one costs no handshake. Others carry connections of HTTP/1, for
//! requests that are under way at once: their frames share records and system calls. A tunnel is HTTP/2; each connection is a `CONNECT`
//! on it (RFC 9113 section 8.5): `200` says that the app beside the other proxy has accepted, or that the proxy itself reads requests;
//! END_STREAM is a FIN, RST_STREAM a reset, and windows hold a fast sender back. Who has opened the tunnel is who has opened each of its
//! streams, and every stream is judged, dialled, counted and recorded as a connection of its own. The tunnel's own destination says
//! which port is meant: no stream leads elsewhere.
//!
//! Reading order: [`links`] (tunnels to one peer), `serve` (those that others have opened), [`stream`] (one connection in them); [`crate::gather`]
//! is how a tunnel reads and writes.
//!
//! Invariants: a stream is opened only on a tunnel whose peer could still prove who it is; what one app leaves unread holds up
//! no other; a tunnel rests for a while and then closes.

pub(crate) mod links;
mod serve;
mod stream;

pub(crate) use serve::serve;
pub use stream::TunnelStream;

use crate::tls::WRITE_MAX;

/// Connections in one tunnel. Others get a tunnel of their own.
const STREAMS_MAX: usize = 64;
/// What a connection may send before its receiver takes it: enough for 250 MB/s at a millisecond's distance.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What all may send: all that each may, so that a receiver which takes nothing holds up no other.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
const _: () = assert!(CONNECTION_WINDOW as usize == STREAMS_MAX * STREAM_WINDOW as usize);
/// What may wait in a stream to be written: the window does the rest.
const SEND_BUFFER_MAX: usize = 128 * 1024;
/// Longest piece of a connection's bytes in one frame: with the frame's head (RFC 9113 section 4.1) it fills whole records.
const PIECE_MAX: usize = WRITE_MAX - 9;
const FRAME_MAX: u32 = 64 * 1024;
const _: () = assert!(FRAME_MAX as usize >= PIECE_MAX);
/// What pieces that wait may cost beside their bytes: even single ones of one byte fill the window first.
const FRAMES_BUDGET: usize = usize::MAX;
/// Bytes the head of a `CONNECT` or its answer may have.
const HEADER_LIST_MAX: u32 = 4 * 1024;
