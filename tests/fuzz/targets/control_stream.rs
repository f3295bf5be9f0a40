//! The proxy's end of the control stream: whatever the controller sends, in whatever pieces, is answered or refused.
//!
//! The first byte chooses: 0 takes the rest as the stream's bytes (the second byte says where they are split), 1 to 4 as the
//! bytes of one resource that was subscribed to, 5 and above as a response message.
#![no_main]

use std::time::Instant;

use bytes::Bytes;
use leno_core::endpoints::EndpointsId;
use leno_core::names::{ServiceId, WorkloadId};
use leno_xds::client::{Event, Subscriptions};
use leno_xds::decode::{decode_endpoints, decode_service, decode_workload};
use leno_xds::encode::{encode_endpoints, encode_service, encode_workload};
use leno_xds::frame::{self, Decoder};
use leno_xds::security::{decode_trust, encode_trust};
use leno_xds::subject::{ResourceType, Subject};
use leno_xds::wire::discovery;
use libfuzzer_sys::fuzz_target;
use prost::Message;

const MESSAGE_BYTES_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    match input {
        [0, step, stream @ ..] => check_stream(stream, usize::from(*step).max(1)),
        [choice @ 1..=4, resource @ ..] => check_resource(ResourceType::ALL[usize::from(*choice) - 1], resource),
        [_, message @ ..] => drop(receive(&mut subscribed(), Bytes::copy_from_slice(message))),
        [] => {}
    }
});

fn subjects() -> [Subject; 6] {
    let service = ServiceId::new("shop", "payment");
    [
        Subject::Service(service.clone()),
        Subject::Endpoints(EndpointsId::new(service, 80)),
        Subject::Workload(WorkloadId::new("shop", "web-1")),
        Subject::Trust,
        Subject::Host("payment".into()),
        Subject::Address(([10, 96, 0, 5], 80).into()),
    ]
}

/// Everything is subscribed to, and the controller has heard it.
fn subscribed() -> Subscriptions {
    let mut subscriptions = Subscriptions::new(&WorkloadId::new("shop", "web-1"));
    subjects().into_iter().for_each(|subject| subscriptions.subscribe(subject));
    subscriptions.connected();
    while subscriptions.next_request(Instant::now()).is_some() {}
    subscriptions
}

fn check_stream(stream: &[u8], step: usize) {
    let (whole, split) = (messages(stream, stream.len().max(1)), messages(stream, step));
    assert_eq!(split, whole, "split reads give other messages");
    let mut subscriptions = subscribed();
    for message in whole.0 {
        if receive(&mut subscriptions, message).is_none() {
            return;
        }
    }
}

/// The messages up to the first error, and whether there was one.
fn messages(stream: &[u8], step: usize) -> (Vec<Bytes>, bool) {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut messages = Vec::new();
    for piece in stream.chunks(step) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
        assert!(decoder.buffered() < MESSAGE_BYTES_MAX + frame::PREFIX_BYTES, "more is held than one message");
    }
    (messages, false)
}

/// One response gives one answer in time, with its nonce, and a refusal in it exactly if something was refused; that is said at once.
fn receive(subscriptions: &mut Subscriptions, message: Bytes) -> Option<Vec<Event>> {
    let response = discovery::DeltaDiscoveryResponse::decode(message.clone());
    let now = Instant::now();
    let events = subscriptions.receive(message, now).ok()?;
    let response = response.expect("it was decoded before");
    let by = subscriptions.answer_by().expect("every response is answered");
    let answer = subscriptions.next_request(by).expect("it is time");
    let answer = discovery::DeltaDiscoveryRequest::decode(&answer[frame::PREFIX_BYTES..]).expect("an answer is a request");
    assert_eq!((answer.response_nonce, answer.type_url), (response.nonce, response.type_url));
    let refused = events.iter().filter(|event| matches!(event, Event::Rejected { .. })).count();
    assert_eq!(answer.error_detail.map_or(0, |status| status.details.len()), refused, "refusals are told one by one");
    assert!(refused == 0 || by == now, "a refusal does not wait");
    assert!(subscriptions.next_request(by).is_none(), "nothing else is to be said");
    for subject in subjects() {
        assert!(subscriptions.wants(&subject), "a subscription is lost");
    }
    Some(events)
}

/// What is decoded is encoded to what decodes to the same.
fn check_resource(of: ResourceType, bytes: &[u8]) {
    let [service, endpoints, workload, trust, ..] = subjects();
    let (name, valid) = match of {
        ResourceType::Service => {
            let decoded = decode_service(bytes);
            if let Ok(decoded) = &decoded {
                assert_eq!(&decode_service(&encode_service(decoded)).expect("what was encoded decodes"), decoded);
            }
            (service.to_string(), decoded.is_ok_and(|it| Subject::Service(it.id) == service))
        }
        ResourceType::Endpoints => {
            let decoded = decode_endpoints(bytes);
            if let Ok(decoded) = &decoded {
                assert_eq!(&decode_endpoints(&encode_endpoints(decoded)).expect("what was encoded decodes"), decoded);
            }
            (endpoints.to_string(), decoded.is_ok_and(|it| Subject::Endpoints(it.id) == endpoints))
        }
        ResourceType::Workload => {
            let decoded = decode_workload(bytes);
            if let Ok(decoded) = &decoded {
                assert_eq!(&decode_workload(&encode_workload(decoded)).expect("what was encoded decodes"), decoded);
            }
            (workload.to_string(), decoded.is_ok_and(|it| Subject::Workload(it.id) == workload))
        }
        ResourceType::Trust => {
            let decoded = decode_trust(bytes);
            if let Ok(decoded) = &decoded {
                assert_eq!(&decode_trust(&encode_trust(decoded)).expect("what was encoded decodes"), decoded);
            }
            (trust.to_string(), decoded.is_ok())
        }
    };
    let any = discovery::Any { type_url: of.url().to_owned(), value: Bytes::copy_from_slice(bytes) };
    let resource = discovery::Resource { version: "1".to_owned(), resource: Some(any), name, aliases: vec!["host/payment:".to_owned()] };
    let response = discovery::DeltaDiscoveryResponse {
        resources: vec![resource],
        type_url: of.url().to_owned(),
        nonce: "n".to_owned(),
        ..Default::default()
    };
    let events = receive(&mut subscribed(), response.encode_to_vec().into()).expect("a well-formed response is taken");
    let refused = events.iter().any(|event| matches!(event, Event::Rejected { .. }));
    assert_eq!(refused, !valid, "what decodes is taken, what does not is refused");
}
