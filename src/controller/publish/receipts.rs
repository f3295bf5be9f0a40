//! Which proxies run what: counted per service from their ACKs and NACKs, and read by the status writer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use leno_core::names::{Name, ServiceId, WorkloadId};
use leno_translate::ObjectKey;
use tokio::sync::Notify;

use super::ConnectionId;

/// Refusals listed in one receipt; the others are counted.
const REFUSALS_LISTED: usize = 5;

/// How far the current state of one service has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The current state, by its content; the same at every replica that knows the same objects.
    pub version: Option<Name>,
    /// Proxies that subscribe to the service at this replica.
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
    /// Services whose [`Receipt`] changed.
    pub services: BTreeSet<ServiceId>,
    /// Objects whose report changed.
    pub reports: BTreeSet<ObjectKey>,
}

impl Dirty {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.reports.is_empty()
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
    /// How far the current state of `service` has come.
    pub fn of(&self, service: &ServiceId) -> Receipt {
        self.lock().services.get(service).map(Account::receipt).unwrap_or_default()
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
    services: BTreeMap<ServiceId, Account>,
    dirty: Dirty,
}

#[derive(Debug, Default)]
struct Account {
    version: Option<Name>,
    proxies: HashMap<ConnectionId, Standing>,
    current: usize,
    current_since: Option<SystemTime>,
}

#[derive(Debug)]
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
        let Some(account) = self.services.get_mut(service) else { return };
        if account.version.as_ref() == version {
            return;
        }
        self.dirty.services.insert(service.clone());
        if version.is_none() {
            self.services.remove(service);
            return;
        }
        account.version = version.cloned();
        account.proxies.values_mut().for_each(|standing| *standing = Standing::Pending);
        account.current = 0;
        account.settle(now);
    }

    /// A proxy subscribes to the service; `acked` when it is known to run `version` already.
    pub(super) fn subscribe(&mut self, service: &ServiceId, version: &Name, connection: ConnectionId, acked: bool, now: SystemTime) {
        let account = self.services.entry(service.clone()).or_default();
        account.version = Some(version.clone());
        let known = account.proxies.contains_key(&connection);
        if !known || acked {
            account.set(connection, Some(if acked { Standing::Current } else { Standing::Pending }), now);
            self.dirty.services.insert(service.clone());
        }
    }

    /// A proxy subscribes to the service no more.
    pub(super) fn unsubscribe(&mut self, service: &ServiceId, connection: ConnectionId, now: SystemTime) {
        let Some(account) = self.services.get_mut(service) else { return };
        account.set(connection, None, now);
        if account.proxies.is_empty() {
            self.services.remove(service);
        }
        self.dirty.services.insert(service.clone());
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
        let Some(account) = self.services.get_mut(service) else { return };
        if account.version.as_ref() != Some(version) || !account.proxies.contains_key(&connection) {
            return; // About a state that is no longer the current one.
        }
        let standing = refused.map_or(Standing::Current, |(node, reason)| Standing::Refused(node, reason));
        account.set(connection, Some(standing), now);
        self.dirty.services.insert(service.clone());
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
        let receipt = ledger.services[service].receipt();
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
        assert_eq!(ledger.services[&payment].receipt().refusals, [refusal]);
        ledger.unsubscribe(&payment, b, at(8));
        assert_eq!(counts(&ledger, &payment), (1, 1, 0, Some(at(8))), "those that are left all run it");
    }

    #[tokio::test]
    async fn the_reader_is_told_once_of_what_changed() {
        let receipts = Receipts::default();
        let payment = ServiceId::new("shop", "payment");
        receipts.book(|ledger| ledger.subscribe(&payment, &"1".into(), ConnectionId(1), false, at(1)));
        assert_eq!(receipts.changed().await.services, BTreeSet::from([payment.clone()]));
        let waiting = receipts.clone();
        let waiting = tokio::spawn(async move { waiting.changed().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        receipts.book(|ledger| ledger.answer(&payment, &"1".into(), ConnectionId(1), None, at(2)));
        assert_eq!(waiting.await.unwrap().services, BTreeSet::from([payment.clone()]));
        assert_eq!(receipts.of(&payment).current, 1);
    }
}
