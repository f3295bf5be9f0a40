//! Outlier detection: which endpoints of a set are left out for a time, because they fail.
//!
//! One [`Outliers`] watches one set. It is told of every attempt ([`Outliers::report`]) and says who is left out
//! ([`Outliers::is_ejected`]). Whatever it is told, no more than the allowed share is left out at once, at least one may be.
//! An endpoint that is left out again and again is so for longer each time, up to a bound; good times make up for it.
//!
//! Reading order: [`Outliers::report`], `Outliers::eject`, `Outliers::review`.

use std::time::{Duration, Instant};

use crate::resilience::Outcome;

/// When an endpoint is left out, and for how long (`MeshService.spec.outlierDetection`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutlierDetection {
    /// Failures in a row, of any kind; 0 is never.
    pub consecutive_errors: u32,
    /// Failures in a row that a gateway tells (502, 503, 504, no connection, a reset, no answer in time); 0 is never.
    pub consecutive_gateway_errors: u32,
    /// How often rates are compared, and how long a good time is that makes up for one ejection.
    pub interval: Duration,
    /// How long an endpoint is left out the first time; the second time twice as long, and so on.
    pub base_ejection_time: Duration,
    /// How long it is left out at most.
    pub max_ejection_time: Duration,
    /// Which share of the endpoints may be left out at once, in percent: `0..=100`. One always may.
    pub max_ejection_percent: u8,
    /// Endpoints that fail more than the others.
    pub success_rate: Option<SuccessRate>,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            consecutive_gateway_errors: 0,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
            success_rate: None,
        }
    }
}

/// When an endpoint fails more than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuccessRate {
    /// Requests to an endpoint within an interval without which nothing is said of it, at least 1.
    pub min_requests: u32,
    /// Endpoints with that many requests without which none is compared, at least 2.
    pub min_endpoints: u32,
    /// How far below the mean of all rates its own may be, in percent of their standard deviation.
    pub deviation_percent: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { min_requests: 100, min_endpoints: 5, deviation_percent: 190 }
    }
}

/// Why an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Failures in a row.
    ConsecutiveErrors,
    /// Failures in a row that a gateway tells.
    ConsecutiveGatewayErrors,
    /// More failures than the others.
    SuccessRate,
}

impl Cause {
    /// Metric label and word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveErrors => "consecutive-errors",
            Self::ConsecutiveGatewayErrors => "consecutive-gateway-errors",
            Self::SuccessRate => "success-rate",
        }
    }
}

/// An endpoint that is left out from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Which.
    pub slot: usize,
    /// Why.
    pub cause: Cause,
    /// Until when.
    pub until: Instant,
}

/// What is known of the endpoints of one set.
#[derive(Clone, Debug, Default)]
pub struct Outliers {
    records: Vec<Option<Record>>,
    free: Vec<usize>,
    /// When rates are compared next.
    review_at: Option<Instant>,
    /// When the last of those left out comes back.
    last_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// In a row.
    errors: u32,
    /// In a row.
    gateway_errors: u32,
    /// Since rates were compared.
    requests: u32,
    /// Since rates were compared.
    successes: u32,
    /// How often it was left out; good times take away from it.
    times: u32,
    until: Option<Instant>,
}

impl Record {
    fn is_ejected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn rate(&self) -> f64 {
        f64::from(self.successes) / f64::from(self.requests.max(1))
    }
}

impl Outliers {
    /// One more endpoint is in the set; gives the slot by which it is known.
    pub fn join(&mut self) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.records[slot] = Some(Record::default());
                slot
            }
            None => {
                self.records.push(Some(Record::default()));
                self.records.len() - 1
            }
        }
    }

    /// The endpoint in `slot` is not in the set any more.
    pub fn leave(&mut self, slot: usize) {
        if self.records.get_mut(slot).and_then(Option::take).is_some() {
            self.free.push(slot);
        }
    }

    /// Whether the endpoint in `slot` is left out at `now`.
    pub fn is_ejected(&self, slot: usize, now: Instant) -> bool {
        self.records.get(slot).and_then(Option::as_ref).is_some_and(|record| record.is_ejected(now))
    }

    /// Until when the endpoint in `slot` is left out, if it is at `now`.
    pub fn ejected_until(&self, slot: usize, now: Instant) -> Option<Instant> {
        self.records.get(slot).and_then(Option::as_ref).and_then(|record| record.until).filter(|until| now < *until)
    }

    /// Whether anybody may be left out at `now`; `false` is certain. O(1).
    pub fn may_any_be_ejected(&self, now: Instant) -> bool {
        self.last_until.is_some_and(|until| now < until)
    }

    /// An attempt at the endpoint in `slot` has ended. Gives whoever is left out from now on, because of it or because it was time to
    /// compare rates. O(1), and O(n) where somebody is to be left out.
    pub fn report(&mut self, policy: &OutlierDetection, slot: usize, outcome: Outcome, now: Instant) -> Vec<Ejection> {
        let mut ejections = self.review(policy, now);
        let Some(record) = self.records.get_mut(slot).and_then(Option::as_mut) else { return ejections };
        record.requests = record.requests.saturating_add(1);
        record.successes = record.successes.saturating_add(u32::from(!outcome.is_failure()));
        record.errors = if outcome.is_failure() { record.errors.saturating_add(1) } else { 0 };
        record.gateway_errors = if outcome.is_gateway_failure() { record.gateway_errors.saturating_add(1) } else { 0 };
        let reached = |count: u32, threshold: u32| threshold > 0 && count >= threshold;
        let cause = if reached(record.errors, policy.consecutive_errors) {
            Cause::ConsecutiveErrors
        } else if reached(record.gateway_errors, policy.consecutive_gateway_errors) {
            Cause::ConsecutiveGatewayErrors
        } else {
            return ejections;
        };
        // Whoever may not be left out now has to fail as often again.
        (record.errors, record.gateway_errors) = (0, 0);
        ejections.extend(self.eject(policy, slot, cause, now));
        ejections
    }

    /// Leaves the endpoint in `slot` out, if it is not yet and the bound allows it.
    fn eject(&mut self, policy: &OutlierDetection, slot: usize, cause: Cause, now: Instant) -> Option<Ejection> {
        let members = self.records.iter().flatten();
        let (count, ejected) = members.fold((0, 0), |(count, ejected), record| (count + 1, ejected + usize::from(record.is_ejected(now))));
        if ejected >= most_ejected(count, policy.max_ejection_percent) {
            return None;
        }
        let record = self.records.get_mut(slot).and_then(Option::as_mut).filter(|record| !record.is_ejected(now))?;
        record.times = record.times.saturating_add(1);
        let most = policy.max_ejection_time.max(policy.base_ejection_time);
        let until = now + policy.base_ejection_time.saturating_mul(record.times).min(most);
        record.until = Some(until);
        self.last_until = self.last_until.max(Some(until));
        Some(Ejection { slot, cause, until })
    }

    /// Compares rates and forgets a little, when an interval is over.
    fn review(&mut self, policy: &OutlierDetection, now: Instant) -> Vec<Ejection> {
        match self.review_at {
            Some(at) if now < at => return Vec::new(),
            Some(_) => {}
            None => {
                self.review_at = Some(now + policy.interval);
                return Vec::new();
            }
        }
        self.review_at = Some(now + policy.interval);
        let below = policy.success_rate.map_or_else(Vec::new, |rule| self.below(&rule, now));
        let ejections = below.into_iter().filter_map(|slot| self.eject(policy, slot, Cause::SuccessRate, now)).collect();
        for record in self.records.iter_mut().flatten() {
            (record.requests, record.successes) = (0, 0);
            if !record.is_ejected(now) {
                record.times = record.times.saturating_sub(1);
            }
        }
        ejections
    }

    /// Who fails more than the others, the worst first.
    fn below(&self, rule: &SuccessRate, now: Instant) -> Vec<usize> {
        let known = |record: &Record| !record.is_ejected(now) && record.requests >= rule.min_requests.max(1);
        let slots = self.records.iter().enumerate().filter_map(|(slot, record)| record.filter(known).map(|record| (slot, record.rate())));
        let mut rates: Vec<(usize, f64)> = slots.collect();
        if rates.len() < usize::try_from(rule.min_endpoints).unwrap_or(usize::MAX).max(2) {
            return Vec::new();
        }
        let count = f64::from(u32::try_from(rates.len()).unwrap_or(u32::MAX));
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(rule.deviation_percent) / 100.0;
        // Rates that are all the same differ by no more than the rounding.
        rates.retain(|(_, rate)| *rate < least - 1e-9);
        rates.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        rates.into_iter().map(|(slot, _)| slot).collect()
    }
}

/// How many of `count` endpoints may be left out at once.
pub fn most_ejected(count: usize, percent: u8) -> usize {
    (count * usize::from(percent.min(100)) / 100).max(1).min(count)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> OutlierDetection {
        OutlierDetection { consecutive_errors: 3, ..OutlierDetection::default() }
    }

    fn set(count: usize) -> Outliers {
        let mut outliers = Outliers::default();
        assert!((0..count).all(|slot| outliers.join() == slot));
        outliers
    }

    fn fail(outliers: &mut Outliers, policy: &OutlierDetection, slot: usize, times: usize, now: Instant) -> Vec<Ejection> {
        (0..times).flat_map(|_| outliers.report(policy, slot, Outcome::Error, now)).collect()
    }

    #[test]
    fn an_endpoint_that_fails_in_a_row_is_left_out_for_a_time_and_comes_back() {
        let (mut outliers, policy, t0) = (set(4), policy(), Instant::now());
        assert!(fail(&mut outliers, &policy, 1, 2, t0).is_empty());
        outliers.report(&policy, 1, Outcome::Success, t0);
        assert!(fail(&mut outliers, &policy, 1, 2, t0).is_empty(), "a success in between");
        let until = t0 + policy.base_ejection_time;
        assert_eq!(fail(&mut outliers, &policy, 1, 1, t0), [Ejection { slot: 1, cause: Cause::ConsecutiveErrors, until }]);
        assert!(outliers.is_ejected(1, until - Duration::from_nanos(1)) && !outliers.is_ejected(0, t0));
        assert!(!outliers.is_ejected(1, until) && !outliers.may_any_be_ejected(until));
    }

    #[test]
    fn the_time_grows_with_repeats_up_to_a_bound_and_good_times_make_up_for_it() {
        let policy = OutlierDetection { max_ejection_time: Duration::from_secs(75), ..policy() };
        let (mut outliers, mut now) = (set(2), Instant::now());
        let mut times = Vec::new();
        for _ in 0..4 {
            let ejection = fail(&mut outliers, &policy, 0, 3, now)[0];
            times.push((ejection.until - now).as_secs());
            // It comes back after the interval was over: nothing is made up for yet.
            now = ejection.until;
            outliers.review_at = Some(now + policy.interval);
        }
        assert_eq!(times, [30, 60, 75, 75]);
        for _ in 0..4 {
            now += policy.interval;
            outliers.report(&policy, 1, Outcome::Success, now);
        }
        assert_eq!(fail(&mut outliers, &policy, 0, 3, now)[0].until, now + policy.base_ejection_time);
    }

    #[test]
    fn gateway_errors_have_a_threshold_of_their_own() {
        let policy = OutlierDetection { consecutive_errors: 0, consecutive_gateway_errors: 2, ..policy() };
        let (mut outliers, now) = (set(2), Instant::now());
        assert!(fail(&mut outliers, &policy, 0, 50, now).is_empty(), "500 is no error of a gateway");
        assert!(outliers.report(&policy, 0, Outcome::Connect, now).is_empty());
        assert_eq!(outliers.report(&policy, 0, Outcome::Reset, now)[0].cause, Cause::ConsecutiveGatewayErrors);
    }

    #[test]
    fn one_may_always_be_left_out_and_no_more_than_the_share() {
        assert_eq!(
            [(1, 0), (3, 10), (4, 50), (5, 50), (3, 100), (0, 50)].map(|(count, percent)| most_ejected(count, percent)),
            [1, 1, 2, 2, 3, 0]
        );
    }

    #[test]
    fn whoever_fails_more_than_the_others_is_left_out_when_rates_are_compared() {
        let rule = SuccessRate { min_requests: 10, min_endpoints: 3, deviation_percent: 190 };
        let policy = OutlierDetection { consecutive_errors: 0, success_rate: Some(rule), ..policy() };
        let (mut outliers, t0) = (set(6), Instant::now());
        for slot in 0..6 {
            for number in 0..20 {
                // The last endpoint fails every second time; those before once or never.
                let fails = if slot == 5 { number % 2 == 0 } else { number == 0 && slot == 0 };
                let outcome = if fails { Outcome::Error } else { Outcome::Success };
                assert!(outliers.report(&policy, slot, outcome, t0).is_empty());
            }
        }
        let ejections = outliers.report(&policy, 0, Outcome::Success, t0 + policy.interval);
        assert_eq!(ejections.iter().map(|it| (it.slot, it.cause)).collect::<Vec<_>>(), [(5, Cause::SuccessRate)]);
        let again = outliers.report(&policy, 0, Outcome::Success, t0 + policy.interval * 2);
        assert!(again.is_empty(), "nobody has had enough requests since");
    }

    proptest! {
        /// Whatever is reported of whom and whoever comes and goes, no more than the share is left out at once.
        #[test]
        fn the_share_left_out_stays_within_its_bound(
            count in 1usize..12,
            percent in 0u8..=100,
            steps in prop::collection::vec((0usize..12, 0u8..8, 0u64..20_000), 0..300),
        ) {
            let rule = SuccessRate { min_requests: 2, min_endpoints: 2, deviation_percent: 50 };
            let policy = OutlierDetection {
                consecutive_errors: 2, consecutive_gateway_errors: 1, max_ejection_percent: percent, success_rate: Some(rule), ..policy()
            };
            let (mut outliers, mut now) = (set(count), Instant::now());
            let outcomes = [Outcome::Error, Outcome::Gateway, Outcome::Connect, Outcome::Reset, Outcome::Timeout, Outcome::Success];
            for (slot, what, millis) in steps {
                now += Duration::from_millis(millis);
                let before = (0..12).filter(|slot| outliers.is_ejected(*slot, now)).count();
                match what {
                    6 => { outliers.join(); }
                    7 => outliers.leave(slot),
                    _ => {
                        let ejections = outliers.report(&policy, slot, outcomes[usize::from(what)], now);
                        let members = outliers.records.iter().flatten().count();
                        let after = outliers.records.iter().flatten().filter(|record| record.is_ejected(now)).count();
                        prop_assert!(ejections.is_empty() || after <= most_ejected(members, percent), "{before} {after} of {members}");
                        prop_assert!(ejections.iter().all(|it| it.until <= now + policy.max_ejection_time));
                    }
                }
            }
            let end = now + policy.max_ejection_time;
            prop_assert!(!outliers.may_any_be_ejected(end) && (0..300).all(|slot| !outliers.is_ejected(slot, end)));
        }
    }
}
