//! How endpoints are guarded, in words.

use std::time::Duration;

use leno_core::breaker::CircuitBreaker;
use leno_core::concurrency::AdaptiveConcurrency;
use leno_core::health::{HealthCheck, Probe};
use leno_core::limits::Limits;
use leno_core::outlier::OutlierDetection;
use leno_core::resilience::Resilience;

/// One line for each thing that guards a service's endpoints.
pub(super) fn words(resilience: &Resilience) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(limits(&resilience.limits));
    lines.extend(resilience.health_check.as_ref().map(health_check));
    lines.extend(resilience.breaker.as_ref().map(breaker));
    lines.extend(resilience.outliers.as_ref().map(outliers));
    if resilience.outliers.is_some() || resilience.health_check.is_some() {
        lines.push(match resilience.panic_percent {
            0 => "panic: never; without a healthy endpoint the answer is 503".to_owned(),
            percent => format!("panic: with less than {percent} % of the endpoints healthy, all are used"),
        });
    }
    lines
}

/// How many requests each pod bears, in a line.
pub(super) fn concurrency(it: &AdaptiveConcurrency) -> String {
    let AdaptiveConcurrency { min_limit, max_limit, tolerance_percent } = it;
    format!(
        "adaptive concurrency: each pod gets {min_limit} to {max_limit} requests at once, fewer as soon as answers take {tolerance_percent} % longer than without a queue"
    )
}

fn health_check(it: &HealthCheck) -> String {
    let probe = match &it.probe {
        Probe::Http(http) => {
            let at = http.port.map(|port| format!(" at port {port}")).unwrap_or_default();
            let expected: Vec<_> = http.expected.iter().map(ToString::to_string).collect();
            let expected = if expected.is_empty() { "200 to 299".to_owned() } else { expected.join(", ") };
            format!("GET {}{at} answered with {expected}", http.path)
        }
        Probe::Grpc { service } if service.is_empty() => "grpc.health.v1.Health/Check answered with SERVING".to_owned(),
        Probe::Grpc { service } => format!("grpc.health.v1.Health/Check of {service} answered with SERVING"),
        Probe::Tcp => "a connection taken".to_owned(),
    };
    let HealthCheck { interval, timeout, unhealthy_threshold, healthy_threshold, .. } = it;
    format!(
        "health check by each sidecar: {probe} within {timeout:?}, every {interval:?}; left out after {unhealthy_threshold} failures in a row, back after {healthy_threshold} successes"
    )
}

fn limits(it: &Limits) -> Option<String> {
    let number = |what: &str, number: Option<u32>| number.map(|number| format!("{number} {what}"));
    let time = |what: &str, time: Option<Duration>| time.map(|time| format!("{time:?} {what}"));
    let all = [
        number("connections", it.connections),
        number("that wait for one", it.pending),
        number("requests", it.requests),
        number("retries", it.retries),
        time("to connect", it.connect_timeout),
        time("for a connection to rest", it.idle_timeout),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("limits of each sidecar: {}", all.join(", ")))
}

fn breaker(it: &CircuitBreaker) -> String {
    let CircuitBreaker { failure_threshold, success_threshold, open_for, half_open_requests } = it;
    format!(
        "circuit breaker: opens after {failure_threshold} failures in a row, for {open_for:?}; closes after {success_threshold} good trials, of which {half_open_requests} may wait at once"
    )
}

fn outliers(it: &OutlierDetection) -> String {
    let mut causes = Vec::new();
    if it.consecutive_errors > 0 {
        causes.push(format!("{} failures in a row", it.consecutive_errors));
    }
    if it.consecutive_gateway_errors > 0 {
        causes.push(format!("{} gateway failures in a row", it.consecutive_gateway_errors));
    }
    if let Some(rate) = it.success_rate {
        causes.push(format!("a success rate {} % of the standard deviation below the mean", rate.deviation_percent));
    }
    if causes.is_empty() {
        return "outlier detection: nothing is looked for".to_owned();
    }
    let (base, most) = (it.base_ejection_time, it.max_ejection_time.max(it.base_ejection_time));
    let growing = |most: Duration| if most > base { format!(", growing to {most:?}") } else { String::new() };
    let (causes, growing, percent) = (causes.join(" or "), growing(most), it.max_ejection_percent);
    format!("outlier detection: after {causes} left out for {base:?}{growing}; at most {percent} % of the endpoints, or one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_told_in_words() {
        assert!(words(&Resilience::default()).is_empty());
        let limits =
            Limits { connections: Some(100), requests: Some(7), idle_timeout: Some(Duration::from_secs(300)), ..Limits::default() };
        let limited = Resilience { limits, ..Resilience::default() };
        assert_eq!(words(&limited), ["limits of each sidecar: 100 connections, 7 requests, 300s for a connection to rest"]);
        let checked =
            Resilience { health_check: Some(HealthCheck::new(Probe::Grpc { service: "shop.Payment".into() })), ..Resilience::default() };
        assert_eq!(
            words(&checked),
            [
                "health check by each sidecar: grpc.health.v1.Health/Check of shop.Payment answered with SERVING within 1s, every 10s; \
                 left out after 3 failures in a row, back after 2 successes",
                "panic: with less than 50 % of the endpoints healthy, all are used",
            ]
        );
        let both =
            Resilience { breaker: Some(CircuitBreaker::default()), outliers: Some(OutlierDetection::default()), ..Resilience::default() };
        assert_eq!(
            words(&both),
            [
                "circuit breaker: opens after 5 failures in a row, for 60s; closes after 2 good trials, of which 3 may wait at once",
                "outlier detection: after 5 failures in a row left out for 30s, growing to 300s; at most 50 % of the endpoints, or one",
                "panic: with less than 50 % of the endpoints healthy, all are used",
            ]
        );
    }
}
