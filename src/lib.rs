//! Leno, a service mesh, inside a Rust program.
//!
//! The crate re-exports the mesh's one decision function and its nouns ([`core`]): given a service's
//! routing state and a request head, [`core::route::decide`] says where the request goes.
//! The sidecar, `leno explain` and the tests run the very same function.

pub use leno_core as core;
