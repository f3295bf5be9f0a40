//! Both ends of the stream back to back, over a wire that can stall and break.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use leno_core::names::{ServiceId, WorkloadId};
use leno_core::service::Service;
use leno_core::trust::{Held, Trust};
use leno_core::workload::Workload;
use proptest::prelude::*;

use crate::client::{Event, Subscriptions};
use crate::encode::{encode_service, encode_workload};
use crate::frame::Decoder;
use crate::message::Encoded;
use crate::security::encode_trust;
use crate::server::{Connection, Intake, Limits, Offered, ServerError};
use crate::subject::Subject;

/// What exists: services with a revision, and which alias means which. It plays the publisher's part.
#[derive(Default)]
struct World {
    services: BTreeMap<ServiceId, u8>,
    aliases: BTreeMap<Subject, ServiceId>,
}

impl World {
    fn resolve(&self, subject: &Subject) -> Option<Arc<Encoded>> {
        let id = match subject {
            Subject::Service(id) => id,
            Subject::Trust => return Some(Arc::new(Encoded::new(Subject::Trust, &encode_trust(&Trust::default())))),
            Subject::Workload(id) => {
                let workload = Workload::new(id.clone());
                return Some(Arc::new(Encoded::new(subject.clone(), &encode_workload(&workload))));
            }
            Subject::Address(_) | Subject::Host(_) => self.aliases.get(subject)?,
            Subject::Endpoints(_) => return None,
        };
        let revision = self.services.get(id)?;
        Some(Arc::new(Encoded::new(Subject::Service(id.clone()), &encode_service(&service(id, *revision)))))
    }
}

fn service(id: &ServiceId, revision: u8) -> Service {
    let host = format!("r{revision}.example").into();
    Service { hosts: vec![host], ..Service::new(id.clone()) }
}

/// The two ends, the wire between them, and what the client's owner has made of the events.
struct Pair {
    world: World,
    client: Subscriptions,
    server: Connection,
    limits: Limits,
    now: Instant,
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    gone: BTreeSet<Subject>,
    meanings: BTreeMap<Subject, Option<ServiceId>>,
    refused: Vec<(Subject, String)>,
    acked: Vec<Subject>,
    held: Vec<Held>,
    resources_sent: usize,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let mut client = Subscriptions::new(&WorkloadId::new("shop", "web-1"));
        client.connected();
        Self {
            world: World::default(),
            client,
            server: Connection::new(limits),
            limits,
            now: Instant::now(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            services: BTreeMap::new(),
            gone: BTreeSet::new(),
            meanings: BTreeMap::new(),
            refused: Vec::new(),
            acked: Vec::new(),
            held: Vec::new(),
            resources_sent: 0,
        }
    }

    fn reconnect(&mut self) {
        self.up.clear();
        self.down.clear();
        self.server = Connection::new(self.limits);
        self.client.disconnected();
        assert_eq!(self.client.next_request(self.now), None, "nothing is said without a stream");
        self.client.connected();
    }

    /// The world changed in `services`, or in what aliases mean: tell the connection as a publisher does.
    fn publish(&mut self) {
        let mut subscribed: Vec<Subject> = self.server.subscriptions().cloned().collect();
        subscribed.sort();
        for subject in subscribed {
            let resource = self.world.resolve(&subject);
            self.server.offer(&subject, resource.as_ref());
        }
    }

    fn client_writes(&mut self) -> bool {
        let request = self.client.next_request(self.now);
        self.up.extend(request.clone());
        request.is_some()
    }

    fn server_reads(&mut self) -> bool {
        let Some(bytes) = self.up.pop_front() else { return false };
        for intake in self.server.receive(message(&bytes)).unwrap() {
            match intake {
                Intake::Subscribe(subject) => {
                    let resource = self.world.resolve(&subject);
                    self.server.offer(&subject, resource.as_ref());
                }
                Intake::Unsubscribe(_) => (),
                Intake::Acked(subject, _) => self.acked.push(subject),
                Intake::Refused(subject, _, reason) => self.refused.push((subject, reason)),
                Intake::Holds(held) => self.held.push(held),
            }
        }
        true
    }

    fn server_writes(&mut self) -> bool {
        let Some(mut response) = self.server.next_response() else { return false };
        self.resources_sent += response.resources();
        self.down.push_back(response.copy_to_bytes(response.remaining()));
        true
    }

    fn client_reads(&mut self) -> bool {
        let Some(bytes) = self.down.pop_front() else { return false };
        for event in self.client.receive(message(&bytes), self.now).unwrap() {
            self.act(event);
        }
        true
    }

    /// What a proxy does with an event.
    fn act(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                self.gone.remove(&Subject::Service(service.id.clone()));
                drop(self.services.insert(service.id.clone(), service));
            }
            Event::Gone(subject) => {
                if let Subject::Service(id) = &subject {
                    self.services.remove(id);
                }
                self.gone.insert(subject);
            }
            Event::Unused(Subject::Service(id)) => {
                assert!(self.services.remove(&id).is_some(), "{id} was never told");
            }
            Event::Alias(alias, meaning) => {
                if let Some(id) = &meaning {
                    assert!(self.services.contains_key(id), "{alias} was announced before {id} was told");
                }
                self.meanings.insert(alias, meaning);
            }
            Event::Rejected { .. } | Event::Endpoints(_) | Event::Workload(_) | Event::Trust(_) | Event::Unused(_) => (),
        }
    }

    fn unsubscribe(&mut self, subject: &Subject) {
        if let Some(event) = self.client.unsubscribe(subject) {
            self.act(event);
        }
        self.meanings.remove(subject);
        self.gone.remove(subject);
    }

    /// Until nobody has anything to say, even later.
    fn settle(&mut self) {
        loop {
            while self.client_writes() || self.server_reads() || self.server_writes() || self.client_reads() {}
            let Some(by) = self.client.answer_by() else { return };
            self.now = by;
        }
    }

    /// What the law demands: the client holds exactly the present state of what it subscribes to.
    fn check(&self, wanted: &BTreeSet<Subject>) -> Result<(), TestCaseError> {
        let mut needed = BTreeMap::new();
        for subject in wanted {
            let resource = self.world.resolve(subject);
            let id = resource.as_ref().and_then(|it| if let Subject::Service(id) = it.subject() { Some(id.clone()) } else { None });
            if subject.is_alias() {
                prop_assert_eq!(self.meanings.get(subject), Some(&id), "{}", subject);
            } else {
                prop_assert_eq!(self.gone.contains(subject), resource.is_none(), "{}", subject);
            }
            needed.extend(id.map(|id| (id.clone(), Arc::new(service(&id, self.world.services[&id])))));
        }
        prop_assert_eq!(&self.services, &needed);
        prop_assert_eq!(self.client.len(), wanted.len());
        Ok(())
    }
}

/// A framed message without its prefix.
fn message(framed: &Bytes) -> Bytes {
    let mut decoder = Decoder::new(1 << 20);
    decoder.push(framed);
    decoder.next().unwrap().expect("a whole message was written")
}

fn id(index: u8) -> ServiceId {
    ServiceId::new("shop", format!("s{}", index % 3))
}

/// Three services and four aliases.
fn subject(index: u8) -> Subject {
    match index % 7 {
        service @ 0..3 => Subject::Service(id(service)),
        alias @ 3..5 => Subject::Address(([10, 0, 0, alias], 80).into()),
        alias => Subject::Host(format!("h{alias}").into()),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u8),
    Unsubscribe(u8),
    Service(u8, Option<u8>),
    Alias(u8, Option<u8>),
    ClientWrites,
    ServerReads,
    ServerWrites,
    ClientReads,
    Reconnect,
    /// Milliseconds.
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Subscribe),
        2 => any::<u8>().prop_map(Step::Unsubscribe),
        3 => (any::<u8>(), prop::option::weighted(0.8, 0u8..3)).prop_map(|(id, revision)| Step::Service(id, revision)),
        2 => (3u8..7, prop::option::weighted(0.8, 0u8..3)).prop_map(|(alias, id)| Step::Alias(alias, id)),
        4 => Just(Step::ClientWrites),
        4 => Just(Step::ServerReads),
        4 => Just(Step::ServerWrites),
        4 => Just(Step::ClientReads),
        1 => Just(Step::Reconnect),
        2 => (0u16..100).prop_map(Step::Wait),
    ]
}

impl Pair {
    fn step(&mut self, step: &Step, wanted: &mut BTreeSet<Subject>) {
        match *step {
            Step::Subscribe(index) => {
                self.client.subscribe(subject(index));
                wanted.insert(subject(index));
            }
            Step::Unsubscribe(index) => {
                self.unsubscribe(&subject(index));
                wanted.remove(&subject(index));
            }
            Step::Service(index, revision) => {
                match revision {
                    Some(revision) => self.world.services.insert(id(index), revision),
                    None => self.world.services.remove(&id(index)),
                };
                self.publish();
            }
            Step::Alias(index, meaning) => {
                match meaning {
                    Some(service) => self.world.aliases.insert(subject(index), id(service)),
                    None => self.world.aliases.remove(&subject(index)),
                };
                self.publish();
            }
            Step::ClientWrites => drop(self.client_writes()),
            Step::ServerReads => drop(self.server_reads()),
            Step::ServerWrites => drop(self.server_writes()),
            Step::ClientReads => drop(self.client_reads()),
            Step::Reconnect => self.reconnect(),
            Step::Wait(wait_ms) => self.now += Duration::from_millis(wait_ms.into()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// Whatever is subscribed, changed, delayed, dropped and reconnected, and in whatever order: once everything is
    /// delivered, the client has exactly what the controller has of what it subscribes to; and a reconnect moves nothing.
    #[test]
    fn the_client_ends_with_exactly_what_it_subscribes_to(steps in prop::collection::vec(step(), 0..80), unanswered in 1usize..4) {
        let mut pair = Pair::new(Limits { unanswered, ..Limits::default() });
        let mut wanted = BTreeSet::new();
        for step in steps {
            pair.step(&step, &mut wanted);
        }
        pair.settle();
        pair.check(&wanted)?;

        pair.reconnect();
        pair.resources_sent = 0;
        pair.settle();
        pair.check(&wanted)?;
        prop_assert_eq!(pair.resources_sent, 0, "a reconnect with nothing changed sends nothing");
        prop_assert!(pair.refused.is_empty());
    }
}

proptest! {
    /// Whatever a client sends, and whatever was flipped in it, the controller's end answers or refuses, and stays bounded.
    #[test]
    fn damaged_requests_never_bring_the_controller_down(
        indices in prop::collection::vec(any::<u8>(), 0..20), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut client = Subscriptions::new(&WorkloadId::new("shop", "web-1"));
        client.connected();
        indices.iter().for_each(|index| client.subscribe(subject(*index)));
        let mut server = Connection::new(Limits { subscriptions: 5, ..Limits::default() });
        while let Some(request) = client.next_request(Instant::now()) {
            let mut bytes = message(&request).to_vec();
            for (at, flip) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            drop(server.receive(bytes.into()));
            prop_assert!(server.subscriptions().count() <= 5);
        }
        while server.next_response().is_some() {}
    }
}

fn payment() -> (ServiceId, Subject) {
    (id(0), Subject::Service(id(0)))
}

#[test]
fn a_refused_resource_is_named_with_its_reason_and_the_last_good_state_stays() {
    let mut pair = Pair::new(Limits::default());
    let (payment, subject) = payment();
    let (cart, cart_subject) = (id(1), Subject::Service(id(1)));
    pair.world.services.extend([(payment.clone(), 1), (cart.clone(), 1)]);
    pair.client.subscribe(subject.clone());
    pair.client.subscribe(cart_subject.clone());
    pair.settle();
    pair.acked.clear();

    let broken = Arc::new(Encoded::new(subject.clone(), b"\xff"));
    assert_eq!(pair.server.update(&broken), Offered::Queued);
    pair.world.services.insert(cart.clone(), 2);
    let resource = pair.world.resolve(&cart_subject);
    pair.server.offer(&cart_subject, resource.as_ref());
    pair.settle();

    let [(refused, reason)] = pair.refused.as_slice() else { unreachable!("{:?}", pair.refused) };
    assert_eq!(*refused, subject);
    assert!(reason.contains("not a protobuf message"), "{reason}");
    assert_eq!(pair.acked, [cart_subject], "the other resource of the same response is taken");
    assert_eq!(*pair.services[&payment], service(&payment, 1));
    assert_eq!(*pair.services[&cart], service(&cart, 2));

    pair.publish();
    pair.settle();
    assert_eq!(pair.acked.last(), Some(&subject), "the good state is sent again, since the client was last sent another");
}

#[test]
fn a_resource_that_carries_another_name_inside_is_refused() {
    let mut pair = Pair::new(Limits::default());
    let (_, subject) = payment();
    pair.client.subscribe(subject.clone());
    pair.settle();
    let other = Arc::new(Encoded::new(subject, &encode_service(&service(&id(1), 1))));
    pair.server.update(&other);
    pair.settle();
    assert_eq!(pair.refused[0].1, "the resource inside is shop/s1");
    assert!(pair.services.is_empty());
}

#[test]
fn newer_states_replace_older_ones_that_still_wait() {
    let mut pair = Pair::new(Limits::default());
    let (payment, subject) = payment();
    pair.client.subscribe(subject.clone());
    pair.settle();
    for revision in 0..100 {
        pair.world.services.insert(payment.clone(), revision);
        pair.publish();
    }
    pair.settle();
    assert_eq!(pair.resources_sent, 1);
    assert_eq!(*pair.services[&payment], service(&payment, 99));
}

#[test]
fn a_proxy_that_answers_nothing_is_sent_no_more_than_the_limit() {
    let mut pair = Pair::new(Limits { unanswered: 3, ..Limits::default() });
    let (payment, subject) = payment();
    pair.client.subscribe(subject);
    pair.client_writes();
    pair.server_reads();
    for revision in 0..10 {
        pair.world.services.insert(payment.clone(), revision);
        pair.publish();
        pair.server_writes();
    }
    assert_eq!(pair.down.len(), 3);
    assert!(pair.server.has_waiting());
    pair.settle();
    assert_eq!(*pair.services[&payment], service(&payment, 9));
}

/// A client that runs `service` of each of three services, and has said so.
fn pair_with_three() -> Pair {
    let mut pair = Pair::new(Limits::default());
    for index in 0..3 {
        pair.world.services.insert(id(index), 0);
        pair.client.subscribe(Subject::Service(id(index)));
    }
    pair.settle();
    pair.acked.clear();
    pair
}

impl Pair {
    /// One service has another state, and the client takes it in.
    fn change(&mut self, index: u8, revision: u8) {
        self.world.services.insert(id(index), revision);
        self.publish();
        assert!(self.server_writes() && self.client_reads());
    }

    /// So many requests the client has to write now.
    fn said(&mut self) -> usize {
        std::iter::from_fn(|| self.client_writes().then_some(())).count()
    }
}

#[test]
fn an_acknowledgement_waits_for_others_and_a_refusal_does_not() {
    let mut pair = pair_with_three();
    let began = pair.now;
    pair.change(0, 1);
    pair.now = began + Duration::from_millis(30);
    pair.change(1, 1);
    assert_eq!(pair.said(), 0, "both wait");
    assert_eq!(pair.client.answer_by(), Some(began + Duration::from_millis(50)), "the first says for how long");
    pair.now = began + Duration::from_millis(50);
    assert_eq!((pair.said(), pair.client.answer_by()), (2, None), "they go together");

    pair.change(2, 1);
    let broken = Arc::new(Encoded::new(Subject::Service(id(0)), b"\xff"));
    pair.server.update(&broken);
    assert!(pair.server_writes() && pair.client_reads());
    assert_eq!(pair.said(), 2, "the refusal takes along what waits");
    while pair.server_reads() {}
    assert_eq!((pair.acked.len(), pair.refused.len()), (3, 1));
}

#[test]
fn whatever_else_is_said_takes_the_waiting_acknowledgements_along_in_front_of_it() {
    let mut pair = pair_with_three();
    pair.change(0, 1);
    pair.client.subscribe(subject(5));
    assert_eq!(pair.said(), 2);
    assert!(pair.server_reads());
    assert_eq!(pair.acked, [Subject::Service(id(0))], "the answer is the first of the two");
    pair.settle();

    pair.change(1, 1);
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    pair.client.holds_certificate(Held { identity, serial: "1".into(), not_after: 7, issuer: vec![1] });
    assert_eq!(pair.said(), 1, "news of the certificate rides on the answer");
    assert!(pair.server_reads());
    assert_eq!((pair.held.len(), pair.acked.last()), (1, Some(&Subject::Service(id(1)))));
}

#[test]
fn so_many_acknowledgements_wait_and_no_more() {
    let mut pair = pair_with_three();
    for revision in 1..16 {
        pair.change(0, revision);
        assert_eq!(pair.said(), 0);
    }
    pair.change(0, 16);
    assert_eq!(pair.said(), 16);
    pair.change(0, 17);
    pair.reconnect();
    assert_eq!(pair.client.answer_by(), None, "what was sent on a lost stream is not answered on the next");
}

#[test]
fn acknowledgements_of_endpoints_alone_wait_longer_than_those_that_people_look_at() {
    let mut pair = pair_with_three();
    let began = pair.now;
    let endpoints = Subject::Endpoints("shop/s0:80".parse().unwrap());
    pair.client.subscribe(endpoints.clone());
    assert_eq!(pair.said(), 1);
    while pair.server_reads() {}
    assert!(pair.server_writes() && pair.client_reads());
    assert_eq!(pair.client.answer_by(), Some(began + Duration::from_secs(15)));
    pair.change(0, 1);
    assert_eq!(pair.client.answer_by(), Some(began + Duration::from_millis(50)), "the more urgent one counts for both");
}

#[test]
fn the_subscription_above_the_limit_ends_the_stream_in_words() {
    let mut pair = Pair::new(Limits { subscriptions: 2, ..Limits::default() });
    for index in 0..3 {
        pair.client.subscribe(subject(index));
    }
    pair.client_writes();
    let error = pair.server.receive(message(&pair.up[0])).unwrap_err();
    assert!(matches!(error, ServerError::TooManySubscriptions(2)), "{error}");
}

#[test]
fn many_subscriptions_are_said_and_answered_in_messages_of_bounded_size() {
    let mut pair = Pair::new(Limits::default());
    let all = || (0..10_000).map(|index| ServiceId::new("shop", format!("service-with-a-long-name-{index}")));
    pair.world.services.extend(all().map(|id| (id, 1)));
    all().for_each(|id| pair.client.subscribe(Subject::Service(id)));
    while pair.client_writes() {}
    assert!(pair.up.iter().all(|message| message.len() < 128 * 1024));
    pair.settle();
    pair.reconnect();
    while pair.client_writes() {}
    assert!(pair.up.iter().all(|message| message.len() < 256 * 1024));
    assert_eq!(pair.services.len(), 10_000);
    while pair.server_reads() {}
    assert!(!pair.server_writes(), "the client said what it holds");
}

#[test]
fn a_first_request_without_a_name_is_refused_in_words() {
    let mut client = Subscriptions::new(&WorkloadId::new("", ""));
    client.connected();
    client.subscribe(subject(0));
    let request = client.next_request(Instant::now()).unwrap();
    let error = Connection::new(Limits::default()).receive(message(&request)).unwrap_err();
    assert!(error.to_string().contains("node.id = NAMESPACE/POD"), "{error}");
}

#[test]
fn the_controller_hears_of_each_certificate_on_the_stream_and_again_on_the_next() {
    let mut pair = Pair::new(Limits::default());
    let held = |serial: &str| Held {
        identity: "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
        serial: serial.into(),
        not_after: 7,
        issuer: vec![1],
    };
    pair.client.subscribe(Subject::Trust);
    pair.client.holds_certificate(held("1"));
    pair.settle();
    pair.client.holds_certificate(held("2"));
    pair.settle();
    assert_eq!(pair.held, [held("1"), held("2")]);
    pair.reconnect();
    pair.settle();
    assert_eq!(pair.held[2..], [held("2")]);
}

#[test]
fn names_and_types_that_the_controller_does_not_know_are_answered_as_absent() {
    use crate::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
    use prost::Message;
    let mut server = Connection::new(Limits::default());
    for url in ["type.googleapis.com/leno.dev.Service", "type.googleapis.com/leno.dev.FromTheFuture"] {
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: "shop/web-1".into(), ..Default::default() }),
            type_url: url.into(),
            resource_names_subscribe: vec!["no-name-of-ours".into()],
            ..Default::default()
        };
        assert_eq!(server.receive(request.encode_to_vec().into()).unwrap(), []);
        let mut response = server.next_response().expect("an answer");
        let response = message(&response.copy_to_bytes(response.remaining()));
        let response = DeltaDiscoveryResponse::decode(response).unwrap();
        assert_eq!((response.type_url.as_str(), response.removed_resources), (url, vec!["no-name-of-ours".to_owned()]));
    }
}
