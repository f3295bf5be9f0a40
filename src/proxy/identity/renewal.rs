//! When a certificate is asked for: a pure function of what happened, the time and a draw.
//!
//! | what happened | when the next certificate is asked for |
//! |---|---|
//! | one was signed | at 65 to 75 % of its life |
//! | another certificate signs now | within a twentieth of what is left of the life, at most [`HURRY_MAX`] |
//! | asking failed | after a pause that doubles, up to a tenth of what is left of the life, within [`PAUSE_MIN`] and [`PAUSE_MAX`] |
//! | the controller does not take the certificate it signed | after a pause that doubles |
//!
//! Times are since 1970; draws are uniform in `0..1` and keep a mesh of proxies from asking all at once.

use std::time::Duration;

/// The part of a certificate's life after which it is renewed, without jitter.
const RENEW_AT: f64 = 0.7;
/// How much of the life a draw moves this, to either side.
const SPREAD: f64 = 0.05;
/// A proxy hears that another certificate signs, and asks within this.
pub const HURRY_MAX: Duration = Duration::from_secs(10);
/// The shortest pause after a failure.
pub const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// When to ask for a certificate next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    due: Duration,
    /// Failures since a certificate was signed.
    failures: u32,
    /// Certificates that were signed and then not taken.
    refusals: u32,
}

impl Renewal {
    /// There is no certificate: one is asked for at once.
    pub fn at_once(now: Duration) -> Self {
        Self { due: now, failures: 0, refusals: 0 }
    }

    /// When to ask.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// A certificate came at `now` that is good until `end`. Its life counts from now: it is dated back, and clocks differ.
    pub fn signed(&mut self, now: Duration, end: Duration, draw: f64) {
        self.failures = 0;
        self.due = now + end.saturating_sub(now).mul_f64(RENEW_AT - SPREAD + 2.0 * SPREAD * draw);
    }

    /// Asking failed; what is held, if anything, is good until `end`.
    pub fn failed(&mut self, now: Duration, end: Duration, draw: f64) {
        self.due = now + pause(self.failures, end.saturating_sub(now), draw);
        self.failures = self.failures.saturating_add(1);
    }

    /// Another certificate signs now than the one that signed what is held.
    pub fn outdated(&mut self, now: Duration, end: Duration, draw: f64) {
        let window = (end.saturating_sub(now) / 20).min(HURRY_MAX);
        self.due = self.due.min(now + window.mul_f64(draw));
    }

    /// What was signed is of no use: the stream refused it, or it comes from a certificate that should not sign any more.
    pub fn unusable(&mut self, now: Duration, draw: f64) {
        self.due = self.due.min(now + pause(self.refusals, PAUSE_MAX * 10, draw));
        self.refusals = self.refusals.saturating_add(1);
    }

    /// What was signed is of use.
    pub fn usable(&mut self) {
        self.refusals = 0;
    }
}

/// The pause after `failures` earlier ones, with `left` of the certificate's life: half of it is random.
fn pause(failures: u32, left: Duration, draw: f64) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(left / 10).clamp(PAUSE_MIN, PAUSE_MAX).mul_f64(0.5 + draw / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn life() -> impl Strategy<Value = Duration> {
        (1_u64..10 * 365 * 24 * 3600).prop_map(Duration::from_secs)
    }

    proptest! {
        /// However long a certificate lives, it is renewed at 65 to 75 % of that.
        #[test]
        fn a_certificate_is_renewed_at_seventy_percent_of_its_life(life in life(), draw in 0.0..1.0) {
            let mut renewal = Renewal::at_once(NOW);
            renewal.signed(NOW, NOW + life, draw);
            let part = (renewal.due() - NOW).as_secs_f64() / life.as_secs_f64();
            prop_assert!((0.6499..=0.7501).contains(&part), "{part}");
        }

        /// A failure never puts the next attempt off beyond the bound, and never asks again at once.
        #[test]
        fn pauses_after_failures_are_bounded(failures in 0_usize..100, left in life(), draw in 0.0..1.0) {
            let mut renewal = Renewal::at_once(NOW);
            for _ in 0..=failures {
                renewal.failed(NOW, NOW + left, draw);
            }
            let pause = renewal.due() - NOW;
            prop_assert!(pause >= PAUSE_MIN / 2 && pause <= PAUSE_MAX, "{pause:?}");
        }

        /// The less is left, the sooner the next attempt: with equal failures and draws.
        #[test]
        fn the_nearer_the_end_the_more_eager(failures in 0_u32..20, left in life(), less in 0.0..1.0, draw in 0.0..1.0) {
            prop_assert!(pause(failures, left.mul_f64(less), draw) <= pause(failures, left, draw));
        }

        /// As long as attempts are refused, at least four more are made in the last third of a life of minutes.
        #[test]
        fn several_attempts_fit_into_what_is_left_of_a_short_life(draws in prop::collection::vec(0.0..1.0, 4), minutes in 2_u64..10) {
            let end = NOW + Duration::from_secs(60 * minutes);
            let mut renewal = Renewal::at_once(NOW);
            renewal.signed(NOW, end, 1.0);
            for draw in draws {
                renewal.failed(renewal.due(), end, draw);
                prop_assert!(renewal.due() < end);
            }
        }

        /// When another certificate signs, the proxy asks within seconds, and never later than it would have.
        #[test]
        fn a_rotation_is_followed_within_seconds(life in life(), draw in 0.0..1.0, later in 0.0..0.9) {
            let mut renewal = Renewal::at_once(NOW);
            renewal.signed(NOW, NOW + life, draw);
            let (before, now) = (renewal.due(), NOW + life.mul_f64(later));
            renewal.outdated(now, NOW + life, draw);
            prop_assert!(renewal.due() <= before.min(now + HURRY_MAX));
            prop_assert!(renewal.due() <= now + life / 20);
        }
    }

    #[test]
    fn a_certificate_that_is_signed_but_not_taken_is_not_asked_for_without_end() {
        let mut renewal = Renewal::at_once(NOW);
        let mut now = NOW;
        let pauses: Vec<u64> = (0..7)
            .map(|_| {
                renewal.signed(now, now + Duration::from_secs(86_400), 0.5);
                renewal.unusable(now, 1.0);
                let pause = renewal.due() - now;
                now = renewal.due();
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        renewal.usable();
        renewal.signed(now, now + Duration::from_secs(86_400), 0.5);
        renewal.unusable(now, 1.0);
        assert_eq!(renewal.due() - now, PAUSE_MIN);
    }

    #[test]
    fn an_expired_certificate_is_asked_for_every_two_seconds_at_most() {
        let mut renewal = Renewal::at_once(NOW);
        for _ in 0..50 {
            renewal.failed(NOW, NOW - Duration::from_secs(5), 1.0);
            assert_eq!(renewal.due() - NOW, PAUSE_MIN);
        }
    }
}
