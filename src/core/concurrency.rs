//! Adaptive concurrency: how many requests an app bears at once, learnt from how long it takes to answer.
//!
//! While there are few requests an app takes as long as it takes; beyond what it can do at once they queue in it, and every one takes
//! longer. [`Gradient`] raises its limit while answers take about as long as they do without a queue (the baseline), and lowers it
//! in proportion when they take longer. What is beyond the limit is better refused at once than late.
//!
//! After the gradient controllers of Envoy's adaptive concurrency filter and Netflix's concurrency-limits, with these choices: what is
//! compared is the median of a window; only requests that began within the window count, so each window shows the effect of the limit in
//! force; the baseline is measured while few requests are under way, for which the limit is lowered for one window (a trial) only
//! where traffic never leaves it alone; without pressure on the limit it never falls because of what answers take.
//!
//! Reading order: [`Gradient::sample`], [`Gradient::limit`], `Gradient::end_window`.

use std::time::{Duration, Instant};

/// How the limit is learnt (`MeshService.spec.adaptiveConcurrency`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdaptiveConcurrency {
    /// The limit is never below this, at least 1.
    pub min_limit: u32,
    /// Nor above this, at least `min_limit`.
    pub max_limit: u32,
    /// By how much answers may take longer than without a queue, in percent, before the limit is lowered.
    pub tolerance_percent: u32,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        Self { min_limit: 3, max_limit: 1000, tolerance_percent: 100 }
    }
}

/// Where the limit begins. It is doubled with each window until answers take longer, so that an app which bears much soon gets it.
const INITIAL_LIMIT: u32 = 20;
/// What share of the limit must have been used for it to rise.
const PRESSED: f64 = 0.9;
/// Within how long a limit that is not used is halved: what an app has borne long ago says little of what it bears now.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// How long a window is at least.
const WINDOW: Duration = Duration::from_millis(100);
/// How many answers it has at least.
const SAMPLES_MIN: usize = 10;
/// How many of its answers are looked at.
const SAMPLES_MAX: usize = 128;
/// How much longer answers may take in any case: what machines and networks do is no queue.
const SLACK: Duration = Duration::from_millis(5);
/// How long after the first measurement of the baseline, and after one that has found a shorter one, it is measured again; later ones are
/// twice as far apart each.
const FIRST_TRIAL_AFTER: Duration = Duration::from_secs(1);
/// How far apart measurements are at most.
const TRIAL_EVERY: Duration = Duration::from_secs(10);
/// And how many windows the limit is learnt in between two of them, at most: those of a slow app may be longer than all that.
const TRIAL_WINDOWS: u32 = 32;

/// What is known of one app.
#[derive(Clone, Debug)]
pub struct Gradient {
    limit: f64,
    /// How long answers take without a queue, as measured last.
    baseline: Option<Duration>,
    /// Whether answers have not taken longer yet, whatever the limit.
    is_beginning: bool,
    /// Whether the limit is lowered to measure the baseline.
    is_trial: bool,
    /// When there is another trial, if traffic presses on the limit then.
    trial_at: Instant,
    trial_after: Duration,
    /// Windows that the limit has been learnt in since the last measurement, and how many there are to be before the next.
    windows: u32,
    windows_wanted: u32,
    /// When the present window began.
    since: Instant,
    latencies: Vec<Duration>,
    /// Requests that were under way at most.
    in_flight: u32,
}

impl Gradient {
    /// Nothing known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            limit: f64::from(INITIAL_LIMIT),
            baseline: None,
            is_beginning: true,
            is_trial: false,
            trial_at: now,
            trial_after: FIRST_TRIAL_AFTER,
            windows: 0,
            windows_wanted: 1,
            since: now,
            latencies: Vec::new(),
            in_flight: 0,
        }
    }

    /// How many requests may be under way at once: within the bounds of `settings`, whatever has happened.
    pub fn limit(&self, settings: &AdaptiveConcurrency) -> u32 {
        let limit = if self.is_trial { self.limit / divisor(settings) } else { self.limit };
        whole(limit).clamp(settings.min_limit.max(1), settings.max_limit.max(settings.min_limit).max(1))
    }

    /// A request was answered at `now`, after `latency`; `in_flight` were under way when it began or ended, itself included: the more of both.
    ///
    /// Failures say nothing of how long the app takes and are not to be told. O(1), and O(n log n) at the end of a window, n <= 128.
    pub fn sample(&mut self, settings: &AdaptiveConcurrency, latency: Duration, in_flight: u32, now: Instant) {
        // What began before the window began under another limit.
        if now.saturating_duration_since(self.since) < latency {
            return;
        }
        self.in_flight = self.in_flight.max(in_flight);
        if self.latencies.len() < SAMPLES_MAX {
            self.latencies.push(latency);
        }
        if self.latencies.len() >= SAMPLES_MIN && now.saturating_duration_since(self.since) >= WINDOW {
            self.end_window(settings, now);
        }
    }

    fn end_window(&mut self, settings: &AdaptiveConcurrency, now: Instant) {
        let middle = self.latencies.len() / 2;
        let (_, median, _) = self.latencies.select_nth_unstable(middle);
        let (latency, in_flight) = (*median, f64::from(self.in_flight));
        let lasted = now.saturating_duration_since(self.since);
        self.latencies.clear();
        (self.since, self.in_flight) = (now, 0);
        let was_trial = std::mem::replace(&mut self.is_trial, false);
        if was_trial || in_flight <= self.limit / divisor(settings) {
            // What was measured with a queue is soon measured again, with a shorter one.
            if self.baseline.replace(latency).is_some_and(|before| latency < before.mul_f64(0.9)) {
                (self.trial_after, self.windows_wanted) = (FIRST_TRIAL_AFTER, 1);
            }
            self.trial_at = now + self.trial_after;
            self.trial_after = (self.trial_after * 2).min(TRIAL_EVERY);
            (self.windows, self.windows_wanted) = (0, (self.windows_wanted * 2).min(TRIAL_WINDOWS));
        }
        if was_trial {
            return;
        }
        if in_flight < self.limit / 2.0 {
            let used = (2.0 * in_flight).max(f64::from(INITIAL_LIMIT));
            self.limit = (self.limit * 0.5_f64.powf(lasted.as_secs_f64() / HALF_LIFE.as_secs_f64())).max(used).min(self.limit);
            return;
        }
        if now >= self.trial_at && self.windows >= self.windows_wanted {
            self.is_trial = true;
            return;
        }
        self.windows += 1;
        let baseline = *self.baseline.get_or_insert(latency);
        let target = baseline.mul_f64(tolerance(settings)).max(baseline + SLACK);
        let gradient = (target.as_secs_f64() / latency.as_secs_f64().max(f64::EPSILON)).clamp(0.5, 1.0);
        self.is_beginning &= gradient >= 1.0;
        // The square root is the queue that is let be, so that the limit can find out whether more is possible.
        let more = if self.is_beginning { self.limit } else { self.limit.sqrt() };
        let limit = self.limit * gradient + more;
        // Where there is room left nobody needs more.
        let limit = if in_flight < PRESSED * self.limit { limit.min(self.limit) } else { limit };
        self.limit = limit.clamp(f64::from(settings.min_limit.max(1)), f64::from(settings.max_limit.max(settings.min_limit).max(1)));
    }

    /// How long answers take without a queue, as measured last.
    pub fn baseline(&self) -> Option<Duration> {
        self.baseline
    }
}

/// How much longer answers may take than the baseline.
fn tolerance(settings: &AdaptiveConcurrency) -> f64 {
    1.0 + f64::from(settings.tolerance_percent) / 100.0
}

/// By how much the limit is lowered for a trial: what the limit lets queue, and as much again, so that a baseline which was measured
/// with a queue becomes better with each trial.
fn divisor(settings: &AdaptiveConcurrency) -> f64 {
    2.0 * tolerance(settings)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limits are between 1 and u32::MAX")]
fn whole(limit: f64) -> u32 {
    limit.round() as u32
}

#[cfg(test)]
mod tests;
