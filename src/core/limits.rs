//! Limits: what may be under way to one service at once.

use std::time::Duration;

/// How much may be under way from one proxy to the endpoints of one service port (`MeshService.spec.connections`). `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Connections that carry something.
    pub connections: Option<u32>,
    /// Requests and connections that wait for a connection.
    pub pending: Option<u32>,
    /// Requests without an answer yet.
    pub requests: Option<u32>,
    /// Requests that are being sent once more.
    pub retries: Option<u32>,
    /// How long an endpoint may take to accept a connection and prove who it is.
    pub connect_timeout: Option<Duration>,
    /// How long a connection without anything to carry is kept.
    pub idle_timeout: Option<Duration>,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// No connection is free, and as many wait for one as may.
    Pending,
    /// As many requests are under way as may be.
    Requests,
    /// As many requests are being sent once more as may be.
    Retries,
}

impl Limit {
    /// Metric label and word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }
}
