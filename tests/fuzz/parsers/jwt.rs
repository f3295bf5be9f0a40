//! As in `src/proxy/jwt/mod.rs`, without what verifies signatures.

#[path = "../../../src/proxy/jwt/token.rs"]
pub mod token;
