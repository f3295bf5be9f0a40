//! Latency: what a request costs at an endpoint, for [`Algorithm::PeakEwma`](super::Algorithm::PeakEwma).
//!
//! The peak-sensitive moving average of Finagle and Linkerd: a slower answer than expected counts at once and in full, faster ones let the
//! average fall slowly, by e-fold in [`DECAY`]. It also falls while nothing is heard, so that an endpoint that was slow is tried again.
//! Answers that tell of a failure count as slow ones, or an endpoint that fails fast would be taken for the best.

use std::time::{Duration, Instant};

/// In this time what was measured counts for e times less.
pub const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint is taken to need that has been asked and has not answered yet, in nanoseconds: it is not asked more before it does.
const UNKNOWN_NS: f64 = 1e9;
/// What an endpoint may be expected to need of which nothing is known, in nanoseconds: where its first answer is a failure, or none.
const USUAL_NS: f64 = 30e6;
/// A failure counts as an answer that took so many times longer than those before.
const FAILURE_FACTOR: f64 = 5.0;
/// Failures in a row count for no more than this, in nanoseconds.
const FAILURE_NS_MAX: f64 = 10e9;

/// How long an endpoint has taken to answer lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The average when it was measured last, in nanoseconds, and when that was. `None`: never.
    known: Option<(f64, Instant)>,
}

impl Latency {
    /// A request was answered after `took`, well or not.
    pub fn observe(&mut self, took: Duration, is_failure: bool, now: Instant) {
        let decayed = self.expected(now);
        let mut sample = nanoseconds(took);
        if is_failure {
            sample = sample.max((decayed.unwrap_or(USUAL_NS) * FAILURE_FACTOR).min(FAILURE_NS_MAX));
        }
        let next = match self.known {
            None => sample,
            Some((average, at)) => {
                let kept = fade(now.saturating_duration_since(at));
                if sample > average { sample } else { average * kept + sample * (1.0 - kept) }
            }
        };
        self.known = Some((next, now));
    }

    /// A request was given up after `waited`, without an answer: it would have taken at least that long.
    pub fn gave_up(&mut self, waited: Duration, now: Instant) {
        if nanoseconds(waited) > self.expected(now).unwrap_or(USUAL_NS) {
            self.known = Some((nanoseconds(waited), now));
        }
    }

    /// How long an answer takes, in nanoseconds; `None` while nothing is known.
    pub fn expected(&self, now: Instant) -> Option<f64> {
        self.known.map(|(average, at)| average * fade(now.saturating_duration_since(at)))
    }

    /// What one more request costs beside `in_flight` others. An endpoint of which nothing is known gets the next request, and no more
    /// before that is answered.
    pub fn cost(&self, in_flight: u32, now: Instant) -> f64 {
        match self.expected(now) {
            Some(expected) => expected * (f64::from(in_flight) + 1.0),
            None if in_flight == 0 => 0.0,
            None => UNKNOWN_NS * (f64::from(in_flight) + 1.0),
        }
    }
}

/// What is left of something after `time`: `0..=1`.
fn fade(time: Duration) -> f64 {
    (-time.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after(observed: &[(u32, bool)]) -> (Latency, Instant) {
        let (mut latency, now) = (Latency::default(), Instant::now());
        observed.iter().for_each(|(ms, is_failure)| latency.observe(MS * *ms, *is_failure, now));
        (latency, now)
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fast_ones_only_with_time() {
        let (mut latency, now) = after(&[(10, false), (200, false), (10, false)]);
        assert_eq!(latency.expected(now), Some(200e6), "no time has passed");
        let later = now + DECAY;
        latency.observe(10 * MS, false, later);
        let expected = latency.expected(later).unwrap() / 1e6;
        assert!((expected - (200.0 / std::f64::consts::E + 10.0 * (1.0 - 1.0 / std::f64::consts::E))).abs() < 0.001, "{expected}");
    }

    #[test]
    fn who_is_not_asked_any_more_is_forgiven_in_time() {
        let (slow, now) = after(&[(1000, false)]);
        let (fast, _) = after(&[(1, false)]);
        assert!(slow.cost(0, now) > fast.cost(100, now));
        assert!(slow.cost(0, now + DECAY * 8) < fast.cost(0, now));
    }

    #[test]
    fn who_is_not_known_gets_one_request_and_no_more_before_it_is_answered() {
        let (unknown, now) = after(&[]);
        let (known, _) = after(&[(20, false)]);
        assert!(unknown.cost(0, now) < known.cost(0, now));
        assert!(unknown.cost(1, now) > known.cost(10, now));
    }

    #[test]
    fn failing_fast_does_not_make_an_endpoint_look_fast() {
        let (failed, now) = after(&[(10, false), (1, true)]);
        assert_eq!(failed.expected(now), Some(50e6));
        let (always, now) = after(&[(1, true); 20]);
        assert_eq!(always.expected(now), Some(FAILURE_NS_MAX), "and there is an end to it");
        let (slow, now) = after(&[(60_000, true)]);
        assert_eq!(slow.expected(now), Some(60e9), "what really was slower counts as it was");
    }

    #[test]
    fn a_request_that_is_given_up_tells_at_least_how_long_it_waited() {
        let (mut latency, now) = after(&[(100, false)]);
        latency.gave_up(10 * MS, now);
        assert_eq!(latency.expected(now), Some(100e6));
        latency.gave_up(3000 * MS, now);
        assert_eq!(latency.expected(now), Some(3e9));
        let mut unknown = Latency::default();
        unknown.gave_up(10 * MS, now);
        assert_eq!(unknown.expected(now), None, "that is too short to say anything");
        unknown.gave_up(100 * MS, now);
        assert_eq!(unknown.expected(now), Some(100e6));
    }
}
