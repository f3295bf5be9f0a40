//! The proxy's parsers, from their own files and under their own names, without the rest of the proxy: so the fuzz targets build
//! in seconds and not with a TLS library. It keeps compiling as long as these files use each other, `leno-core`, `memchr`,
//! `base64`, `serde_json`, `smallvec` and `time` alone; what else they come to use has to be listed here.

#[path = "../../../src/proxy/buffers.rs"]
pub mod buffers;
#[path = "../../../src/proxy/detect.rs"]
pub mod detect;

#[path = "../../../src/proxy/tls/hello.rs"]
pub mod hello;
pub mod http1;
pub mod jwt;
#[path = "../../../src/proxy/retry_after.rs"]
pub mod retry_after;
