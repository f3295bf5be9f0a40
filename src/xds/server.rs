//! The controller's end of one proxy's stream: what the proxy subscribes to, what it knows, what waits to be sent.
//!
//! A state machine without I/O. What the proxy sends goes into [`Connection::receive`], which gives what the publisher has to
//! know ([`Intake`]). The publisher says what subjects mean with [`Connection::offer`] and what changed with
//! [`Connection::update`]; whoever writes to the stream takes [`Connection::next_response`] whenever there is room. Until
//! then newer states of a resource replace older ones, so a slow proxy gets the latest state and never a backlog.
//!
//! Everything is bounded by [`Limits`]: subscriptions, responses that the proxy has not answered, bytes of a response.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use indexmap::IndexMap;
use leno_core::names::{Name, ServiceId, WorkloadId};
use leno_core::trust::Held;
use prost::Message as _;

use crate::client::REJECTION_URL;
use crate::decode::DecodeError;
use crate::message::{Builder, Encoded, Message};
use crate::security::decode_held;
use crate::subject::{ResourceType, Subject};
use crate::wire::{discovery, leno};

/// Resources and removed names of one response: keeps the proxy's answer, which may refuse each one, below the limit of a message.
const NAMES_PER_RESPONSE: usize = 500;
/// Characters kept of a proxy's reason for refusing something.
const REASON_CHARS_MAX: usize = 512;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Subscriptions of one proxy.
    pub subscriptions: usize,
    /// Responses that may be on their way; with so many unanswered, changes wait and newer ones replace older ones.
    pub unanswered: usize,
    /// A response takes in no further resource once it is this long.
    pub response_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { subscriptions: 10_000, unanswered: 64, response_bytes: 256 * 1024 }
    }
}

/// What the publisher has to know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// The proxy wants `Subject`: offer what it means now.
    Subscribe(Subject),
    /// The proxy wants it no more.
    Unsubscribe(Subject),
    /// The proxy runs this version of a resource.
    Acked(Subject, Name),
    /// The proxy refused this version of a resource, for this reason.
    Refused(Subject, Name, String),
    /// The proxy says which certificate it holds.
    Holds(Held),
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Nobody subscribes to it (any more).
    Unwanted,
    /// It will be sent: wake whoever writes.
    Queued,
    /// The proxy was sent this already and has not answered yet.
    Sent,
    /// The proxy runs this already.
    Acked,
}

/// The stream must end, for this reason.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The message is no request.
    #[error("the message is no DeltaDiscoveryRequest: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Who asks is unknown.
    #[error("the first request must carry node.id = NAMESPACE/POD, and no later one another; got {0:?}")]
    Node(String),
    /// The certificate it tells of cannot be read.
    #[error("node.certificate: {0}")]
    Certificate(#[from] DecodeError),
    /// Too many subscriptions.
    #[error("a proxy may subscribe to {0} resources; drop those that are idle")]
    TooManySubscriptions(usize),
}

/// The state of one proxy's stream.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    node: Option<WorkloadId>,
    subscribed: HashSet<Subject>,
    /// What the proxy knows of canonical names once everything that waits is delivered.
    known: HashMap<Subject, Known>,
    /// The same for aliases.
    meanings: HashMap<Subject, Option<ServiceId>>,
    /// How many aliases mean a service.
    meant: HashMap<ServiceId, usize>,
    /// What waits to be said of whom, oldest first but for what took a place that was given up. `None`: that it is gone, or that the alias means nothing.
    waiting: IndexMap<Subject, Option<State>, foldhash::fast::RandomState>,
    /// Names that no controller of this version knows: answered as absent.
    strangers: BTreeMap<String, BTreeSet<String>>,
    nonces: u64,
    /// By nonce, which only grows.
    unanswered: VecDeque<(u64, Vec<(Subject, Name)>)>,
}

#[derive(Debug)]
enum Known {
    Version { version: Name, acked: bool },
    Absent,
}

impl Known {
    /// What a proxy knows that `resource` is on its way to.
    fn sent(resource: &Encoded) -> Self {
        Self::Version { version: resource.version().clone(), acked: false }
    }
}

/// A resource, and the aliases that mean it from now on.
type State = (Arc<Encoded>, Vec<Subject>);

impl Connection {
    /// A connection that has said nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            node: None,
            subscribed: HashSet::default(),
            known: HashMap::default(),
            meanings: HashMap::default(),
            meant: HashMap::default(),
            waiting: IndexMap::default(),
            strangers: BTreeMap::new(),
            nonces: 0,
            unanswered: VecDeque::new(),
        }
    }

    /// Whose proxy this is, once it has said so.
    pub fn node(&self) -> Option<&WorkloadId> {
        self.node.as_ref()
    }

    /// What it subscribes to.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Subject> {
        self.subscribed.iter()
    }

    /// Takes in one message, without its prefix.
    pub fn receive(&mut self, message: Bytes) -> Result<Vec<Intake>, ServerError> {
        let request = discovery::DeltaDiscoveryRequest::decode(message)?;
        let mut intake = Vec::new();
        self.introduce(request.node, &mut intake)?;
        self.answer(&request.response_nonce, request.error_detail.as_ref(), &mut intake);
        let Some(of) = ResourceType::of_url(&request.type_url) else {
            self.refuse_strangers(&request.type_url, request.resource_names_subscribe)?;
            return Ok(intake);
        };
        for name in &request.resource_names_unsubscribe {
            let subject = Subject::parse(of, name).filter(|subject| self.unsubscribe(subject));
            intake.extend(subject.map(Intake::Unsubscribe));
        }
        let mut strangers = Vec::new();
        for name in request.resource_names_subscribe {
            let Some(subject) = Subject::parse(of, &name) else {
                strangers.push(name);
                continue;
            };
            self.subscribe(&subject, &name, &request.initial_resource_versions)?;
            intake.push(Intake::Subscribe(subject));
        }
        self.refuse_strangers(&request.type_url, strangers)?;
        Ok(intake)
    }

    /// Takes in who the proxy is: on its first request for good, later only to tell of another certificate.
    fn introduce(&mut self, node: Option<discovery::Node>, intake: &mut Vec<Intake>) -> Result<(), ServerError> {
        let discovery::Node { id, certificate } = node.unwrap_or_default();
        match &self.node {
            None => self.node = Some(id.parse().ok().ok_or(ServerError::Node(id))?),
            Some(node) if id.is_empty() || node.to_string() == id => (),
            Some(_) => return Err(ServerError::Node(id)),
        }
        if !certificate.is_empty() {
            intake.push(Intake::Holds(decode_held(&certificate)?));
        }
        Ok(())
    }

    /// Says what the subscription `subject` means now: this resource, or nothing.
    pub fn offer(&mut self, subject: &Subject, resource: Option<&Arc<Encoded>>) -> Offered {
        if !self.subscribed.contains(subject) {
            return Offered::Unwanted;
        }
        match (subject.is_alias(), resource) {
            (true, resource) => self.offer_alias(subject, resource),
            (false, Some(resource)) => self.say(resource),
            (false, None) => {
                if matches!(self.known.get(subject), Some(Known::Absent)) {
                    return Offered::Acked;
                }
                self.known.insert(subject.clone(), Known::Absent);
                self.enqueue_absence(subject);
                Offered::Queued
            }
        }
    }

    /// Says that a resource has this state now.
    pub fn update(&mut self, resource: &Arc<Encoded>) -> Offered {
        if self.is_meant(resource.subject()) { self.say(resource) } else { Offered::Unwanted }
    }

    /// The same of a resource that a subscription is known to mean.
    fn say(&mut self, resource: &Arc<Encoded>) -> Offered {
        let subject = resource.subject();
        match self.known.get_mut(subject) {
            Some(Known::Version { version, acked }) if version == resource.version() => {
                return if *acked { Offered::Acked } else { Offered::Sent };
            }
            Some(known) => *known = Known::sent(resource),
            None => drop(self.known.insert(subject.clone(), Known::sent(resource))),
        }
        self.enqueue_resource(resource, None);
        Offered::Queued
    }

    /// The next response to write; `None` when nothing waits or too much is unanswered.
    pub fn next_response(&mut self) -> Option<Message> {
        if self.unanswered.len() >= self.limits.unanswered {
            return None;
        }
        if let Some((url, names)) = self.strangers.pop_first() {
            let mut builder = Builder::new(&url, self.nonce(Vec::new()));
            names.iter().for_each(|name| builder.removed(name));
            return Some(builder.finish());
        }
        let of = self.waiting.first()?.0.resource_type();
        Some(self.response_of(of))
    }

    /// A response with what waits of one type, in order.
    fn response_of(&mut self, of: ResourceType) -> Message {
        let mut builder = Builder::new(of.url(), self.nonces + 1);
        let (mut names, mut sent) = (0, Vec::new());
        self.waiting.retain(|subject, state| {
            if subject.resource_type() != of || names == NAMES_PER_RESPONSE || builder.len() >= self.limits.response_bytes {
                return true;
            }
            names += 1;
            match state {
                None => builder.removed(&subject.to_string()),
                Some((resource, aliases)) => {
                    builder.resource(resource, aliases);
                    sent.push((resource.subject().clone(), resource.version().clone()));
                }
            }
            false
        });
        self.nonce(sent);
        builder.finish()
    }

    /// Whether something waits to be sent.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.strangers.is_empty()
    }

    /// Counts a response and notes what its answer will be about.
    fn nonce(&mut self, sent: Vec<(Subject, Name)>) -> u64 {
        self.nonces += 1;
        self.unanswered.push_back((self.nonces, sent));
        self.nonces
    }

    /// Takes out what the response with this nonce was about, if it is unanswered.
    fn answered(&mut self, nonce: &str) -> Option<Vec<(Subject, Name)>> {
        let nonce: u64 = nonce.parse().ok()?;
        let place = self.unanswered.binary_search_by_key(&nonce, |(nonce, _)| *nonce).ok()?;
        self.unanswered.remove(place).map(|(_, sent)| sent)
    }

    fn answer(&mut self, nonce: &str, refusal: Option<&discovery::Status>, intake: &mut Vec<Intake>) {
        let Some(sent) = self.answered(nonce) else { return };
        let reasons = refusal.map(reasons);
        for (subject, version) in sent {
            let reason = match (&reasons, refusal) {
                (Some(reasons), Some(refusal)) if reasons.is_empty() => Some(&refusal.message),
                (Some(reasons), _) => reasons.get(&subject.to_string()),
                (None, _) => None,
            };
            if let Some(reason) = reason {
                let reason = reason.chars().take(REASON_CHARS_MAX).collect();
                intake.push(Intake::Refused(subject, version, reason));
                continue;
            }
            if let Some(Known::Version { version: known, acked }) = self.known.get_mut(&subject)
                && *known == version
            {
                *acked = true;
            }
            intake.push(Intake::Acked(subject, version));
        }
    }

    fn subscribe(&mut self, subject: &Subject, name: &str, held: &BTreeMap<String, String>) -> Result<(), ServerError> {
        if !self.subscribed.contains(subject) {
            if self.subscribed.len() >= self.limits.subscriptions {
                return Err(ServerError::TooManySubscriptions(self.limits.subscriptions));
            }
            self.subscribed.insert(subject.clone());
        }
        match held.get(name) {
            None => self.forget(subject),
            Some(meaning) if subject.is_alias() => {
                if self.meanings.contains_key(subject) {
                    return Ok(());
                }
                let service: Option<ServiceId> = meaning.parse().ok();
                self.set_meaning(subject, service.clone());
                if let (Some(service), Some(version)) = (service, held.get(meaning)) {
                    self.presume(Subject::Service(service), version);
                }
            }
            Some(version) => self.presume(subject.clone(), version),
        }
        Ok(())
    }

    /// A proxy that subscribes without saying what it holds is sent the present state, whatever it was sent before.
    fn forget(&mut self, subject: &Subject) {
        if subject.is_alias() {
            self.clear_meaning(subject);
        } else if !self.waiting.contains_key(subject) {
            self.known.remove(subject);
        }
    }

    /// The proxy says that it holds `version`, unless more recent word went to it on this stream.
    fn presume(&mut self, subject: Subject, version: &str) {
        let known = if version.is_empty() { Known::Absent } else { Known::Version { version: version.into(), acked: true } };
        self.known.entry(subject).or_insert(known);
    }

    fn unsubscribe(&mut self, subject: &Subject) -> bool {
        let was_subscribed = self.subscribed.remove(subject);
        if subject.is_alias() {
            self.dequeue(subject);
            self.clear_meaning(subject);
        } else {
            self.release(subject);
        }
        was_subscribed
    }

    fn refuse_strangers(&mut self, url: &str, names: Vec<String>) -> Result<(), ServerError> {
        if names.is_empty() {
            return Ok(());
        }
        let count: usize = self.strangers.values().map(BTreeSet::len).sum();
        if count + names.len() > self.limits.subscriptions {
            return Err(ServerError::TooManySubscriptions(self.limits.subscriptions));
        }
        self.strangers.entry(url.to_owned()).or_default().extend(names);
        Ok(())
    }

    fn offer_alias(&mut self, alias: &Subject, resource: Option<&Arc<Encoded>>) -> Offered {
        let Some(resource) = resource else {
            if self.meanings.get(alias) == Some(&None) {
                return Offered::Acked;
            }
            self.set_meaning(alias, None);
            self.enqueue_absence(alias);
            return Offered::Queued;
        };
        let Subject::Service(service) = resource.subject() else { return Offered::Unwanted };
        if self.meanings.get(alias) == Some(&Some(service.clone())) {
            return self.update(resource);
        }
        self.dequeue(alias);
        self.set_meaning(alias, Some(service.clone()));
        self.known.insert(resource.subject().clone(), Known::sent(resource));
        self.enqueue_resource(resource, Some(alias));
        Offered::Queued
    }

    fn set_meaning(&mut self, alias: &Subject, meaning: Option<ServiceId>) {
        if let Some(service) = &meaning {
            *self.meant.entry(service.clone()).or_default() += 1;
        }
        let before = self.meanings.insert(alias.clone(), meaning);
        self.left(alias, before.flatten());
    }

    fn clear_meaning(&mut self, alias: &Subject) {
        let before = self.meanings.remove(alias);
        self.left(alias, before.flatten());
    }

    /// `alias` means `service` no more.
    fn left(&mut self, alias: &Subject, service: Option<ServiceId>) {
        let Some(service) = service else { return };
        if let Some(count) = self.meant.get_mut(&service) {
            *count -= 1;
            if *count == 0 {
                self.meant.remove(&service);
            }
        }
        let subject = Subject::Service(service);
        if let Some(Some((_, aliases))) = self.waiting.get_mut(&subject) {
            aliases.retain(|it| it != alias);
        }
        self.release(&subject);
    }

    /// Whether a subscription means the resource `subject`.
    fn is_meant(&self, subject: &Subject) -> bool {
        self.subscribed.contains(subject) || matches!(subject, Subject::Service(id) if self.meant.contains_key(id))
    }

    /// The proxy forgets what nothing means, so it is to be sent again when something does.
    fn release(&mut self, subject: &Subject) {
        if !self.is_meant(subject) {
            self.known.remove(subject);
            self.dequeue(subject);
        }
    }

    fn enqueue_resource(&mut self, resource: &Arc<Encoded>, alias: Option<&Subject>) {
        let waiting = self.waiting.entry(resource.subject().clone()).or_default();
        let mut aliases = waiting.take().map(|(_, aliases)| aliases).unwrap_or_default();
        aliases.extend(alias.filter(|alias| !aliases.contains(alias)).cloned());
        *waiting = Some((resource.clone(), aliases));
    }

    /// Puts the word that `subject` is gone in the place of an earlier one, or last.
    fn enqueue_absence(&mut self, subject: &Subject) {
        self.waiting.insert(subject.clone(), None);
    }

    /// What came last takes the place: nobody waits longer for it, and a proxy that drops thousands of names costs no more than they are.
    fn dequeue(&mut self, subject: &Subject) {
        self.waiting.swap_remove(subject);
    }
}

/// The reasons in a NACK, by resource name; none when it does not say which resource it is about.
fn reasons(status: &discovery::Status) -> BTreeMap<String, String> {
    let rejections = status.details.iter().filter(|detail| detail.type_url == REJECTION_URL);
    let rejections = rejections.filter_map(|detail| leno::Rejection::decode(detail.value.clone()).ok());
    rejections.map(|it| (it.name, it.message)).collect()
}
