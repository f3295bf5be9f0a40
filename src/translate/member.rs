//! Who a pod or workload is, and on which ports a proxy answers for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use leno_api::k8s::Labels;
use leno_core::balance::weighing::EndpointWeight;
use leno_core::names::{Identity, Name};

/// Set by the injector, and by `leno up`: a proxy stands before the app.
const INJECTED: &str = "leno.dev/injected";
/// Ports that are reached directly, separated by commas.
const EXCLUDED: &str = "leno.dev/exclude-inbound-ports";
/// What share of requests it gets beside others.
pub(crate) const WEIGHT: &str = "leno.dev/weight";

/// What is known of a pod or workload. There are many: service accounts are shared, ports are mostly not there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its labels.
    pub(crate) labels: Labels,
    /// Who it is.
    pub(crate) identity: Arc<Identity>,
    /// The ports that its proxy does not take; `None` where it has no proxy.
    pub(crate) excluded: Option<Box<[u16]>>,
    /// What it says of its share of requests.
    pub(crate) weight: SaidWeight,
    /// The node it runs on; none of what is no pod.
    pub(crate) node: Option<Name>,
}

/// What a pod or workload says of its share of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SaidWeight {
    /// Nothing.
    #[default]
    Nothing,
    /// This.
    Is(EndpointWeight),
    /// Something that is no weight, so that it has the usual one.
    Bad,
}

impl SaidWeight {
    /// What the annotation says.
    pub(crate) fn read(annotation: Option<&str>) -> Self {
        annotation.map_or(Self::Nothing, |text| text.trim().parse().map_or(Self::Bad, Self::Is))
    }

    /// The weight that it has.
    pub(crate) fn in_force(self) -> EndpointWeight {
        match self {
            Self::Is(weight) => weight,
            Self::Nothing | Self::Bad => EndpointWeight::USUAL,
        }
    }
}

/// The label by which Kubernetes says in which zone a pod or its node is.
const ZONE: &str = "topology.kubernetes.io/zone";

impl Member {
    /// The zone that its labels name.
    pub(crate) fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE).filter(|zone| !zone.is_empty())
    }

    /// Who must answer at the container's port `number` over mutual TLS; `None` where no proxy does.
    pub(crate) fn proxied(&self, number: u16) -> Option<&Arc<Identity>> {
        self.excluded.as_ref().filter(|excluded| !excluded.contains(&number)).map(|_| &self.identity)
    }
}

/// The ports that a proxy does not take, by the annotations of what it stands before; `None` where there is no proxy.
pub(crate) fn excluded_ports<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<Box<[u16]>> {
    annotation(INJECTED)?;
    let listed = annotation(EXCLUDED).unwrap_or_default().split(',');
    // The injector has refused pods with anything but numbers here.
    Some(listed.filter_map(|text| text.trim().parse().ok()).collect())
}

/// Names that many objects say, each stored once.
#[derive(Debug, Default)]
pub(crate) struct SharedNames(HashSet<Name>);

impl SharedNames {
    /// `name`, as it is stored already if it is.
    pub(crate) fn get(&mut self, name: &str) -> Name {
        if let Some(known) = self.0.get(name) {
            return Name::clone(known);
        }
        // Those that nobody says any more.
        self.0.retain(|name| Arc::strong_count(name) > 1);
        let name = Name::from(name);
        self.0.insert(Name::clone(&name));
        name
    }
}

/// The identities of one namespace, each stored once.
#[derive(Debug, Default)]
pub(crate) struct Accounts(HashMap<Name, Weak<Identity>>);

impl Accounts {
    /// The identity of a service account.
    pub(crate) fn identity(&mut self, trust_domain: &Name, namespace: &Name, account: &str) -> Arc<Identity> {
        if let Some(known) = self.0.get(account).and_then(Weak::upgrade) {
            return known;
        }
        self.0.retain(|_, identity| identity.strong_count() > 0);
        let name = Name::from(account);
        let identity = Identity { trust_domain: trust_domain.clone(), namespace: namespace.clone(), service_account: name.clone() };
        let identity = Arc::new(identity);
        self.0.insert(name, Arc::downgrade(&identity));
        identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_takes_every_port_that_is_not_excluded() {
        let member = |annotations: &[(&str, &str)]| Member {
            labels: Labels::default(),
            identity: Accounts::default().identity(&"mesh".into(), &"shop".into(), "web"),
            excluded: excluded_ports(|name| annotations.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)),
            weight: SaidWeight::default(),
            node: None,
        };
        let proxied = |annotations, port| member(annotations).proxied(port).map(ToString::to_string);
        let web = Some("spiffe://mesh/ns/shop/sa/web".to_owned());
        assert_eq!(proxied(&[(INJECTED, "")], 80), web);
        assert_eq!(proxied(&[], 80), None, "there is no proxy");
        let excluded = [(INJECTED, "0.1.0"), (EXCLUDED, "5432, 80")];
        assert_eq!((proxied(&excluded, 80), proxied(&excluded, 81)), (None, web));
    }

    #[test]
    fn names_are_stored_once_and_forgotten_when_nobody_says_them() {
        let mut names = SharedNames::default();
        let (a, again) = (names.get("a"), names.get("a"));
        assert!(Arc::ptr_eq(&a, &again));
        drop((a, again));
        let _b = names.get("b");
        assert_eq!(names.0.len(), 1, "a is gone");
    }

    #[test]
    fn accounts_are_stored_once_and_forgotten_when_nobody_has_them() {
        let mut accounts = Accounts::default();
        let mut of = |account| accounts.identity(&"mesh".into(), &"shop".into(), account);
        let (web, again) = (of("web"), of("web"));
        assert!(Arc::ptr_eq(&web, &again));
        drop((web, again));
        let _cart = of("cart");
        assert_eq!(accounts.0.len(), 1, "web is gone");
    }
}
