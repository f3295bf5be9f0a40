//! What the authority counts and shows, as Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::authority::{About, Authority};

/// What became of a request: the values of the label `result`, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A certificate was signed.
    Issued,
    /// No token, or one that is not valid here.
    BadToken,
    /// The token is bound to no pod.
    Unbound,
    /// The pod is gone.
    PodGone,
    /// The pod is another.
    PodMismatch,
    /// The request itself cannot be granted.
    BadRequest,
    /// Too many.
    RateLimited,
    /// Whoever could say cannot be asked, or nothing signs now.
    Unavailable,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Issued,
        Self::BadToken,
        Self::Unbound,
        Self::PodGone,
        Self::PodMismatch,
        Self::BadRequest,
        Self::RateLimited,
        Self::Unavailable,
    ];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::BadToken => "bad_token",
            Self::Unbound => "unbound_token",
            Self::PodGone => "pod_gone",
            Self::PodMismatch => "pod_mismatch",
            Self::BadRequest => "bad_request",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Counters of one process.
#[derive(Debug, Default)]
pub struct Counts {
    requests: [AtomicU64; Outcome::ALL.len()],
    /// Streams refused because the client has not proven who it is, or asks as somebody else.
    streams_refused: AtomicU64,
}

impl Counts {
    /// Counts a request.
    pub fn count(&self, outcome: Outcome) {
        if let Some(counter) = Outcome::ALL.iter().position(|it| *it == outcome).and_then(|at| self.requests.get(at)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many requests came to this.
    pub fn of(&self, outcome: Outcome) -> u64 {
        let at = Outcome::ALL.iter().position(|it| *it == outcome);
        at.and_then(|at| self.requests.get(at)).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts a stream that is refused for who the client is.
    pub fn stream_refused(&self) {
        self.streams_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// All of it in the text format of Prometheus, and what `authority` consists of.
    pub fn render(&self, authority: Option<&Authority>) -> String {
        let mut text = String::from(
            "# HELP leno_certificate_requests_total Requests of proxies for certificates, by what became of them.\n# TYPE leno_certificate_requests_total counter\n",
        );
        for outcome in Outcome::ALL {
            let _infallible = writeln!(text, "leno_certificate_requests_total{{result=\"{}\"}} {}", outcome.label(), self.of(outcome));
        }
        let name = "leno_control_streams_refused_total";
        let refused = self.streams_refused.load(Ordering::Relaxed);
        let _infallible =
            writeln!(text, "# HELP {name} Control streams refused for who the client is.\n# TYPE {name} counter\n{name} {refused}");
        let name = "leno_ca_ready";
        let ready = u8::from(authority.is_some());
        let _infallible = writeln!(text, "# HELP {name} Whether certificates can be signed.\n# TYPE {name} gauge\n{name} {ready}");
        let Some(authority) = authority else { return text };
        let name = "leno_ca_certificate_expiry_timestamp_seconds";
        let _infallible =
            writeln!(text, "# HELP {name} End of each certificate of the authority, seconds since 1970.\n# TYPE {name} gauge");
        certificate(&mut text, name, "signer", authority.signer());
        authority.roots().iter().for_each(|root| certificate(&mut text, name, "root", root));
        text
    }
}

fn certificate(text: &mut String, name: &str, role: &str, about: &About) {
    let About { subject, issuer, serial, not_after, .. } = about;
    let (subject, issuer, end) = (escaped(subject), escaped(issuer), not_after.as_second());
    let _infallible = writeln!(text, "{name}{{role=\"{role}\",serial=\"{serial}\",subject=\"{subject}\",issuer=\"{issuer}\"}} {end}");
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
