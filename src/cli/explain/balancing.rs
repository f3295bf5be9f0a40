//! Which of a destination's endpoints takes the request: by which share, zone or key, in words.

use std::net::IpAddr;

use leno_core::balance::affinity::Affinity;
use leno_core::balance::key::{HashKey, Key, endpoint_id};
use leno_core::balance::owners::Owners;
use leno_core::balance::shares::Shares;
use leno_core::balance::weighing::{Standing, weigh};
use leno_core::balance::zones::Zones;
use leno_core::balance::{Algorithm, Balancing};
use leno_core::endpoints::Endpoint;
use leno_core::request::RequestHead;

use super::question::UNKNOWN;

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// The request's head; `None` where the connection is not looked into.
    pub(super) head: Option<&'a RequestHead<'a>>,
    /// Where it comes from.
    pub(super) source: IpAddr,
    /// In which zone the caller is, where that is known.
    pub(super) zone: Option<&'a str>,
}

/// Who of some endpoints takes a request, while nothing is wrong with any of them and none is new.
pub(super) struct Chosen {
    /// What decides it, beside the algorithm.
    pub(super) words: Vec<String>,
    /// The share of each endpoint, in percent; empty where all have the same.
    pub(super) shares: Vec<f64>,
}

/// How one of `serving` is chosen.
pub(super) fn chosen(balancing: &Balancing, serving: &[&Endpoint], asking: Asking<'_>) -> Chosen {
    let zones = asking.zone.filter(|_| balancing.prefers_zone);
    let zones = zones.map(|own| Zones::new(own, serving.iter().map(|it| it.zone.as_deref())));
    let mut shares = Shares::default();
    weigh(&balancing.algorithm, zones.as_ref(), serving.iter().map(|it| Standing::of(it.weight)), &mut shares);
    let mut words = Vec::new();
    words.extend(key_words(balancing, serving, asking));
    words.extend(zone_words(balancing, zones.as_ref(), asking.zone, &shares, serving.len()));
    words.extend(
        balancing.slow_start.map(|time| format!("slow start: who comes to others gets its full share after {time:?}, a tenth at first")),
    );
    let shares = if shares.are_equal() { Vec::new() } else { (0..serving.len()).map(|place| shares.of(place) * 100.0).collect() };
    Chosen { words, shares }
}

fn zone_words(balancing: &Balancing, zones: Option<&Zones>, own: Option<&str>, shares: &Shares, count: usize) -> Option<String> {
    if !balancing.prefers_zone || count == 0 {
        return None;
    }
    Some(match (own, zones) {
        (Some(own), Some(zones)) => {
            let stays: f64 = (0..count).filter(|place| zones.is_own(*place)).map(|place| shares.of(place)).sum();
            format!("zones: the caller is in {own}, where {:.0} % of its requests stay", stays * 100.0)
        }
        (_, _) => "zones: it is not known in which one the caller is (--from), so none is preferred".to_owned(),
    })
}

fn key_words(balancing: &Balancing, serving: &[&Endpoint], asking: Asking<'_>) -> Option<String> {
    let key = balancing.key(asking.head, asking.source);
    let owners = Owners::new(balancing, serving.iter().map(|it| (endpoint_id(it.address), it.weight)), None);
    let owner = owners.find(key, |_| true).map(|place| serving[place].address);
    match (&balancing.affinity, &balancing.algorithm) {
        (Some(affinity), _) => asking.head.map(|_| session_words(affinity, key, owner.map(|it| it.to_string()))),
        (None, Algorithm::ConsistentHash(HashKey::SourceIp)) if asking.source == UNKNOWN => {
            Some("the caller's address decides; say it with --from-ip to see which endpoint it is".to_owned())
        }
        (None, Algorithm::ConsistentHash(by)) => Some(match owner {
            Some(owner) => format!("its {by} belongs to {owner}"),
            None => format!("it has no {by}: of two endpoints the one with fewer requests under way takes it"),
        }),
        (None, _) => None,
    }
}

fn session_words(affinity: &Affinity, key: Key, owner: Option<String>) -> String {
    let (by, tells) = match affinity {
        Affinity::Cookie(cookie) => (format!("cookie {}", cookie.name), format!("the answer sets the cookie {}", cookie.name)),
        Affinity::Header(name) => (format!("header {name}"), format!("the answer has the header {name}")),
    };
    match (key, owner) {
        (Key::Hash(_), Some(owner)) => format!("session: the value of its {by} belongs to {owner}"),
        (_, Some(owner)) => format!("session: its {by} names {owner}"),
        (Key::Endpoint(_), None) => format!("session: its {by} names an endpoint that is not there; {tells} for another one"),
        (_, None) => format!("session: a new one, as it has no {by}; {tells}"),
    }
}
