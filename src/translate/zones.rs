//! Where pods and workloads are: the zones of nodes, as endpoint slices say them.
//!
//! A pod is in the zone that its own label says (Kubernetes puts the node's there from 1.35 on), else in the one that a slice says of it, else
//! in the one that any slice says of its node: so the zone of a pod that serves nothing is known too, without looking at nodes.

use std::collections::BTreeMap;

use leno_core::names::Name;

use crate::backing::Slice;
use crate::member::Member;
use crate::namespace::Namespace;

/// The zones of nodes, with how many endpoints say so. Ordered, so that it does not matter in which order they came.
#[derive(Debug, Default)]
pub(crate) struct Nodes(BTreeMap<Name, BTreeMap<Name, u32>>);

impl Nodes {
    /// The zone of `node`; of several, which only objects that are wrong say, the first by name.
    pub(crate) fn zone(&self, node: &str) -> Option<&Name> {
        self.0.get(node)?.keys().next()
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Endpoints came and went that say in which zone nodes are. Gives the nodes whose zone is another now.
    pub(crate) fn change(&mut self, gone: Vec<(Name, Name)>, come: Vec<(Name, Name)>) -> Vec<Name> {
        let named = gone.iter().chain(&come);
        let before: BTreeMap<Name, Option<Name>> = named.map(|(node, _)| (node.clone(), self.zone(node).cloned())).collect();
        for (node, zone) in come {
            *self.0.entry(node).or_default().entry(zone).or_default() += 1;
        }
        for (node, zone) in gone {
            let Some(zones) = self.0.get_mut(&node) else { continue };
            if let Some(count) = zones.get_mut(&zone) {
                *count -= 1;
            }
            zones.retain(|_, count| *count > 0);
            if zones.is_empty() {
                self.0.remove(&node);
            }
        }
        before.into_iter().filter(|(node, zone)| self.zone(node) != zone.as_ref()).map(|(node, _)| node).collect()
    }
}

impl Namespace {
    /// The zone that the pod or workload called `name` is in, where that is known.
    pub(crate) fn zone(&self, name: &str, nodes: &Nodes) -> Option<Name> {
        let member = self.member(name);
        let labelled = member.and_then(Member::zone).map(Name::from);
        let by_node = || nodes.zone(member?.node.as_ref()?).cloned();
        labelled.or_else(|| self.zone_in_slices(name)).or_else(by_node)
    }

    /// The zone that slices say of the pod called `name`; of several the first by name.
    fn zone_in_slices(&self, name: &str) -> Option<Name> {
        let services = self.pods.get(name)?.services.iter();
        let slices = services.flat_map(|(service, _)| self.slices_of(service)).flat_map(Slice::pods_in_zones);
        slices.filter(|(pod, _)| &***pod == name).filter_map(|(_, zone)| zone).min().cloned()
    }
}
