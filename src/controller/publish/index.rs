//! Who subscribes to what, and the latest encoded state of each resource that somebody subscribes to.
//!
//! Synchronous: events of the source and requests of proxies come in, outboxes are filled, and [`Index::take_wakes`] says whose
//! writers to wake. A change costs what it touches among that which is subscribed to: a resource is computed and encoded
//! once, compared with what was last sent, and its bytes are shared by every connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use foldhash::HashMap;
use leno_core::names::{Name, ServiceId, WorkloadId};
use leno_core::trust::{Held, Trust};
use leno_translate::{Change, Kind, ObjectKey, Touched, Translator};
use leno_xds::encode::{encode_endpoints, encode_service, encode_workload};
use leno_xds::message::Encoded;
use leno_xds::security::encode_trust;
use leno_xds::server::{Intake, Offered};
use leno_xds::subject::Subject;

use super::counters::Counters;
use super::outbox::Outbox;
use super::receipts::Receipts;
use super::topic::{Topic, generation_name};
use super::{Caller, ConnectionId, ProxyStanding, Standing};
use crate::source::SourceEvent;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Index {
    translator: Translator,
    required: BTreeSet<Kind>,
    listed: BTreeSet<Kind>,
    /// Of each kind whose list is under way, the objects that have not come yet: those that are left at its end are gone.
    absent: BTreeMap<Kind, BTreeSet<ObjectKey>>,
    /// Whether what is served is never a part.
    ready: bool,
    /// Whether keys may be wanted elsewhere than before.
    policies_changed: bool,
    /// Whether other host names may be wanted than before.
    meshes_changed: bool,
    members: HashMap<ConnectionId, Member>,
    /// Subscribers by canonical name.
    direct: HashMap<Subject, BTreeSet<ConnectionId>>,
    /// Subscribers by alias, and what it means now.
    aliases: HashMap<AliasKey, Alias>,
    /// The aliases that mean a service.
    meaning: HashMap<ServiceId, BTreeSet<AliasKey>>,
    /// By which roots proxies verify each other, once that is known.
    trust: Option<Arc<Trust>>,
    /// The latest state of what is subscribed to.
    resources: HashMap<Subject, Arc<Encoded>>,
    receipts: Receipts,
    counters: Arc<Counters>,
    wakes: BTreeSet<ConnectionId>,
}

/// An alias means the same to everybody who shares the key: host names are relative to a namespace, addresses are not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct AliasKey {
    subject: Subject,
    namespace: Option<Name>,
}

#[derive(Debug, Default)]
struct Alias {
    meaning: Option<ServiceId>,
    watchers: BTreeSet<ConnectionId>,
}

#[derive(Debug)]
struct Member {
    outbox: Arc<Outbox>,
    caller: Caller,
    node: Option<WorkloadId>,
    /// The certificate its proxy holds.
    certificate: Option<Held>,
    /// The version of the trust it runs.
    trust: Option<Name>,
    subjects: BTreeSet<Subject>,
}

impl Index {
    pub(super) fn new(translator: Translator, required: BTreeSet<Kind>, receipts: Receipts, counters: Arc<Counters>) -> Self {
        Self {
            translator,
            ready: required.is_empty(),
            required,
            listed: BTreeSet::new(),
            absent: BTreeMap::new(),
            policies_changed: false,
            meshes_changed: false,
            members: HashMap::default(),
            direct: HashMap::default(),
            aliases: HashMap::default(),
            meaning: HashMap::default(),
            resources: HashMap::default(),
            receipts,
            counters,
            wakes: BTreeSet::new(),
            trust: None,
        }
    }

    pub(super) fn translator(&self) -> &Translator {
        &self.translator
    }

    /// Whether every required kind was listed, and fetching every key and looking up every host was tried, so that what is served is never a part.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Where keys are wanted, if that may have changed since the last call.
    pub(super) fn take_key_uris(&mut self) -> Option<BTreeSet<Name>> {
        std::mem::take(&mut self.policies_changed).then(|| self.translator.key_uris())
    }

    /// The host names outside the cluster that are wanted, if that may have changed since the last call.
    pub(super) fn take_outside_hosts(&mut self) -> Option<BTreeSet<Name>> {
        std::mem::take(&mut self.meshes_changed).then(|| self.translator.outside_hosts())
    }

    /// The connections whose outboxes were filled since the last call.
    pub(super) fn take_wakes(&mut self) -> impl Iterator<Item = Arc<Outbox>> {
        let wakes = std::mem::take(&mut self.wakes);
        wakes.into_iter().filter_map(|id| self.members.get(&id).map(|member| member.outbox.clone()))
    }

    /// All connections' outboxes.
    pub(super) fn outboxes(&self) -> impl Iterator<Item = &Outbox> {
        self.members.values().map(|member| &*member.outbox)
    }

    /// Takes in events of the source that came together.
    pub(super) fn apply(&mut self, events: impl IntoIterator<Item = SourceEvent>, now: SystemTime) {
        let was_ready = self.is_ready();
        let mut touched = Touched::default();
        for event in events {
            let of_event = self.take_in(event);
            if was_ready {
                touched.merge(of_event);
            } else {
                // Everything that is subscribed to is computed when the lists are in.
                touched.reports.extend(of_event.reports);
            }
        }
        self.ready =
            self.ready || self.required.is_subset(&self.listed) && self.translator.has_tried_keys() && self.translator.has_tried_hosts();
        self.restate(&touched);
        if self.is_ready() {
            if was_ready {
                self.publish(&touched, now);
            } else {
                self.open(now);
            }
        }
        self.receipts.book(|ledger| ledger.reports(touched.reports));
    }

    /// Brings the translator up to date with one event.
    fn take_in(&mut self, event: SourceEvent) -> Touched {
        match event {
            SourceEvent::Changed(change) => {
                let key = change.key();
                self.note(key.kind);
                if let Some(absent) = self.absent.get_mut(&key.kind) {
                    absent.remove(&key);
                }
                self.translator.apply(change)
            }
            SourceEvent::Keys(uri, fetched) => self.translator.set_keys(&uri, fetched),
            SourceEvent::Addresses(host, found) => self.translator.set_addresses(&host, found),
            SourceEvent::Listed(kind, objects) => {
                self.note(kind);
                self.listed.insert(kind);
                self.translator.replace(kind, objects)
            }
            SourceEvent::Listing(kind) => {
                self.absent.insert(kind, self.translator.keys(kind));
                Touched::default()
            }
            SourceEvent::Whole(kind) => {
                self.note(kind);
                self.listed.insert(kind);
                let mut touched = Touched::default();
                for key in self.absent.remove(&kind).unwrap_or_default() {
                    touched.merge(self.translator.apply(Change::Delete(key)));
                }
                touched
            }
        }
    }

    /// Objects of `kind` have changed.
    fn note(&mut self, kind: Kind) {
        self.policies_changed |= kind == Kind::SecurityPolicy;
        self.meshes_changed |= kind == Kind::MeshService;
    }

    /// By which roots proxies verify each other from now on.
    pub(super) fn set_trust(&mut self, trust: Arc<Trust>, now: SystemTime) {
        self.trust = Some(trust);
        if self.is_subscribed(&Subject::Trust) && self.is_servable(&Subject::Trust) && self.recompute(&Subject::Trust, now) {
            self.tell(&Subject::Trust, now);
        }
    }

    /// How far the connected proxies are with trust and certificates, as they say themselves.
    pub(super) fn standing(&self) -> Standing {
        let trust_version = self.trust.as_deref().map(|trust| leno_xds::encode::version(&encode_trust(trust)));
        let proxy = |member: &Member| {
            let workload = member.node.clone()?;
            Some(ProxyStanding { workload, held: member.certificate.clone(), trust: member.trust.clone() })
        };
        Standing { trust_version, trust: self.trust.clone(), proxies: self.members.values().filter_map(proxy).collect() }
    }

    /// A new stream.
    pub(super) fn connect(&mut self, id: ConnectionId, outbox: Arc<Outbox>, caller: Caller) {
        self.counters.stream_opened();
        self.members.insert(id, Member { outbox, caller, node: None, certificate: None, trust: None, subjects: BTreeSet::new() });
    }

    /// What a proxy said.
    pub(super) fn intake(&mut self, id: ConnectionId, intake: Vec<Intake>, now: SystemTime) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.node.is_none() {
            member.node = member.outbox.with(|connection| connection.node().cloned());
        }
        for intake in intake {
            match intake {
                Intake::Subscribe(subject) => self.subscribe(id, &subject, now),
                Intake::Unsubscribe(subject) => self.unsubscribe(id, &subject, now),
                Intake::Acked(Subject::Trust, version) => self.trusts(id, &version),
                Intake::Acked(subject, version) => self.answer(id, &subject, &version, None, now),
                Intake::Refused(subject, version, reason) => {
                    self.counters.count_refusal();
                    self.answer(id, &subject, &version, Some(reason), now);
                }
                Intake::Holds(held) => {
                    if let Some(member) = self.members.get_mut(&id) {
                        member.certificate = Some(held);
                    }
                }
            }
        }
    }

    /// A stream has ended.
    pub(super) fn disconnect(&mut self, id: ConnectionId, now: SystemTime) {
        let Some(member) = self.members.get_mut(&id) else { return };
        for subject in std::mem::take(&mut member.subjects) {
            self.leave(id, &subject, now);
        }
        self.members.remove(&id);
        self.counters.stream_closed();
    }

    /// Whether `subject` can be computed in full.
    fn is_servable(&self, subject: &Subject) -> bool {
        self.is_ready() && (*subject != Subject::Trust || self.trust.is_some())
    }

    /// The first lists are in: tell every subscriber, who is sent only what it does not have.
    fn open(&mut self, now: SystemTime) {
        let direct: Vec<Subject> = self.direct.keys().cloned().collect();
        for subject in direct {
            if self.is_servable(&subject) {
                self.recompute(&subject, now);
                self.tell(&subject, now);
            }
        }
        let aliases: Vec<AliasKey> = self.aliases.keys().cloned().collect();
        for key in aliases {
            self.resolve(&key);
            self.tell_alias(&key, now);
        }
    }

    /// Something changed: compute what is subscribed to of it.
    fn publish(&mut self, touched: &Touched, now: SystemTime) {
        let services = touched.services.iter().map(|id| Subject::Service(id.clone()));
        let endpoints = touched.endpoints.iter().map(|id| Subject::Endpoints(id.clone()));
        let workloads = touched.workloads.iter().map(|id| Subject::Workload(id.clone()));
        for subject in services.chain(endpoints).chain(workloads) {
            if !self.is_subscribed(&subject) || !self.is_servable(&subject) {
                continue;
            }
            // Whose a workload is may have changed though it looks the same: then others may see it.
            if self.recompute(&subject, now) || matches!(subject, Subject::Workload(_)) {
                self.tell(&subject, now);
            }
        }
        if touched.names {
            let aliases: Vec<AliasKey> = self.aliases.keys().cloned().collect();
            for key in aliases {
                self.rename(&key, now);
            }
        }
    }

    fn is_subscribed(&self, subject: &Subject) -> bool {
        self.direct.contains_key(subject) || matches!(subject, Subject::Service(id) if self.meaning.contains_key(id))
    }

    /// Brings the encoded state of `subject` up to date; whether it is another than before.
    fn recompute(&mut self, subject: &Subject, now: SystemTime) -> bool {
        let value = self.encode(subject);
        let before = self.resources.get(subject);
        if before.map(|it| it.value()) == value.as_deref() {
            return false;
        }
        match value {
            Some(value) => drop(self.resources.insert(subject.clone(), Arc::new(Encoded::new(subject.clone(), &value)))),
            None => drop(self.resources.remove(subject)),
        }
        if let Subject::Service(service) = subject {
            let version = self.resources.get(subject).map(|it| it.version());
            self.receipts.book(|ledger| ledger.publish(service, version, now));
        }
        true
    }

    fn encode(&self, subject: &Subject) -> Option<Bytes> {
        let value = match subject {
            Subject::Service(id) => encode_service(&self.translator.service(id)?),
            Subject::Endpoints(id) => encode_endpoints(&self.translator.endpoints(id)?),
            Subject::Workload(id) => encode_workload(&self.translator.workload(id)?),
            Subject::Trust => encode_trust(self.trust.as_deref()?),
            Subject::Address(_) | Subject::Host(_) => return None,
        };
        self.counters.count_encoded();
        Some(value)
    }

    /// The present state of `subject`, encoded now if nobody subscribed to it before.
    fn resource(&mut self, subject: &Subject, now: SystemTime) -> Option<Arc<Encoded>> {
        if !self.resources.contains_key(subject) {
            self.recompute(subject, now);
        }
        self.resources.get(subject).cloned()
    }

    /// Hands the state of `subject` to all its subscribers.
    fn tell(&mut self, subject: &Subject, now: SystemTime) {
        let resource = self.resources.get(subject).cloned();
        let watchers: Vec<ConnectionId> = self.direct.get(subject).into_iter().flatten().copied().collect();
        for id in watchers {
            self.deliver(id, subject, resource.as_ref(), now);
        }
        let Subject::Service(service) = subject else { return };
        let aliases: Vec<AliasKey> = self.meaning.get(service).into_iter().flatten().cloned().collect();
        for key in aliases {
            match &resource {
                Some(_) => self.tell_alias(&key, now),
                None => self.rename(&key, now),
            }
        }
    }

    /// Says to everybody who asks for an alias what it means now.
    fn tell_alias(&mut self, key: &AliasKey, now: SystemTime) {
        let Some(alias) = self.aliases.get(key) else { return };
        let watchers: Vec<ConnectionId> = alias.watchers.iter().copied().collect();
        let resource = alias.meaning.clone().and_then(|service| self.resource(&Subject::Service(service), now));
        for id in watchers {
            self.deliver(id, &key.subject, resource.as_ref(), now);
        }
    }

    /// An alias may mean another service than before.
    fn rename(&mut self, key: &AliasKey, now: SystemTime) {
        let before = self.aliases.get(key).and_then(|alias| alias.meaning.clone());
        if !self.resolve(key) {
            return;
        }
        self.tell_alias(key, now);
        if let Some(before) = before {
            let watchers: Vec<ConnectionId> = self.aliases.get(key).into_iter().flat_map(|it| &it.watchers).copied().collect();
            for id in watchers {
                self.release(id, &before, now);
            }
            self.forget_unwatched(&Subject::Service(before));
        }
    }

    /// Notes what an alias means now; whether that is another service than before.
    fn resolve(&mut self, key: &AliasKey) -> bool {
        let found = match (&key.subject, &key.namespace) {
            (Subject::Address(address), _) => self.translator.find_address(*address),
            (Subject::Host(host), Some(namespace)) => self.translator.find_host(host, namespace),
            (Subject::Host(_) | Subject::Service(_) | Subject::Endpoints(_) | Subject::Workload(_) | Subject::Trust, _) => None,
        };
        let found = found.filter(|id| self.translator.service(id).is_some());
        let Some(alias) = self.aliases.get_mut(key) else { return false };
        if alias.meaning == found {
            return false;
        }
        let before = std::mem::replace(&mut alias.meaning, found.clone());
        self.unlink(key, before.as_ref());
        if let Some(service) = found {
            self.meaning.entry(service).or_default().insert(key.clone());
        }
        true
    }

    fn unlink(&mut self, key: &AliasKey, service: Option<&ServiceId>) {
        let Some(service) = service else { return };
        if let Some(keys) = self.meaning.get_mut(service) {
            keys.remove(key);
            if keys.is_empty() {
                self.meaning.remove(service);
            }
        }
    }

    fn deliver(&mut self, id: ConnectionId, subject: &Subject, resource: Option<&Arc<Encoded>>, now: SystemTime) {
        let Some(member) = self.members.get(&id) else { return };
        let resource = resource.filter(|_| self.may_see(member, subject));
        let offered = member.outbox.with(|connection| connection.offer(subject, resource));
        if offered == Offered::Queued {
            self.wakes.insert(id);
        }
        if let (Some(resource), Subject::Trust, Offered::Acked) = (resource, subject, offered) {
            self.trusts(id, resource.version());
        }
        if let Subject::Workload(workload) = subject
            && offered != Offered::Unwanted
        {
            self.book_enforcer(id, workload, resource.map(|it| (it.version(), offered)), now);
        }
        if let Some(resource) = resource
            && let Subject::Service(service) = resource.subject()
            && offered != Offered::Unwanted
        {
            let acked = offered == Offered::Acked;
            self.receipts.book(|ledger| ledger.subscribe(service, resource.version(), id, acked, now));
        }
    }

    /// Books what came of offering a workload's state to its proxy, by the policies that are part of it.
    fn book_enforcer(&self, id: ConnectionId, workload: &WorkloadId, given: Option<(&Name, Offered)>, now: SystemTime) {
        let Some((version, offered)) = given else {
            return self.receipts.book(|ledger| ledger.unenforce(workload, id, now));
        };
        let policies = self
            .translator
            .policies_of(workload)
            .into_iter()
            .map(|(key, generation)| (Topic::of_policy(&key), generation_name(generation)));
        let policies = policies.collect();
        self.receipts.book(|ledger| ledger.enforce(workload, id, (version, offered == Offered::Acked), policies, now));
    }

    /// A policy's version may be another though what it says is not: those who have it have that version too.
    fn restate(&self, touched: &Touched) {
        for key in touched.reports.iter().filter(|key| key.kind == Kind::SecurityPolicy) {
            if let Some(report) = self.translator.report(key) {
                self.receipts.book(|ledger| ledger.restate(&Topic::of_policy(key), &generation_name(report.generation)));
            }
        }
    }

    /// Whether `subject` is any business of the proxy: its own workload is, if it has proven to be that; those of others never are.
    fn may_see(&self, member: &Member, subject: &Subject) -> bool {
        let (Subject::Workload(workload), Caller::Proven(identity)) = (subject, &member.caller) else { return true };
        member.node.as_ref() == Some(workload) && self.translator.identity(workload).as_ref() == Some(identity)
    }

    /// A proxy runs this version of the trust.
    fn trusts(&mut self, id: ConnectionId, version: &Name) {
        if let Some(member) = self.members.get_mut(&id) {
            member.trust = Some(version.clone());
        }
    }

    fn subscribe(&mut self, id: ConnectionId, subject: &Subject, now: SystemTime) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.subjects.insert(subject.clone());
        if !subject.is_alias() {
            self.direct.entry(subject.clone()).or_default().insert(id);
            if self.is_servable(subject) {
                let resource = self.resource(subject, now);
                self.deliver(id, subject, resource.as_ref(), now);
            }
            return;
        }
        let Some(key) = self.alias_key(id, subject) else { return };
        self.aliases.entry(key.clone()).or_default().watchers.insert(id);
        if !self.is_ready() {
            return;
        }
        self.resolve(&key);
        let meaning = self.aliases.get(&key).and_then(|alias| alias.meaning.clone());
        let resource = meaning.and_then(|service| self.resource(&Subject::Service(service), now));
        self.deliver(id, subject, resource.as_ref(), now);
    }

    fn unsubscribe(&mut self, id: ConnectionId, subject: &Subject, now: SystemTime) {
        let was_subscribed = self.members.get_mut(&id).is_some_and(|member| member.subjects.remove(subject));
        if was_subscribed {
            self.leave(id, subject, now);
        }
    }

    /// Takes the connection out of the indexes of a subject that it has dropped.
    fn leave(&mut self, id: ConnectionId, subject: &Subject, now: SystemTime) {
        if !subject.is_alias() {
            if let Some(watchers) = self.direct.get_mut(subject) {
                watchers.remove(&id);
                if watchers.is_empty() {
                    self.direct.remove(subject);
                }
            }
            match subject {
                Subject::Service(service) => self.release(id, service, now),
                Subject::Workload(workload) => self.book_enforcer(id, workload, None, now),
                Subject::Endpoints(_) | Subject::Address(_) | Subject::Host(_) | Subject::Trust => (),
            }
            self.forget_unwatched(subject);
            return;
        }
        let Some(key) = self.alias_key(id, subject) else { return };
        let Some(alias) = self.aliases.get_mut(&key) else { return };
        alias.watchers.remove(&id);
        let meaning = alias.meaning.clone();
        if alias.watchers.is_empty() {
            self.aliases.remove(&key);
            self.unlink(&key, meaning.as_ref());
        }
        if let Some(service) = meaning {
            self.release(id, &service, now);
            self.forget_unwatched(&Subject::Service(service));
        }
    }

    /// Ends the connection's receipt for a service that none of its subscriptions means any more.
    fn release(&self, id: ConnectionId, service: &ServiceId, now: SystemTime) {
        let is_direct = self.direct.get(&Subject::Service(service.clone())).is_some_and(|watchers| watchers.contains(&id));
        let mut aliases = self.meaning.get(service).into_iter().flatten();
        let by_alias = aliases.any(|key| self.aliases.get(key).is_some_and(|alias| alias.watchers.contains(&id)));
        if !is_direct && !by_alias {
            self.receipts.book(|ledger| ledger.unsubscribe(service, id, now));
        }
    }

    fn forget_unwatched(&mut self, subject: &Subject) {
        if !self.is_subscribed(subject) {
            self.resources.remove(subject);
        }
    }

    fn answer(&self, id: ConnectionId, subject: &Subject, version: &Name, reason: Option<String>, now: SystemTime) {
        let node = self.members.get(&id).and_then(|member| member.node.clone());
        let refused = node.zip(reason);
        if let Some((node, reason)) = &refused {
            tracing::warn!(%node, %subject, %reason, "a proxy refused a state");
        }
        self.receipts.book(|ledger| match subject {
            Subject::Service(service) => ledger.answer(service, version, id, refused, now),
            Subject::Workload(workload) => ledger.enforced(workload, version, id, refused, now),
            Subject::Endpoints(_) | Subject::Address(_) | Subject::Host(_) | Subject::Trust => (),
        });
    }

    fn alias_key(&self, id: ConnectionId, subject: &Subject) -> Option<AliasKey> {
        let namespace = match subject {
            Subject::Host(_) => Some(self.members.get(&id)?.node.as_ref()?.namespace.clone()),
            Subject::Service(_) | Subject::Address(_) | Subject::Endpoints(_) | Subject::Workload(_) | Subject::Trust => None,
        };
        Some(AliasKey { subject: subject.clone(), namespace })
    }
}
