//! Leno's data plane: the sidecar.
//!
//! Reading order, along a request's life: [`listen`] accepts, [`directory`] says which service is meant, [`detect`] which
//! protocol is spoken, [`http1`], [`http2`] or [`tcp`] carry it, [`leno_core::route::decide`] says where, [`pool`] has
//! the connection, [`telemetry`] keeps the record. [`control`] keeps the configuration current, [`admin`] answers people.

pub mod control;
pub mod init;
pub mod original_dst;
pub mod telemetry;
