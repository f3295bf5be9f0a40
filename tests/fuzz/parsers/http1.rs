//! As in `src/proxy/http1/mod.rs`.

#[path = "../../../src/proxy/http1/body.rs"]
pub mod body;
#[path = "../../../src/proxy/http1/chunked.rs"]
pub mod chunked;
#[path = "../../../src/proxy/http1/head.rs"]
pub mod head;
#[path = "../../../src/proxy/http1/request.rs"]
pub mod request;
#[path = "../../../src/proxy/http1/response.rs"]
pub mod response;
