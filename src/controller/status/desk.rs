//! Where receipts of this and other replicas and reports on objects meet, and what the writer has yet to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leno_translate::ObjectKey;
use tokio::sync::{Notify, broadcast};

use super::receipts::{Line, Others, Standing, sum};
use crate::publish::receipts::{Dirty, Receipts};
use crate::publish::topic::Topic;

/// Lines that another replica may be behind before it must read everything again.
const LINES_MAX: usize = 4096;

/// The desk of one replica.
#[derive(Debug)]
pub struct Desk {
    state: Mutex<State>,
    lines: broadcast::Sender<Line>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    own: BTreeMap<Topic, Line>,
    others: Others,
    pending: Dirty,
}

impl Default for Desk {
    fn default() -> Self {
        Self { state: Mutex::default(), lines: broadcast::Sender::new(LINES_MAX), wake: Notify::new() }
    }
}

impl Desk {
    /// Books what this replica's own proxies say, for ever.
    pub async fn book(&self, receipts: &Receipts) {
        loop {
            let dirty = receipts.changed().await;
            let lines = dirty.topics.iter().map(|topic| (topic.clone(), Line::new(topic, &receipts.of(topic))));
            let lines: Vec<_> = lines.collect();
            self.work(|state| {
                for (topic, line) in lines {
                    // Nobody listening is fine: whoever comes later reads everything first.
                    let _listeners = self.lines.send(line.clone());
                    if line.subscribed == 0 {
                        state.own.remove(&topic);
                    } else {
                        state.own.insert(topic, line);
                    }
                }
                state.pending.topics.extend(dirty.topics);
                state.pending.reports.extend(dirty.reports);
            });
        }
    }

    /// All of this replica's receipts, and a way to hear of every later one.
    pub fn listen(&self) -> (Vec<Line>, broadcast::Receiver<Line>) {
        let state = self.lock();
        (state.own.values().cloned().collect(), self.lines.subscribe())
    }

    /// Books what another replica says.
    pub fn told(&self, replica: IpAddr, line: Line) {
        self.work(|state| {
            state.pending.topics.extend(line.topic.parse::<Topic>().ok());
            state.others.told(replica, line);
        });
    }

    /// Forgets another replica.
    pub fn gone(&self, replica: IpAddr) {
        self.work(|state| {
            let topics = state.others.gone(replica);
            state.pending.topics.extend(topics);
        });
    }

    /// Has the writer look at these objects.
    pub fn look_at(&self, objects: impl IntoIterator<Item = ObjectKey>) {
        self.work(|state| state.pending.reports.extend(objects));
    }

    /// How far all proxies are with `topic`, whose present state is `version`.
    pub fn standing(&self, topic: &Topic, version: Option<&str>) -> Standing {
        let state = self.lock();
        sum(version, state.own.get(topic).into_iter().chain(state.others.of(topic)))
    }

    /// Waits until there is something to look at, and takes it.
    pub async fn pending(&self) -> Dirty {
        loop {
            let notified = self.wake.notified();
            let pending = std::mem::take(&mut self.lock().pending);
            if !pending.is_empty() {
                return pending;
            }
            notified.await;
        }
    }

    /// Books a receipt of this replica as [`Desk::book`] does.
    #[cfg(test)]
    pub(super) fn own_for_test(&self, topic: &Topic, line: Line) {
        self.work(|state| {
            let _listeners = self.lines.send(line.clone());
            state.own.insert(topic.clone(), line);
        });
    }

    fn work(&self, work: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        work(&mut state);
        let waits = !state.pending.is_empty();
        drop(state);
        if waits {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every booking is whole, so what a panic left behind can be read.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects by what receipts about them are counted for.
#[derive(Debug, Default)]
pub struct Objects {
    topics: BTreeMap<ObjectKey, Option<Topic>>,
    objects: BTreeMap<Topic, BTreeSet<ObjectKey>>,
}

impl Objects {
    /// The object is there, with its topic if it has one.
    pub fn set(&mut self, object: &ObjectKey, topic: Option<&Topic>) {
        if self.topics.get(object).map(Option::as_ref) == Some(topic) {
            return;
        }
        self.remove(object);
        self.topics.insert(object.clone(), topic.cloned());
        if let Some(topic) = topic {
            self.objects.entry(topic.clone()).or_default().insert(object.clone());
        }
    }

    /// The object is gone.
    pub fn remove(&mut self, object: &ObjectKey) {
        let Some(Some(topic)) = self.topics.remove(object) else { return };
        if let Some(objects) = self.objects.get_mut(&topic) {
            objects.remove(object);
            if objects.is_empty() {
                self.objects.remove(&topic);
            }
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ObjectKey> {
        self.topics.keys()
    }

    /// Those whose topic is `topic`.
    pub fn of(&self, topic: &Topic) -> impl Iterator<Item = &ObjectKey> {
        self.objects.get(topic).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use leno_core::names::ServiceId;
    use leno_translate::Kind;

    use super::*;

    #[test]
    fn an_object_is_found_by_what_it_is_counted_for_now() {
        let key = |name: &str| ObjectKey { kind: Kind::TrafficPolicy, namespace: "shop".into(), name: name.into() };
        let (payment, cart) = (Topic::Service(ServiceId::new("shop", "payment")), Topic::Service(ServiceId::new("shop", "cart")));
        let mut objects = Objects::default();
        objects.set(&key("a"), Some(&payment));
        objects.set(&key("b"), Some(&payment));
        objects.set(&key("b"), Some(&cart));
        objects.set(&key("c"), None);
        assert_eq!(objects.of(&payment).cloned().collect::<Vec<_>>(), [key("a")]);
        assert_eq!(objects.of(&cart).cloned().collect::<Vec<_>>(), [key("b")]);
        objects.remove(&key("b"));
        assert_eq!(objects.of(&cart).count(), 0);
        assert_eq!(objects.all().count(), 2);
    }
}
