//! The mesh on a laptop, from outside: starts the built `leno` on folders of manifests, with real little apps, and calls it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod apps;
mod client;
mod cluster;
mod egress;
mod errors;
mod harness;
mod life;
mod protocols;
mod reload;
mod routing;
mod security;
mod transcripts;
