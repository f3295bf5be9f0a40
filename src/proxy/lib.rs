//! leno-proxy.
