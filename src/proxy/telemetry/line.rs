//! A line of the access log: what it says, as JSON or by a template.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use leno_core::access_log::{Field, Part, Template};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::recorder::TcpRecord;
use super::{Access, Destination, Origin, RequestRecord, Spoken};
use crate::tls::Secured;

/// What a line says. The names of the fields are those of [`leno_core::access_log::Field`], in its order.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    time: String,
    direction: &'static str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Where the reason comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    /// Whether sending the request once more would do no harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_safe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    /// Why there was no further try though a policy asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_retry: Option<&'static str>,
    peer: std::net::SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_group: Option<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_deny: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
}

impl<'a> Line<'a> {
    /// The line of a request that passed the proxy beside `source`.
    pub(super) fn of_request(source: &'a str, record: &'a RequestRecord<'_>) -> Self {
        let ends = (record.peer, record.secured);
        Self {
            method: record.method,
            authority: record.authority,
            path: record.path,
            status: Some(record.status).filter(|status| *status != 0),
            grpc_status: record.grpc_status,
            retry_safe: record.reason.map(|_| record.tried.retry_safe),
            tries: Some(record.tried.tries).filter(|tries| *tries > 0),
            no_retry: record.tried.stopped(),
            request_id: record.request_id,
            trace_id: record.trace.map(|trace| trace.trace_id().to_string()),
            span_id: record.trace.map(|trace| trace.span_id().to_string()),
            reason: record.reason,
            origin: record.reason.map(|reason| Origin::of(reason).as_str()),
            upstream: record.upstream,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            duration_us: micros(record.duration),
            ..Self::begin(source, record.direction.as_str(), record.spoken.as_str(), record.destination, record.access, ends)
        }
    }

    /// The line of an opaque connection.
    pub(super) fn of_connection(source: &'a str, record: &'a TcpRecord<'_>) -> Self {
        let ends = (record.peer, record.secured);
        Self {
            reason: record.reason,
            origin: record.reason.map(|reason| Origin::of(reason).as_str()),
            upstream: record.upstream,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            duration_us: micros(record.duration),
            ..Self::begin(source, record.direction.as_str(), Spoken::Tcp.as_str(), record.destination, record.access, ends)
        }
    }

    fn begin(
        source: &'a str,
        direction: &'static str,
        protocol: &'static str,
        destination: &'a Destination,
        access: Access<'a>,
        (peer, secured): (std::net::SocketAddr, Option<&Secured>),
    ) -> Self {
        Self {
            time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            direction,
            source,
            destination: destination.service.as_ref().map(ToString::to_string),
            version: destination.version.as_deref(),
            route: destination.route.as_deref(),
            protocol,
            method: "",
            authority: "",
            path: "",
            status: None,
            grpc_status: None,
            reason: None,
            origin: None,
            retry_safe: None,
            tries: None,
            no_retry: None,
            peer,
            upstream: None,
            source_identity: secured.map(|secured| secured.source.to_string()),
            destination_identity: secured.map(|secured| secured.destination.to_string()),
            tls_version: secured.map(|secured| secured.agreed.version()),
            tls_cipher: secured.map(|secured| secured.agreed.cipher()),
            tls_group: secured.map(|secured| secured.agreed.group()),
            bytes_in: 0,
            bytes_out: 0,
            duration_us: 0,
            request_id: "",
            trace_id: None,
            span_id: None,
            policy: access.policy.map(|policy| &**policy),
            would_deny: access.would_deny.map(|policy| &**policy),
        }
    }

    /// Writes it by a template. What has no value is a dash.
    pub(super) fn write(&self, template: &Template, out: &mut Vec<u8>) -> io::Result<()> {
        template.parts().iter().try_for_each(|part| match part {
            Part::Text(text) => out.write_all(text.as_bytes()),
            Part::Field(field) => self.write_field(*field, out),
        })
    }

    fn write_field(&self, field: Field, out: &mut Vec<u8>) -> io::Result<()> {
        match field {
            Field::Time => shown(Some(&self.time), out),
            Field::Direction => shown(Some(self.direction), out),
            Field::Source => text(self.source, out),
            Field::Destination => shown(self.destination.as_ref(), out),
            Field::Version => text(self.version.unwrap_or_default(), out),
            Field::Route => text(self.route.unwrap_or_default(), out),
            Field::Protocol => shown(Some(self.protocol), out),
            Field::Method => text(self.method, out),
            Field::Authority => text(self.authority, out),
            Field::Path => text(self.path, out),
            Field::Status => shown(self.status, out),
            Field::GrpcStatus => shown(self.grpc_status, out),
            Field::Reason => shown(self.reason, out),
            Field::Origin => shown(self.origin, out),
            Field::RetrySafe => shown(self.retry_safe, out),
            Field::Tries => shown(self.tries, out),
            Field::NoRetry => shown(self.no_retry, out),
            Field::Peer => shown(Some(self.peer), out),
            Field::Upstream => shown(self.upstream, out),
            Field::SourceIdentity => shown(self.source_identity.as_ref(), out),
            Field::DestinationIdentity => shown(self.destination_identity.as_ref(), out),
            Field::TlsVersion => shown(self.tls_version, out),
            Field::TlsCipher => shown(self.tls_cipher, out),
            Field::TlsGroup => shown(self.tls_group, out),
            Field::BytesIn => shown(Some(self.bytes_in), out),
            Field::BytesOut => shown(Some(self.bytes_out), out),
            Field::DurationUs => shown(Some(self.duration_us), out),
            Field::Policy => text(self.policy.unwrap_or_default(), out),
            Field::WouldDeny => text(self.would_deny.unwrap_or_default(), out),
            Field::RequestId => text(self.request_id, out),
            Field::TraceId => shown(self.trace_id.as_ref(), out),
            Field::SpanId => shown(self.span_id.as_ref(), out),
        }
    }
}

/// A value that is none of a client's making.
fn shown(value: Option<impl Display>, out: &mut Vec<u8>) -> io::Result<()> {
    match value {
        Some(value) => write!(out, "{value}"),
        None => out.write_all(b"-"),
    }
}

/// A value that a client may have made: quotes, backslashes and control characters are written so that it cannot end what the template
/// has begun, or the line.
fn text(value: &str, out: &mut Vec<u8>) -> io::Result<()> {
    if value.is_empty() {
        return out.write_all(b"-");
    }
    for char in value.chars() {
        match char {
            '"' | '\\' => write!(out, "\\{char}")?,
            char if char.is_control() => write!(out, "\\x{:02x}", u32::from(char))?,
            char => write!(out, "{char}")?,
        }
    }
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
