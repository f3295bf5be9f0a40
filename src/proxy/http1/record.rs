//! What is remembered of a request for its record.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::head::Span;
use crate::authorization::Decided;
use crate::connection::Connection;
use crate::retry::Tries;
use crate::tcp::Carried;
use crate::telemetry::{Destination, RequestRecord, Spoken, Trace};
use crate::tls::Secured;

/// `x-request-id` of a request: the client's own, or one that was made.
#[derive(Clone, Copy)]
pub(crate) enum RequestId {
    Sent(Span),
    Made([u8; 36]),
}

impl RequestId {
    pub(crate) fn text<'a>(&'a self, bytes: &'a [u8]) -> &'a str {
        match self {
            Self::Sent(span) => span.text(bytes),
            Self::Made(id) => std::str::from_utf8(id).unwrap_or_default(),
        }
    }

    /// A random UUID (RFC 9562, version 4).
    pub(crate) fn make(draws: [u64; 2]) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&draws[0].to_be_bytes());
        bytes[8..].copy_from_slice(&draws[1].to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = [b'-'; 36];
        let mut place = 0;
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                place += 1;
            }
            text[place] = HEX[usize::from(byte >> 4)];
            text[place + 1] = HEX[usize::from(byte & 0x0f)];
            place += 2;
        }
        Self::Made(text)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The record of a request that became a tunnel: it outlives the buffers its head was in.
pub(crate) struct TunnelRecord {
    pub(super) method: Box<str>,
    pub(super) path: Box<str>,
    pub(super) authority: Box<str>,
    pub(super) request_id: Box<str>,
    pub(super) trace: Option<Box<Trace>>,
    pub(super) labels: Rc<Destination>,
    pub(super) decided: Decided,
    pub(super) status: u16,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) secured: Option<Rc<Secured>>,
    pub(super) tries: Tries,
    pub(super) started: Instant,
}

impl TunnelRecord {
    pub(super) fn write(&self, connection: &Connection, carried: &Carried) {
        connection.context.recorder.request(&RequestRecord {
            direction: connection.side.direction(),
            spoken: Spoken::Http1,
            destination: &self.labels,
            access: self.decided.access(),
            method: &self.method,
            path: &self.path,
            authority: &self.authority,
            request_id: &self.request_id,
            trace: self.trace.as_deref(),
            status: self.status,
            grpc_status: None,
            reason: carried.reason(),
            tried: self.tries.tried(&self.method, None),
            peer: connection.peer,
            upstream: self.upstream,
            secured: self.secured.as_deref(),
            bytes_in: carried.bytes_in,
            bytes_out: carried.bytes_out,
            duration: self.started.elapsed(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_have_the_shape_of_a_random_uuid() {
        assert_eq!(RequestId::make([0, 0]).text(b""), "00000000-0000-4000-8000-000000000000");
        assert_eq!(RequestId::make([u64::MAX; 2]).text(b""), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
