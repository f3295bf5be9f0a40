//! Which proxies run what: counted per service and SecurityPolicy from their ACKs and NACKs, and read by the status writer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use leno_core::names::{Name, ServiceId, WorkloadId};
use leno_translate::ObjectKey;
use tokio::sync::Notify;

use super::ConnectionId;
use super::topic::Topic;

/// Refusals listed in one receipt; the others are counted.
const REFUSALS_LISTED: usize = 5;

/// How far the current state of one service or SecurityPolicy has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The current state, by its content; the same at every replica that knows the same objects.
    pub version: Option<Name>,
    /// Proxies concerned at this replica: those that subscribe to the service, or enforce the policy.
    pub subscribed: usize,
    /// Those of them that run its current state.
    pub current: usize,
    /// Since when all of them do; `None` while one does not, or nobody subscribes.
    pub current_since: Option<SystemTime>,
    /// Proxies that refused the current state.
    pub refused: usize,
    /// Some of them, with their reasons.
    pub refusals: Vec<(WorkloadId, String)>,
}

/// What the status writer should look at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services and policies whose [`Receipt`] changed.
    pub topics: BTreeSet<Topic>,
    /// Objects whose report changed.
    pub reports: BTreeSet<ObjectKey>,
}

impl Dirty {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.reports.is_empty()
    }
}

/// A view of all receipts. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Receipts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    changed: Notify,
}

impl Receipts {
    /// How far the current state of `topic` has come.
    pub fn of(&self, topic: &Topic) -> Receipt {
        self.lock().topics.get(topic).map(Account::receipt).unwrap_or_default()
    }

    /// Waits until something changed since the last call and says what. For one reader: what it was told, no other is.
    pub async fn changed(&self) -> Dirty {
        loop {
            let notified = self.shared.changed.notified();
            let dirty = std::mem::take(&mut self.lock().dirty);
            if !dirty.is_empty() {
                return dirty;
            }
            notified.await;
        }
    }

    /// Books something and tells the reader if anything changed.
    pub(super) fn book<R>(&self, work: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = self.lock();
        let result = work(&mut ledger);
        let changed = !ledger.dirty.is_empty();
        drop(ledger);
        if changed {
            self.shared.changed.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Every booking is whole, so what a panic left behind can be read.
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The books. Time is an argument.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    topics: BTreeMap<Topic, Account>,
    /// What each connection's workload enforces.
    enforcers: HashMap<(ConnectionId, WorkloadId), Enforcer>,
    dirty: Dirty,
}

#[derive(Debug, Default)]
struct Account {
    version: Option<Name>,
    proxies: HashMap<ConnectionId, Standing>,
    current: usize,
    current_since: Option<SystemTime>,
}

/// A proxy that was given a workload's state.
#[derive(Debug)]
struct Enforcer {
    version: Name,
    standing: Standing,
    /// The policies that the state is made of.
    policies: BTreeSet<Topic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Pending,
    Current,
    Refused(WorkloadId, String),
}

impl Account {
    fn receipt(&self) -> Receipt {
        let refused = self.proxies.values().filter_map(|standing| match standing {
            Standing::Refused(node, reason) => Some((node.clone(), reason.clone())),
            Standing::Pending | Standing::Current => None,
        });
        let mut refusals: Vec<_> = refused.collect();
        refusals.sort();
        let refused = refusals.len();
        refusals.truncate(REFUSALS_LISTED);
        let current_since = self.current_since;
        Receipt { version: self.version.clone(), subscribed: self.proxies.len(), current: self.current, current_since, refused, refusals }
    }

    fn set(&mut self, connection: ConnectionId, standing: Option<Standing>, now: SystemTime) {
        self.current += usize::from(matches!(standing, Some(Standing::Current)));
        let before = match standing {
            Some(standing) => self.proxies.insert(connection, standing),
            None => self.proxies.remove(&connection),
        };
        self.current -= usize::from(matches!(before, Some(Standing::Current)));
        self.settle(now);
    }

    fn settle(&mut self, now: SystemTime) {
        let all = self.current == self.proxies.len() && self.current > 0;
        self.current_since = if all { self.current_since.or(Some(now)) } else { None };
    }
}

impl Ledger {
    /// The service's current version is `version`; `None`: it is gone.
    pub(super) fn publish(&mut self, service: &ServiceId, version: Option<&Name>, now: SystemTime) {
        let topic = Topic::Service(service.clone());
        let Some(account) = self.topics.get_mut(&topic) else { return };
        if account.version.as_ref() == version {
            return;
        }
        self.dirty.topics.insert(topic.clone());
        if version.is_none() {
            self.topics.remove(&topic);
            return;
        }
        account.version = version.cloned();
        account.proxies.values_mut().for_each(|standing| *standing = Standing::Pending);
        account.current = 0;
        account.settle(now);
    }

    /// A proxy subscribes to the service; `acked` when it is known to run `version` already.
    pub(super) fn subscribe(&mut self, service: &ServiceId, version: &Name, connection: ConnectionId, acked: bool, now: SystemTime) {
        let topic = Topic::Service(service.clone());
        let account = self.topics.entry(topic.clone()).or_default();
        account.version = Some(version.clone());
        let known = account.proxies.contains_key(&connection);
        if !known || acked {
            account.set(connection, Some(if acked { Standing::Current } else { Standing::Pending }), now);
            self.dirty.topics.insert(topic);
        }
    }

    /// A proxy subscribes to the service no more.
    pub(super) fn unsubscribe(&mut self, service: &ServiceId, connection: ConnectionId, now: SystemTime) {
        let topic = Topic::Service(service.clone());
        let Some(account) = self.topics.get_mut(&topic) else { return };
        account.set(connection, None, now);
        if account.proxies.is_empty() {
            self.topics.remove(&topic);
        }
        self.dirty.topics.insert(topic);
    }

    /// A proxy runs `version`, or refused it.
    pub(super) fn answer(
        &mut self,
        service: &ServiceId,
        version: &Name,
        connection: ConnectionId,
        refused: Option<(WorkloadId, String)>,
        now: SystemTime,
    ) {
        let topic = Topic::Service(service.clone());
        let Some(account) = self.topics.get_mut(&topic) else { return };
        if account.version.as_ref() != Some(version) || !account.proxies.contains_key(&connection) {
            return; // About a state that is no longer the current one.
        }
        let standing = refused.map_or(Standing::Current, |(node, reason)| Standing::Refused(node, reason));
        account.set(connection, Some(standing), now);
        self.dirty.topics.insert(topic);
    }

    /// A proxy has, or is being given, `version` of its workload's state, which `policies` are part of, each with its own version;
    /// `acked` when it is known to run it.
    pub(super) fn enforce(
        &mut self,
        workload: &WorkloadId,
        connection: ConnectionId,
        (version, acked): (&Name, bool),
        policies: BTreeMap<Topic, Name>,
        now: SystemTime,
    ) {
        let key = (connection, workload.clone());
        let before = self.enforcers.remove(&key);
        let known = before.as_ref().filter(|enforcer| enforcer.version == *version).map(|enforcer| enforcer.standing.clone());
        let standing = if acked { Standing::Current } else { known.unwrap_or(Standing::Pending) };
        for gone in before.into_iter().flat_map(|enforcer| enforcer.policies).filter(|topic| !policies.contains_key(topic)) {
            self.stand(&gone, connection, None, now);
        }
        for (topic, version) in &policies {
            self.topics.entry(topic.clone()).or_default().version = Some(version.clone());
            self.stand(topic, connection, Some(standing.clone()), now);
        }
        let policies = policies.into_keys().collect();
        self.enforcers.insert(key, Enforcer { version: version.clone(), standing, policies });
    }

    /// A proxy runs `version` of its workload's state, or refused it.
    pub(super) fn enforced(
        &mut self,
        workload: &WorkloadId,
        version: &Name,
        connection: ConnectionId,
        refused: Option<(WorkloadId, String)>,
        now: SystemTime,
    ) {
        let Some(enforcer) = self.enforcers.get_mut(&(connection, workload.clone())) else { return };
        if enforcer.version != *version {
            return; // About a state that is no longer the current one.
        }
        enforcer.standing = refused.map_or(Standing::Current, |(node, reason)| Standing::Refused(node, reason));
        let (standing, policies) = (enforcer.standing.clone(), enforcer.policies.clone());
        for topic in policies {
            self.stand(&topic, connection, Some(standing.clone()), now);
        }
    }

    /// A proxy has its workload's state no more.
    pub(super) fn unenforce(&mut self, workload: &WorkloadId, connection: ConnectionId, now: SystemTime) {
        let gone = self.enforcers.remove(&(connection, workload.clone()));
        for topic in gone.into_iter().flat_map(|enforcer| enforcer.policies) {
            self.stand(&topic, connection, None, now);
        }
    }

    /// A policy has another version, though perhaps nothing that it says is another.
    pub(super) fn restate(&mut self, policy: &Topic, version: &Name) {
        if let Some(account) = self.topics.get_mut(policy)
            && account.version.as_ref() != Some(version)
        {
            account.version = Some(version.clone());
            self.dirty.topics.insert(policy.clone());
        }
    }

    fn stand(&mut self, topic: &Topic, connection: ConnectionId, standing: Option<Standing>, now: SystemTime) {
        let Some(account) = self.topics.get_mut(topic) else { return };
        if account.proxies.get(&connection) == standing.as_ref() {
            return;
        }
        account.set(connection, standing, now);
        if account.proxies.is_empty() {
            self.topics.remove(topic);
        }
        self.dirty.topics.insert(topic.clone());
    }

    /// The reports on these objects changed.
    pub(super) fn reports(&mut self, objects: BTreeSet<ObjectKey>) {
        self.dirty.reports.extend(objects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn counts(ledger: &Ledger, service: &ServiceId) -> (usize, usize, usize, Option<SystemTime>) {
        let receipt = ledger.topics[&Topic::Service(service.clone())].receipt();
        (receipt.subscribed, receipt.current, receipt.refused, receipt.current_since)
    }

    #[test]
    fn a_service_is_current_from_the_moment_the_last_proxy_says_so() {
        let (payment, one, two): (_, Name, Name) = (ServiceId::new("shop", "payment"), "1".into(), "2".into());
        let (a, b) = (ConnectionId(1), ConnectionId(2));
        let mut ledger = Ledger::default();
        ledger.subscribe(&payment, &one, a, false, at(1));
        ledger.subscribe(&payment, &one, b, true, at(1));
        assert_eq!(counts(&ledger, &payment), (2, 1, 0, None));
        ledger.answer(&payment, &one, a, None, at(2));
        assert_eq!(counts(&ledger, &payment), (2, 2, 0, Some(at(2))));
        ledger.publish(&payment, Some(&one), at(3));
        assert_eq!(counts(&ledger, &payment), (2, 2, 0, Some(at(2))), "nothing changed");

        ledger.publish(&payment, Some(&two), at(4));
        assert_eq!(counts(&ledger, &payment), (2, 0, 0, None));
        ledger.answer(&payment, &one, a, None, at(5));
        assert_eq!(counts(&ledger, &payment), (2, 0, 0, None), "an answer about an older state says nothing");
        ledger.answer(&payment, &two, a, None, at(6));
        let refusal = (WorkloadId::new("shop", "web-1"), "no".to_owned());
        ledger.answer(&payment, &two, b, Some(refusal.clone()), at(7));
        assert_eq!(counts(&ledger, &payment), (2, 1, 1, None));
        assert_eq!(ledger.topics[&Topic::Service(payment.clone())].receipt().refusals, [refusal]);
        ledger.unsubscribe(&payment, b, at(8));
        assert_eq!(counts(&ledger, &payment), (1, 1, 0, Some(at(8))), "those that are left all run it");
    }

    #[tokio::test]
    async fn the_reader_is_told_once_of_what_changed() {
        let receipts = Receipts::default();
        let payment = ServiceId::new("shop", "payment");
        receipts.book(|ledger| ledger.subscribe(&payment, &"1".into(), ConnectionId(1), false, at(1)));
        assert_eq!(receipts.changed().await.topics, BTreeSet::from([Topic::Service(payment.clone())]));
        let waiting = receipts.clone();
        let waiting = tokio::spawn(async move { waiting.changed().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        receipts.book(|ledger| ledger.answer(&payment, &"1".into(), ConnectionId(1), None, at(2)));
        assert_eq!(waiting.await.unwrap().topics, BTreeSet::from([Topic::Service(payment.clone())]));
        assert_eq!(receipts.of(&Topic::Service(payment)).current, 1);
    }

    #[test]
    fn a_policy_is_current_when_every_workload_it_is_part_of_is() {
        let policy = |name: &str| Topic::Security(ServiceId::new("shop", name));
        let (p, q, one, two): (_, _, Name, Name) = (policy("p"), policy("q"), "1".into(), "2".into());
        let part_of = |topics: &[&Topic]| topics.iter().map(|topic| ((*topic).clone(), Name::from("7"))).collect::<BTreeMap<_, _>>();
        let (a, b) = (WorkloadId::new("shop", "a"), WorkloadId::new("shop", "b"));
        let mut ledger = Ledger::default();
        ledger.enforce(&a, ConnectionId(1), (&one, false), part_of(&[&p, &q]), at(1));
        ledger.enforce(&b, ConnectionId(2), (&one, true), part_of(&[&p]), at(1));
        let counts = |ledger: &Ledger, topic: &Topic| {
            ledger.topics.get(topic).map(|account| (account.proxies.len(), account.current, account.version.as_deref() == Some("7")))
        };
        assert_eq!((counts(&ledger, &p), counts(&ledger, &q)), (Some((2, 1, true)), Some((1, 0, true))));
        ledger.enforced(&a, &two, ConnectionId(1), None, at(2));
        assert_eq!(counts(&ledger, &p), Some((2, 1, true)), "an answer about another state says nothing");
        ledger.enforced(&a, &one, ConnectionId(1), None, at(2));
        assert_eq!((counts(&ledger, &p), counts(&ledger, &q)), (Some((2, 2, true)), Some((1, 1, true))));
        ledger.enforce(&a, ConnectionId(1), (&two, false), part_of(&[&p]), at(3));
        assert_eq!((counts(&ledger, &p), counts(&ledger, &q)), (Some((2, 1, true)), None), "q is for nobody any more");
        ledger.restate(&p, &"8".into());
        assert_eq!(counts(&ledger, &p), Some((2, 1, false)));
        ledger.unenforce(&a, ConnectionId(1), at(4));
        ledger.unenforce(&b, ConnectionId(2), at(4));
        assert_eq!(counts(&ledger, &p), None);
        assert!(ledger.enforcers.is_empty());
    }
}
