//! The data plane from outside: a worker in this process, fed by hand, between raw sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod authorization;
mod balancing;
mod bodies;
mod concurrency;
mod destinations;
mod explicit;
mod failures;
mod filters;
mod guards;
mod health_checks;
mod http1;
mod limited;
mod limits;
mod mirrors;
mod opaque;
mod rate_limits;
mod resilience;
mod retries;
mod sessions;
mod slow;
#[expect(dead_code, reason = "what only tests of what leaves the cluster use")]
mod support;
