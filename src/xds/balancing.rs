//! How endpoints are chosen, to bytes and back.

use leno_core::balance::affinity::{Affinity, SessionCookie};
use leno_core::balance::key::HashKey;
use leno_core::balance::{Algorithm, Balancing};

use crate::decode::{self, DecodeError};
use crate::encode;
use crate::wire::leno as wire;

pub(crate) fn encoded(balancing: &Balancing) -> wire::Balancing {
    let Balancing { algorithm, slow_start, prefers_zone, affinity } = balancing;
    let hash = if let Algorithm::ConsistentHash(key) = algorithm { Some(hash_key(key)) } else { None };
    let slow_start = slow_start.map(encode::duration);
    wire::Balancing {
        algorithm: rule(algorithm).into(),
        hash,
        slow_start,
        prefers_zone: *prefers_zone,
        affinity: affinity.as_ref().map(session),
    }
}

fn session(affinity: &Affinity) -> wire::balancing::Affinity {
    match affinity {
        Affinity::Header(name) => wire::balancing::Affinity::Header(name.to_string()),
        Affinity::Cookie(SessionCookie { name, ttl, path }) => wire::balancing::Affinity::Cookie(wire::SessionCookie {
            name: name.to_string(),
            ttl: ttl.map(encode::duration),
            path: path.to_string(),
        }),
    }
}

fn decoded_session(message: wire::balancing::Affinity) -> Result<Affinity, DecodeError> {
    Ok(match message {
        wire::balancing::Affinity::Header(name) => Affinity::Header(name.into()),
        wire::balancing::Affinity::Cookie(it) => {
            Affinity::Cookie(SessionCookie { name: it.name.into(), ttl: decode::duration(it.ttl)?, path: it.path.into() })
        }
    })
}

fn rule(algorithm: &Algorithm) -> wire::Balancer {
    match algorithm {
        Algorithm::LeastRequest => wire::Balancer::LeastRequest,
        Algorithm::RoundRobin => wire::Balancer::RoundRobin,
        Algorithm::Random => wire::Balancer::Random,
        Algorithm::WeightedRandom => wire::Balancer::WeightedRandom,
        Algorithm::PeakEwma => wire::Balancer::PeakEwma,
        Algorithm::ConsistentHash(_) => wire::Balancer::ConsistentHash,
    }
}

fn hash_key(key: &HashKey) -> wire::HashKey {
    use wire::hash_key::Kind;
    let kind = match key {
        HashKey::Header(name) => Kind::Header(name.to_string()),
        HashKey::Cookie(name) => Kind::Cookie(name.to_string()),
        HashKey::Query(name) => Kind::Query(name.to_string()),
        HashKey::SourceIp => Kind::SourceIp(true),
    };
    wire::HashKey { kind: Some(kind) }
}

pub(crate) fn decoded(message: wire::Balancing) -> Result<Balancing, DecodeError> {
    let algorithm = match wire::Balancer::try_from(message.algorithm) {
        Ok(wire::Balancer::LeastRequest) => Algorithm::LeastRequest,
        Ok(wire::Balancer::RoundRobin) => Algorithm::RoundRobin,
        Ok(wire::Balancer::Random) => Algorithm::Random,
        Ok(wire::Balancer::WeightedRandom) => Algorithm::WeightedRandom,
        Ok(wire::Balancer::PeakEwma) => Algorithm::PeakEwma,
        Ok(wire::Balancer::ConsistentHash) => Algorithm::ConsistentHash(decoded_key(message.hash)?),
        Err(_) => return Err(DecodeError::Unknown("load-balancer algorithm")),
    };
    let affinity = message.affinity.map(decoded_session).transpose()?;
    Ok(Balancing { algorithm, slow_start: decode::duration(message.slow_start)?, prefers_zone: message.prefers_zone, affinity })
}

fn decoded_key(message: Option<wire::HashKey>) -> Result<HashKey, DecodeError> {
    use wire::hash_key::Kind;
    match message.and_then(|it| it.kind).ok_or(DecodeError::Unknown("kind of hash key"))? {
        Kind::Header(name) => Ok(HashKey::Header(name.into())),
        Kind::Cookie(name) => Ok(HashKey::Cookie(name.into())),
        Kind::Query(name) => Ok(HashKey::Query(name.into())),
        Kind::SourceIp(_) => Ok(HashKey::SourceIp),
    }
}
