//! Flags that say how proxies trace requests; `leno up` has the same.

use leno_core::percentage::Percentage;
use leno_core::trace::Propagation;
use leno_core::trace::collector::{Endpoint, Protocol};

/// How proxies trace requests.
#[derive(Clone, Debug, clap::Args)]
pub struct TracingFlags {
    /// Collector of OpenTelemetry that gets a span for each request at each proxy, such as `http://otel-collector.observability:4317`.
    /// Without it requests are not traced.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<Endpoint>,

    /// How OTLP is spoken with the collector: grpc or http/protobuf.
    #[arg(long, value_name = "PROTOCOL", default_value = Protocol::Grpc.as_str())]
    pub otlp_protocol: Protocol,

    /// Percentage of the traces that are kept, of those that nobody has decided about before: 1 if it is not said, and with `leno up` 100.
    #[arg(long, value_name = "PERCENTAGE")]
    pub trace_sampling: Option<Percentage>,

    /// Forms in which traces travel: W3C, B3 or both, separated by a comma. The first that says something is believed; all are written.
    #[arg(long, value_name = "FORMS", default_value = "W3C")]
    pub trace_propagation: Propagation,
}
