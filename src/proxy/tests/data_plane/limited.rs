//! The proxy before an app that gets no more requests at once than it bears.

use std::net::SocketAddr;
use std::sync::Arc;

use leno_core::authorize::Guard;
use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::names::WorkloadId;
use leno_core::service::Protocol;
use leno_core::workload::{InboundPort, Workload};
use leno_proxy::control::Update;
use leno_proxy::listen::Accept;

use crate::support::{Mesh, Setup, eventually, payment};

const PORT: u16 = 8080;

/// What is told of the workload whose app's port has these settings.
fn workload(protocol: Protocol, concurrency: Option<AdaptiveConcurrency>) -> Update {
    let inbound = vec![InboundPort { port: PORT, protocol, service: payment(), version: None, guard: Guard::default(), concurrency }];
    Update::Workload(Arc::new(Workload { inbound, ..Workload::new(WorkloadId::new("shop", "payment-1")) }))
}

/// The proxy before `app`.
pub(crate) fn before(setup: Setup, app: SocketAddr, protocol: Protocol, concurrency: Option<AdaptiveConcurrency>) -> (Mesh, SocketAddr) {
    let (mesh, address) = setup.start_with(|| Accept::InboundApp { app, port: PORT });
    mesh.tell(workload(protocol, concurrency));
    if concurrency.is_some() {
        eventually("the proxy knows", || mesh.metrics().contains("leno_concurrency_limit{destination=\"shop/payment\",port=\"8080\"}"));
    }
    (mesh, address)
}

pub(crate) fn at_most(max_limit: u32) -> AdaptiveConcurrency {
    AdaptiveConcurrency { min_limit: 1, max_limit, ..AdaptiveConcurrency::default() }
}
