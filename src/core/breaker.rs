//! Circuit breaker of one endpoint: Closed, Open, HalfOpen.
//!
//! Closed lets everything pass and counts failures in a row. Open lets nothing pass for a time. HalfOpen lets a few trials pass at
//! once: enough successes close it, one failure opens it again.
//!
//! Each state is an epoch; a [`Permit`] carries that in which it was given, and what is told with a permit of an older epoch changes
//! nothing. There is no lock-out: a trial that is over frees its place, and trials that never end are given up.
//!
//! Reading order: [`Breaker::admit`], [`Breaker::record`], [`Breaker::release`].

use std::time::{Duration, Instant};

/// When an endpoint is not called any more, and when it is again (`MeshService.spec.circuitBreaker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CircuitBreaker {
    /// Failures in a row that open it, at least 1.
    pub failure_threshold: u32,
    /// Successes in HalfOpen that close it, at least 1.
    pub success_threshold: u32,
    /// How long it stays open, and how long trials may all go without an answer before others are let pass.
    pub open_for: Duration,
    /// Trials under way at once in HalfOpen, at least 1.
    pub half_open_requests: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failure_threshold: 5, success_threshold: 2, open_for: Duration::from_secs(60), half_open_requests: 3 }
    }
}

/// The breaker of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Trials without an answer so far.
        waiting: u32,
        successes: u32,
        /// When trials without an answer are given up.
        patience: Instant,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Leave to send one request. To be released once it has been answered or dropped, and told how it ended, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    epoch: u64,
}

/// A state that a breaker has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// Trials pass.
    HalfOpen,
}

impl Phase {
    /// Metric label and word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl Breaker {
    /// The state it is in. Open ends by a request that comes after its time, not by the time itself.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Closed { .. } => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Whether [`Breaker::admit`] would give a permit at `now`.
    pub fn admits(&self, policy: &CircuitBreaker, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::HalfOpen { waiting, patience, .. } => waiting < policy.half_open_requests || now >= patience,
        }
    }

    /// Leave to send a request at `now`, and the state that this has brought about.
    pub fn admit(&mut self, policy: &CircuitBreaker, now: Instant) -> Option<(Permit, Option<Phase>)> {
        if !self.admits(policy, now) {
            return None;
        }
        let mut entered = None;
        match &mut self.state {
            State::Closed { .. } => {}
            // Time for trials, or those there were have all gone without an answer: they are given up.
            State::Open { .. } => {
                self.enter(State::HalfOpen { waiting: 1, successes: 0, patience: now + policy.open_for });
                entered = Some(Phase::HalfOpen);
            }
            State::HalfOpen { waiting, .. } if *waiting >= policy.half_open_requests => {
                self.enter(State::HalfOpen { waiting: 1, successes: 0, patience: now + policy.open_for });
            }
            State::HalfOpen { waiting, .. } => *waiting += 1,
        }
        Some((Permit { epoch: self.epoch }, entered))
    }

    /// The request with `permit` waits no more: it was answered, failed, or was dropped. To be called once for each permit.
    pub fn release(&mut self, permit: Permit) {
        if let State::HalfOpen { waiting, .. } = &mut self.state
            && permit.epoch == self.epoch
        {
            *waiting = waiting.saturating_sub(1);
        }
    }

    /// The request with `permit` has ended; gives the state that this has brought about.
    pub fn record(&mut self, policy: &CircuitBreaker, permit: Permit, failed: bool, now: Instant) -> Option<Phase> {
        if permit.epoch != self.epoch {
            return None;
        }
        match (&mut self.state, failed) {
            (State::Closed { failures }, false) => *failures = 0,
            (State::Closed { failures }, true) => {
                *failures += 1;
                if *failures >= policy.failure_threshold {
                    return Some(self.open(policy, now));
                }
            }
            (State::HalfOpen { .. }, true) => return Some(self.open(policy, now)),
            (State::HalfOpen { successes, .. }, false) => {
                *successes += 1;
                if *successes >= policy.success_threshold {
                    self.enter(State::default());
                    return Some(Phase::Closed);
                }
            }
            // No permit is given while it is open, so none is of its epoch.
            (State::Open { .. }, _) => {}
        }
        None
    }

    fn open(&mut self, policy: &CircuitBreaker, now: Instant) -> Phase {
        self.enter(State::Open { until: now + policy.open_for });
        Phase::Open
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: CircuitBreaker =
        CircuitBreaker { failure_threshold: 3, success_threshold: 2, open_for: Duration::from_secs(10), half_open_requests: 2 };

    fn told(breaker: &mut Breaker, failed: bool, now: Instant) -> Option<Phase> {
        let Some((permit, _)) = breaker.admit(&POLICY, now) else { panic!("it does not admit") };
        breaker.release(permit);
        breaker.record(&POLICY, permit, failed, now)
    }

    fn tripped_at(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            assert_eq!(told(&mut breaker, true, now), None);
        }
        assert_eq!(told(&mut breaker, true, now), Some(Phase::Open));
        breaker
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for failed in [true, true, false, true, true, false] {
            assert_eq!(told(&mut breaker, failed, now), None);
        }
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_trials_pass_after_its_time() {
        let t0 = Instant::now();
        let mut breaker = tripped_at(t0);
        let later = t0 + POLICY.open_for;
        assert!(!breaker.admits(&POLICY, later - Duration::from_nanos(1)));
        let (first, entered) = breaker.admit(&POLICY, later).unwrap();
        assert_eq!(entered, Some(Phase::HalfOpen));
        let (second, entered) = breaker.admit(&POLICY, later).unwrap();
        assert_eq!(entered, None);
        assert!(breaker.admit(&POLICY, later).is_none(), "as many trials as are allowed");
        assert_eq!(breaker.record(&POLICY, first, false, later), None);
        assert_eq!(breaker.record(&POLICY, second, false, later), Some(Phase::Closed));
        assert!(breaker.admits(&POLICY, later));
    }

    #[test]
    fn one_failed_trial_opens_it_again_for_the_whole_time() {
        let t0 = Instant::now();
        let mut breaker = tripped_at(t0);
        let later = t0 + POLICY.open_for;
        assert_eq!(told(&mut breaker, true, later), Some(Phase::Open));
        assert!(!breaker.admits(&POLICY, later + POLICY.open_for - Duration::from_nanos(1)));
        assert!(breaker.admits(&POLICY, later + POLICY.open_for));
    }

    #[test]
    fn a_late_failure_from_before_the_trip_does_not_reopen_a_recovered_breaker() {
        let t0 = Instant::now();
        let mut breaker = Breaker::default();
        let (late, _) = breaker.admit(&POLICY, t0).unwrap();
        for _ in 0..3 {
            told(&mut breaker, true, t0);
        }
        let later = t0 + POLICY.open_for;
        told(&mut breaker, false, later);
        assert_eq!(breaker.record(&POLICY, late, true, later), None, "it is about an older state");
        assert_eq!(told(&mut breaker, false, later), Some(Phase::Closed));
        for _ in 0..3 {
            assert_eq!(breaker.record(&POLICY, late, true, later), None);
        }
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn a_trial_that_is_dropped_frees_its_place() {
        let t0 = Instant::now();
        let mut breaker = tripped_at(t0);
        let later = t0 + POLICY.open_for;
        let (first, _) = breaker.admit(&POLICY, later).unwrap();
        breaker.admit(&POLICY, later).unwrap();
        assert!(!breaker.admits(&POLICY, later));
        breaker.release(first);
        assert!(breaker.admits(&POLICY, later));
    }

    #[test]
    fn trials_that_never_end_are_given_up() {
        let t0 = Instant::now();
        let mut breaker = tripped_at(t0);
        let later = t0 + POLICY.open_for;
        let (hanging, _) = breaker.admit(&POLICY, later).unwrap();
        breaker.admit(&POLICY, later).unwrap();
        assert!(!breaker.admits(&POLICY, later + POLICY.open_for - Duration::from_nanos(1)));
        assert!(breaker.admit(&POLICY, later + POLICY.open_for).is_some());
        assert_eq!(breaker.record(&POLICY, hanging, true, later + POLICY.open_for), None);
    }

    proptest! {
        /// Whatever happens, requests pass again after twice the time it stays open; and permits of trials are bounded.
        #[test]
        fn nobody_is_locked_out(steps in prop::collection::vec((0u8..4, 0usize..8, 0u64..6000), 0..200)) {
            let mut now = Instant::now();
            let (mut breaker, mut permits) = (Breaker::default(), Vec::new());
            for (step, place, millis) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 => permits.extend(breaker.admit(&POLICY, now).map(|(permit, _)| permit)),
                    _ if permits.is_empty() => {}
                    1 => breaker.release(permits.swap_remove(place % permits.len())),
                    _ => {
                        let permit = permits.swap_remove(place % permits.len());
                        breaker.release(permit);
                        breaker.record(&POLICY, permit, step == 2, now);
                    }
                }
                if let State::HalfOpen { waiting, .. } = breaker.state {
                    prop_assert!(waiting <= POLICY.half_open_requests);
                }
                prop_assert!(breaker.admits(&POLICY, now + 2 * POLICY.open_for));
            }
        }
    }
}
