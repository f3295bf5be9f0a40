//! Leno's data plane: the sidecar.
//!
//! Reading order, along a request's life: [`listen`] accepts, [`directory`] says which service is meant, [`detect`] which
//! protocol is spoken, [`http1`], [`http2`] or [`tcp`] carry it, [`leno_core::route::decide`] says where and
//! [`leno_core::authorize::authorize`] whether, [`pool`] has
//! the connection, [`telemetry`] keeps the record. [`control`] keeps the configuration current, [`admin`] answers people.

pub mod admin;
mod admit;
mod authorization;
pub mod boot;
pub mod buffers;
pub mod concurrency;
pub mod connection;
pub mod control;
pub mod detect;
pub mod dial;
pub mod directory;
pub mod drain;
mod egress;
pub mod endpoints;
pub mod environment;
pub mod filters;
mod first_word;
mod gather;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod idle;
pub mod init;
pub mod io;
pub mod jwt;
pub mod listen;
pub mod mirror;
pub mod original_dst;
pub mod pool;
pub mod probe;
pub mod probes;
pub mod rate_limit;
pub mod resilience;
mod retry;
mod retry_after;
pub mod sidecar;
pub mod silent;
mod soon;
pub mod target;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
pub mod worker;
