//! What is kept of a request until its span is sent. Bounded: everything that a client makes is cut.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use leno_core::names::{Identity, Name};
use leno_core::trace::Span;

use crate::telemetry::{Destination, Direction, RequestRecord, Retried, Spoken};

/// Bytes of a path.
pub(super) const PATH_BYTES_MAX: usize = 1024;
/// Bytes of a host name with its port (RFC 1035 allows 255 for the name).
const AUTHORITY_BYTES_MAX: usize = 261;
/// Bytes of a method.
const METHOD_BYTES_MAX: usize = 32;
/// Bytes of `x-request-id`.
const ID_BYTES_MAX: usize = 128;
/// Retries that are told one by one.
const RETRIED_MAX: usize = 16;

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) span: Span,
    pub(super) ended: SystemTime,
    pub(super) duration: Duration,
    pub(super) direction: Direction,
    pub(super) spoken: Spoken,
    pub(super) destination: Destination,
    pub(super) policy: Option<Name>,
    pub(super) method: Box<str>,
    /// Without query: what is in it is often secret.
    pub(super) path: Box<str>,
    pub(super) authority: Box<str>,
    pub(super) request_id: Box<str>,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u16>,
    pub(super) reason: Option<&'static str>,
    pub(super) tries: u32,
    pub(super) retried: Vec<Retried>,
    pub(super) peer: SocketAddr,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) identities: Option<(Identity, Identity)>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Finished {
    pub(super) fn of(span: &Span, record: &RequestRecord<'_>) -> Self {
        let path = record.path.split(['?', '#']).next().unwrap_or_default();
        Self {
            span: span.clone(),
            ended: SystemTime::now(),
            duration: record.duration,
            direction: record.direction,
            spoken: record.spoken,
            destination: record.destination.clone(),
            policy: record.access.policy.cloned(),
            method: cut(record.method, METHOD_BYTES_MAX),
            path: cut(path, PATH_BYTES_MAX),
            authority: cut(record.authority, AUTHORITY_BYTES_MAX),
            request_id: cut(record.request_id, ID_BYTES_MAX),
            status: record.status,
            grpc_status: record.grpc_status,
            reason: record.reason,
            tries: record.tried.tries,
            retried: record.tried.retried.iter().take(RETRIED_MAX).copied().collect(),
            peer: record.peer,
            upstream: record.upstream,
            identities: record.secured.map(|secured| (secured.source.clone(), secured.destination.clone())),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
        }
    }
}

/// At most `bytes` of `text`, and no half of a character.
fn cut(text: &str, bytes: usize) -> Box<str> {
    text[..text.floor_char_boundary(bytes)].into()
}
