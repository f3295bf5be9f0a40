//! Kubernetes objects to the core's model, one service at a time.
//!
//! [`Translator`] is fed with changes of objects, in any order, and says after each one what it touched; the present value of
//! a service, of its endpoints or of a workload is computed when it is asked for. It never fails as a whole: an object that
//! cannot be used becomes a [`Report`], its last good version stays in force, and everything else goes on.
//!
//! Reading order: [`object`], [`translator`], then inside: `namespace` (what is stored), `changing` (what a change touches),
//! `model`, `serving` and `resolve` (the model), `reporting`; `guard` and what begins with it
//! does the same for SecurityPolicies. `mesh`, `policy`, `security`, `service`,
//! `outside`, `grant`, `member` and `backing` read single objects.

mod age;
mod backing;
mod balancing;
mod changing;
pub mod defaults;
mod elsewhere;
mod fields;
mod filters;
mod grant;
mod guard;
mod guard_changing;
mod guard_reporting;
pub mod jwks;
mod member;
mod mesh;
mod mirror;
mod model;
mod namespace;
pub mod object;
mod outside;
mod policy;
mod rate_limit;
pub mod report;
mod reporting;
mod resilience;
mod resolve;
mod retry;
mod security;
mod service;
mod serving;
pub mod touched;
mod tracked;
pub mod translator;
mod zones;

#[cfg(test)]
mod tests;

pub use defaults::Defaults;
pub use object::{Change, Kind, Object, ObjectKey};
pub use report::{Condition, EndpointCounts, Report};
pub use touched::Touched;
pub use translator::Translator;
