//! What leaves the cluster, from outside: a worker in this process, fed by hand, between an app and servers that speak ordinary TLS.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod closed;
mod originated;
#[path = "../data_plane/support.rs"]
#[expect(dead_code, reason = "what only other tests use")]
mod support;
mod tls;
