//! The data plane from outside: a worker in this process, fed by hand, between raw sockets.

mod bodies;
mod explicit;
mod failures;
mod http1;
mod opaque;
mod support;
