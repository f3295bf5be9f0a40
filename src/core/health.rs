//! Health checks: endpoints that are asked whether they are well, and left out while they are not.
//!
//! Whoever checks tells one [`Health`] of each endpoint how every check ended; it says whether the endpoint is to be used. A new
//! endpoint counts as healthy (Kubernetes has said that it is ready) until its first check, which decides alone, as with Envoy and
//! HAProxy; from then on it takes several in a row to change that.
//!
//! Reading order: [`HealthCheck`], [`Health::record`], [`HealthCheck::first_after`].

use std::time::Duration;

use crate::names::Name;

/// Within how long a new endpoint is checked for the first time, at most.
const FIRST_MAX: Duration = Duration::from_secs(1);

/// Nobody is checked more often, whatever the settings say.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How endpoints are checked (`MeshService.spec.healthCheck`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// How often each endpoint is checked, give or take a tenth.
    pub interval: Duration,
    /// How long a check may take, connection included.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint is unhealthy, at least 1.
    pub unhealthy_threshold: u32,
    /// Successes in a row after which it is healthy again, at least 1.
    pub healthy_threshold: u32,
}

impl HealthCheck {
    /// Checks by `probe`, with the defaults in everything else.
    pub fn new(probe: Probe) -> Self {
        Self { probe, interval: Duration::from_secs(10), timeout: Duration::from_secs(1), unhealthy_threshold: 3, healthy_threshold: 2 }
    }
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// `GET`: well is who answers with an expected status.
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check`: well is who answers SERVING.
    Grpc {
        /// The gRPC service that is asked for; empty is the server as a whole.
        service: Name,
    },
    /// Well is who takes the connection.
    Tcp,
}

/// A request that tells whether an endpoint is well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// The request's target, from `/` on.
    pub path: Name,
    /// The request's authority.
    pub host: Name,
    /// The port that is asked; `None` is the endpoint's own.
    pub port: Option<u16>,
    /// Whether HTTP/2 is spoken there, with prior knowledge.
    pub is_http2: bool,
    /// Statuses that a healthy endpoint answers with; empty is any from 200 to 299.
    pub expected: Vec<u16>,
}

impl HttpProbe {
    /// Whether a healthy endpoint answers with `status`.
    pub fn expects(&self, status: u16) -> bool {
        if self.expected.is_empty() { (200..300).contains(&status) } else { self.expected.contains(&status) }
    }
}

/// What an endpoint has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Became {
    /// It is used again.
    Healthy,
    /// It is left out.
    Unhealthy,
}

impl Became {
    /// Metric label and word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    is_unhealthy: bool,
    was_checked: bool,
    /// Checks in a row that speak against what it counts as.
    contrary: u32,
}

impl Health {
    /// Whether it is to be used.
    pub fn is_healthy(&self) -> bool {
        !self.is_unhealthy
    }

    /// A check has ended. Gives what the endpoint has become, if that is another.
    pub fn record(&mut self, check: &HealthCheck, is_well: bool) -> Option<Became> {
        let is_first = !std::mem::replace(&mut self.was_checked, true);
        if is_well != self.is_unhealthy {
            self.contrary = 0;
            return None;
        }
        self.contrary = self.contrary.saturating_add(1);
        let enough = if self.is_unhealthy { check.healthy_threshold } else { check.unhealthy_threshold };
        if self.contrary < enough && !is_first {
            return None;
        }
        (self.is_unhealthy, self.contrary) = (!is_well, 0);
        Some(if is_well { Became::Healthy } else { Became::Unhealthy })
    }
}

impl HealthCheck {
    /// After how long a new endpoint is checked for the first time, so that not everybody who hears of it at once does at once.
    ///
    /// `draw`: uniform over `u64`; the caller owns the random source.
    pub fn first_after(&self, draw: u64) -> Duration {
        share(self.interval.min(FIRST_MAX), draw)
    }

    /// After how long an endpoint is checked again: the interval, give or take a tenth, so that proxies do not come to beat in time.
    pub fn again_after(&self, draw: u64) -> Duration {
        let interval = self.interval.max(INTERVAL_MIN);
        interval - interval / 10 + share(interval / 5, draw)
    }
}

/// A share of `whole` as `draw` says.
fn share(whole: Duration, draw: u64) -> Duration {
    whole.mul_f64((draw >> 32) as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check() -> HealthCheck {
        HealthCheck::new(Probe::Tcp)
    }

    fn told(checks: &[bool]) -> (Health, Vec<Option<Became>>) {
        let mut health = Health::default();
        let became = checks.iter().map(|is_well| health.record(&check(), *is_well)).collect();
        (health, became)
    }

    #[test]
    fn a_new_endpoint_is_healthy_until_its_first_check_which_decides_alone() {
        assert!(Health::default().is_healthy());
        assert_eq!(told(&[true]).1, [None]);
        let (health, became) = told(&[false]);
        assert!(became == [Some(Became::Unhealthy)] && !health.is_healthy());
    }

    #[test]
    fn it_takes_some_in_a_row_to_change_what_an_endpoint_counts_as() {
        let (health, became) = told(&[true, false, false, true, false, false, false]);
        assert!(!health.is_healthy());
        assert_eq!(became[..6], [None; 6], "a success in between begins it anew");
        assert_eq!(became[6], Some(Became::Unhealthy));
        let (health, became) = told(&[false, true, false, true, true]);
        assert!(health.is_healthy());
        assert_eq!(became, [Some(Became::Unhealthy), None, None, None, Some(Became::Healthy)]);
    }

    #[test]
    fn without_a_list_every_2xx_is_expected() {
        let any = HttpProbe { path: "/".into(), host: "a".into(), port: None, is_http2: false, expected: Vec::new() };
        assert!(any.expects(200) && any.expects(299) && !any.expects(199) && !any.expects(300) && !any.expects(403));
        let some = HttpProbe { expected: vec![200, 404], ..any };
        assert!(some.expects(404) && !some.expects(204));
    }

    proptest! {
        /// Whatever happened before, as many successes in a row as the threshold says make an endpoint healthy, and failures unhealthy.
        #[test]
        fn nobody_stays_what_all_checks_speak_against(before in prop::collection::vec(any::<bool>(), 0..50), is_well: bool) {
            let (mut health, _) = told(&before);
            let enough = if is_well { check().healthy_threshold } else { check().unhealthy_threshold };
            for _ in 0..enough {
                health.record(&check(), is_well);
            }
            prop_assert_eq!(health.is_healthy(), is_well);
            prop_assert_eq!(health.record(&check(), is_well), None, "nothing changes any more");
        }

        #[test]
        fn checks_are_spread_within_a_tenth_of_the_interval_and_the_first_within_a_second(draw: u64, interval_ms in 1u64..3_600_000) {
            let interval = Duration::from_millis(interval_ms);
            let check = HealthCheck { interval, ..check() };
            let (first, again) = (check.first_after(draw), check.again_after(draw));
            prop_assert!(first <= interval && first <= FIRST_MAX);
            prop_assert!(again >= interval.mul_f64(0.9) && again <= interval.mul_f64(1.1) + Duration::from_nanos(10));
        }
    }
}
