//! Retries: model ↔ wire.

use std::sync::Arc;

use leno_core::names::Name;
use leno_core::retry::{Backoff, Conditions, Reason, Retry};

use crate::decode::{self, DecodeError};
use crate::encode;
use crate::wire::leno as wire;

/// What is sent of a policy's retries.
pub(crate) fn message(retry: &Arc<Retry>) -> wire::Retry {
    wire::Retry {
        attempts: retry.attempts,
        per_try_timeout: retry.per_try_timeout.map(encode::duration),
        on: retry.on.iter().filter_map(named).map(Into::into).collect(),
        methods: retry.methods.iter().map(ToString::to_string).collect(),
        backoff_base: Some(encode::duration(retry.backoff.base)),
        backoff_max: Some(encode::duration(retry.backoff.max)),
    }
}

/// What was sent.
pub(crate) fn read(message: Option<wire::Retry>) -> Result<Option<Arc<Retry>>, DecodeError> {
    let Some(message) = message else { return Ok(None) };
    if message.attempts > Retry::ATTEMPTS_MAX {
        return Err(DecodeError::Attempts(message.attempts));
    }
    let default = Backoff::default();
    let backoff = Backoff {
        base: decode::duration(message.backoff_base)?.unwrap_or(default.base),
        max: decode::duration(message.backoff_max)?.unwrap_or(default.max),
    };
    Ok(Some(Arc::new(Retry {
        attempts: message.attempts,
        per_try_timeout: decode::duration(message.per_try_timeout)?,
        on: message.on.into_iter().map(reason).collect::<Result<Conditions, _>>()?,
        methods: message.methods.into_iter().map(Name::from).collect(),
        backoff,
    })))
}

/// The number of a reason; `None` for those that no policy names.
fn named(reason: Reason) -> Option<wire::RetryReason> {
    match reason {
        Reason::Stale | Reason::Unprocessed => None,
        Reason::ConnectFailure => Some(wire::RetryReason::ConnectFailure),
        Reason::Reset => Some(wire::RetryReason::Reset),
        Reason::Timeout => Some(wire::RetryReason::TryTimeout),
        Reason::GatewayError => Some(wire::RetryReason::GatewayError),
        Reason::ServerError => Some(wire::RetryReason::ServerError),
        Reason::Retriable4xx => Some(wire::RetryReason::Retriable4xx),
        Reason::GrpcCancelled => Some(wire::RetryReason::GrpcCancelled),
        Reason::GrpcDeadlineExceeded => Some(wire::RetryReason::GrpcDeadlineExceeded),
        Reason::GrpcInternal => Some(wire::RetryReason::GrpcInternal),
        Reason::GrpcResourceExhausted => Some(wire::RetryReason::GrpcResourceExhausted),
        Reason::GrpcUnavailable => Some(wire::RetryReason::GrpcUnavailable),
    }
}

fn reason(number: i32) -> Result<Reason, DecodeError> {
    Reason::ALL
        .into_iter()
        .find(|reason| named(*reason).is_some_and(|named| i32::from(named) == number))
        .ok_or(DecodeError::Unknown("reason for a retry"))
}
