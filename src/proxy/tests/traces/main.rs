//! Traces from outside: proxies in this process between clients, apps and collectors that read every byte by themselves.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod collector;
mod http1;
mod http2;
#[path = "../http2/peers.rs"]
#[expect(dead_code, reason = "what only other tests use")]
mod peers;
#[path = "../data_plane/support.rs"]
#[expect(dead_code, reason = "what only other tests use")]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use leno_core::authorize::Guard;
use leno_core::names::{Name, WorkloadId};
use leno_core::percentage::Percentage;
use leno_core::service::Protocol;
use leno_core::trace::collector::Protocol as Spoken;
use leno_core::workload::{InboundPort, Workload};
use leno_proxy::control::Update;
use leno_proxy::listen::Accept;
use leno_proxy::telemetry::{Tracing, spans};
use leno_proxy::worker::Settings;

use crate::support::{Mesh, Setup, payment};

pub(crate) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(crate) const SPAN: &str = "b7ad6b7169203331";

/// How a proxy traces to the collector at `address`.
pub(crate) fn tracing(address: SocketAddr, protocol: Spoken, share: Percentage, propagation: &str) -> Tracing {
    Tracing { endpoint: format!("http://{address}").parse().unwrap(), protocol, share, propagation: propagation.parse().unwrap() }
}

/// Settings of a proxy that traces, whose spans are sent by a thread of their own.
pub(crate) fn settings(name: &str, tracing: &Tracing) -> Settings {
    let workload = WorkloadId::new("shop", format!("{name}-1"));
    let (tracer, exporter) = spans::start(tracing, &Name::from(name), &workload);
    thread::spawn(move || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(exporter));
    let mut settings = Settings::new(workload);
    settings.tracer = Some(tracer);
    settings
}

/// A proxy beside the caller, and one before `app`. What is dialled at the address goes through both.
pub(crate) fn pair(app: SocketAddr, protocol: Protocol, tracing: &Tracing) -> (Mesh, Mesh, SocketAddr) {
    let (callee, inbound) = Setup { settings: settings("payment", tracing), protocol, ..Setup::default() }
        .start_with(|| Accept::InboundApp { app, port: 8080 });
    let port = InboundPort { port: 8080, protocol, service: payment(), version: None, guard: Guard::default(), concurrency: None };
    callee.tell(Update::Workload(Arc::new(Workload { inbound: vec![port], ..Workload::new(WorkloadId::new("shop", "payment-1")) })));
    let (caller, address) =
        Setup { settings: settings("web", tracing), protocol, endpoints: vec![(inbound, "v1")], ..Setup::default() }.start();
    (caller, callee, address)
}
