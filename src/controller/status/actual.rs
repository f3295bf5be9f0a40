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
            SourceEvent::Listed(kind, changes) => self.list(&mut state, *kind, changes),
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

    fn list(&self, state: &mut State, kind: Kind, changes: &[Change]) {
        match kind {
            Kind::MeshService | Kind::TrafficPolicy | Kind::SecurityPolicy => {
                let before: Vec<_> = state.statuses.keys().filter(|key| key.kind == kind).cloned().collect();
                state.dirty.extend(before.iter().cloned());
                state.statuses.retain(|key, _| key.kind != kind);
            }
            Kind::EndpointSlice => state.slices.clear(),
            Kind::Service | Kind::Pod | Kind::Workload => return,
        }
        changes.iter().for_each(|change| self.change(state, change));
    }

    fn change(&self, state: &mut State, change: &Change) {
        match change {
            Change::Apply(Object::MeshService(object)) => {
                let status = object.status.clone().map(|status| Status::MeshService(Box::new(status)));
                state.set(Object::MeshService(object.clone()).key(), status);
            }
            Change::Apply(Object::TrafficPolicy(object)) => {
                let status = object.status.clone().map(|status| Status::TrafficPolicy(Box::new(status)));
                state.set(Object::TrafficPolicy(object.clone()).key(), status);
            }
            Change::Apply(Object::SecurityPolicy(object)) => {
                let status = object.status.clone().map(|status| Status::SecurityPolicy(Box::new(status)));
                state.set(Object::SecurityPolicy(object.clone()).key(), status);
            }
            Change::Apply(Object::EndpointSlice(slice)) => {
                let ours = *slice.namespace == *self.namespace && slice.service.as_deref() == Some(&*self.service);
                if ours {
                    let key = Object::EndpointSlice(slice.clone()).key();
                    state.slices.insert(key, slice.endpoints.iter().map(|endpoint| endpoint.address).collect());
                }
            }
            Change::Apply(Object::Service(_) | Object::Pod(_) | Object::Workload(_)) | Change::Unreadable { .. } => (),
            Change::Delete(key) => {
                state.slices.remove(key);
                if state.statuses.remove(key).is_some() {
                    state.dirty.insert(key.clone());
                }
            }
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
    fn set(&mut self, key: ObjectKey, status: Option<Status>) {
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
