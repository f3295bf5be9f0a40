//! Mutual TLS from outside: proxies back to back, and strangers with TLS of their own between them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod authority;
mod authorized;
mod carried;
mod checked;
mod held;
mod http_tunnels;
mod modes;
#[path = "../http2/peers.rs"]
#[expect(dead_code, reason = "what only the HTTP/2 tests use")]
mod peers;
mod proxies;
mod refused;
mod stranger;
#[path = "../data_plane/support.rs"]
#[expect(dead_code, reason = "what only the HTTP/1 tests use")]
mod support;
mod tunnels;
