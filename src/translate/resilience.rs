//! What a MeshService says of endpoints that fail and of callers that are too many.

use std::sync::Arc;
use std::time::Duration;

use leno_api as api;
use leno_core::breaker::CircuitBreaker;
use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::health::{HealthCheck, HttpProbe, Probe};
use leno_core::limits::Limits;
use leno_core::outlier::{OutlierDetection, SuccessRate};
use leno_core::resilience::{PANIC_PERCENT, Resilience};
use leno_core::service::Protocol;

/// Reads what `spec` says; `None` when it says nothing. What is wrong is added to `problems`.
///
/// `host` is by which name the service is asked whether it is well.
pub(crate) fn read(spec: &api::MeshServiceSpec, host: &str, problems: &mut Vec<String>) -> Option<Arc<Resilience>> {
    let mut reader = Reader { problems };
    let resilience = Resilience {
        health_check: spec.health_check.as_ref().and_then(|it| reader.health_check(it, host)),
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

/// The same, as it holds for a port where `protocol` is spoken.
pub(crate) fn at_port(resilience: &Arc<Resilience>, protocol: Protocol) -> Arc<Resilience> {
    let is_http2 = match protocol {
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Detect | Protocol::Http | Protocol::Tls | Protocol::Tcp => false,
    };
    match &resilience.health_check {
        Some(HealthCheck { probe: Probe::Http(http), .. }) if is_http2 && http.port.is_none() => {
            let mut own = Resilience::clone(resilience);
            if let Some(HealthCheck { probe: Probe::Http(http), .. }) = &mut own.health_check {
                http.is_http2 = true;
            }
            Arc::new(own)
        }
        Some(_) | None => Arc::clone(resilience),
    }
}

/// Reads what `spec` says of how many requests its pods bear; `None` when it says nothing. What is wrong is added to `problems`.
pub(crate) fn concurrency(spec: &api::MeshServiceSpec, problems: &mut Vec<String>) -> Option<AdaptiveConcurrency> {
    let (spec, is_outside) = (spec.adaptive_concurrency.as_ref()?, spec.external.is_some());
    if is_outside {
        problems
            .push("spec.adaptiveConcurrency: what is outside has no sidecar that could learn it: write connections.maxRequests.".into());
    }
    let default = AdaptiveConcurrency::default();
    let mut reader = Reader { problems };
    let path = |field: &str| format!("adaptiveConcurrency.{field}");
    let min_limit = reader.at_least(1, &path("minLimit"), spec.min_limit, default.min_limit);
    let max_limit = reader.at_least(min_limit, &path("maxLimit"), spec.max_limit, default.max_limit.max(min_limit));
    let tolerance_percent = reader.at_least(10, &path("tolerancePercent"), spec.tolerance_percent, default.tolerance_percent);
    Some(AdaptiveConcurrency { min_limit, max_limit, tolerance_percent })
}

impl Reader<'_> {
    fn health_check(&mut self, spec: &api::resilience::HealthCheck, host: &str) -> Option<HealthCheck> {
        let probe = match (&spec.http, &spec.grpc, &spec.tcp) {
            (Some(http), None, None) => Probe::Http(self.http_probe(http, host)),
            (None, Some(grpc), None) => Probe::Grpc { service: grpc.service.as_deref().unwrap_or_default().into() },
            (None, None, Some(_)) => Probe::Tcp,
            (_, _, _) => {
                self.problems.push("spec.healthCheck: give it exactly one of http, grpc and tcp.".to_owned());
                return None;
            }
        };
        let path = |field: &str| format!("healthCheck.{field}");
        let default = HealthCheck::new(probe.clone());
        Some(HealthCheck {
            probe,
            interval: self.duration(&path("interval"), spec.interval.as_ref(), default.interval),
            timeout: self.duration(&path("timeout"), spec.timeout.as_ref(), default.timeout),
            unhealthy_threshold: self.at_least(1, &path("unhealthyThreshold"), spec.unhealthy_threshold, default.unhealthy_threshold),
            healthy_threshold: self.at_least(1, &path("healthyThreshold"), spec.healthy_threshold, default.healthy_threshold),
        })
    }

    fn http_probe(&mut self, spec: &api::resilience::HttpProbe, host: &str) -> HttpProbe {
        let path = spec.path.as_str();
        if !path.starts_with('/') || path.contains('#') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.problems
                .push(format!("spec.healthCheck.http.path: {path:?} is no path: begin it with /, in visible ASCII and without #."));
        }
        if spec.port == Some(0) {
            self.problems.push("spec.healthCheck.http.port: 0 is no port: write 1 to 65535.".to_owned());
        }
        for status in spec.expected_statuses.iter().filter(|status| !(200..600).contains(*status)) {
            self.problems.push(format!("spec.healthCheck.http.expectedStatuses: {status} is no status of an answer: write 200 to 599."));
        }
        HttpProbe { path: path.into(), host: host.into(), port: spec.port, is_http2: false, expected: spec.expected_statuses.clone() }
    }

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
        let resilience = read(&serde_json::from_value(spec).unwrap(), "payment.shop", &mut problems);
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
            (json!({"healthCheck": {"interval": "1s"}}), "spec.healthCheck: give it exactly one of http, grpc and tcp"),
            (json!({"healthCheck": {"tcp": {}, "grpc": {}}}), "spec.healthCheck: give it exactly one of http, grpc and tcp"),
            (json!({"healthCheck": {"http": {"path": "healthz"}}}), "spec.healthCheck.http.path: \"healthz\" is no path"),
            (json!({"healthCheck": {"http": {"path": "/", "expectedStatuses": [100]}}}), "expectedStatuses: 100 is no status of an answer"),
            (json!({"healthCheck": {"tcp": {}, "healthyThreshold": 0}}), "spec.healthCheck.healthyThreshold: 0 is too little"),
            (json!({"healthyPanicPercent": 200}), "spec.healthyPanicPercent: 200 is no percentage"),
        ];
        for (spec, words) in cases {
            let problems = read_json(spec).1;
            assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
        }
    }

    #[test]
    fn bounds_of_concurrency_are_read_in_their_order() {
        let read = |spec: serde_json::Value| {
            let mut problems = Vec::new();
            (concurrency(&serde_json::from_value(spec).unwrap(), &mut problems), problems)
        };
        assert_eq!(read(json!({})), (None, Vec::new()));
        assert_eq!(read(json!({"adaptiveConcurrency": {}})), (Some(AdaptiveConcurrency::default()), Vec::new()));
        let high = AdaptiveConcurrency { min_limit: 5000, max_limit: 5000, ..AdaptiveConcurrency::default() };
        assert_eq!(read(json!({"adaptiveConcurrency": {"minLimit": 5000}})), (Some(high), Vec::new()));
        for (spec, words) in [
            (json!({"adaptiveConcurrency": {"minLimit": 0}}), "spec.adaptiveConcurrency.minLimit: 0 is too little"),
            (json!({"adaptiveConcurrency": {"minLimit": 9, "maxLimit": 8}}), "maxLimit: 8 is too little: write at least 9"),
            (json!({"adaptiveConcurrency": {"tolerancePercent": 1}}), "tolerancePercent: 1 is too little: write at least 10"),
            (json!({"adaptiveConcurrency": {}, "external": {"addresses": ["a.example"], "ports": [80]}}), "what is outside has no sidecar"),
        ] {
            let problems = read(spec).1;
            assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
        }
    }

    #[test]
    fn endpoints_are_asked_in_the_protocol_of_their_port() {
        let read = |http| read_json(json!({"healthCheck": {"http": http, "timeout": "2s"}})).0.unwrap();
        let own = read(json!({"path": "/healthz"}));
        let is_http2 = |resilience: &Resilience| match &resilience.health_check {
            Some(HealthCheck { probe: Probe::Http(http), .. }) => http.is_http2,
            other => panic!("{other:?}"),
        };
        let asked = [Protocol::Detect, Protocol::Http, Protocol::Http2, Protocol::Grpc].map(|it| is_http2(&at_port(&own, it)));
        assert_eq!(asked, [false, false, true, true]);
        let other = read(json!({"path": "/healthz", "port": 9000, "expectedStatuses": [204]}));
        assert!(!is_http2(&at_port(&other, Protocol::Grpc)), "another port speaks HTTP/1.1");
        let check = other.health_check.clone().unwrap();
        let (path, host, expected) = ("/healthz".into(), "payment.shop".into(), vec![204]);
        let probe = Probe::Http(HttpProbe { path, host, port: Some(9000), is_http2: false, expected });
        assert_eq!(check, HealthCheck { timeout: Duration::from_secs(2), ..HealthCheck::new(probe) });
    }
}
