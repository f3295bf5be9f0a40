//! The messages as generated from `proto/`. Only this crate and tests of the stream need them.

/// `envoy.service.discovery.v3`: requests and responses of the delta protocol.
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
}

/// `leno.dev`: the resources.
pub mod leno {
    include!(concat!(env!("OUT_DIR"), "/leno.dev.rs"));
}
