//! The proxy's end of the stream: what it subscribes to, what it holds, what it has to say next.
//!
//! A state machine without I/O. The owner calls [`Subscriptions::connected`] when a stream is open, writes whatever
//! [`Subscriptions::next_request`] gives until that is `None`, hands every message it reads to [`Subscriptions::receive`]
//! and acts on the [`Event`]s. Everything survives a lost stream: the next one resumes where the last ended, and the
//! controller sends only what changed.
//!
//! That something was taken (ACK) is said a little later, with what else is said by then: one change of a service that a
//! thousand proxies use would otherwise bring the controller a thousand requests just while it writes. Whatever asks for
//! something, or refuses it, is said at once, and the ACKs that wait go before it: requests keep their order.
//!
//! A resource is kept while any subscription means it. What cannot be decoded is refused (NACK) by name and in words; the
//! last good state of it stays, and the other resources of the same message are taken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use leno_core::endpoints::Endpoints;
use leno_core::names::{ServiceId, WorkloadId};
use leno_core::service::Service;
use leno_core::trust::{Held, Trust};
use leno_core::workload::Workload;
use prost::Message;

use crate::decode::{DecodeError, decode_endpoints, decode_service, decode_workload};
use crate::frame;
use crate::security::{decode_trust, encode_held};
use crate::subject::{ResourceType, Subject};
use crate::wire::{discovery, leno};

/// Subscriptions named in one request: keeps requests far below the controller's limit for a message.
const NAMES_PER_REQUEST: usize = 1_000;
/// Answers that wait to be written. A controller that sends this much ahead is not one of ours.
const ANSWERS_MAX: usize = 1_024;
/// How long an ACK may wait for others. People and `leno` commands look at who runs what: they cannot tell this from at once.
const ACK_WAIT: Duration = Duration::from_millis(50);
/// The same where all that was taken is endpoints, whose ACKs nobody looks at: long enough for the changes of a rollout to share one.
const ENDPOINTS_ACK_WAIT: Duration = Duration::from_secs(15);
/// So many responses are answered at once: far fewer than the controller lets be unanswered (64).
const ACKS_WAITING_MAX: usize = 16;
/// Characters of one refusal's text.
const REASON_CHARS_MAX: usize = 256;
/// google.rpc.Code.INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;
/// The longest message a proxy takes from the controller: more endpoints than a Kubernetes Service has.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a proxy subscribes to and what it holds.
#[derive(Debug)]
pub struct Subscriptions {
    node: String,
    /// The proxy's certificate, which it tells of on each stream.
    certificate: Option<Held>,
    connected: bool,
    introduced: bool,
    stages: BTreeMap<Subject, Stage>,
    /// Subjects whose stage asks for something to be said.
    unsaid: BTreeSet<Subject>,
    /// Versions of the resources held, by canonical name; empty for one that is known not to exist.
    held: BTreeMap<Subject, String>,
    /// What aliases are known to mean; one that has not been answered yet is absent.
    meanings: BTreeMap<Subject, Option<ServiceId>>,
    answers: VecDeque<discovery::DeltaDiscoveryRequest>,
    /// When the answers must be said at the latest; `None` when there are none.
    answer_by: Option<Instant>,
}

/// How far a subscription has come on the present stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be subscribed to; the controller has not heard of it.
    New,
    /// To be subscribed to on a new stream, saying what is held already.
    Resumed,
    /// Dropped and wanted again before the controller was told: subscribing again has it sent again.
    Renewed,
    /// The controller knows.
    Subscribed,
    /// To be unsubscribed from.
    Leaving,
}

/// What a message of the controller brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A service's current state.
    Service(Arc<Service>),
    /// A service port's current endpoints.
    Endpoints(Arc<Endpoints>),
    /// The workload's current state.
    Workload(Arc<Workload>),
    /// By which roots peers are verified now.
    Trust(Arc<Trust>),
    /// The resource of this canonical name does not exist (any more).
    Gone(Subject),
    /// The alias means this service, whose state was told before; or no service of the mesh.
    Alias(Subject, Option<ServiceId>),
    /// No subscription means this resource any more: forget it. No further event will come for it.
    Unused(Subject),
    /// A resource was refused; what was held of it stays.
    Rejected {
        /// Its name.
        name: String,
        /// Why; the controller is told the same.
        reason: String,
    },
}

/// The stream cannot go on: close it and connect again.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The message is no response.
    #[error("the controller sent something that is no DeltaDiscoveryResponse: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// The type was never asked for.
    #[error("the controller sent resources of type {0:?}, which was not subscribed to")]
    Type(String),
    /// More responses than can be answered.
    #[error("the controller sent {ANSWERS_MAX} responses without waiting for an answer")]
    TooManyResponses,
}

impl Subscriptions {
    /// Nothing subscribed yet; `node` is the proxy's own workload, whose namespace host names are relative to.
    pub fn new(node: &WorkloadId) -> Self {
        Self {
            node: node.to_string(),
            certificate: None,
            connected: false,
            introduced: false,
            stages: BTreeMap::new(),
            unsaid: BTreeSet::new(),
            held: BTreeMap::new(),
            meanings: BTreeMap::new(),
            answers: VecDeque::new(),
            answer_by: None,
        }
    }

    /// Wants `subject` from now on. Asking again is harmless.
    pub fn subscribe(&mut self, subject: Subject) {
        let stage = match self.stages.get(&subject) {
            None => Stage::New,
            Some(Stage::Leaving) => Stage::Renewed,
            Some(Stage::New | Stage::Resumed | Stage::Renewed | Stage::Subscribed) => return,
        };
        self.unsaid.insert(subject.clone());
        self.stages.insert(subject, stage);
    }

    /// Wants `subject` no more. Gives the resource that nothing means any longer, if there is one.
    pub fn unsubscribe(&mut self, subject: &Subject) -> Option<Event> {
        match self.stages.get(subject) {
            None | Some(Stage::Leaving) => return None,
            Some(Stage::New | Stage::Resumed) => {
                self.stages.remove(subject);
                self.unsaid.remove(subject);
            }
            Some(Stage::Renewed | Stage::Subscribed) => {
                self.stages.insert(subject.clone(), Stage::Leaving);
                self.unsaid.insert(subject.clone());
            }
        }
        if subject.is_alias() {
            let service = self.meanings.remove(subject)??;
            self.release(Subject::Service(service))
        } else {
            self.release(subject.clone())
        }
    }

    /// A new stream is open: everything is to be said again.
    pub fn connected(&mut self) {
        self.disconnected();
        self.connected = true;
        self.unsaid = self.stages.keys().cloned().collect();
    }

    /// The stream is gone; what is held stays.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.introduced = false;
        self.answers.clear();
        self.answer_by = None;
        self.stages.retain(|_, stage| *stage != Stage::Leaving);
        self.stages.values_mut().for_each(|stage| *stage = Stage::Resumed);
        self.unsaid.clear();
    }

    /// The proxy holds another certificate; the controller is told.
    pub fn holds_certificate(&mut self, held: Held) {
        self.certificate = Some(held);
        if std::mem::take(&mut self.introduced) && self.answers.is_empty() && self.unsaid.is_empty() {
            let type_url = ResourceType::Trust.url().to_owned();
            self.answers.push_back(discovery::DeltaDiscoveryRequest { type_url, ..Default::default() });
        }
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.stages.values().filter(|stage| **stage != Stage::Leaving).count()
    }

    /// Whether nothing is subscribed to.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `subject` is subscribed to.
    pub fn wants(&self, subject: &Subject) -> bool {
        self.stages.get(subject).is_some_and(|stage| *stage != Stage::Leaving)
    }

    /// When [`Subscriptions::next_request`] is to be asked again at the latest, whatever happens; `None`: no answer waits.
    pub fn answer_by(&self) -> Option<Instant> {
        self.answer_by
    }

    /// The next gRPC message to write, with its prefix; `None` when there is nothing to say yet (or no stream to say it on).
    pub fn next_request(&mut self, now: Instant) -> Option<Bytes> {
        let answers_are_due = self.answer_by.is_some_and(|by| by <= now);
        if !self.connected || !(answers_are_due || !self.introduced || !self.unsaid.is_empty()) {
            return None;
        }
        let mut request = match self.answers.pop_front() {
            Some(answer) => answer,
            None => self.subscription_request()?,
        };
        if self.answers.is_empty() {
            self.answer_by = None;
        } else {
            // Once one of them is said, all are.
            self.answer_by = Some(now);
        }
        if !std::mem::replace(&mut self.introduced, true) {
            let certificate = self.certificate.as_ref().map(encode_held).unwrap_or_default();
            request.node = Some(discovery::Node { id: self.node.clone(), certificate });
        }
        Some(frame::encode(&request))
    }

    /// Takes in one message, without its prefix, that came `now`.
    pub fn receive(&mut self, message: Bytes, now: Instant) -> Result<Vec<Event>, ClientError> {
        let response = discovery::DeltaDiscoveryResponse::decode(message)?;
        let of = ResourceType::of_url(&response.type_url).ok_or_else(|| ClientError::Type(response.type_url.clone()))?;
        if self.answers.len() >= ANSWERS_MAX {
            return Err(ClientError::TooManyResponses);
        }
        let mut events = Vec::new();
        for resource in response.resources {
            self.take(of, resource, &mut events);
        }
        for name in response.removed_resources {
            self.remove(of, &name, &mut events);
        }
        let error_detail = refusal(&events);
        let answer = discovery::DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            error_detail,
            ..Default::default()
        };
        let is_urgent = answer.error_detail.is_some() || self.answers.len() + 1 >= ACKS_WAITING_MAX;
        let by = now + if is_urgent { Duration::ZERO } else { ack_wait(of) };
        self.answer_by = Some(self.answer_by.map_or(by, |before| before.min(by)));
        self.answers.push_back(answer);
        Ok(events)
    }

    /// Says the subscriptions of one type that are not said yet.
    fn subscription_request(&mut self) -> Option<discovery::DeltaDiscoveryRequest> {
        let of = self.unsaid.first()?.resource_type();
        let batch: Vec<Subject> =
            self.unsaid.iter().filter(|subject| subject.resource_type() == of).take(NAMES_PER_REQUEST).cloned().collect();
        let mut request = discovery::DeltaDiscoveryRequest { type_url: of.url().to_owned(), ..Default::default() };
        for subject in batch {
            self.unsaid.remove(&subject);
            match self.stages.get(&subject) {
                Some(Stage::Leaving) => {
                    self.stages.remove(&subject);
                    request.resource_names_unsubscribe.push(subject.to_string());
                    continue;
                }
                Some(Stage::Resumed) => self.say_what_is_held(&subject, &mut request.initial_resource_versions),
                Some(Stage::New | Stage::Renewed | Stage::Subscribed) | None => (),
            }
            request.resource_names_subscribe.push(subject.to_string());
            self.stages.insert(subject, Stage::Subscribed);
        }
        Some(request)
    }

    fn say_what_is_held(&self, subject: &Subject, versions: &mut BTreeMap<String, String>) {
        let resource = match self.meanings.get(subject) {
            Some(None) => return drop(versions.insert(subject.to_string(), String::new())),
            Some(Some(service)) => {
                versions.insert(subject.to_string(), service.to_string());
                Subject::Service(service.clone())
            }
            None => subject.clone(),
        };
        if let Some(version) = self.held.get(&resource) {
            versions.insert(resource.to_string(), version.clone());
        }
    }

    /// One resource of a response.
    fn take(&mut self, of: ResourceType, resource: discovery::Resource, events: &mut Vec<Event>) {
        let Some(subject) = canonical(of, &resource.name) else {
            events.push(rejected(resource.name, "the name has not the form of its type"));
            return;
        };
        let told: Vec<Subject> = resource.aliases.iter().filter_map(|alias| Subject::parse(of, alias)).collect();
        let told: Vec<Subject> = told.into_iter().filter(|alias| alias.is_alias() && self.wants(alias)).collect();
        if told.is_empty() && !self.is_meant(&subject) {
            return; // Sent before the controller heard that it is not needed any more.
        }
        let bytes = resource.resource.map(|any| any.value).unwrap_or_default();
        let had = self.holds(&subject);
        match decode(&subject, &bytes) {
            Ok(event) => {
                self.held.insert(subject.clone(), resource.version);
                events.push(event);
            }
            Err(reason) => events.push(rejected(resource.name, &reason)),
        }
        if let Subject::Service(service) = subject {
            self.learn_aliases(told, &service, had, events);
        }
    }

    /// Notes that `told` mean `service`. An alias is announced only once the service's state is there.
    fn learn_aliases(&mut self, told: Vec<Subject>, service: &ServiceId, had: bool, events: &mut Vec<Event>) {
        let is_held = self.holds(&Subject::Service(service.clone()));
        let mut announce: BTreeSet<Subject> = told.iter().cloned().collect();
        let mut left = Vec::new();
        for alias in told {
            if let Some(Some(before)) = self.meanings.insert(alias, Some(service.clone()))
                && before != *service
            {
                left.push(before);
            }
        }
        if is_held && !had {
            let waiting = self.meanings.iter().filter(|(_, meaning)| meaning.as_ref() == Some(service));
            announce.extend(waiting.map(|(alias, _)| alias.clone()));
        }
        let meaning = is_held.then(|| service.clone());
        events.extend(announce.into_iter().map(|alias| Event::Alias(alias, meaning.clone())));
        events.extend(left.into_iter().filter_map(|before| self.release(Subject::Service(before))));
    }

    /// One removed name of a response.
    fn remove(&mut self, of: ResourceType, name: &str, events: &mut Vec<Event>) {
        let Some(subject) = Subject::parse(of, name) else { return };
        if subject.is_alias() {
            if self.wants(&subject) {
                let before = self.meanings.insert(subject.clone(), None).flatten();
                events.push(Event::Alias(subject, None));
                events.extend(before.and_then(|service| self.release(Subject::Service(service))));
            }
            return;
        }
        if self.is_meant(&subject) {
            if let Subject::Service(service) = &subject {
                self.forget_meanings(service, events);
            }
            if self.wants(&subject) {
                self.held.insert(subject.clone(), String::new());
            } else {
                self.held.remove(&subject);
            }
            events.push(Event::Gone(subject));
        }
    }

    /// `service` is gone, so no alias means it.
    fn forget_meanings(&mut self, service: &ServiceId, events: &mut Vec<Event>) {
        for (alias, meaning) in &mut self.meanings {
            if meaning.as_ref() == Some(service) {
                *meaning = None;
                events.push(Event::Alias(alias.clone(), None));
            }
        }
    }

    /// Whether a state of the resource `subject` is held.
    fn holds(&self, subject: &Subject) -> bool {
        self.held.get(subject).is_some_and(|version| !version.is_empty())
    }

    /// Whether a subscription means the resource `subject`.
    fn is_meant(&self, subject: &Subject) -> bool {
        self.wants(subject) || matches!(subject, Subject::Service(id) if self.meanings.values().flatten().any(|it| it == id))
    }

    /// Forgets `subject` if nothing means it.
    fn release(&mut self, subject: Subject) -> Option<Event> {
        if self.is_meant(&subject) {
            return None;
        }
        self.held.remove(&subject).filter(|version| !version.is_empty()).map(|_| Event::Unused(subject))
    }
}

/// How long an ACK of this type may wait.
fn ack_wait(of: ResourceType) -> Duration {
    match of {
        ResourceType::Endpoints => ENDPOINTS_ACK_WAIT,
        ResourceType::Service | ResourceType::Workload | ResourceType::Trust => ACK_WAIT,
    }
}

/// A resource's own name.
fn canonical(of: ResourceType, name: &str) -> Option<Subject> {
    Subject::parse(of, name).filter(|subject| !subject.is_alias())
}

/// The resource in `bytes`, which must be the one that `subject` names.
fn decode(subject: &Subject, bytes: &[u8]) -> Result<Event, String> {
    let words = |error: DecodeError| error.to_string();
    let (event, own) = match subject.resource_type() {
        ResourceType::Service => {
            let service = decode_service(bytes).map_err(words)?;
            let own = Subject::Service(service.id.clone());
            (Event::Service(Arc::new(service)), own)
        }
        ResourceType::Endpoints => {
            let endpoints = decode_endpoints(bytes).map_err(words)?;
            let own = Subject::Endpoints(endpoints.id.clone());
            (Event::Endpoints(Arc::new(endpoints)), own)
        }
        ResourceType::Workload => {
            let workload = decode_workload(bytes).map_err(words)?;
            let own = Subject::Workload(workload.id.clone());
            (Event::Workload(Arc::new(workload)), own)
        }
        ResourceType::Trust => (Event::Trust(Arc::new(decode_trust(bytes).map_err(words)?)), Subject::Trust),
    };
    if own == *subject { Ok(event) } else { Err(format!("the resource inside is {own}")) }
}

fn rejected(name: String, reason: &str) -> Event {
    Event::Rejected { name, reason: reason.chars().take(REASON_CHARS_MAX).collect() }
}

/// The NACK for what was refused; `None` is an ACK.
fn refusal(events: &[Event]) -> Option<discovery::Status> {
    let mut status = discovery::Status { code: INVALID_ARGUMENT, ..Default::default() };
    for event in events {
        if let Event::Rejected { name, reason } = event {
            if status.message.is_empty() {
                status.message = format!("{name}: {reason}");
            }
            let detail = leno::Rejection { name: name.clone(), message: reason.clone() };
            status.details.push(discovery::Any { type_url: REJECTION_URL.to_owned(), value: detail.encode_to_vec().into() });
        }
    }
    (!status.details.is_empty()).then_some(status)
}

/// Type of the details of a NACK.
pub(crate) const REJECTION_URL: &str = "type.googleapis.com/leno.dev.Rejection";
