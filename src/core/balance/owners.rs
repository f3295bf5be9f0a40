//! Owners: which endpoint a request belongs to that says so.

use super::Balancing;
use super::key::Key;
use super::ring::{Node, Ring};
use super::weighing::EndpointWeight;

/// Which of some endpoints owns which key. Made once for each set of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    ring: Option<Ring>,
    /// What each endpoint is known by, and its place; ordered.
    ids: Vec<(u64, usize)>,
}

impl Owners {
    /// Those among `endpoints`, given as what each is known by ([`super::key::endpoint_id`]) and its weight, in an order that stays when others
    /// come or go. `before` are those of the endpoints that were there before.
    pub fn new(balancing: &Balancing, endpoints: impl Iterator<Item = (u64, EndpointWeight)> + Clone, before: Option<&Self>) -> Self {
        let ring = balancing.needs_ring().then(|| {
            let nodes = endpoints.clone().map(|(id, weight)| Node { id, weight: weight.get().into() }).collect();
            let usual = EndpointWeight::USUAL.get().into();
            match before.and_then(|before| before.ring.as_ref()) {
                Some(ring) => ring.next(nodes, usual),
                None => Ring::new(nodes, usual),
            }
        });
        let mut ids = Vec::new();
        if balancing.affinity.is_some() {
            ids.extend(endpoints.enumerate().map(|(place, (id, _))| (id, place)));
            ids.sort_unstable();
        }
        Self { ring, ids }
    }

    /// Who owns `key`, if anybody in particular does among those that `may` take requests.
    pub fn find(&self, key: Key, may: impl Fn(usize) -> bool) -> Option<usize> {
        match key {
            Key::Any => None,
            Key::Hash(key) => self.ring.as_ref()?.find(key, may),
            Key::Endpoint(id) => {
                let place = self.ids.binary_search_by_key(&id, |(id, _)| *id).ok()?;
                Some(self.ids[place].1).filter(|place| may(*place))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::affinity::Affinity;

    #[test]
    fn a_session_stays_with_its_endpoint_whatever_others_come_and_go_and_whatever_its_weight() {
        let balancing = Balancing { affinity: Some(Affinity::Header("x-session".into())), ..Balancing::default() };
        let owners = |ids: &[u64]| Owners::new(&balancing, ids.iter().map(|id| (*id, EndpointWeight::new(0).unwrap())), None);
        assert_eq!(owners(&[7, 3, 5]).find(Key::Endpoint(3), |_| true), Some(1));
        assert_eq!(owners(&[9, 1, 7, 3]).find(Key::Endpoint(3), |_| true), Some(3));
        assert_eq!(owners(&[9, 1, 7]).find(Key::Endpoint(3), |_| true), None, "it is gone");
        assert_eq!(owners(&[7, 3]).find(Key::Endpoint(3), |place| place != 1), None, "it may not take requests");
        assert!(owners(&[7, 3]).find(Key::Hash(5), |_| true).is_some());
        assert_eq!(owners(&[7, 3]).find(Key::Any, |_| true), None);
        let plain = Owners::new(&Balancing::default(), [(7, EndpointWeight::USUAL)].into_iter(), None);
        assert_eq!((plain.find(Key::Hash(5), |_| true), plain.find(Key::Endpoint(7), |_| true)), (None, None));
    }
}
