//! Spans: one for each request that passes this proxy, sent to a collector of OpenTelemetry by OTLP.
//!
//! A worker makes the span's name when it reads a head ([`Tracer::begin`]), and hands over what is to be known of it with the record
//! ([`Trace::finish`]); everything else is done by a task of the control thread. Handing over takes neither time nor a refusal: what the
//! queue has no room for is dropped and counted.
//!
//! Reading order: [`Tracer`], [`Trace`], [`finished`] (what is kept of a request), [`attributes`] and [`otlp`] (what is sent of it),
//! [`export`] (batches and pauses), [`collector`] (the connection).

mod attributes;
mod collector;
mod counts;
mod export;
mod finished;
mod otlp;

use std::sync::Arc;

use leno_core::names::{Name, WorkloadId};
use leno_core::percentage::Percentage;
use leno_core::request::Headers;
use leno_core::trace::collector::{Endpoint, Protocol};
use leno_core::trace::{Incoming, Outgoing, Propagation, Span, SpanId, TraceId};
use tokio::sync::mpsc::{self, Sender};

use self::attributes::Resource;
use self::collector::Collector;
pub use self::counts::Counts;
use self::export::Exporter;
use self::finished::Finished;
use super::RequestRecord;

/// Spans that wait to be sent. Each has some hundred bytes, and at most two or three thousand.
pub const QUEUE_MAX: usize = 2048;

/// How a proxy traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Who gets the spans.
    pub endpoint: Endpoint,
    /// How OTLP is spoken with it.
    pub protocol: Protocol,
    /// How many traces are kept of those that nobody has decided about.
    pub share: Percentage,
    /// The forms in which traces travel.
    pub propagation: Propagation,
}

impl Tracing {
    /// How many traces are kept where nobody says.
    pub const SHARE: Percentage = Percentage::ONE;
}

/// What the workers of one proxy trace with.
#[derive(Debug)]
pub struct Tracer {
    propagation: Propagation,
    share: Percentage,
    spans: Sender<Finished>,
    counts: Arc<Counts>,
}

/// The span of one request.
#[derive(Debug)]
pub struct Trace {
    span: Span,
    tracer: Arc<Tracer>,
}

/// A tracer, and what sends its spans: to be run until every tracer is gone and everything is sent.
pub fn start(tracing: &Tracing, source: &Name, workload: &WorkloadId) -> (Arc<Tracer>, impl Future<Output = ()> + Send + use<>) {
    let (spans, queue) = mpsc::channel(QUEUE_MAX);
    let counts = Arc::new(Counts::default());
    let exporter = Exporter {
        collector: Collector::new(tracing.endpoint.clone(), tracing.protocol),
        resource: Resource::of(source, workload),
        counts: Arc::clone(&counts),
    };
    let tracer = Tracer { propagation: tracing.propagation.clone(), share: tracing.share, spans, counts };
    (Arc::new(tracer), exporter.run(queue))
}

impl Tracer {
    /// Begins the span of a request with these fields. `draws`: uniform over `u64`.
    pub fn begin(self: &Arc<Self>, headers: &dyn Headers, draws: [u64; 3]) -> Box<Trace> {
        let span = Span::begin(Incoming::read(&self.propagation, headers), self.share, draws);
        Box::new(Trace { span, tracer: Arc::clone(self) })
    }

    /// What became of its spans.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

impl Trace {
    /// The trace's number.
    pub fn trace_id(&self) -> TraceId {
        self.span.trace
    }

    /// The span's own number.
    pub fn span_id(&self) -> SpanId {
        self.span.id
    }

    /// What the request is sent on with.
    pub fn outgoing(&self) -> Outgoing<'_> {
        self.span.outgoing(&self.tracer.propagation)
    }

    /// The request has ended.
    pub fn finish(&self, record: &RequestRecord<'_>) {
        if !self.span.is_sampled {
            return;
        }
        // What there is no room for is not even made.
        match self.tracer.spans.try_reserve() {
            Ok(place) => place.send(Finished::of(&self.span, record)),
            Err(_) => self.tracer.counts.overflow(),
        }
    }
}

/// The span of a request without a context, which goes nowhere.
#[cfg(test)]
pub(crate) fn testing() -> Box<Trace> {
    let (spans, _nobody) = mpsc::channel(1);
    let tracer = Tracer { propagation: Propagation::default(), share: Percentage::NONE, spans, counts: Arc::default() };
    Arc::new(tracer).begin(&Vec::<(String, String)>::new(), [1, 2, 3])
}

#[cfg(test)]
mod tests;
