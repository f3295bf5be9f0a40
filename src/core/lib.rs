//! The mesh's nouns and decisions.
//!
//! Everything here is a function of values: time and randomness come in as arguments, nothing does I/O.
//! The proxy runs these functions for each request, `leno explain` prints them, tests call them directly.
//!
//! Reading order: [`names`], [`service`], [`endpoints`], [`request`], [`route`], [`balance`], [`authorize`], [`path`].

pub mod authorize;
pub mod balance;
pub mod endpoints;
pub mod matching;
pub mod names;
pub mod path;
pub mod request;
pub mod route;
pub mod service;
pub mod trust;
pub mod weight;
pub mod workload;
