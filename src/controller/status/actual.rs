//! What the watches show: the status that each object has, and where the other replicas are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leno_translate::{Change, Kind, Object, ObjectKey};
use tokio::sync::{Notify, watch};

use super::Status;
use crate::source::SourceEvent;

/// A view of the cluster for the status writer. It sees each event before the publisher does.
#[derive(Debug)]
pub struct Actual {
    /// The Service of the controller itself.
    namespace: String,
    service: String,
    state: Mutex<State>,
    peers: watch::Sender<BTreeSet<IpAddr>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    statuses: BTreeMap<ObjectKey, Status>,
    /// Addresses in each slice of the controller's own Service.
    slices: BTreeMap<ObjectKey, Vec<IpAddr>>,
    dirty: BTreeSet<ObjectKey>,
    /// What is known of each kind whose list is under way and has not come yet.
    absent: BTreeMap<Kind, BTreeSet<ObjectKey>>,
}

impl Actual {
    /// A view in which nothing has been seen, of a controller behind `namespace`/`service`.
    pub fn new(namespace: &str, service: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            state: Mutex::default(),
            peers: watch::Sender::default(),
            changed: Notify::new(),
        }
    }

    /// Takes in what a source says.
    pub fn see(&self, event: &SourceEvent) {
        let mut state = self.lock();
        match event {
            SourceEvent::Changed(change) => self.change(&mut state, change),
            SourceEvent::Listed(kind, changes) => {
                state.begin(*kind);
                changes.iter().for_each(|change| self.change(&mut state, change));
                state.end(*kind);
            }
            SourceEvent::Listing(kind) => state.begin(*kind),
            SourceEvent::Whole(kind) => state.end(*kind),
            SourceEvent::Keys(..) | SourceEvent::Addresses(..) => (),
        }
        let peers: BTreeSet<IpAddr> = state.slices.values().flatten().copied().collect();
        let dirty = !state.dirty.is_empty();
        drop(state);
        self.peers.send_if_modified(|known| {
            let changed = *known != peers;
            *known = peers;
            changed
        });
        if dirty {
            self.changed.notify_one();
        }
    }

    fn change(&self, state: &mut State, change: &Change) {
        match change {
            Change::Apply(Object::MeshService(object)) => {
                let status = object.status.clone().map(|status| Status::MeshService(Box::new(status)));
                state.set(change.key(), status);
            }
            Change::Apply(Object::TrafficPolicy(object)) => {
                let status = object.status.clone().map(|status| Status::TrafficPolicy(Box::new(status)));
                state.set(change.key(), status);
            }
            Change::Apply(Object::SecurityPolicy(object)) => {
                let status = object.status.clone().map(|status| Status::SecurityPolicy(Box::new(status)));
                state.set(change.key(), status);
            }
            Change::Apply(Object::EndpointSlice(slice)) => {
                let ours = *slice.namespace == *self.namespace && slice.service.as_deref() == Some(&*self.service);
                if ours {
                    let key = ObjectKey::new(Kind::EndpointSlice, slice.namespace.clone(), slice.name.clone());
                    state.came(&key);
                    state.slices.insert(key, slice.endpoints.iter().map(|endpoint| endpoint.address).collect());
                }
            }
            Change::Apply(Object::Service(_) | Object::Pod(_) | Object::ReferenceGrant(_) | Object::Workload(_))
            | Change::Unreadable { .. } => (),
            Change::Delete(key) => state.forget(key),
        }
    }

    /// The status that an object has, as far as is known.
    pub fn status(&self, key: &ObjectKey) -> Option<Status> {
        self.lock().statuses.get(key).cloned()
    }

    /// Notes that a status was written.
    pub fn wrote(&self, key: ObjectKey, status: Status) {
        self.lock().statuses.insert(key, status);
    }

    /// Waits until the status of some objects changed, and says which.
    pub async fn changed(&self) -> BTreeSet<ObjectKey> {
        loop {
            let notified = self.changed.notified();
            let dirty = std::mem::take(&mut self.lock().dirty);
            if !dirty.is_empty() {
                return dirty;
            }
            notified.await;
        }
    }

    /// The addresses of all replicas, this one included.
    pub fn replicas(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.peers.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole, so what a panic left behind can be read.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A list of `kind` begins.
    fn begin(&mut self, kind: Kind) {
        let known = self.statuses.keys().chain(self.slices.keys()).filter(|key| key.kind == kind).cloned().collect();
        self.absent.insert(kind, known);
    }

    /// An object came, perhaps of a list.
    fn came(&mut self, key: &ObjectKey) {
        if let Some(absent) = self.absent.get_mut(&key.kind) {
            absent.remove(key);
        }
    }

    /// A list of `kind` is whole: what it did not have is gone.
    fn end(&mut self, kind: Kind) {
        self.absent.remove(&kind).into_iter().flatten().for_each(|key| self.forget(&key));
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.slices.remove(key);
        if self.statuses.remove(key).is_some() {
            self.dirty.insert(key.clone());
        }
    }

    fn set(&mut self, key: ObjectKey, status: Option<Status>) {
        self.came(&key);
        if self.statuses.get(&key) == status.as_ref() {
            return;
        }
        match status {
            Some(status) => self.statuses.insert(key.clone(), status),
            None => self.statuses.remove(&key),
        };
        self.dirty.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(status: &serde_json::Value) -> SourceEvent {
        let object = json!({"apiVersion": "leno.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"namespace": "shop", "name": "payment"},
            "spec": {"targetRef": {"kind": "Service", "name": "payment"}}, "status": status});
        SourceEvent::Changed(Change::Apply(Object::TrafficPolicy(serde_json::from_value(object).unwrap())))
    }

    fn key() -> ObjectKey {
        ObjectKey { kind: Kind::TrafficPolicy, namespace: "shop".into(), name: "payment".into() }
    }

    #[tokio::test]
    async fn a_status_that_somebody_changed_is_looked_at_again() {
        let actual = Actual::new("leno-system", "leno-controller");
        actual.see(&policy(&json!({"observedGeneration": 1})));
        assert_eq!(actual.changed().await, BTreeSet::from([key()]));
        let seen = actual.status(&key()).unwrap();
        actual.see(&policy(&json!(null)));
        assert_eq!(actual.changed().await, BTreeSet::from([key()]));
        assert_eq!(actual.status(&key()), None);

        actual.wrote(key(), seen);
        actual.see(&policy(&json!({"observedGeneration": 1})));
        assert!(actual.lock().dirty.is_empty(), "the watch shows what was written");
    }

    #[tokio::test]
    async fn what_a_list_did_not_have_is_gone_when_it_is_whole() {
        let actual = Actual::new("leno-system", "leno-controller");
        actual.see(&policy(&json!({"observedGeneration": 1})));
        assert_eq!(actual.changed().await, BTreeSet::from([key()]));
        actual.see(&SourceEvent::Listing(Kind::TrafficPolicy));
        actual.see(&policy(&json!({"observedGeneration": 1})));
        actual.see(&SourceEvent::Whole(Kind::TrafficPolicy));
        assert!(actual.status(&key()).is_some() && actual.lock().dirty.is_empty(), "it came again as it was");
        actual.see(&SourceEvent::Listing(Kind::TrafficPolicy));
        assert!(actual.status(&key()).is_some());
        actual.see(&SourceEvent::Whole(Kind::TrafficPolicy));
        assert_eq!((actual.status(&key()), actual.changed().await), (None, BTreeSet::from([key()])));
    }

    #[test]
    fn replicas_are_the_addresses_behind_the_controllers_own_service() {
        let actual = Actual::new("leno-system", "leno-controller");
        let slice = |namespace: &str, address: &str| {
            let slice = json!({"metadata": {"namespace": namespace, "name": "s", "labels": {"kubernetes.io/service-name": "leno-controller"}},
                "addressType": "IPv4", "endpoints": [{"addresses": [address]}]});
            let slice: leno_api::k8s::Watched<leno_api::k8s::EndpointSlice> = serde_json::from_value(slice).unwrap();
            SourceEvent::Changed(Change::Apply(Object::EndpointSlice(slice.object)))
        };
        actual.see(&slice("shop", "10.0.0.9"));
        actual.see(&slice("leno-system", "10.0.0.1"));
        assert_eq!(*actual.replicas().borrow(), BTreeSet::from([IpAddr::from([10, 0, 0, 1])]));
        actual.see(&SourceEvent::Listed(Kind::EndpointSlice, Vec::new()));
        assert!(actual.replicas().borrow().is_empty());
    }
}
