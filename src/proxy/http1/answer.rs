//! Answers of the proxy itself: short plain text that says what happened, and nothing about policies.

use std::io::Write;

use leno_core::names::Name;

use super::request::append_line;
use super::response::{UNDELIVERED, Undelivered};
use crate::buffers::Buffer;

/// What a request whose token was refused is answered with (RFC 6750 section 3).
pub const CHALLENGE: &str = "Bearer error=\"invalid_token\"";
const CHALLENGE_LINE: &str = "www-authenticate: Bearer error=\"invalid_token\"\r\n";

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// What the caller is told.
    pub text: &'a str,
    /// Whether the connection closes after it.
    pub close: bool,
    /// Whether an HTTP/1.0 client must be told that it stays open.
    pub tell_kept: bool,
    /// Whether the text is left out: the request was `HEAD`.
    pub is_head: bool,
    /// Why the app never got the request, where another proxy is told that.
    pub undelivered: Option<Undelivered>,
    /// Further fields.
    pub fields: &'a [(Name, Name)],
    /// Seconds after which the request may be tried again.
    pub retry_after_s: Option<u32>,
}

impl Answer<'_> {
    /// Writes the whole answer.
    pub fn write(&self, out: &mut Buffer) {
        let mut head = [0; 512];
        let mut room = &mut head[..];
        let connection = match (self.close, self.tell_kept) {
            (true, _) => "connection: close\r\n",
            (false, true) => "connection: keep-alive\r\n",
            (false, false) => "",
        };
        let undelivered = self.undelivered.map(|why| format!("{UNDELIVERED}: {}\r\n", why.as_str())).unwrap_or_default();
        let retry_after = self.retry_after_s.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
        let challenge = if self.status == 401 { CHALLENGE_LINE } else { "" };
        let wrote = write!(
            room,
            "HTTP/1.1 {} {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n{challenge}{retry_after}{connection}{undelivered}",
            self.status,
            phrase(self.status),
            self.text.len(),
        );
        debug_assert!(wrote.is_ok(), "the head of an answer fits");
        let unused = room.len();
        out.append(&head[..head.len() - unused]);
        for (name, value) in self.fields {
            append_line(out, name, value.as_bytes());
        }
        out.append(b"\r\n");
        if !self.is_head {
            out.append(self.text.as_bytes());
        }
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        414 => "URI Too Long",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
