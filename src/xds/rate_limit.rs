//! Rate limits ↔ bytes.

use leno_core::rate_limit::{RateKey, RateLimit};

use crate::decode::{DecodeError, duration};
use crate::wire::leno as wire;
use wire::rate_limit::Key;

pub(crate) fn encode(limit: &RateLimit) -> wire::RateLimit {
    let key = match &limit.key {
        RateKey::Route => Key::Route(true),
        RateKey::Source => Key::Source(true),
        RateKey::Header(name) => Key::Header(name.to_string()),
    };
    wire::RateLimit { requests: limit.requests, per: Some(crate::encode::duration(limit.per)), burst: limit.burst, key: Some(key) }
}

pub(crate) fn decode(message: wire::RateLimit) -> Result<RateLimit, DecodeError> {
    let key = match message.key.ok_or(DecodeError::Unknown("key of a rate limit"))? {
        Key::Route(_) => RateKey::Route,
        Key::Source(_) => RateKey::Source,
        Key::Header(name) => RateKey::Header(name.into()),
    };
    let per = duration(message.per)?.ok_or(DecodeError::Unknown("time of a rate limit"))?;
    Ok(RateLimit { requests: message.requests, per, burst: message.burst, key })
}
