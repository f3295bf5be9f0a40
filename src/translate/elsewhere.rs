//! What policies name in other namespaces, indexed so that a change there finds them.

use std::collections::{BTreeMap, BTreeSet};

use leno_core::names::{Name, ServiceId};

use crate::grant::Namespaces;
use crate::touched::Touched;

/// Good TrafficPolicies, as (namespace, name), by the services of other namespaces that they name.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere(BTreeMap<ServiceId, BTreeSet<(Name, Name)>>);

/// Which services of a namespace are others than before to who names them from elsewhere.
#[derive(Debug)]
pub(crate) enum Which {
    All,
    These(BTreeSet<Name>),
}

impl Elsewhere {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `policy` names the services `after`, no longer `before`.
    pub(crate) fn replace(&mut self, policy: &(Name, Name), before: &[ServiceId], after: Vec<ServiceId>) {
        for id in before {
            if let Some(policies) = self.0.get_mut(id) {
                policies.remove(policy);
                if policies.is_empty() {
                    self.0.remove(id);
                }
            }
        }
        for id in after {
            self.0.entry(id).or_default().insert(policy.clone());
        }
    }

    /// Touches the policies that name the services `which` of `namespace`, and what these are for.
    pub(crate) fn touch(&self, namespaces: &Namespaces, namespace: &Name, which: &Which, touched: &mut Touched) {
        let is_meant = |id: &ServiceId| match which {
            Which::All => true,
            Which::These(services) => services.contains(&id.name),
        };
        let first = ServiceId::new(namespace.clone(), "");
        let named = self.0.range(first..).take_while(|(id, _)| id.namespace == *namespace);
        for (home, policy) in named.filter(|(id, _)| is_meant(id)).flat_map(|(_, policies)| policies) {
            if let Some(home) = namespaces.get(home) {
                home.touch_policy(policy, touched);
            }
        }
    }
}
