//! What a TrafficPolicy's retries mean.

use std::sync::Arc;

use leno_api::retry::{self as spec, RetryOn};
use leno_core::names::Name;
use leno_core::retry::{Backoff, Reason, Retry};

use crate::policy::Reader;

/// How many times `base` the most is, where the policy does not say.
const MAX_TO_BASE: u32 = 10;

impl Reader {
    /// What `spec` says, with the defaults for what it leaves out.
    pub(crate) fn retry(&mut self, path: &str, spec: Option<&spec::Retry>) -> Option<Arc<Retry>> {
        let spec = spec?;
        let attempts = spec.attempts.unwrap_or(Retry::ATTEMPTS);
        if attempts > Retry::ATTEMPTS_MAX {
            self.problem(&format!("{path}.attempts"), &format!("write at most {}.", Retry::ATTEMPTS_MAX));
        }
        let per_try_timeout = self.duration(&format!("{path}.perTryTimeout"), spec.per_try_timeout.as_ref());
        let backoff = spec.backoff.as_ref().map(|it| self.backoff(&format!("{path}.backoff"), it)).unwrap_or_default();
        let on =
            if spec.retry_on.is_empty() { Retry::ON.into_iter().collect() } else { spec.retry_on.iter().copied().map(reason).collect() };
        let methods = spec.methods.iter().map(|method| Name::from(method.as_str())).collect();
        Some(Arc::new(Retry { attempts, per_try_timeout, on, methods, backoff }))
    }

    fn backoff(&mut self, path: &str, spec: &spec::Backoff) -> Backoff {
        let default = Backoff::default();
        let base = self.duration(&format!("{path}.base"), spec.base.as_ref());
        let max = self.duration(&format!("{path}.max"), spec.max.as_ref());
        let backoff = match (base, max) {
            (Some(base), None) => Backoff { base, max: base.saturating_mul(MAX_TO_BASE) },
            (Some(base), Some(max)) => Backoff { base, max },
            (None, Some(max)) => Backoff { base: default.base.min(max), max },
            (None, None) => default,
        };
        if backoff.max < backoff.base {
            self.problem(&format!("{path}.max"), "write a max that is not below base.");
        }
        backoff
    }
}

fn reason(on: RetryOn) -> Reason {
    match on {
        RetryOn::ServerError => Reason::ServerError,
        RetryOn::GatewayError => Reason::GatewayError,
        RetryOn::ConnectFailure => Reason::ConnectFailure,
        RetryOn::Reset => Reason::Reset,
        RetryOn::Timeout => Reason::Timeout,
        RetryOn::Retriable4xx => Reason::Retriable4xx,
        RetryOn::GrpcCancelled => Reason::GrpcCancelled,
        RetryOn::GrpcDeadlineExceeded => Reason::GrpcDeadlineExceeded,
        RetryOn::GrpcInternal => Reason::GrpcInternal,
        RetryOn::GrpcResourceExhausted => Reason::GrpcResourceExhausted,
        RetryOn::GrpcUnavailable => Reason::GrpcUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(spec: &spec::Retry) -> Arc<Retry> {
        Reader::default().retry("spec.retry", Some(spec)).unwrap()
    }

    #[test]
    fn names_mean_in_the_core_what_they_mean_in_the_policy() {
        use RetryOn::{
            ConnectFailure, GatewayError, GrpcCancelled, GrpcDeadlineExceeded, GrpcInternal, GrpcResourceExhausted, GrpcUnavailable, Reset,
            Retriable4xx, ServerError, Timeout,
        };
        let all = [
            ServerError,
            GatewayError,
            ConnectFailure,
            Reset,
            Timeout,
            Retriable4xx,
            GrpcCancelled,
            GrpcDeadlineExceeded,
            GrpcInternal,
            GrpcResourceExhausted,
            GrpcUnavailable,
        ];
        for on in all {
            assert_eq!(serde_json::to_value(on).unwrap(), reason(on).as_str());
        }
    }

    #[test]
    fn what_is_left_out_takes_its_default() {
        assert_eq!(*read(&spec::Retry::default()), Retry::default());
        let backoff = |base: Option<&str>, max: Option<&str>| {
            let of = |text: &str| leno_api::Duration::from(text);
            read(&spec::Retry { backoff: Some(spec::Backoff { base: base.map(of), max: max.map(of) }), ..spec::Retry::default() }).backoff
        };
        let millis = |base, max| Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
        assert_eq!(backoff(Some("1s"), None), millis(1000, 10_000));
        assert_eq!(backoff(None, Some("10ms")), millis(10, 10));
        assert_eq!(backoff(Some("10ms"), Some("20ms")), millis(10, 20));
    }
}
