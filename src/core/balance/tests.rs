//! Who is picked, by each algorithm: shares counted over fixed draws.

use proptest::prelude::*;

use super::hash::mix;
use super::latency::Latency;
use super::*;
use std::time::{Duration, Instant};

fn by_header() -> Algorithm {
    Algorithm::ConsistentHash(HashKey::Header("x-user".into()))
}

fn all() -> [Algorithm; 6] {
    use Algorithm::{LeastRequest, PeakEwma, Random, RoundRobin, WeightedRandom};
    [LeastRequest, RoundRobin, Random, WeightedRandom, PeakEwma, by_header()]
}

/// Draws that are the same in every run.
fn draws(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(mix)
}

/// How often each is picked when requests come one after the other, so that nothing is under way when the next one is picked.
fn picked_in_a_row(algorithm: &Algorithm, among: Among<'_>, count: usize, requests: u64) -> Vec<u64> {
    let (mut turn, mut hits) = (0, vec![0; count]);
    for draw in draws(requests) {
        hits[pick(algorithm, among, |_| 0.0, &mut turn, draw).unwrap()] += 1;
    }
    hits
}

/// How often each is picked when `at_once` requests are under way at any time.
fn picked_under_load(algorithm: &Algorithm, among: Among<'_>, count: usize, at_once: usize, requests: u64) -> Vec<u64> {
    let (mut turn, mut hits, mut load) = (0, vec![0; count], vec![0u32; count]);
    let mut under_way = std::collections::VecDeque::new();
    for draw in draws(requests) {
        if under_way.len() == at_once {
            load[under_way.pop_front().unwrap_or(0)] -= 1;
        }
        let place = pick(algorithm, among, |place| f64::from(load[place]), &mut turn, draw).unwrap();
        hits[place] += 1;
        load[place] += 1;
        under_way.push_back(place);
    }
    hits
}

/// Within 4 standard deviations of what is due, and then some for what is no coin: of fixed draws this is always or never true.
fn is_about(hits: u64, due: f64) -> bool {
    (hits as f64 - due).abs() <= 4.0 * due.sqrt() + 1.0
}

proptest! {
    #[test]
    fn the_pick_is_always_one_of_the_candidates(count in 1usize..50, mut turn: u64, draw: u64) {
        for algorithm in all() {
            prop_assert!(pick(&algorithm, Among::Equal(count), |_| 0.0, &mut turn, draw).is_some_and(|index| index < count));
        }
    }

    #[test]
    fn who_has_no_share_is_never_picked(weights in prop::collection::vec(0u64..5, 1..10), mut turn in 0u64..1000, draw: u64, costs: [u8; 10]) {
        let shares = Shares::new(weights.iter().copied());
        for algorithm in all() {
            let place = pick(&algorithm, Among::Shares(&shares), |place| costs[place].into(), &mut turn, draw);
            prop_assert_eq!(place.is_some(), weights.iter().any(|weight| *weight > 0));
            prop_assert!(place.is_none_or(|place| weights[place] > 0));
        }
    }

    /// With two candidates both are always drawn, so the busier one is never taken.
    #[test]
    fn least_request_never_takes_the_busier_of_two(draw: u64, busy in 1u32..100) {
        let cost = |index| if index == 0 { f64::from(busy) } else { 0.0 };
        let shares = Shares::new([7, 3]);
        for among in [Among::Equal(2), Among::Shares(&shares)] {
            prop_assert_eq!(pick(&Algorithm::LeastRequest, among, cost, &mut 0, draw), Some(1));
        }
    }
}

#[test]
fn nothing_is_picked_from_nothing_and_the_only_one_from_one() {
    let one = Shares::new([0, 5]);
    for algorithm in all() {
        assert_eq!(pick(&algorithm, Among::Equal(0), |_| 0.0, &mut 3, 5), None);
        assert_eq!(pick(&algorithm, Among::Equal(1), |_| 9.0, &mut 3, 5), Some(0));
        assert_eq!(pick(&algorithm, Among::Shares(&one), |_| 9.0, &mut 3, 5), Some(1));
    }
}

#[test]
fn round_robin_visits_each_in_turn() {
    let mut turn = 0;
    let visited: Vec<_> = (0..6).map(|_| pick(&Algorithm::RoundRobin, Among::Equal(3), |_| 0.0, &mut turn, 99).unwrap()).collect();
    assert_eq!(visited, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn each_algorithm_gives_every_endpoint_its_share_of_requests_that_come_in_a_row() {
    let weights = [100, 300, 50, 0, 100];
    let shares = Shares::new(weights);
    for algorithm in all() {
        let equal = picked_in_a_row(&algorithm, Among::Equal(4), 4, 40_000);
        assert!(equal.iter().all(|hits| is_about(*hits, 10_000.0)), "{algorithm}: {equal:?}");
        let by_weight = picked_in_a_row(&algorithm, Among::Shares(&shares), 5, 55_000);
        assert!(by_weight.iter().zip(weights).all(|(hits, weight)| is_about(*hits, weight as f64 * 100.0)), "{algorithm}: {by_weight:?}");
    }
    let exact = picked_in_a_row(&Algorithm::RoundRobin, Among::Shares(&shares), 5, 550);
    assert_eq!(exact, weights, "turns are no chance");
}

#[test]
fn least_request_shares_by_weight_under_load_too() {
    let weights = [100, 300, 50, 100];
    let shares = Shares::new(weights);
    let hits = picked_under_load(&Algorithm::LeastRequest, Among::Shares(&shares), 4, 110, 55_000);
    for (hits, weight) in hits.iter().zip(weights) {
        let ratio = *hits as f64 / (weight as f64 * 100.0);
        assert!((0.9..1.1).contains(&ratio), "{hits} for {weight}");
    }
}

/// Endpoints that answer after `times` (ms), asked by `clients` that ask again as soon as they are answered. Counts who is asked.
fn simulated(algorithm: &Algorithm, times: &[u64], clients: usize, requests: usize) -> Vec<usize> {
    let start = Instant::now();
    let (mut now, mut turn, mut hits) = (Duration::ZERO, 0, vec![0; times.len()]);
    let (mut load, mut latencies) = (vec![0u32; times.len()], vec![Latency::default(); times.len()]);
    let mut under_way: Vec<(Duration, Duration, usize)> = Vec::new();
    for draw in draws(requests as u64) {
        if under_way.len() == clients {
            let next = (0..clients).min_by_key(|place| under_way[*place].0).unwrap();
            let (end, took, place) = under_way.swap_remove(next);
            now = end;
            load[place] -= 1;
            latencies[place].observe(took, false, start + now);
        }
        let is_measured = *algorithm == Algorithm::PeakEwma;
        let cost = |place: usize| {
            if is_measured { latencies[place].cost(load[place], start + now) } else { f64::from(load[place]) }
        };
        let place = pick(algorithm, Among::Equal(times.len()), cost, &mut turn, draw).unwrap();
        hits[place] += 1;
        load[place] += 1;
        let took = Duration::from_millis(times[place]);
        under_way.push((now + took, took, place));
    }
    hits
}

#[test]
fn peak_ewma_prefers_the_faster() {
    let times = [5, 5, 5, 50];
    let hits = simulated(&Algorithm::PeakEwma, &times, 4, 20_000);
    assert!(hits[3] < 20_000 / 100, "{hits:?}: the slow one is left alone but for a try now and then");
    assert!(hits[3] > 0 && hits[..3].iter().all(|count| *count > 5000), "{hits:?}");
    let in_a_row = simulated(&Algorithm::LeastRequest, &times, 1, 20_000);
    assert!(in_a_row[3] > 4500, "{in_a_row:?}: one request at a time tells least request nothing");
}

#[test]
fn names_are_as_people_write_them() {
    let names: Vec<_> = all().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["LeastRequest", "RoundRobin", "Random", "WeightedRandom", "PeakEwma", "ConsistentHash by header x-user"]);
}
