//! Health: endpoints are asked how they are, beside the traffic.
//!
//! [`Checked`] is told what each check found and says whether the endpoint is healthy; when the next is due is a function of the
//! interval and a draw ([`HealthCheck::pause`]).

use std::time::Duration;

use crate::names::Name;

/// How endpoints are asked (`MeshService.spec.healthCheck`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// How often, about.
    pub interval: Duration,
    /// How long an answer may take, with the connection.
    pub timeout: Duration,
    /// Bad answers in a row that make a healthy endpoint unhealthy, at least 1.
    pub unhealthy_threshold: u32,
    /// Good answers in a row that make an unhealthy endpoint healthy, at least 1.
    pub healthy_threshold: u32,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A GET by HTTP/1.1.
    Http {
        /// What is asked for, with its query.
        path: Name,
        /// The `Host`; by default the service's own name.
        host: Option<Name>,
        /// Statuses that are good, first and last; empty means 200 to 399.
        expected: Vec<(u16, u16)>,
    },
    /// To accept a connection and, in the mesh, prove who it is.
    Tcp,
    /// The gRPC health protocol (`grpc.health.v1.Health/Check`).
    Grpc {
        /// The service asked for; empty means the server as a whole.
        service: Name,
    },
}

/// How one endpoint is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    is_unhealthy: bool,
    /// Checks in a row that say otherwise.
    otherwise: u32,
    is_known: bool,
}

impl HealthCheck {
    /// How long to wait until the next check: the interval, give or take a tenth, so that proxies do not ask all at once.
    ///
    /// `draw` is uniform over `u64`.
    pub fn pause(&self, draw: u64) -> Duration {
        let tenth = self.interval / 10;
        let spread = u64::try_from(tenth.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
        self.interval - tenth + Duration::from_millis(draw % spread.max(1))
    }

    /// Whether an HTTP `status` is good.
    pub fn expects(&self, status: u16) -> bool {
        match &self.probe {
            Probe::Http { expected, .. } if !expected.is_empty() => expected.iter().any(|(first, last)| (*first..=*last).contains(&status)),
            Probe::Http { .. } | Probe::Tcp | Probe::Grpc { .. } => (200..400).contains(&status),
        }
    }
}

impl Checked {
    /// Whether requests may go there. Whoever has not been asked yet is taken for healthy.
    pub fn is_healthy(self) -> bool {
        !self.is_unhealthy
    }

    /// A check was `good` or not; gives whether the endpoint is healthy from now on, where that has changed. The first check
    /// counts at once: nothing better is known.
    pub fn record(&mut self, check: &HealthCheck, good: bool) -> Option<bool> {
        let is_first = !std::mem::replace(&mut self.is_known, true);
        if good != self.is_unhealthy {
            self.otherwise = 0;
            return None;
        }
        self.otherwise += 1;
        let threshold = if self.is_unhealthy { check.healthy_threshold } else { check.unhealthy_threshold };
        if self.otherwise < threshold && !is_first {
            return None;
        }
        (self.is_unhealthy, self.otherwise) = (!good, 0);
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check() -> HealthCheck {
        HealthCheck {
            probe: Probe::Http { path: "/".into(), host: None, expected: Vec::new() },
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }

    #[test]
    fn it_takes_as_many_answers_in_a_row_as_are_asked_for() {
        let (mut checked, check) = (Checked::default(), check());
        let told: Vec<_> =
            [true, false, false, true, false, false, false, true, false, true, true].map(|good| checked.record(&check, good)).into();
        let none = None;
        assert_eq!(told, [none, none, none, none, none, none, Some(false), none, none, none, Some(true)]);
    }

    #[test]
    fn the_first_answer_counts_at_once() {
        let (mut checked, check) = (Checked::default(), check());
        assert!(checked.is_healthy());
        assert_eq!(checked.record(&check, false), Some(false));
        assert!(!checked.is_healthy());
    }

    #[test]
    fn statuses_are_good_as_said_and_otherwise_below_400() {
        let mut check = check();
        assert!(check.expects(204) && check.expects(302) && !check.expects(404) && !check.expects(503));
        check.probe = Probe::Http { path: "/".into(), host: None, expected: vec![(200, 200), (401, 404)] };
        assert!(check.expects(200) && check.expects(401) && check.expects(404) && !check.expects(201) && !check.expects(405));
    }

    proptest! {
        #[test]
        fn checks_come_about_once_in_an_interval(draw: u64, millis in 1u64..100_000) {
            let check = HealthCheck { interval: Duration::from_millis(millis), ..check() };
            let pause = check.pause(draw);
            prop_assert!(pause >= check.interval * 9 / 10 && pause <= check.interval * 11 / 10 + Duration::from_millis(1));
        }
    }
}
