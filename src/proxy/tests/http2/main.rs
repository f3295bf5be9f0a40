//! HTTP/2 from outside: a worker in this process, fed by hand, between clients and servers that see every frame's effect.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod abuse;
mod authorization;
mod balancing;
mod concurrency;
mod destinations;
mod drain;
mod failures;
mod filters;
mod grpc;
#[path = "../data_plane/guards.rs"]
mod guards;
mod health_checks;
#[path = "../data_plane/limited.rs"]
mod limited;
mod limits;
mod limits_of_services;
mod mirrors;
mod peers;
mod rate_limits;
mod resilience;
mod retries;
mod streams;
#[path = "../data_plane/support.rs"]
#[expect(dead_code, reason = "what only the HTTP/1 tests use")]
mod support;
