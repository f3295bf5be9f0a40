//! Weights and the one weighted choice.

/// Relative traffic share of one destination, `0..=1_000_000` (Gateway API `backendRefs[].weight`).
///
/// `0` means "listed, but receives nothing". The share is `weight / sum(weights)` of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

/// The number is above [`Weight::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weight {0} is above 1000000: weights are relative, use smaller numbers in the same proportion")]
pub struct InvalidWeight(pub u32);

impl Weight {
    /// The largest weight.
    pub const MAX: Self = Self(1_000_000);
    /// The weight of a destination that names none (Gateway API default).
    pub const ONE: Self = Self(1);

    /// A weight of `value`, which is at most [`Weight::MAX`].
    pub fn new(value: u32) -> Result<Self, InvalidWeight> {
        if value <= Self::MAX.0 { Ok(Self(value)) } else { Err(InvalidWeight(value)) }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// Picks the item that owns the point `draw % total` on the line of summed weights.
///
/// * `weights`: in spec order, relative shares.
/// * `draw`: uniform over `u64`; the caller owns the random source. The bias of the remainder is below 2⁻³⁰.
///
/// Returns the index, or `None` when every weight is 0 (Gateway API: answer 500). O(n).
pub fn pick_weighted(weights: impl Iterator<Item = Weight> + Clone, draw: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(|weight| u64::from(weight.get())).sum();
    let point = draw.checked_rem(total)?;
    let mut end = 0;
    weights.into_iter().position(|weight| {
        end += u64::from(weight.get());
        point < end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Walking every draw once gives each item exactly its weight: no bias, no gap.
        #[test]
        fn each_item_owns_exactly_its_weight(weights in prop::collection::vec(0u32..50, 1..8)) {
            let items: Vec<Weight> = weights.iter().map(|w| Weight::new(*w).unwrap()).collect();
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let mut hits = vec![0u32; weights.len()];
            for draw in 0..total {
                hits[pick_weighted(items.iter().copied(), draw).expect("the total is above zero")] += 1;
            }
            prop_assert_eq!(hits, weights);
        }
    }

    #[test]
    fn all_zero_weights_pick_nothing() {
        assert_eq!(pick_weighted([Weight::new(0).unwrap(); 3].into_iter(), 7), None);
        assert_eq!(pick_weighted(std::iter::empty(), 7), None);
    }

    #[test]
    fn weight_above_a_million_is_refused_in_words() {
        assert!(Weight::new(1_000_001).unwrap_err().to_string().contains("relative"));
    }
}
