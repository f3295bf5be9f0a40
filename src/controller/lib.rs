//! leno-controller: watches the cluster (or a folder), publishes to proxies, injects sidecars and writes status.
//!
//! Reading order: [`run`] wires everything; [`source`] yields objects; [`publish`] and [`stream`] serve proxies; [`webhook`]
//! and [`inject`] put sidecars into pods; [`ca`] signs proxies' certificates; [`certificates`], [`leader`] and [`status`] are the controller's own upkeep.

pub mod ca;
pub mod certificates;
pub mod health;
pub mod inject;
pub mod jwks;
pub mod leader;
pub mod lookup;
pub mod metrics;
pub mod publish;
pub mod run;
mod schedule;
pub mod settings;
pub mod source;
pub mod standalone;
pub mod status;
pub mod stream;
pub mod tls;
pub mod tracing_flags;
pub mod webhook;
mod wiring;
