//! Figures of the last seconds: requests by service and version, from the proxies' own counters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leno_core::names::{Name, ServiceId};
use leno_proxy::telemetry::prometheus::RequestFigures;
use leno_proxy::telemetry::series::quantile;
use leno_proxy::telemetry::{Direction, Registry};

/// The time that figures are about.
const WINDOW: Duration = Duration::from_secs(5);

/// Whose requests: a service, and the version that was meant or that answered.
pub type Whose = (ServiceId, Option<Name>);

/// Counters since each proxy's start.
pub type Totals = BTreeMap<Whose, RequestFigures>;

/// Counters of the last seconds.
#[derive(Debug, Default)]
pub struct Window(VecDeque<(Instant, Totals)>);

/// Figures of one service and version.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Requests per second.
    pub rate: f64,
    /// Share of requests that did not end with a 5xx status or without one, 0 to 1; `None` without requests.
    pub success: Option<f64>,
    /// Half of the requests took no longer.
    pub p50: Option<Duration>,
    /// 99 of 100 requests took no longer.
    pub p99: Option<Duration>,
}

/// Sums what callers' proxies counted; what sidecars received is the same traffic once more.
pub fn totals(registries: &[Arc<Registry>]) -> Totals {
    let mut totals = Totals::new();
    for ((direction, _, _, destination), figures) in registries.iter().flat_map(|registry| registry.requests()) {
        if let (Direction::Outbound, Some(service)) = (direction, destination.service) {
            merge(totals.entry((service, destination.version)).or_default(), &figures, |into, from| into + from);
        }
    }
    totals
}

fn merge(into: &mut RequestFigures, from: &RequestFigures, with: impl Fn(u64, u64) -> u64) {
    for (into, from) in into.by_class.iter_mut().zip(from.by_class) {
        *into = with(*into, from);
    }
    for (into, from) in into.buckets.iter_mut().zip(from.buckets) {
        *into = with(*into, from);
    }
}

impl Window {
    /// The counters at `now`, which is later than any before.
    pub fn push(&mut self, now: Instant, totals: Totals) {
        self.0.push_back((now, totals));
        while self.0.len() > 2 && self.0.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// The figures of the time between the oldest and the newest counters.
    pub fn figures(&self) -> BTreeMap<Whose, Figures> {
        let (Some((then, before)), Some((now, after))) = (self.0.front(), self.0.back()) else { return BTreeMap::new() };
        let seconds = now.duration_since(*then).as_secs_f64();
        let of = |(whose, after): (&Whose, &RequestFigures)| {
            let mut recent = after.clone();
            if let Some(before) = before.get(whose) {
                // A proxy that was replaced takes its counters with it.
                merge(&mut recent, before, u64::saturating_sub);
            }
            (whose.clone(), Figures::of(&recent, seconds))
        };
        after.iter().map(of).collect()
    }
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds are below 2^53")]
    fn of(counted: &RequestFigures, seconds: f64) -> Self {
        let total: u64 = counted.by_class.iter().sum();
        let failed = counted.by_class[0] + counted.by_class[5];
        Self {
            rate: if seconds > 0.0 { total as f64 / seconds } else { 0.0 },
            success: (total > 0).then(|| (total - failed) as f64 / total as f64),
            p50: quantile(&counted.buckets, 0.5),
            p99: quantile(&counted.buckets, 0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ok: u64, failed: u64) -> Totals {
        let mut figures = RequestFigures { by_class: [0, 0, ok, 0, 0, failed], ..RequestFigures::default() };
        figures.buckets[0] = ok + failed;
        [((ServiceId::new("shop", "payment"), Some("v1".into())), figures)].into()
    }

    #[test]
    fn figures_are_those_of_the_last_seconds() {
        let start = Instant::now();
        let mut window = Window::default();
        window.push(start, counted(1_000, 0));
        for second in 1..=20 {
            window.push(start + Duration::from_secs(second), counted(1_000 + second * 9, second));
        }
        let figures = window.figures().into_values().next().unwrap();
        assert!((figures.rate - 10.0).abs() < 0.01, "{figures:?}");
        assert!((figures.success.unwrap() - 0.9).abs() < 0.01, "{figures:?}");
        assert!(figures.p99.unwrap() <= Duration::from_micros(250));
    }

    #[test]
    fn a_proxy_that_was_replaced_does_not_make_figures_run_backwards() {
        let start = Instant::now();
        let mut window = Window::default();
        window.push(start, counted(1_000, 0));
        window.push(start + Duration::from_secs(1), counted(5, 0));
        let figures = window.figures().into_values().next().unwrap();
        assert_eq!((figures.rate, figures.success), (0.0, None));
    }
}
