//! Balancing: which of several endpoints takes one request.

use std::fmt;

/// How an endpoint is chosen (`MeshService.spec.loadBalancer.algorithm`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// The less loaded of two endpoints drawn at random (Mitzenmacher, "The power of two choices").
    #[default]
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// Any, with equal chance.
    Random,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeastRequest => "LeastRequest",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
        })
    }
}

/// Picks one of `count` candidates.
///
/// * `load`: requests in flight at a candidate, as the caller counts them.
/// * `turn`: how many picks were made before for the same set; only [`Algorithm::RoundRobin`] reads it.
/// * `draw`: uniform over `u64`; the caller owns the random source.
///
/// Returns `None` when there is no candidate. O(1).
pub fn pick(algorithm: Algorithm, count: usize, load: impl Fn(usize) -> u32, turn: u64, draw: u64) -> Option<usize> {
    if count < 2 {
        return count.checked_sub(1);
    }
    Some(match algorithm {
        Algorithm::RoundRobin => below(turn, count),
        Algorithm::Random => below(draw, count),
        Algorithm::LeastRequest => {
            let first = below(draw & 0xffff_ffff, count);
            // The second is another than the first: one of the count - 1 places after it.
            let second = (first + 1 + below(draw >> 32, count - 1)) % count;
            if load(second) < load(first) { second } else { first }
        }
    })
}

/// `number` folded into `0..count`.
fn below(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).expect("a number below a usize is one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Algorithm; 3] = [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random];

    proptest! {
        #[test]
        fn the_pick_is_always_one_of_the_candidates(count in 1usize..50, turn: u64, draw: u64) {
            for algorithm in ALL {
                prop_assert!(pick(algorithm, count, |_| 0, turn, draw).is_some_and(|index| index < count));
            }
        }

        /// With two candidates both are always drawn, so the busier one is never taken.
        #[test]
        fn least_request_never_takes_the_busier_of_two(draw: u64, busy in 1u32..100) {
            let picked = pick(Algorithm::LeastRequest, 2, |index| if index == 0 { busy } else { 0 }, 0, draw);
            prop_assert_eq!(picked, Some(1));
        }
    }

    #[test]
    fn nothing_is_picked_from_nothing_and_the_only_one_from_one() {
        for algorithm in ALL {
            assert_eq!(pick(algorithm, 0, |_| 0, 3, 5), None);
            assert_eq!(pick(algorithm, 1, |_| 9, 3, 5), Some(0));
        }
    }

    #[test]
    fn round_robin_visits_each_in_turn() {
        let visited: Vec<_> = (0..6).map(|turn| pick(Algorithm::RoundRobin, 3, |_| 0, turn, 99).unwrap()).collect();
        assert_eq!(visited, [0, 1, 2, 0, 1, 2]);
    }
}
