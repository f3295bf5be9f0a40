//! Answers of the proxy itself. gRPC hears a `grpc-status` in a response that is only a head, others a status and a text.

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use leno_core::names::Name;

use super::head;
use crate::http1::answer::CHALLENGE;
use crate::http1::response::{UNDELIVERED, Undelivered};

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    /// The HTTP status that says it.
    pub(super) status: u16,
    /// What gRPC callers hear; `None` is what gRPC makes of the status.
    pub(super) grpc_status: Option<u16>,
    /// What the caller is told.
    pub(super) text: &'static str,
    /// Whether the request is gRPC's.
    pub(super) is_grpc: bool,
    /// Whether the text is left out: the request was `HEAD`.
    pub(super) is_head: bool,
    /// Why the app never got the request, where another proxy is told that.
    pub(super) undelivered: Option<Undelivered>,
    /// Further fields.
    pub(super) fields: &'a [(Name, Name)],
    /// Seconds after which the request may be tried again.
    pub(super) retry_after_s: Option<u32>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) status: u16,
    pub(super) grpc_status: Option<u16>,
    pub(super) bytes: u64,
}

impl Answer<'_> {
    /// Sends the whole answer.
    pub(super) fn send(&self, respond: &mut SendResponse<Bytes>) -> Result<Sent, h2::Error> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        for (name, value) in self.fields {
            head::append(headers, name, value);
        }
        if let Some(why) = self.undelivered {
            headers.insert(UNDELIVERED, HeaderValue::from_static(why.as_str()));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == 401 {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if self.is_grpc {
            let code = self.grpc_status.unwrap_or_else(|| grpc_status_of(self.status));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(code));
            headers.insert("grpc-message", HeaderValue::from_static(self.text.trim_ascii_end()));
            respond.send_response(response, true)?;
            return Ok(Sent { status: 200, grpc_status: Some(code), bytes: 0 });
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.text.len()));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut body = respond.send_response(response, self.is_head)?;
        if self.is_head {
            return Ok(Sent { status: self.status, grpc_status: None, bytes: 0 });
        }
        body.send_data(Bytes::from_static(self.text.as_bytes()), true)?;
        Ok(Sent { status: self.status, grpc_status: None, bytes: self.text.len() as u64 })
    }
}

/// gRPC's word for an HTTP status ("HTTP to gRPC Status Code Mapping", and DEADLINE_EXCEEDED for a timeout of a route).
fn grpc_status_of(status: u16) -> u16 {
    match status {
        400 | 431 | 500 => 13,
        401 => 16,
        403 => 7,
        404 | 501 => 12,
        429 => 8,
        502 | 503 => 14,
        504 => 4,
        _ => 2,
    }
}
