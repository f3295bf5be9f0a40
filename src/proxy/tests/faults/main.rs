//! The fault matrix: what callers, records and metrics say of each way in which a server can fail, with and without retries.
//!
//! One worker for each fault, between clients and a server that does that one thing to every request. [`matrix`] is the table.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod client;
mod matrix;
#[path = "../http2/peers.rs"]
#[expect(dead_code, reason = "what only the HTTP/2 tests use")]
mod peers;
mod server;
#[path = "../data_plane/support.rs"]
#[expect(dead_code, reason = "what only the HTTP/1 tests use")]
mod support;
