//! Resilience, to bytes and back.

use std::time::Duration;

use leno_core::breaker::CircuitBreaker;
use leno_core::health::{HealthCheck, HttpProbe, Probe};
use leno_core::limits::Limits;
use leno_core::outlier::{OutlierDetection, SuccessRate};
use leno_core::resilience::Resilience;

use crate::decode::{self, DecodeError};
use crate::encode;
use crate::wire::leno as wire;

pub(crate) fn encoded(resilience: &Resilience) -> wire::Resilience {
    let Resilience { health_check, outliers, breaker, limits, panic_percent } = resilience;
    wire::Resilience {
        health_check: health_check.as_ref().map(encoded_check),
        outliers: outliers.as_ref().map(encoded_outliers),
        breaker: breaker.as_ref().map(|it| wire::CircuitBreaker {
            failure_threshold: it.failure_threshold,
            success_threshold: it.success_threshold,
            open_for: Some(encode::duration(it.open_for)),
            half_open_requests: it.half_open_requests,
        }),
        limits: Some(wire::Limits {
            connections: limits.connections,
            pending: limits.pending,
            requests: limits.requests,
            retries: limits.retries,
            connect_timeout: limits.connect_timeout.map(encode::duration),
            idle_timeout: limits.idle_timeout.map(encode::duration),
        }),
        panic_percent: (*panic_percent).into(),
    }
}

fn encoded_check(it: &HealthCheck) -> wire::HealthCheck {
    wire::HealthCheck {
        probe: Some(match &it.probe {
            Probe::Http(http) => wire::health_check::Probe::Http(wire::HttpProbe {
                path: http.path.to_string(),
                host: http.host.to_string(),
                port: http.port.map(Into::into),
                is_http2: http.is_http2,
                expected: http.expected.iter().copied().map(Into::into).collect(),
            }),
            Probe::Grpc { service } => wire::health_check::Probe::Grpc(service.to_string()),
            Probe::Tcp => wire::health_check::Probe::Tcp(wire::TcpProbe {}),
        }),
        interval: Some(encode::duration(it.interval)),
        timeout: Some(encode::duration(it.timeout)),
        unhealthy_threshold: it.unhealthy_threshold,
        healthy_threshold: it.healthy_threshold,
    }
}

fn encoded_outliers(it: &OutlierDetection) -> wire::OutlierDetection {
    wire::OutlierDetection {
        consecutive_errors: it.consecutive_errors,
        consecutive_gateway_errors: it.consecutive_gateway_errors,
        interval: Some(encode::duration(it.interval)),
        base_ejection_time: Some(encode::duration(it.base_ejection_time)),
        max_ejection_time: Some(encode::duration(it.max_ejection_time)),
        max_ejection_percent: it.max_ejection_percent.into(),
        success_rate: it.success_rate.map(|it| wire::SuccessRate {
            min_requests: it.min_requests,
            min_endpoints: it.min_endpoints,
            deviation_percent: it.deviation_percent,
        }),
    }
}

pub(crate) fn decoded(message: wire::Resilience) -> Result<Resilience, DecodeError> {
    let limits = message.limits.unwrap_or_default();
    Ok(Resilience {
        health_check: message.health_check.map(decoded_check).transpose()?,
        outliers: message.outliers.map(decoded_outliers).transpose()?,
        breaker: message.breaker.map(decoded_breaker).transpose()?,
        limits: Limits {
            connections: limits.connections,
            pending: limits.pending,
            requests: limits.requests,
            retries: limits.retries,
            connect_timeout: decode::duration(limits.connect_timeout)?,
            idle_timeout: decode::duration(limits.idle_timeout)?,
        },
        panic_percent: percent(message.panic_percent)?,
    })
}

fn decoded_check(it: wire::HealthCheck) -> Result<HealthCheck, DecodeError> {
    let probe = match it.probe.ok_or(DecodeError::Unknown("kind of health check"))? {
        wire::health_check::Probe::Http(http) => Probe::Http(HttpProbe {
            path: http.path.into(),
            host: http.host.into(),
            port: http.port.map(decode::port).transpose()?,
            is_http2: http.is_http2,
            expected: http.expected.into_iter().map(status).collect::<Result<_, _>>()?,
        }),
        wire::health_check::Probe::Grpc(service) => Probe::Grpc { service: service.into() },
        wire::health_check::Probe::Tcp(wire::TcpProbe {}) => Probe::Tcp,
    };
    Ok(HealthCheck {
        probe,
        interval: time(it.interval)?,
        timeout: time(it.timeout)?,
        unhealthy_threshold: it.unhealthy_threshold,
        healthy_threshold: it.healthy_threshold,
    })
}

fn decoded_breaker(it: wire::CircuitBreaker) -> Result<CircuitBreaker, DecodeError> {
    Ok(CircuitBreaker {
        failure_threshold: it.failure_threshold,
        success_threshold: it.success_threshold,
        open_for: time(it.open_for)?,
        half_open_requests: it.half_open_requests,
    })
}

fn decoded_outliers(it: wire::OutlierDetection) -> Result<OutlierDetection, DecodeError> {
    Ok(OutlierDetection {
        consecutive_errors: it.consecutive_errors,
        consecutive_gateway_errors: it.consecutive_gateway_errors,
        interval: time(it.interval)?,
        base_ejection_time: time(it.base_ejection_time)?,
        max_ejection_time: time(it.max_ejection_time)?,
        max_ejection_percent: percent(it.max_ejection_percent)?,
        success_rate: it.success_rate.map(|it| SuccessRate {
            min_requests: it.min_requests,
            min_endpoints: it.min_endpoints,
            deviation_percent: it.deviation_percent,
        }),
    })
}

fn time(message: Option<wire::Duration>) -> Result<Duration, DecodeError> {
    Ok(decode::duration(message)?.unwrap_or_default())
}

fn status(number: u32) -> Result<u16, DecodeError> {
    u16::try_from(number).ok().ok_or(DecodeError::Status(number))
}

fn percent(number: u32) -> Result<u8, DecodeError> {
    u8::try_from(number).ok().filter(|percent| *percent <= 100).ok_or(DecodeError::Percent(number))
}
