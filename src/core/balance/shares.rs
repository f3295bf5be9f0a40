//! Shares: what part of the requests each of several candidates gets.
//!
//! Kept as running sums, so that a draw finds its owner by halving. [`Shares::next`] gives each its turns in a smooth row without
//! remembering anything of the candidates: the static stride scheduler of gRPC, in which a candidate is taken in those rounds in which
//! the sum of its weights passes a multiple of the largest weight.

use super::hash::mix;

/// The golden ratio's part behind the point, in 2⁻⁶⁴: its multiples lie as far from each other as those of no other number.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What part of the requests each candidate gets: its weight in the sum of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// The sum of the weights up to and with each.
    ends: Vec<u64>,
    /// The largest weight.
    largest: u64,
}

impl Shares {
    /// The shares of candidates with these weights.
    ///
    /// The sum of the weights must be below 2⁶⁴.
    pub fn new(weights: impl IntoIterator<Item = u64>) -> Self {
        let mut shares = Self::default();
        shares.set(|all| all.extend(weights));
        shares
    }

    /// Other weights, those that `fill` puts into the empty list. The memory is used again.
    pub fn set(&mut self, fill: impl FnOnce(&mut Vec<u64>)) {
        self.ends.clear();
        fill(&mut self.ends);
        self.largest = self.ends.iter().copied().max().unwrap_or(0);
        let mut sum = 0;
        for weight in &mut self.ends {
            sum += *weight;
            *weight = sum;
        }
    }

    /// Whether all candidates have the same share, and one at all.
    pub fn are_equal(&self) -> bool {
        self.largest > 0 && self.total() == self.largest.saturating_mul(self.ends.len() as u64)
    }

    /// The sum of all weights.
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The weight of the candidate at `place`.
    pub fn weight(&self, place: usize) -> u64 {
        self.ends[place] - self.start(place)
    }

    /// The part of the candidate at `place`, `0..=1`.
    #[expect(clippy::cast_precision_loss, reason = "a share is not more exact than that")]
    pub fn of(&self, place: usize) -> f64 {
        self.weight(place) as f64 / self.total().max(1) as f64
    }

    /// Who owns `draw`: each has exactly its share of every row of draws as long as the sum of the weights.
    pub fn draw(&self, draw: u64) -> Option<usize> {
        Some(self.owner(draw.checked_rem(self.total())?))
    }

    /// Who owns `draw`, and another one by share among the rest, where anybody else has one.
    pub(super) fn draw_two(&self, draw: u64) -> Option<(usize, Option<usize>)> {
        let first = self.draw(draw)?;
        let (start, weight) = (self.start(first), self.weight(first));
        let second = mix(draw).checked_rem(self.total() - weight).map(|point| {
            // The stretch of the first one is left out.
            self.owner(if point < start { point } else { point + weight })
        });
        Some((first, second))
    }

    /// The next in turn; `turn` moves on. In as many rounds as the largest weight says each has exactly as many turns as its weight says, and
    /// never more than one turn more or less than its share up to then.
    pub(super) fn next(&self, turn: &mut u64) -> Option<usize> {
        if self.largest == 0 {
            return None;
        }
        let count = self.ends.len() as u64;
        loop {
            let (round, place) = (*turn / count, *turn % count);
            *turn = turn.wrapping_add(1);
            let place = usize::try_from(place).expect("a number below a usize is one");
            // Light ones begin at different points, as far from each other as can be, or all of them would have their turns in the same round.
            let offset = (u128::from(GOLDEN.wrapping_mul(place as u64 + 1)) * u128::from(self.largest)) >> 64;
            let (weight, largest) = (u128::from(self.weight(place)), u128::from(self.largest));
            let sum = weight * u128::from(round) + offset;
            // Whoever has the largest weight has a turn in every round, so this ends.
            if sum / largest != (sum + weight) / largest {
                return Some(place);
            }
        }
    }

    fn start(&self, place: usize) -> u64 {
        place.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn owner(&self, point: u64) -> usize {
        self.ends.partition_point(|end| *end <= point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0u64..60, 1..12).prop_filter("somebody has a share", |weights| weights.iter().any(|weight| *weight > 0))
    }

    proptest! {
        #[test]
        fn each_owns_exactly_its_weight_of_all_draws(weights in weights()) {
            let shares = Shares::new(weights.iter().copied());
            let mut hits = vec![0; weights.len()];
            for draw in 0..shares.total() {
                hits[shares.draw(draw).unwrap()] += 1;
            }
            prop_assert_eq!(hits, weights);
        }

        #[test]
        fn each_has_exactly_as_many_turns_as_its_weight_says(weights in weights()) {
            let shares = Shares::new(weights.iter().copied());
            let (mut turn, mut hits) = (0, vec![0; weights.len()]);
            for _ in 0..shares.total() {
                hits[shares.next(&mut turn).unwrap()] += 1;
            }
            prop_assert_eq!(hits, weights);
        }

        /// Whoever counts at any moment finds nobody more than a turn ahead or behind.
        #[test]
        fn turns_are_spread_over_the_rounds(weights in weights(), rounds in 1u64..100) {
            let shares = Shares::new(weights.iter().copied());
            let (mut turn, mut hits) = (0, vec![0u64; weights.len()]);
            loop {
                let place = shares.next(&mut turn).unwrap();
                if (turn - 1) / weights.len() as u64 >= rounds {
                    break;
                }
                hits[place] += 1;
            }
            for (place, weight) in weights.iter().enumerate() {
                let due = (weight * rounds) as f64 / shares.largest as f64;
                prop_assert!((hits[place] as f64 - due).abs() <= 1.0, "{} of {due} for {weight}", hits[place]);
            }
        }

        #[test]
        fn two_that_are_drawn_are_not_the_same_and_have_a_share(weights in weights(), draw: u64) {
            let shares = Shares::new(weights.iter().copied());
            let (first, second) = shares.draw_two(draw).unwrap();
            prop_assert!(weights[first] > 0 && second.is_none_or(|second| second != first && weights[second] > 0));
            prop_assert_eq!(second.is_none(), weights.iter().filter(|weight| **weight > 0).count() == 1);
        }
    }

    #[test]
    fn without_any_share_nobody_is_taken() {
        for weights in [vec![], vec![0, 0]] {
            let shares = Shares::new(weights);
            assert_eq!((shares.draw(7), shares.draw_two(7), shares.next(&mut 3)), (None, None, None));
            assert!(!shares.are_equal());
        }
        assert!(Shares::new([3, 3]).are_equal() && !Shares::new([3, 2]).are_equal());
    }

    #[test]
    fn a_heavy_one_is_not_taken_in_one_row() {
        let (shares, mut turn) = (Shares::new([5, 1, 1]), 0);
        let row: Vec<_> = (0..14).map(|_| shares.next(&mut turn).unwrap()).collect();
        let longest = row.chunk_by(|a, b| a == b).map(<[_]>::len).max();
        assert!(longest <= Some(3), "{row:?}");
    }
}
