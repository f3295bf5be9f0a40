//! Weighing: who has which share of the requests now.
//!
//! A share is the endpoint's own weight. Weight 0 gets nothing while anybody else can take requests. An endpoint that is new gets a part of
//! its share that grows with its age ([`warmth`]), and zones say who stays in the caller's own ([`Zones`]).
//!
//! Reading order: [`Standing`], [`weigh`], [`warmth`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Algorithm;
use super::shares::Shares;
use super::zones::Zones;

/// What share of the requests an endpoint gets beside others, `0..=1000` (the pod's annotation `leno.dev/weight`).
///
/// An endpoint of which nothing is said has 100. 0 gets nothing while anybody else can take requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointWeight(u16);

/// No weight of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number from 0 to 1000: endpoints without one have 100")]
pub struct InvalidEndpointWeight;

impl EndpointWeight {
    /// The largest weight.
    pub const MAX: Self = Self(1000);
    /// The weight of an endpoint of which nothing is said.
    pub const USUAL: Self = Self(100);

    /// A weight of `value`.
    pub fn new(value: u32) -> Result<Self, InvalidEndpointWeight> {
        u16::try_from(value).ok().filter(|value| *value <= Self::MAX.0).map(Self).ok_or(InvalidEndpointWeight)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for EndpointWeight {
    fn default() -> Self {
        Self::USUAL
    }
}

impl FromStr for EndpointWeight {
    type Err = InvalidEndpointWeight;

    /// Digits, as people write them.
    fn from_str(text: &str) -> Result<Self, InvalidEndpointWeight> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).and_then(|number| Self::new(number).ok()).ok_or(InvalidEndpointWeight)
    }
}

impl fmt::Display for EndpointWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an endpoint stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may not be picked: it is left out, or was tried already.
    Out,
    /// It may.
    In {
        /// Its own weight.
        weight: EndpointWeight,
        /// How much of its share it gets already, in parts of [`WARM`].
        warmth: u32,
    },
}

impl Standing {
    /// An endpoint of this weight that may be picked and is not new.
    pub fn of(weight: EndpointWeight) -> Self {
        Self::In { weight, warmth: WARM }
    }
}

/// The warmth of an endpoint that is not new.
pub const WARM: u32 = 1024;
/// The warmth that an endpoint begins with: a tenth. With nothing it would never come to work.
const COLD: u32 = 102;

/// How much of its share an endpoint gets that came `age` ago, in parts of [`WARM`]: from a tenth on it grows evenly up to all of it after
/// `slow_start`.
pub fn warmth(age: Duration, slow_start: Duration) -> u32 {
    if age >= slow_start {
        return WARM;
    }
    let grown = u128::from(WARM - COLD) * age.as_nanos() / slow_start.as_nanos().max(1);
    COLD + u32::try_from(grown).unwrap_or(WARM - COLD)
}

/// Puts the shares of all candidates at this moment into `shares`; nobody has one where nobody may be picked. With `zones`, those of a
/// caller that prefers its own.
pub fn weigh(algorithm: &Algorithm, zones: Option<&Zones>, standings: impl Iterator<Item = Standing>, shares: &mut Shares) {
    shares.set(|weights| {
        weights.extend(standings.map(|standing| match standing {
            Standing::Out => OUT,
            Standing::In { weight, warmth } => of_its_own(algorithm, weight) * u64::from(warmth),
        }));
        let is_nobody_else = weights.iter().all(|weight| matches!(*weight, OUT | 0));
        for weight in &mut *weights {
            *weight = match *weight {
                OUT => 0,
                0 if is_nobody_else => 1,
                weight => weight,
            };
        }
        if let Some(zones) = zones {
            zones.prefer_own(weights);
        }
    });
}

/// Marks who may not be picked.
const OUT: u64 = u64::MAX;

fn of_its_own(algorithm: &Algorithm, weight: EndpointWeight) -> u64 {
    match algorithm {
        Algorithm::Random => u64::from(weight.get().min(1)),
        Algorithm::LeastRequest
        | Algorithm::RoundRobin
        | Algorithm::WeightedRandom
        | Algorithm::PeakEwma
        | Algorithm::ConsistentHash(_) => u64::from(weight.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weight(number: u32) -> EndpointWeight {
        EndpointWeight::new(number).unwrap()
    }

    fn weighed(algorithm: &Algorithm, standings: &[Standing]) -> Vec<f64> {
        let mut shares = Shares::default();
        weigh(algorithm, None, standings.iter().copied(), &mut shares);
        (0..standings.len()).map(|place| shares.of(place)).collect()
    }

    #[test]
    fn weights_are_read_as_people_write_them() {
        for (text, number) in [("0", 0), ("7", 7), ("0100", 100), ("1000", 1000)] {
            assert_eq!(text.parse(), EndpointWeight::new(number), "{text}");
        }
        for bad in ["", "-1", "+1", "1001", "99999", "1.5", "a", "1 0"] {
            assert_eq!(bad.parse::<EndpointWeight>(), Err(InvalidEndpointWeight), "{bad}");
        }
    }

    #[test]
    fn weight_0_gets_something_only_where_nobody_else_may() {
        let (none, some) = (Standing::of(weight(0)), Standing::of(weight(50)));
        let all = Algorithm::LeastRequest;
        assert_eq!(weighed(&all, &[none, some, none]), [0.0, 1.0, 0.0]);
        assert_eq!(weighed(&all, &[none, Standing::Out, none]), [0.5, 0.0, 0.5]);
        assert_eq!(weighed(&all, &[Standing::Out, Standing::Out]), [0.0, 0.0]);
    }

    #[test]
    fn random_looks_at_no_weight_but_0() {
        let standings = [Standing::of(weight(1)), Standing::of(weight(1000)), Standing::of(weight(0))];
        assert_eq!(weighed(&Algorithm::Random, &standings), [0.5, 0.5, 0.0]);
        assert_eq!(weighed(&Algorithm::WeightedRandom, &standings), [1.0 / 1001.0, 1000.0 / 1001.0, 0.0]);
    }

    #[test]
    fn the_share_of_a_new_endpoint_grows_evenly_from_a_tenth() {
        let window = Duration::from_secs(30);
        let share = |seconds: f64| f64::from(warmth(Duration::from_secs_f64(seconds), window)) / f64::from(WARM);
        for (seconds, wanted) in [(0.0, 0.1), (7.5, 0.325), (15.0, 0.55), (27.0, 0.91), (30.0, 1.0), (1e6, 1.0)] {
            assert!((share(seconds) - wanted).abs() < 0.002, "{} after {seconds} s", share(seconds));
        }
        assert_eq!(warmth(Duration::ZERO, Duration::ZERO), WARM);
        // Beside three others, halfway through: 0.55 of 3.55.
        let new = Standing::In { weight: weight(100), warmth: warmth(window / 2, window) };
        let old = Standing::of(weight(100));
        assert!((weighed(&Algorithm::LeastRequest, &[old, new, old, old])[1] - 0.55 / 3.55).abs() < 0.001);
    }

    proptest! {
        #[test]
        fn an_older_endpoint_never_has_less(age in 0u64..100_000, more in 0u64..100_000, window in 1u64..100_000) {
            let (age, more, window) = (Duration::from_millis(age), Duration::from_millis(more), Duration::from_millis(window));
            prop_assert!(warmth(age, window) <= warmth(age + more, window) && warmth(age, window) >= COLD);
        }
    }
}
