//! Resilience: what keeps callers from endpoints that fail, and endpoints from more than they can take.
//!
//! The settings come with a service port's endpoints ([`Resilience`]); the state machines are in [`crate::health`], which is told
//! of checks, and in [`crate::outlier`] and [`crate::breaker`], which are told how each attempt ended ([`Outcome`]). What may be under way
//! at once is in [`crate::limits`].

use crate::breaker::CircuitBreaker;
use crate::health::HealthCheck;
use crate::limits::Limits;
use crate::outlier::OutlierDetection;

/// Below this share of healthy endpoints, in percent, all of them are used ([`Resilience::panic_percent`]).
pub const PANIC_PERCENT: u8 = 50;

/// How a service is guarded (`MeshService.spec`: healthCheck, outlierDetection, circuitBreaker, connections).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resilience {
    /// Endpoints are asked whether they are well, and left out while they are not.
    pub health_check: Option<HealthCheck>,
    /// Endpoints that fail in a row, or more than the others, are left out for a time.
    pub outliers: Option<OutlierDetection>,
    /// Endpoints that fail in a row are not called at all until trials succeed.
    pub breaker: Option<CircuitBreaker>,
    /// What may be under way at once.
    pub limits: Limits,
    /// When fewer than this share of the endpoints, in percent, are healthy, all are used: `0..=100`, 0 is never. An open breaker
    /// stays shut even then.
    pub panic_percent: u8,
}

impl Default for Resilience {
    fn default() -> Self {
        Self { health_check: None, outliers: None, breaker: None, limits: Limits::default(), panic_percent: PANIC_PERCENT }
    }
}

impl Resilience {
    /// Whether `healthy` of `all` endpoints are so few that all of them are used.
    pub fn is_panic(&self, healthy: usize, all: usize) -> bool {
        (healthy as u64) * 100 < (all as u64) * u64::from(self.panic_percent)
    }

    /// Whether what becomes of single attempts matters.
    pub fn judges_attempts(&self) -> bool {
        self.outliers.is_some() || self.breaker.is_some()
    }
}

/// How one attempt to have a request answered ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was answered, and not with a failure of the server's.
    Success,
    /// The endpoint said that it failed (5xx other than those of [`Outcome::Gateway`], or the like in gRPC).
    Error,
    /// Somebody before the endpoint's app said that it is not to be reached or too slow (502, 503, 504, or the like in gRPC).
    Gateway,
    /// No connection could be made, or nobody there could prove to be who is meant.
    Connect,
    /// The connection or stream broke, or what came was no answer.
    Reset,
    /// There was no answer in time.
    Timeout,
}

impl Outcome {
    /// What an answer says of its endpoint.
    ///
    /// * `status`: the HTTP status.
    /// * `grpc_status`: the code of a gRPC answer, where there is one. UNKNOWN (2), INTERNAL (13) and DATA_LOSS (15) are errors,
    ///   DEADLINE_EXCEEDED (4) and UNAVAILABLE (14) what a gateway would say; all others are about the request.
    pub fn of(status: u16, grpc_status: Option<u16>) -> Self {
        match (status, grpc_status) {
            (502..=504, _) => Self::Gateway,
            (500.., _) => Self::Error,
            (_, Some(4 | 14)) => Self::Gateway,
            (_, Some(2 | 13 | 15)) => Self::Error,
            (_, _) => Self::Success,
        }
    }

    /// Whether the endpoint failed.
    pub fn is_failure(self) -> bool {
        self != Self::Success
    }

    /// Whether it failed in a way that a gateway tells: it could not be reached, or did not answer.
    pub fn is_gateway_failure(self) -> bool {
        match self {
            Self::Gateway | Self::Connect | Self::Reset | Self::Timeout => true,
            Self::Success | Self::Error => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_whether_its_endpoint_failed() {
        let cases = [
            (200, None, Outcome::Success),
            (404, None, Outcome::Success),
            (429, None, Outcome::Success),
            (500, None, Outcome::Error),
            (501, None, Outcome::Error),
            (502, None, Outcome::Gateway),
            (503, Some(14), Outcome::Gateway),
            (504, None, Outcome::Gateway),
            (505, None, Outcome::Error),
            (200, Some(0), Outcome::Success),
            (200, Some(5), Outcome::Success),
            (200, Some(8), Outcome::Success),
            (200, Some(2), Outcome::Error),
            (200, Some(4), Outcome::Gateway),
            (200, Some(13), Outcome::Error),
            (200, Some(14), Outcome::Gateway),
        ];
        for (status, grpc, outcome) in cases {
            assert_eq!(Outcome::of(status, grpc), outcome, "{status} {grpc:?}");
        }
    }

    #[test]
    fn with_fewer_healthy_endpoints_than_the_threshold_all_are_used() {
        let half = Resilience::default();
        assert!(!half.is_panic(2, 4) && half.is_panic(1, 4) && half.is_panic(0, 1));
        let never = Resilience { panic_percent: 0, ..Resilience::default() };
        assert!(!never.is_panic(0, 4));
        let always = Resilience { panic_percent: 100, ..Resilience::default() };
        assert!(always.is_panic(3, 4) && !always.is_panic(4, 4));
        assert!(!always.is_panic(0, 0), "without endpoints there is nothing to use");
    }
}
