//! The control thread of a proxy with an identity, against a controller on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use leno_core::names::{Identity, WorkloadId};
use leno_core::workload::Workload;
use leno_xds::encode::encode_workload;
use leno_xds::frame::Decoder;
use leno_xds::security::{decode_held, encode_trust};
use leno_xds::subject::{ResourceType, Subject};
use leno_xds::wire::discovery::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use leno_xds::wire::leno::SigningRequest;
use leno_xds::{METHOD_PATH, SIGN_PATH, frame};
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;

use super::fake::{Fake, Says, Seen};
use super::{Ask, Control, Update};
use crate::admin::Readiness;
use crate::identity::Token;
use crate::identity::keeper::wall_clock;
use crate::identity::testing::{Authority, answer, trust};
use crate::worker::Settings;

const PATIENCE: Duration = Duration::from_secs(20);
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Proxy {
    updates: UnboundedReceiver<Update>,
    readiness: watch::Receiver<Readiness>,
    _asks: UnboundedSender<Ask>,
}

impl Proxy {
    /// The control thread's tasks of a proxy that shows `token`.
    fn start(fake: &Fake) -> Self {
        let (updates, told) = unbounded_channel();
        let (asks, asked) = unbounded_channel();
        let (set_readiness, readiness) = watch::channel(Readiness::Waiting);
        let settings = Settings::new(WorkloadId::new("shop", "web-1"));
        let mut controller = fake.address.clone();
        let (keeper, identity) = crate::boot::identity(&settings, &mut controller, Token::Text("token".to_owned()));
        let control = Control {
            own: settings.workload,
            controller,
            updates: vec![updates],
            asks: vec![asked],
            readiness: set_readiness,
            connected: watch::channel(false).0,
            identity: Some(identity),
        };
        tokio::spawn(keeper.run());
        tokio::spawn(control.run());
        Self { updates: told, readiness, _asks: asks }
    }

    async fn ready(&mut self) {
        timeout(PATIENCE, self.readiness.wait_for(|readiness| *readiness == Readiness::Ready)).await.expect("ready in time").unwrap();
    }

    async fn told<T>(&mut self, wanted: impl Fn(Update) -> Option<T>) -> T {
        let next = async {
            loop {
                if let Some(found) = wanted(self.updates.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, next).await.expect("told in time")
    }
}

/// Signs with `root` what it is asked to.
fn signed(root: &Authority, seen: &Seen) -> Says {
    let request = SigningRequest::decode(seen.message.slice(frame::PREFIX_BYTES..)).unwrap();
    let certificate = root.sign(&request.csr, &[WEB], wall_clock(), DAY);
    Says::message(frame::encode(&answer(&[&certificate], &trust(&[root]))))
}

/// The beginning of a stream that tells the proxy what it is and goes on.
fn stream(more: Vec<Bytes>) -> Says {
    let own = Workload::new(WorkloadId::new("shop", "web-1"));
    let workload = resource(ResourceType::Workload, "shop/web-1", encode_workload(&own));
    Says { status: 200, data: std::iter::once(workload).chain(more).collect(), ..Says::default() }
}

fn resource(of: ResourceType, name: &str, value: Bytes) -> Bytes {
    let type_url = of.url().to_owned();
    let resource = Any { type_url: type_url.clone(), value };
    let resource = Resource { version: "1".to_owned(), name: name.to_owned(), resource: Some(resource), aliases: Vec::new() };
    frame::encode(&DeltaDiscoveryResponse { type_url, resources: vec![resource], nonce: "1".to_owned(), ..Default::default() })
}

#[tokio::test]
async fn what_was_taken_is_acknowledged_though_nothing_else_is_said() {
    let root = Arc::new(Authority::new("mesh"));
    let signer = Arc::clone(&root);
    let fake = Fake::start(Some(&root), move |seen| {
        let trusted = resource(ResourceType::Trust, &Subject::Trust.to_string(), encode_trust(&trust(&[&signer])));
        if seen.path == SIGN_PATH { signed(&signer, seen) } else { stream(vec![trusted]) }
    })
    .await;
    let _proxy = Proxy::start(&fake);
    let types = |said: &Vec<Bytes>| {
        let mut decoder = Decoder::new(1 << 20);
        said.iter().for_each(|piece| decoder.push(piece));
        std::iter::from_fn(|| decoder.next().unwrap())
            .map(|message| DeltaDiscoveryRequest::decode(message).unwrap().type_url)
            .collect::<Vec<_>>()
    };
    let expected: Vec<String> = [ResourceType::Workload, ResourceType::Trust].map(|of| of.url().to_owned()).into();
    let mut said = fake.said();
    timeout(PATIENCE, said.wait_for(|said| types(said) == expected)).await.expect("acknowledged in time").unwrap();
}

fn leaf(seen: &Seen) -> Option<&CertificateDer<'static>> {
    seen.certificate.as_ref()
}

#[tokio::test]
async fn the_first_certificate_comes_by_token_and_the_stream_shows_and_tells_it() {
    let root = Arc::new(Authority::new("mesh"));
    let signer = Arc::clone(&root);
    let fake = Fake::start(Some(&root), move |seen| if seen.path == SIGN_PATH { signed(&signer, seen) } else { stream(Vec::new()) }).await;
    let mut proxy = Proxy::start(&fake);
    let brought = proxy.told(|update| if let Update::Trust(trust) = update { Some(trust) } else { None }).await;
    assert_eq!(brought, trust(&[&root]));
    let credentials = proxy.told(|update| if let Update::Credentials(credentials) = update { Some(credentials) } else { None }).await;
    assert_eq!(credentials.held.identity, WEB.parse::<Identity>().unwrap());
    proxy.ready().await;

    let seen = fake.seen();
    let paths: Vec<&str> = seen.iter().map(|seen| &*seen.path).collect();
    assert_eq!(paths, [SIGN_PATH, METHOD_PATH], "a certificate first, then the stream");
    assert_eq!((&*seen[0].authorization, leaf(&seen[0])), ("Bearer token", None));
    assert_eq!((&*seen[1].authorization, leaf(&seen[1])), ("", Some(&credentials.certified.cert[0])));
    let node = DeltaDiscoveryRequest::decode(seen[1].message.slice(frame::PREFIX_BYTES..)).unwrap().node.unwrap();
    assert_eq!(decode_held(&node.certificate).unwrap(), credentials.held);
}

#[tokio::test]
async fn the_proxy_is_not_ready_before_it_holds_a_certificate() {
    let root = Authority::new("mesh");
    let asked = Arc::new(AtomicUsize::new(0));
    let (signer, count) = (Arc::new(root), Arc::clone(&asked));
    let clients = Arc::clone(&signer);
    let fake = Fake::start(Some(&clients), move |seen| match (&*seen.path, count.load(Ordering::SeqCst)) {
        (SIGN_PATH, 0) => {
            count.fetch_add(1, Ordering::SeqCst);
            Says::refusal(16, "the token is not for leno.dev", true)
        }
        (SIGN_PATH, _) => signed(&signer, seen),
        _ => stream(Vec::new()),
    })
    .await;
    let mut proxy = Proxy::start(&fake);
    proxy.ready().await;
    let paths: Vec<String> = fake.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, [SIGN_PATH, SIGN_PATH, METHOD_PATH], "no stream before there is a certificate");
}

#[tokio::test]
async fn trust_that_names_another_signer_brings_another_certificate_which_the_stream_is_told_of() {
    let (root, next) = (Arc::new(Authority::new("mesh")), Arc::new(Authority::new("next")));
    let both = trust(&[&next, &root]);
    let (old, new, said) = (Arc::clone(&root), Arc::clone(&next), encode_trust(&both));
    let signs = Arc::new(Mutex::new(old));
    let fake = Fake::start(Some(&root), move |seen| {
        if seen.path == SIGN_PATH {
            let by = std::mem::replace(&mut *signs.lock().unwrap(), Arc::clone(&new));
            signed(&by, seen)
        } else {
            stream(vec![resource(ResourceType::Trust, &Subject::Trust.to_string(), said.clone())])
        }
    })
    .await;
    let mut proxy = Proxy::start(&fake);
    for by in [&root, &next] {
        let credentials = proxy.told(|update| if let Update::Credentials(credentials) = update { Some(credentials) } else { None }).await;
        assert_eq!(credentials.held.issuer, by.fingerprint());
    }
    let streams = fake.seen().iter().filter(|seen| seen.path == METHOD_PATH).count();
    assert_eq!(streams, 1, "the stream is not cut for a renewal");
}

#[tokio::test]
async fn a_certificate_that_the_controller_does_not_take_any_more_is_replaced_by_token() {
    // The controller's clients must come from `next`; the proxy still gets one from `root` at first, as after a missed rotation.
    let (root, next) = (Arc::new(Authority::new("mesh")), Arc::new(Authority::new("next")));
    let signs = Arc::new(Mutex::new(Arc::clone(&root)));
    let new = Arc::clone(&next);
    let fake = Fake::start(Some(&next), move |seen| {
        if seen.path == SIGN_PATH {
            let by = std::mem::replace(&mut *signs.lock().unwrap(), Arc::clone(&new));
            signed(&by, seen)
        } else {
            stream(Vec::new())
        }
    })
    .await;
    let mut proxy = Proxy::start(&fake);
    proxy.ready().await;
    let seen = fake.seen();
    let paths: Vec<&str> = seen.iter().map(|seen| &*seen.path).collect();
    assert_eq!(paths, [SIGN_PATH, SIGN_PATH, METHOD_PATH], "the refused handshake is no request");
    let brought = |update| if let Update::Trust(trust) = update { Some(trust).filter(|it| it.issuer == next.fingerprint()) } else { None };
    let trusted = proxy.told(brought).await;
    assert_eq!(trusted.roots.len(), 1, "trust came along, because there was no stream to bring it");
}
