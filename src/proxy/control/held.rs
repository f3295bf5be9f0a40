//! What the control thread holds for its workers, and which of them want what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::ServiceId;
use leno_core::service::Service;
use leno_core::trust::Trust;
use leno_core::workload::Workload;
use leno_xds::client::{Event, Subscriptions};
use leno_xds::subject::Subject;

use super::known_keys;
use super::{Alias, Ask, Update};

/// Subscriptions of all workers together, and the last good state of everything subscribed to.
pub(super) struct Held {
    pub(super) subscriptions: Subscriptions,
    own: Subject,
    workers: usize,
    /// Which workers want a subject; it is dropped when none does.
    wanted_by: BTreeMap<Subject, BTreeSet<usize>>,
    aliases: BTreeMap<Subject, Option<ServiceId>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    endpoints: BTreeMap<EndpointsId, Arc<Endpoints>>,
    workload: Option<Arc<Workload>>,
    trust: Option<Arc<Trust>>,
    /// Whether there has been a certificate.
    pub(super) certified: bool,
}

/// Updates for one worker, or for all.
#[derive(Debug)]
pub(super) enum Told {
    All(Update),
    One(usize, Update),
}

impl Held {
    /// Nothing held yet; the workload `own` is subscribed to for good.
    pub(super) fn new(own: &leno_core::names::WorkloadId, workers: usize) -> Self {
        let mut subscriptions = Subscriptions::new(own);
        let own = Subject::Workload(own.clone());
        subscriptions.subscribe(own.clone());
        subscriptions.subscribe(Subject::Trust);
        Self {
            subscriptions,
            own,
            workers,
            wanted_by: BTreeMap::new(),
            aliases: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            workload: None,
            trust: None,
            certified: false,
        }
    }

    /// Whether the controller has said what this proxy is.
    pub(super) fn knows_itself(&self) -> bool {
        self.workload.is_some()
    }

    /// Trust that came with a certificate while there was no stream. The controller is to send what it says again, because
    /// what it was known to have said is not in force any more.
    pub(super) fn adopt(&mut self, trust: Arc<Trust>) -> Option<Told> {
        if self.trust.as_ref() == Some(&trust) {
            return None;
        }
        self.subscriptions.unsubscribe(&Subject::Trust);
        self.subscriptions.subscribe(Subject::Trust);
        self.trust = Some(Arc::clone(&trust));
        Some(Told::All(Update::Trust(trust)))
    }

    /// Takes in what `worker` asks; what is known already is told at once.
    pub(super) fn ask(&mut self, worker: usize, ask: Ask) -> Vec<Told> {
        match ask {
            // What an alias means is told to every worker, so every worker holds it until it says otherwise.
            Ask::Service(alias) => self.want(alias.into(), 0..self.workers),
            Ask::Endpoints(id) => self.want(Subject::Endpoints(id), worker..worker + 1),
            Ask::DropService(alias) => return self.drop_interest(worker, &alias.into()),
            Ask::DropEndpoints(id) => return self.drop_interest(worker, &Subject::Endpoints(id)),
        }
        .map_or_else(Vec::new, |subject| self.known(worker, &subject))
    }

    /// Subscribes; gives the subject back where it was subscribed to already, so that its state may be told again.
    fn want(&mut self, subject: Subject, workers: std::ops::Range<usize>) -> Option<Subject> {
        let before = self.wanted_by.entry(subject.clone()).or_default();
        let known = !before.is_empty();
        before.extend(workers);
        self.subscriptions.subscribe(subject.clone());
        known.then_some(subject)
    }

    fn drop_interest(&mut self, worker: usize, subject: &Subject) -> Vec<Told> {
        let Some(workers) = self.wanted_by.get_mut(subject) else { return Vec::new() };
        workers.remove(&worker);
        if !workers.is_empty() {
            return Vec::new();
        }
        self.wanted_by.remove(subject);
        self.aliases.remove(subject);
        let unused = self.subscriptions.unsubscribe(subject);
        unused.into_iter().flat_map(|event| self.take(event)).collect()
    }

    /// What is held of `subject`, for a worker that asks for it again.
    fn known(&self, worker: usize, subject: &Subject) -> Vec<Told> {
        let mut told = Vec::new();
        let mut tell = |update| told.push(Told::One(worker, update));
        match subject {
            Subject::Endpoints(id) => {
                if let Some(endpoints) = self.endpoints.get(id) {
                    tell(Update::Endpoints(id.clone(), Some(Arc::clone(endpoints))));
                }
            }
            Subject::Service(_) | Subject::Address(_) | Subject::Host(_) => {
                if let (Some(meaning), Some(alias)) = (self.aliases.get(subject), alias_of(subject)) {
                    let service = meaning.as_ref().and_then(|id| self.services.get(id));
                    if let (Some(id), Some(service)) = (meaning, service) {
                        tell(Update::Service(id.clone(), Some(Arc::clone(service))));
                    }
                    tell(Update::Alias(alias, meaning.clone()));
                }
            }
            Subject::Workload(_) | Subject::Trust => {}
        }
        told
    }

    /// Takes in what a message of the controller brought; gives what workers are to be told, in order.
    pub(super) fn take(&mut self, event: Event) -> Vec<Told> {
        let all = |update| vec![Told::All(update)];
        match event {
            Event::Service(service) => {
                let id = service.id.clone();
                self.services.insert(id.clone(), Arc::clone(&service));
                let mut told = all(Update::Service(id.clone(), Some(service)));
                if self.wanted_by.contains_key(&Subject::Service(id.clone())) {
                    told.extend(self.meaning(Subject::Service(id.clone()), Some(id)));
                }
                told
            }
            Event::Endpoints(endpoints) => {
                self.endpoints.insert(endpoints.id.clone(), Arc::clone(&endpoints));
                all(Update::Endpoints(endpoints.id.clone(), Some(endpoints)))
            }
            Event::Workload(workload) => {
                let workload = match &self.workload {
                    Some(known) => known_keys::kept(workload, known),
                    None => workload,
                };
                self.workload = Some(Arc::clone(&workload));
                all(Update::Workload(workload))
            }
            Event::Trust(trust) => {
                self.trust = Some(Arc::clone(&trust));
                all(Update::Trust(trust))
            }
            Event::Alias(subject, service) => self.meaning(subject, service),
            Event::Gone(subject) => self.gone(subject),
            Event::Unused(subject) => {
                self.forget(&subject);
                Vec::new()
            }
            Event::Rejected { name, reason } => {
                tracing::warn!(name, reason, "a resource was refused; what was known of it stays in force");
                Vec::new()
            }
        }
    }

    fn meaning(&mut self, subject: Subject, service: Option<ServiceId>) -> Vec<Told> {
        let Some(alias) = alias_of(&subject) else { return Vec::new() };
        self.aliases.insert(subject, service.clone());
        vec![Told::All(Update::Alias(alias, service))]
    }

    fn gone(&mut self, subject: Subject) -> Vec<Told> {
        self.forget(&subject);
        match subject {
            Subject::Service(id) => {
                let mut told = vec![Told::All(Update::Service(id.clone(), None))];
                if self.wanted_by.contains_key(&Subject::Service(id.clone())) {
                    told.extend(self.meaning(Subject::Service(id), None));
                }
                told
            }
            Subject::Endpoints(id) => vec![Told::All(Update::Endpoints(id, None))],
            // A pod that is being deleted loses its entry before its proxy ends: the last state serves.
            Subject::Workload(_) | Subject::Trust | Subject::Address(_) | Subject::Host(_) => Vec::new(),
        }
    }

    fn forget(&mut self, subject: &Subject) {
        match subject {
            Subject::Service(id) => drop(self.services.remove(id)),
            Subject::Endpoints(id) => drop(self.endpoints.remove(id)),
            Subject::Address(_) | Subject::Host(_) => drop(self.aliases.remove(subject)),
            Subject::Workload(_) => debug_assert_eq!(*subject, self.own),
            Subject::Trust => {}
        }
    }
}

impl From<Alias> for Subject {
    fn from(alias: Alias) -> Self {
        match alias {
            Alias::Address(address) => Self::Address(address),
            Alias::Host(host) => Self::Host(host),
            Alias::Service(id) => Self::Service(id),
        }
    }
}

fn alias_of(subject: &Subject) -> Option<Alias> {
    match subject {
        Subject::Address(address) => Some(Alias::Address(*address)),
        Subject::Host(host) => Some(Alias::Host(Arc::clone(host))),
        Subject::Service(id) => Some(Alias::Service(id.clone())),
        Subject::Endpoints(_) | Subject::Workload(_) | Subject::Trust => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leno_core::names::WorkloadId;

    fn held() -> Held {
        Held::new(&WorkloadId::new("shop", "web-1"), 2)
    }

    fn payment() -> Arc<Service> {
        Arc::new(Service::new(ServiceId::new("shop", "payment")))
    }

    #[test]
    fn a_subscription_stays_until_the_last_worker_drops_it() {
        let mut held = held();
        let alias = Alias::Address(([10, 96, 0, 5], 80).into());
        assert!(held.ask(0, Ask::Service(alias.clone())).is_empty());
        held.ask(0, Ask::DropService(alias.clone()));
        assert!(held.subscriptions.wants(&alias.clone().into()), "the other worker was told too, and may use it");
        held.ask(1, Ask::DropService(alias.clone()));
        assert!(!held.subscriptions.wants(&alias.into()));
    }

    #[test]
    fn what_is_known_is_told_again_to_the_worker_that_asks_again() {
        let mut held = held();
        let alias = Alias::Host("payment".into());
        held.ask(0, Ask::Service(alias.clone()));
        held.take(Event::Service(payment()));
        held.take(Event::Alias(alias.clone().into(), Some(payment().id.clone())));
        let told = held.ask(1, Ask::Service(alias));
        assert!(
            matches!(told.as_slice(), [Told::One(1, Update::Service(_, Some(_))), Told::One(1, Update::Alias(_, Some(_)))]),
            "{told:?}"
        );
    }

    #[test]
    fn a_canonical_name_is_its_own_alias() {
        let mut held = held();
        let id = payment().id.clone();
        held.ask(0, Ask::Service(Alias::Service(id.clone())));
        let told = held.take(Event::Service(payment()));
        assert!(matches!(told.as_slice(), [Told::All(Update::Service(..)), Told::All(Update::Alias(Alias::Service(_), Some(_)))]));
        let told = held.take(Event::Gone(Subject::Service(id)));
        assert!(matches!(told.as_slice(), [Told::All(Update::Service(_, None)), Told::All(Update::Alias(_, None))]));
    }
}
