//! What became of spans, counted.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::telemetry::prometheus::head;

/// What became of the spans of one proxy. Several threads write it.
#[derive(Debug, Default)]
pub struct Counts {
    exported: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    overflow: AtomicU64,
}

impl Counts {
    /// The collector has taken `spans`, but not `rejected` of them.
    pub(super) fn exported(&self, spans: usize, rejected: u64) {
        let rejected = rejected.min(spans as u64);
        self.exported.fetch_add(spans as u64 - rejected, Relaxed);
        self.rejected.fetch_add(rejected, Relaxed);
    }

    /// The collector has refused them.
    pub(super) fn rejected(&self, spans: usize) {
        self.rejected.fetch_add(spans as u64, Relaxed);
    }

    /// They could not be sent.
    pub(super) fn failed(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Relaxed);
    }

    /// There was no room for one more.
    pub(super) fn overflow(&self) {
        self.overflow.fetch_add(1, Relaxed);
    }

    /// By what became of them: the label's value and the count.
    pub fn all(&self) -> [(&'static str, u64); 4] {
        [("exported", &self.exported), ("rejected", &self.rejected), ("failed", &self.failed), ("overflow", &self.overflow)]
            .map(|(outcome, count)| (outcome, count.load(Relaxed)))
    }

    /// Their part of the metrics page.
    pub(in crate::telemetry) fn render(&self, page: &mut String) -> std::fmt::Result {
        let help = "Spans, by what became of them: exported, rejected by the collector, failed to be sent, or dropped for want of room (overflow).";
        head(page, "leno_spans_total", "counter", help)?;
        self.all().iter().try_for_each(|(outcome, count)| writeln!(page, "leno_spans_total{{outcome=\"{outcome}\"}} {count}"))
    }
}
