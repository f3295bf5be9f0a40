//! Zones: how requests stay in the zone that they come from, and when they do not.
//!
//! The rule: if every zone sent the same number of requests, each endpoint would be due the same part of them by its weight. A zone whose
//! endpoints bear as much as the zone itself sends keeps all of it. One whose endpoints bear less keeps that much, and the rest goes to zones that
//! bear more than their own requests, by how much more. So requests leave a zone only as far as its endpoints would be loaded more than
//! those elsewhere, and nobody's endpoints are loaded more for another zone's sake.

/// The zones of some candidates, for a caller in one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// The number of each candidate's zone; 0 is the caller's own.
    of: Vec<u16>,
    /// How many zones there are, the caller's own among them.
    count: usize,
}

/// Bits by which weights are made finer, so that parts of them are exact enough.
const FINER: u32 = 16;

impl Zones {
    /// `zones` are those of the candidates in order; all that say none count as one zone. `own` is the caller's.
    pub fn new<'z>(own: &str, zones: impl Iterator<Item = Option<&'z str>>) -> Self {
        let mut names: Vec<Option<&str>> = vec![Some(own)];
        let of = zones.map(|zone| {
            let known = names.iter().position(|name| *name == zone);
            let place = known.unwrap_or_else(|| {
                names.push(zone);
                names.len() - 1
            });
            // A cluster has fewer zones; what is beyond counts as one.
            u16::try_from(place).unwrap_or(u16::MAX)
        });
        let of = of.collect();
        Self { of, count: names.len() }
    }

    /// Whether the candidate at `place` is in the caller's zone.
    pub fn is_own(&self, place: usize) -> bool {
        self.of[place] == 0
    }

    /// Changes the weights of all candidates so that they are what the rule gives each for a caller of this zone.
    pub(super) fn prefer_own(&self, weights: &mut [u64]) {
        let mut sums = vec![0u64; self.count];
        for (zone, weight) in self.of.iter().zip(&*weights) {
            sums[usize::from(*zone)] += weight;
        }
        let (zones, total) = (self.count as u64, sums.iter().sum::<u64>());
        // What a zone's endpoints bear, and what it sends, both in parts of `total * zones`.
        let bears = |zone: usize| sums[zone] * zones;
        if bears(0) >= total {
            self.of.iter().zip(weights).filter(|(zone, _)| **zone != 0).for_each(|(_, weight)| *weight = 0);
            return;
        }
        let spare = |zone: usize| bears(zone).saturating_sub(total);
        let all_spare: u128 = (1..self.count).map(|zone| u128::from(spare(zone))).sum();
        let leaves = u128::from(total - bears(0));
        let factor = |zone: usize| match zone {
            0 => u128::from(zones) << FINER,
            _ => ((leaves * u128::from(spare(zone))) << FINER).checked_div(all_spare * u128::from(sums[zone])).unwrap_or(0),
        };
        let factors: Vec<u128> = (0..self.count).map(factor).collect();
        for (zone, weight) in self.of.iter().zip(weights) {
            let part = u128::from(*weight) * factors[usize::from(*zone)];
            // Bounded: a weight is below 2²⁰, and a factor no more than the number of zones.
            *weight = u64::try_from(part).unwrap_or(u64::MAX >> 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    /// The part of a caller's requests in zone `own` that each of `endpoints` (zone, weight) gets.
    fn parts(own: &str, endpoints: &[(&str, u64)]) -> Vec<f64> {
        let zones = Zones::new(own, endpoints.iter().map(|(zone, _)| Some(*zone)));
        let mut weights: Vec<u64> = endpoints.iter().map(|(_, weight)| weight * 1024).collect();
        zones.prefer_own(&mut weights);
        let total: u64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight as f64 / total as f64).collect()
    }

    fn is_close(parts: &[f64], wanted: &[f64]) -> bool {
        parts.len() == wanted.len() && parts.iter().zip(wanted).all(|(part, wanted)| (part - wanted).abs() < 0.0001)
    }

    #[test]
    fn requests_stay_where_they_come_from_while_that_zone_bears_them() {
        let even = [("a", 100), ("a", 100), ("b", 100), ("b", 100)];
        assert!(is_close(&parts("a", &even), &[0.5, 0.5, 0.0, 0.0]));
        assert!(is_close(&parts("b", &even), &[0.0, 0.0, 0.5, 0.5]));
        let more = [("a", 300), ("a", 100), ("b", 100)];
        assert!(is_close(&parts("a", &more), &[0.75, 0.25, 0.0]));
    }

    #[test]
    fn what_a_zone_does_not_bear_goes_where_there_is_more_than_is_needed() {
        // Of ten endpoints each zone is due five; a has one, so it keeps a fifth.
        let mut uneven = vec![("a", 100)];
        uneven.extend([("b", 100); 9]);
        let from_a = parts("a", &uneven);
        assert!((from_a[0] - 0.2).abs() < 0.0001 && (from_a[1..].iter().sum::<f64>() - 0.8).abs() < 0.0001, "{from_a:?}");
        // Each zone is due three; b has no more than that, and gets nothing of a's.
        let three = [("a", 100), ("b", 300), ("c", 500)];
        assert!(is_close(&parts("a", &three), &[1.0 / 3.0, 0.0, 2.0 / 3.0]));
        assert!(is_close(&parts("b", &three), &[0.0, 1.0, 0.0]));
    }

    #[test]
    fn a_caller_whose_zone_has_no_endpoint_is_served_by_others() {
        assert!(is_close(&parts("x", &[("a", 100), ("b", 100)]), &[0.5, 0.5]));
        assert!(is_close(&parts("x", &[("a", 100)]), &[1.0]));
        let unknown = Zones::new("a", [None, None].into_iter());
        let mut weights = vec![100, 300];
        unknown.prefer_own(&mut weights);
        assert_eq!(weights[0] * 3, weights[1], "nobody says where they are: as if nothing were preferred");
    }

    proptest! {
        /// When every zone sends as much as the others, no endpoint gets more than its weight says, whatever zones they are in.
        #[test]
        fn no_endpoint_is_loaded_more_for_the_sake_of_zones(endpoints in prop::collection::vec((0usize..4, 1u64..1000), 1..20)) {
            let endpoints: Vec<_> = endpoints.into_iter().map(|(zone, weight)| (NAMES[zone], weight)).collect();
            let sending: std::collections::BTreeSet<_> = endpoints.iter().map(|(zone, _)| *zone).collect();
            let total: u64 = endpoints.iter().map(|(_, weight)| weight).sum();
            let mut load = vec![0.0; endpoints.len()];
            for own in &sending {
                let parts = parts(own, &endpoints);
                prop_assert!((parts.iter().sum::<f64>() - 1.0).abs() < 0.0001);
                for (load, part) in load.iter_mut().zip(parts) {
                    *load += part / sending.len() as f64;
                }
            }
            for (load, (_, weight)) in load.iter().zip(&endpoints) {
                let due = *weight as f64 / total as f64;
                prop_assert!((load - due).abs() < 0.001, "{load} of {due}");
            }
        }

        /// An endpoint more at home never makes requests leave it.
        #[test]
        fn more_endpoints_at_home_keep_more_requests_there(endpoints in prop::collection::vec((0usize..4, 1u64..1000), 1..20), weight in 1u64..1000) {
            let mut endpoints: Vec<_> = endpoints.into_iter().map(|(zone, weight)| (NAMES[zone], weight)).collect();
            let home = |endpoints: &[(&str, u64)]| -> f64 {
                parts("a", endpoints).iter().zip(endpoints).filter(|(_, (zone, _))| *zone == "a").map(|(part, _)| *part).sum()
            };
            let before = home(&endpoints);
            endpoints.push(("a", weight));
            prop_assert!(home(&endpoints) >= before - 0.0001);
        }
    }
}
