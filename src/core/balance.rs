//! Balancing: which of several endpoints takes one request.
//!
//! In: how endpoints are chosen ([`Balancing`]), what share each has ([`Among`]), what a request costs there now, and a random draw. Out: a
//! place. Where all shares are equal, which is the usual case, a pick is O(1); otherwise O(log n).
//!
//! Reading order: [`Balancing`], [`owners`] (who says which endpoint it belongs to), [`pick`], [`shares`] (weights), [`weighing`] and [`zones`] (who has which share now), [`key`] and [`ring`]
//! (consistent hashing), [`affinity`], [`latency`] (PeakEwma).

pub mod affinity;
mod hash;
pub mod key;
pub mod latency;
pub mod owners;
pub mod ring;
pub mod shares;
pub mod weighing;
pub mod zones;

use std::fmt;
use std::time::Duration;

use crate::balance::affinity::Affinity;
use crate::balance::key::HashKey;
use crate::balance::shares::Shares;

/// How one endpoint of a service is chosen among many (`MeshService.spec.loadBalancer`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancing {
    /// By which rule.
    pub algorithm: Algorithm,
    /// In how much time an endpoint that is new comes to its full share; `None` is at once.
    pub slow_start: Option<Duration>,
    /// Whether requests stay in the caller's zone as far as its endpoints bear them ([`zones`]).
    pub prefers_zone: bool,
    /// How requests of one session stay with one endpoint; `None`: they do not.
    pub affinity: Option<Affinity>,
}

/// How an endpoint is chosen (`MeshService.spec.loadBalancer.algorithm`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The less loaded of two endpoints drawn at random (Mitzenmacher, "The power of two choices").
    #[default]
    LeastRequest,
    /// Each in turn, as often as its weight says.
    RoundRobin,
    /// Any, with equal chance, whatever its weight; weight 0 gets nothing here too.
    Random,
    /// Any, with a chance by weight.
    WeightedRandom,
    /// The one of two drawn at random where a request costs less: its latency lately, times the requests under way ([`latency`]).
    PeakEwma,
    /// The one that owns what the request says ([`ring`]); [`Algorithm::LeastRequest`] where it does not say it.
    ConsistentHash(HashKey),
}

impl Algorithm {
    /// The name that people write.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::LeastRequest => "LeastRequest",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::WeightedRandom => "WeightedRandom",
            Self::PeakEwma => "PeakEwma",
            Self::ConsistentHash(_) => "ConsistentHash",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        if let Self::ConsistentHash(key) = self { write!(f, " by {key}") } else { Ok(()) }
    }
}

/// The candidates, and what share each has.
#[derive(Clone, Copy, Debug)]
pub enum Among<'s> {
    /// So many, all with the same share.
    Equal(usize),
    /// Those with these shares; who has none is not picked.
    Shares(&'s Shares),
}

/// Picks one of the candidates; `None` when there is none.
///
/// * `cost`: what one more request costs at a candidate, as the caller measures it: requests in flight, or [`latency::Latency::cost`].
/// * `turn`: where the row of picks for the same set is; only [`Algorithm::RoundRobin`] reads it and moves it on.
/// * `draw`: uniform over `u64`; the caller owns the random source.
pub fn pick(algorithm: &Algorithm, among: Among<'_>, cost: impl Fn(usize) -> f64, turn: &mut u64, draw: u64) -> Option<usize> {
    match among {
        Among::Equal(count) => pick_equal(algorithm, count, cost, turn, draw),
        Among::Shares(shares) => pick_by_share(algorithm, shares, cost, turn, draw),
    }
}

fn pick_equal(algorithm: &Algorithm, count: usize, cost: impl Fn(usize) -> f64, turn: &mut u64, draw: u64) -> Option<usize> {
    if count < 2 {
        return count.checked_sub(1);
    }
    Some(match algorithm {
        Algorithm::RoundRobin => {
            let place = below(*turn, count);
            *turn = turn.wrapping_add(1);
            place
        }
        Algorithm::Random | Algorithm::WeightedRandom => below(draw, count),
        Algorithm::LeastRequest | Algorithm::PeakEwma | Algorithm::ConsistentHash(_) => {
            let first = below(draw & 0xffff_ffff, count);
            // The second is another than the first: one of the count - 1 places after it.
            let second = (first + 1 + below(draw >> 32, count - 1)) % count;
            if cost(second) < cost(first) { second } else { first }
        }
    })
}

fn pick_by_share(algorithm: &Algorithm, shares: &Shares, cost: impl Fn(usize) -> f64, turn: &mut u64, draw: u64) -> Option<usize> {
    match algorithm {
        Algorithm::RoundRobin => shares.next(turn),
        // Whose shares are equal is for who weighs them to say.
        Algorithm::Random | Algorithm::WeightedRandom => shares.draw(draw),
        Algorithm::LeastRequest | Algorithm::PeakEwma | Algorithm::ConsistentHash(_) => {
            let (first, second) = shares.draw_two(draw)?;
            let Some(second) = second else { return Some(first) };
            // Who has twice the share may bear twice the cost. With nothing under way anywhere the first draw stands, so that shares are exact.
            let is_better = cost(second) * shares.of(first) < cost(first) * shares.of(second);
            Some(if is_better { second } else { first })
        }
    }
}

/// `number` folded into `0..count`.
fn below(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).expect("a number below a usize is one")
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests;
