//! The ring of consistent hashing: which endpoint owns a key.
//!
//! Every endpoint has points on a ring of 2³² places, in number by its weight; a key belongs to the endpoint of the first point at or after its own
//! place. Points depend on nothing but the endpoint itself, so all proxies with the same endpoints agree, an endpoint that leaves moves its
//! own keys and no others, and one that comes takes its share from all.
//!
//! A ring is made once for each set of endpoints, by [`Ring::next`] from the one before: points of endpoints that stay are not hashed and
//! sorted again. Its size is bounded ([`POINTS_MAX`]).

use std::collections::HashMap;

use super::hash::mix;

/// Points of an endpoint of the usual weight, where there are not too many. With these the shares of keys differ by some 6 %.
const POINTS: u64 = 256;
/// No ring has many more points than this, 2 MiB of them: with more endpoints each has half as many points, or a quarter …
pub const POINTS_MAX: u64 = 1 << 18;

/// An endpoint as the ring knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What it is known by, the same for every proxy: a hash of its address.
    pub id: u64,
    /// Its weight; 0 has no points, unless nobody has any.
    pub weight: u64,
}

/// Which endpoint owns which part of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    nodes: Vec<Node>,
    /// How many points an endpoint has for its weight.
    density: Density,
    points: Vec<Point>,
}

/// A point on the ring, and the place of its endpoint in the list of all. They are ordered by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    at: u32,
    place: u32,
}

/// `points` for each `weight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Density {
    points: u64,
    weight: u64,
    /// Whether nobody has a weight, so that all are taken to have the usual one.
    is_flat: bool,
}

impl Density {
    fn of(nodes: &[Node], usual: u64) -> Self {
        let is_flat = nodes.iter().all(|node| node.weight == 0);
        let sum: u64 = if is_flat { usual * nodes.len() as u64 } else { nodes.iter().map(|node| node.weight).sum() };
        let mut points = POINTS;
        while points > 1 && sum * points > POINTS_MAX * usual {
            points /= 2;
        }
        Self { points, weight: usual, is_flat }
    }

    fn points_of(self, node: Node) -> u64 {
        let weight = if self.is_flat { self.weight } else { node.weight };
        if weight == 0 { 0 } else { (weight * self.points / self.weight).max(1) }
    }
}

impl Ring {
    /// The ring of `nodes`, which have different ids. `usual` is the weight of an endpoint of which nothing is said.
    pub fn new(nodes: Vec<Node>, usual: u64) -> Self {
        Self::default().next(nodes, usual)
    }

    /// The ring of `nodes`, which come in the same order as before where they were there before. The same as [`Ring::new`], at less cost.
    pub fn next(&self, nodes: Vec<Node>, usual: u64) -> Self {
        let density = Density::of(&nodes, usual);
        let mut new: Vec<Point> = Vec::new();
        let mut moved: Vec<Option<u32>> = vec![None; self.nodes.len()];
        let known: HashMap<Node, usize> = if density == self.density { self.places().collect() } else { HashMap::new() };
        for (place, node) in nodes.iter().enumerate() {
            let place = u32::try_from(place).expect("a service has fewer endpoints than 2³²");
            match known.get(node) {
                Some(known) => moved[*known] = Some(place),
                None => new.extend((0..density.points_of(*node)).map(|number| Point { at: point(node.id, number), place })),
            }
        }
        new.sort_unstable();
        let kept = self.points.iter().filter_map(|it| moved[usize::try_from(it.place).ok()?].map(|place| Point { at: it.at, place }));
        Self { points: merge(kept, new), nodes, density }
    }

    fn places(&self) -> impl Iterator<Item = (Node, usize)> {
        self.nodes.iter().enumerate().map(|(place, node)| (*node, place))
    }

    /// The place of the endpoint that owns `key`, among those that `may` take it: whoever comes after one that may not takes its keys.
    pub fn find(&self, key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
        let at = high(mix(key));
        let first = self.points.partition_point(|point| point.at < at);
        let (before, after) = self.points.split_at(first);
        let mut places = after.iter().chain(before).filter_map(|point| usize::try_from(point.place).ok());
        places.find(|place| may(*place))
    }
}

/// Where the point `number` of an endpoint is.
fn point(id: u64, number: u64) -> u32 {
    high(mix(id ^ mix(number)))
}

fn high(number: u64) -> u32 {
    u32::try_from(number >> 32).expect("half of 64 bits")
}

/// Both together in order, of which each is in order.
fn merge(kept: impl Iterator<Item = Point>, new: Vec<Point>) -> Vec<Point> {
    let mut all = Vec::with_capacity(kept.size_hint().1.unwrap_or(0) + new.len());
    let mut new = new.into_iter().peekable();
    for point in kept {
        while let Some(before) = new.next_if(|it| *it < point) {
            all.push(before);
        }
        all.push(point);
    }
    all.extend(new);
    all.shrink_to_fit();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: u64 = 100;

    fn nodes(ids: impl IntoIterator<Item = u64>) -> Vec<Node> {
        ids.into_iter().map(|id| Node { id: mix(id), weight: USUAL }).collect()
    }

    fn owners(ring: &Ring, nodes: &[Node]) -> Vec<u64> {
        (0..5000).map(|key| nodes[ring.find(key, |_| true).unwrap()].id).collect()
    }

    /// Endpoints in the order of their ids, as they are in the order of their addresses.
    fn set() -> impl Strategy<Value = Vec<Node>> {
        prop::collection::btree_map(0u64..12, prop_oneof![3 => Just(USUAL), 1 => 0u64..300], 1..10)
            .prop_map(|all| all.into_iter().map(|(id, weight)| Node { id: mix(id), weight }).collect())
    }

    proptest! {
        #[test]
        fn a_ring_made_from_the_one_before_is_the_one_made_anew(before in set(), after in set()) {
            let next = Ring::new(before, USUAL).next(after.clone(), USUAL);
            prop_assert_eq!(next, Ring::new(after, USUAL));
        }

        #[test]
        fn an_endpoint_that_leaves_moves_its_own_keys_and_no_others(set in set(), gone: prop::sample::Index) {
            prop_assume!(set.iter().filter(|node| node.weight > 0).count() > 1);
            let gone = gone.index(set.len());
            let mut rest = set.clone();
            let gone = rest.remove(gone).id;
            prop_assume!(rest.iter().any(|node| node.weight > 0));
            let (before, after) = (owners(&Ring::new(set.clone(), USUAL), &set), owners(&Ring::new(rest.clone(), USUAL), &rest));
            for (before, after) in before.into_iter().zip(after) {
                prop_assert!(before == after || before == gone);
            }
        }

        /// Who may not take a key is treated as if it had left.
        #[test]
        fn the_keys_of_an_endpoint_that_is_out_go_where_they_would_without_it(set in set(), out: prop::sample::Index, key: u64) {
            let out = out.index(set.len());
            let mut rest = set.clone();
            rest.remove(out);
            prop_assume!(rest.iter().any(|node| node.weight > 0));
            let with = Ring::new(set.clone(), USUAL).find(key, |place| place != out).map(|place| set[place].id);
            let without = Ring::new(rest.clone(), USUAL).find(key, |_| true).map(|place| rest[place].id);
            prop_assert_eq!(with, without);
        }
    }

    #[test]
    fn an_endpoint_that_comes_takes_about_its_share_and_moves_nothing_else() {
        let (nine, ten) = (nodes(0..9), nodes(0..10));
        let (before, after) = (owners(&Ring::new(nine.clone(), USUAL), &nine), owners(&Ring::new(ten.clone(), USUAL), &ten));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == ten[9].id), "keys move to the new one only");
        assert!((400..600).contains(&moved.len()), "{} of 5000 moved", moved.len());
    }

    #[test]
    fn keys_are_shared_by_weight() {
        let mut set = nodes(0..10);
        set[3].weight = 300;
        set[4].weight = 50;
        set[5].weight = 0;
        let owners = owners(&Ring::new(set.clone(), USUAL), &set);
        // 11.5 usual weights in 5000 keys.
        let share = |place: usize| owners.iter().filter(|id| **id == set[place].id).count() as f64 / 5000.0 * 10.5;
        assert!((2.5..3.5).contains(&share(3)) && (0.35..0.65).contains(&share(4)), "{} {}", share(3), share(4));
        assert!(share(5) == 0.0 && (0..3).all(|place| (0.75..1.25).contains(&share(place))));
    }

    #[test]
    fn where_nobody_has_a_weight_all_have_the_same() {
        let mut set = nodes(0..3);
        set.iter_mut().for_each(|node| node.weight = 0);
        let owners = owners(&Ring::new(set.clone(), USUAL), &set);
        assert!(set.iter().all(|node| owners.iter().filter(|id| **id == node.id).count() > 1000));
        assert_eq!(Ring::new(Vec::new(), USUAL).find(7, |_| true), None);
        assert_eq!(Ring::new(set, USUAL).find(7, |_| false), None);
    }

    #[test]
    fn a_ring_is_bounded_however_many_endpoints_there_are_and_however_heavy() {
        let mut many = nodes(0..5000);
        many.iter_mut().for_each(|node| node.weight = 1000);
        let ring = Ring::new(many, USUAL);
        assert!(ring.points.len() as u64 <= POINTS_MAX && ring.points.len() >= 5000, "{}", ring.points.len());
    }
}
