//! What publishing counts, as Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the delay's buckets, in microseconds.
const DELAY_BUCKETS_US: [u64; 10] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000];

/// Counters of one publisher and its streams.
#[derive(Debug, Default)]
pub struct Counters {
    streams: AtomicU64,
    streams_total: AtomicU64,
    encoded: AtomicU64,
    resources: AtomicU64,
    responses: AtomicU64,
    bytes: AtomicU64,
    refusals: AtomicU64,
    delays: [AtomicU64; DELAY_BUCKETS_US.len()],
    delays_total: AtomicU64,
    delay_sum_us: AtomicU64,
}

impl Counters {
    /// Streams that are open.
    pub fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Resources encoded: each once, however many proxies it is sent to.
    pub fn encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }

    /// Resources sent.
    pub fn resources(&self) -> u64 {
        self.resources.load(Ordering::Relaxed)
    }

    /// Responses sent.
    pub fn responses(&self) -> u64 {
        self.responses.load(Ordering::Relaxed)
    }

    /// Bytes of responses sent, before TLS.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Resources that proxies refused.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    pub(super) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.streams_total.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count_encoded(&self) {
        self.encoded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// A response was handed to the connection.
    pub(crate) fn count_sent(&self, resources: usize, bytes: usize) {
        self.responses.fetch_add(1, Ordering::Relaxed);
        self.resources.fetch_add(resources as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// From taking in events of the source to having woken every stream they concern.
    pub(super) fn observe_delay(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delays_total.fetch_add(1, Ordering::Relaxed);
        self.delay_sum_us.fetch_add(delay_us, Ordering::Relaxed);
        if let Some(bucket) = DELAY_BUCKETS_US.iter().position(|bound| delay_us <= *bound) {
            self.delays[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of it in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let plain = [
            ("leno_controller_streams", "gauge", "Proxies connected to this replica.", &self.streams),
            ("leno_controller_streams_total", "counter", "Streams opened.", &self.streams_total),
            ("leno_controller_resources_encoded_total", "counter", "Resources encoded, each once for all proxies.", &self.encoded),
            ("leno_controller_resources_sent_total", "counter", "Resources sent.", &self.resources),
            ("leno_controller_responses_sent_total", "counter", "Responses sent.", &self.responses),
            ("leno_controller_sent_bytes_total", "counter", "Bytes of responses, before TLS.", &self.bytes),
            ("leno_controller_resources_refused_total", "counter", "Resources that proxies refused.", &self.refusals),
        ];
        for (name, kind, help, value) in plain {
            let value = value.load(Ordering::Relaxed);
            let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        self.render_delays(&mut text);
        text
    }

    fn render_delays(&self, text: &mut String) {
        let name = "leno_controller_publish_seconds";
        let _infallible =
            writeln!(text, "# HELP {name} From an event of the source to every stream it concerns being woken.\n# TYPE {name} histogram");
        let mut below = 0;
        for (bound_us, count) in DELAY_BUCKETS_US.iter().zip(&self.delays) {
            below += count.load(Ordering::Relaxed);
            let bound = Duration::from_micros(*bound_us).as_secs_f64();
            let _infallible = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        let total = self.delays_total.load(Ordering::Relaxed);
        let sum = Duration::from_micros(self.delay_sum_us.load(Ordering::Relaxed)).as_secs_f64();
        let _infallible = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}\n{name}_sum {sum}\n{name}_count {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fall_into_cumulative_buckets() {
        let counters = Counters::default();
        for delay_us in [100, 101, 2_000_000] {
            counters.observe_delay(Duration::from_micros(delay_us));
        }
        counters.count_sent(2, 300);
        let text = counters.render();
        for line in [
            "leno_controller_publish_seconds_bucket{le=\"0.0001\"} 1",
            "leno_controller_publish_seconds_bucket{le=\"0.00025\"} 2",
            "leno_controller_publish_seconds_bucket{le=\"1\"} 2",
            "leno_controller_publish_seconds_bucket{le=\"+Inf\"} 3",
            "leno_controller_publish_seconds_count 3",
            "leno_controller_resources_sent_total 2",
            "leno_controller_sent_bytes_total 300",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing:\n{text}");
        }
    }
}
