//! Counters of one worker. Each is written by that worker alone and read by whoever scrapes, so an addition is a plain
//! load and store: no lock prefix, no shared cache line between workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::tried::RetryCounters;

/// A number that only its own worker writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away, for gauges.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the latency buckets, in microseconds; the last bucket is unbounded.
pub const BUCKETS_US: [u64; 17] = [
    250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// A latency histogram with fixed buckets ([`BUCKETS_US`]).
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations per bucket, not cumulated; the last one is beyond every bound.
    pub buckets: [Counter; BUCKETS_US.len() + 1],
    /// Sum of all observations, in microseconds.
    pub sum_us: Counter,
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&self, value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.iter().position(|bound| us <= *bound).unwrap_or(BUCKETS_US.len());
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }
}

/// The value below which the share `quantile` (0 to 1) of the observations lies, interpolated within its bucket; `None` without
/// observations. `buckets` are counts as in [`Histogram::buckets`].
pub fn quantile(buckets: &[u64], quantile: f64) -> Option<Duration> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a quantile needs no more than 52 bits")]
    let wanted = total as f64 * quantile;
    let (mut below, mut lower) = (0u64, 0u64);
    for (index, count) in buckets.iter().enumerate() {
        let upper = BUCKETS_US.get(index).copied().unwrap_or(lower);
        #[expect(clippy::cast_precision_loss, reason = "a quantile needs no more than 52 bits")]
        if *count > 0 && (below + count) as f64 >= wanted {
            let share = (wanted - below as f64) / *count as f64;
            return Some(Duration::from_secs_f64((lower as f64 + share.max(0.0) * (upper - lower) as f64) / 1e6));
        }
        below += count;
        lower = upper;
    }
    Some(Duration::from_micros(lower))
}

/// Requests of one (direction, protocol, destination).
#[derive(Debug, Default)]
pub struct RequestSeries {
    /// By class of the status: index 0 counts requests that ended without one, 1 to 5 are 1xx to 5xx.
    pub by_class: [Counter; 6],
    /// Answers that the proxy itself gave, or requests it gave up.
    pub own: Counter,
    /// From first byte in to last byte out.
    pub duration: Histogram,
    /// Body bytes from clients.
    pub bytes_in: Counter,
    /// Body bytes to clients.
    pub bytes_out: Counter,
    /// Requests that were sent again, or would have been.
    pub retries: RetryCounters,
    /// When it was last written to, in seconds of the worker's clock.
    pub used_at: Counter,
}

/// Opaque connections of one (direction, destination).
#[derive(Debug, Default)]
pub struct TcpSeries {
    /// Connections that ended.
    pub closed: Counter,
    /// Connections the proxy could not carry.
    pub failed: Counter,
    /// Bytes from clients.
    pub bytes_in: Counter,
    /// Bytes to clients.
    pub bytes_out: Counter,
    /// When it was last written to, in seconds of the worker's clock.
    pub used_at: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_the_bucket_that_holds_them() {
        let histogram = Histogram::default();
        for _ in 0..99 {
            histogram.observe(Duration::from_micros(400));
        }
        histogram.observe(Duration::from_secs(60));
        let counts: Vec<u64> = histogram.buckets.iter().map(Counter::get).collect();
        let p50 = quantile(&counts, 0.5).unwrap();
        assert!(p50 > Duration::from_micros(250) && p50 <= Duration::from_micros(500), "{p50:?}");
        assert_eq!(quantile(&counts, 1.0), Some(Duration::from_secs(10)), "beyond the last bound the bound is all we know");
        assert_eq!(quantile(&[0; 4], 0.5), None);
    }
}
