//! What a MeshService says of endpoints that fail and of callers that are too many.

use std::sync::Arc;
use std::time::Duration;

use leno_api as api;
use leno_core::breaker::CircuitBreaker;
use leno_core::limits::Limits;
use leno_core::outlier::{OutlierDetection, SuccessRate};
use leno_core::resilience::{PANIC_PERCENT, Resilience};

/// Reads what `spec` says; `None` when it says nothing. What is wrong is added to `problems`.
pub(crate) fn read(spec: &api::MeshServiceSpec, problems: &mut Vec<String>) -> Option<Arc<Resilience>> {
    let mut reader = Reader { problems };
    let resilience = Resilience {
        outliers: spec.outlier_detection.as_ref().map(|it| reader.outliers(it)),
        breaker: spec.circuit_breaker.as_ref().map(|it| reader.breaker(it)),
        limits: spec.connections.as_ref().map(|it| reader.limits(it)).unwrap_or_default(),
        panic_percent: reader.percent("healthyPanicPercent", spec.healthy_panic_percent, PANIC_PERCENT),
    };
    (resilience != Resilience::default()).then(|| Arc::new(resilience))
}

struct Reader<'p> {
    problems: &'p mut Vec<String>,
}

impl Reader<'_> {
    fn outliers(&mut self, spec: &api::resilience::OutlierDetection) -> OutlierDetection {
        let default = OutlierDetection::default();
        let path = |field: &str| format!("outlierDetection.{field}");
        OutlierDetection {
            consecutive_errors: spec.consecutive_errors.unwrap_or(default.consecutive_errors),
            consecutive_gateway_errors: spec.consecutive_gateway_errors.unwrap_or(default.consecutive_gateway_errors),
            interval: self.duration(&path("interval"), spec.interval.as_ref(), default.interval),
            base_ejection_time: self.duration(&path("baseEjectionTime"), spec.base_ejection_time.as_ref(), default.base_ejection_time),
            max_ejection_time: self.duration(&path("maxEjectionTime"), spec.max_ejection_time.as_ref(), default.max_ejection_time),
            max_ejection_percent: self.percent(&path("maxEjectionPercent"), spec.max_ejection_percent, default.max_ejection_percent),
            success_rate: spec.success_rate.as_ref().map(|it| self.success_rate(it)),
        }
    }

    fn success_rate(&mut self, spec: &api::resilience::SuccessRate) -> SuccessRate {
        let default = SuccessRate::default();
        SuccessRate {
            min_requests: self.at_least(1, "outlierDetection.successRate.minRequests", spec.min_requests, default.min_requests),
            min_endpoints: self.at_least(2, "outlierDetection.successRate.minEndpoints", spec.min_endpoints, default.min_endpoints),
            deviation_percent: spec.deviation_percent.unwrap_or(default.deviation_percent),
        }
    }

    fn breaker(&mut self, spec: &api::resilience::CircuitBreaker) -> CircuitBreaker {
        let default = CircuitBreaker::default();
        let path = |field: &str| format!("circuitBreaker.{field}");
        CircuitBreaker {
            failure_threshold: self.at_least(1, &path("failureThreshold"), spec.failure_threshold, default.failure_threshold),
            success_threshold: self.at_least(1, &path("successThreshold"), spec.success_threshold, default.success_threshold),
            open_for: self.duration(&path("openFor"), spec.open_for.as_ref(), default.open_for),
            half_open_requests: self.at_least(1, &path("halfOpenRequests"), spec.half_open_requests, default.half_open_requests),
        }
    }

    fn limits(&mut self, spec: &api::resilience::Connections) -> Limits {
        let path = |field: &str| format!("connections.{field}");
        let mut at_least_one = |field: &str, number: Option<u32>| number.map(|number| self.at_least(1, &path(field), Some(number), 1));
        Limits {
            connections: at_least_one("maxConnections", spec.max_connections),
            pending: spec.max_pending_requests,
            requests: at_least_one("maxRequests", spec.max_requests),
            retries: spec.max_retries,
            connect_timeout: spec.connect_timeout.as_ref().map(|it| self.duration(&path("connectTimeout"), Some(it), Duration::ZERO)),
            idle_timeout: spec.idle_timeout.as_ref().map(|it| self.duration(&path("idleTimeout"), Some(it), Duration::ZERO)),
        }
    }

    fn duration(&mut self, path: &str, duration: Option<&api::Duration>, default: Duration) -> Duration {
        match duration.map(api::Duration::parse) {
            None => default,
            Some(Ok(duration)) => duration,
            Some(Err(error)) => {
                self.problems.push(format!("spec.{path}: {error}."));
                default
            }
        }
    }

    fn at_least(&mut self, least: u32, path: &str, number: Option<u32>, default: u32) -> u32 {
        match number {
            Some(number) if number < least => {
                self.problems.push(format!("spec.{path}: {number} is too little: write at least {least}."));
                default
            }
            number => number.unwrap_or(default),
        }
    }

    fn percent(&mut self, path: &str, number: Option<u8>, default: u8) -> u8 {
        match number {
            Some(number @ 101..) => {
                self.problems.push(format!("spec.{path}: {number} is no percentage: write 0 to 100."));
                default
            }
            number => number.unwrap_or(default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_json(spec: serde_json::Value) -> (Option<Arc<Resilience>>, Vec<String>) {
        let mut problems = Vec::new();
        let resilience = read(&serde_json::from_value(spec).unwrap(), &mut problems);
        (resilience, problems)
    }

    #[test]
    fn what_is_not_said_is_as_documented() {
        assert_eq!(read_json(json!({})), (None, Vec::new()));
        let (resilience, problems) = read_json(json!({"outlierDetection": {}, "circuitBreaker": {"openFor": "5s"}}));
        let breaker = CircuitBreaker { open_for: Duration::from_secs(5), ..CircuitBreaker::default() };
        let outliers = Some(OutlierDetection::default());
        assert_eq!(*resilience.unwrap(), Resilience { outliers, breaker: Some(breaker), ..Resilience::default() });
        assert!(problems.is_empty());
        let limited =
            read_json(json!({"connections": {"maxConnections": 7, "maxPendingRequests": 0, "connectTimeout": "100ms"}})).0.unwrap();
        let connect_timeout = Some(Duration::from_millis(100));
        assert_eq!(limited.limits, Limits { connections: Some(7), pending: Some(0), connect_timeout, ..Limits::default() });
        let never = read_json(json!({"healthyPanicPercent": 0})).0.unwrap();
        assert_eq!(never.panic_percent, 0);
    }

    #[test]
    fn what_the_schema_would_refuse_is_told_in_words() {
        let cases = [
            (json!({"outlierDetection": {"interval": "soon"}}), "spec.outlierDetection.interval: \"soon\" is not a duration"),
            (json!({"outlierDetection": {"maxEjectionPercent": 101}}), "spec.outlierDetection.maxEjectionPercent: 101 is no percentage"),
            (json!({"outlierDetection": {"successRate": {"minEndpoints": 1}}}), "minEndpoints: 1 is too little: write at least 2"),
            (json!({"circuitBreaker": {"failureThreshold": 0}}), "spec.circuitBreaker.failureThreshold: 0 is too little"),
            (json!({"connections": {"maxConnections": 0}}), "spec.connections.maxConnections: 0 is too little"),
            (json!({"connections": {"idleTimeout": "0s"}}), "spec.connections.idleTimeout: \"0s\" is no time"),
            (json!({"healthyPanicPercent": 200}), "spec.healthyPanicPercent: 200 is no percentage"),
        ];
        for (spec, words) in cases {
            let problems = read_json(spec).1;
            assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
        }
    }
}
