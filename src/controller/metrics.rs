//! What the controller counts, as Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inject::{Injection, Unchanged};

/// What can become of an admission review: the values of the label `outcome`.
const OUTCOMES: [&str; 5] = ["injected", "opted_out", "already_injected", "refused", "unreadable"];

/// Counters of one process.
#[derive(Debug, Default)]
pub struct Metrics {
    admissions: [AtomicU64; OUTCOMES.len()],
    /// 1 while this replica writes status.
    leading: AtomicU64,
    status_writes: AtomicU64,
    status_errors: AtomicU64,
    source_restarts: AtomicU64,
    certificate_rotations: AtomicU64,
}

impl Metrics {
    /// Counts an admission review; `None` for one that could not be read.
    pub fn admitted(&self, injection: Option<&Injection>) {
        let at = match injection {
            Some(Injection::Patch(_)) => 0,
            Some(Injection::Unchanged(Unchanged::OptedOut)) => 1,
            Some(Injection::Unchanged(Unchanged::AlreadyInjected)) => 2,
            Some(Injection::Refused(_)) => 3,
            None => 4,
        };
        if let Some(counter) = self.admissions.get(at) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says whether this replica writes status.
    pub fn set_leading(&self, leading: bool) {
        self.leading.store(leading.into(), Ordering::Relaxed);
    }

    /// Counts a status that was written, or could not be.
    pub fn status_written(&self, well: bool) {
        let counter = if well { &self.status_writes } else { &self.status_errors };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a watch that broke.
    pub fn source_restarted(&self) {
        self.source_restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a change of the serving certificate.
    pub fn certificate_rotated(&self) {
        self.certificate_rotations.fetch_add(1, Ordering::Relaxed);
    }

    /// All of it in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::from(
            "# HELP leno_controller_admissions_total Pods that came to the webhook, by what became of them.\n# TYPE leno_controller_admissions_total counter\n",
        );
        for (outcome, counter) in OUTCOMES.iter().zip(&self.admissions) {
            let count = counter.load(Ordering::Relaxed);
            let _infallible = writeln!(text, "leno_controller_admissions_total{{outcome=\"{outcome}\"}} {count}");
        }
        let rest = [
            ("leno_controller_leading", "gauge", "Whether this replica writes status.", &self.leading),
            ("leno_controller_status_writes_total", "counter", "Statuses written.", &self.status_writes),
            ("leno_controller_status_errors_total", "counter", "Statuses that could not be written.", &self.status_errors),
            ("leno_controller_source_restarts_total", "counter", "Watches that broke and began again.", &self.source_restarts),
            ("leno_controller_certificate_rotations_total", "counter", "Changes of the serving certificate.", &self.certificate_rotations),
        ];
        for (name, kind, help, counter) in rest {
            let value = counter.load(Ordering::Relaxed);
            let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_shown_and_counted() {
        let metrics = Metrics::default();
        metrics.admitted(Some(&Injection::Unchanged(Unchanged::OptedOut)));
        metrics.admitted(None);
        metrics.set_leading(true);
        let text = metrics.render();
        for line in [
            "leno_controller_admissions_total{outcome=\"injected\"} 0",
            "leno_controller_admissions_total{outcome=\"opted_out\"} 1",
            "leno_controller_admissions_total{outcome=\"unreadable\"} 1",
            "leno_controller_leading 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing:\n{text}");
        }
    }
}
