//! The mesh's nouns and decisions.
//!
//! Everything here is a function of values: time and randomness come in as arguments, nothing does I/O.
//! The proxy runs these functions for each request, `leno explain` prints them, tests call them directly.
//!
//! Reading order: [`names`], [`service`], [`endpoints`], [`request`], [`route`], [`filters`], [`retry`], [`balance`], [`authorize`], [`path`], [`resilience`].

pub mod access_log;
pub mod authorize;
pub mod balance;
pub mod breaker;
pub mod concurrency;
pub mod cors;
pub mod endpoints;
pub mod fault;
pub mod filters;
pub mod health;
pub mod limits;
pub mod matching;
pub mod mirror;
pub mod names;
pub mod outlier;
pub mod path;
pub mod percentage;
pub mod rate_limit;
pub mod request;
pub mod resilience;
pub mod retry;
pub mod route;
pub mod service;
pub mod trace;
pub mod trust;
pub mod weight;
pub mod workload;
