//! Keepers of several replicas around one Secret, and the reviewer, with an API server that answers from memory.

use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::client::Body;
use leno_core::names::WorkloadId;
use leno_translate::{Defaults, Translator};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::ca::authenticate::Refusal;
use crate::ca::authenticate::review::Reviewer;
use crate::ca::authority::{ROOT_LIFE, make};
use crate::ca::rotation;
use crate::ca::secret::Pair;

/// What the API server holds and was asked.
#[derive(Default)]
struct Cluster {
    secret: Option<Value>,
    review: Value,
    pod: Option<Value>,
    events: Vec<Value>,
    asked: Vec<String>,
    /// Another replica is faster: it writes this just before the next write comes in.
    faster: Option<Value>,
}

type Shared = Arc<Mutex<Cluster>>;

fn client(cluster: &Shared) -> Client {
    let cluster = Arc::clone(cluster);
    let service = tower::service_fn(move |request: Request<Body>| {
        let cluster = Arc::clone(&cluster);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (status, answer) = answer(&mut cluster.lock().unwrap(), &head.method, head.uri.path(), serde_json::from_slice(&body).ok());
            let response = Response::builder().status(status).header("content-type", "application/json");
            Ok::<_, std::convert::Infallible>(response.body(Body::from(serde_json::to_vec(&answer).unwrap())).unwrap())
        }
    });
    Client::new(service, "leno-system")
}

fn answer(cluster: &mut Cluster, method: &Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    cluster.asked.push(format!("{method} {path}"));
    let failure = |code: StatusCode| {
        let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "AlreadyExists" };
        (code, json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": "no"}))
    };
    let found = |object: &Option<Value>| object.clone().map_or_else(|| failure(StatusCode::NOT_FOUND), |it| (StatusCode::OK, it));
    match (method, path) {
        (&Method::GET, "/api/v1/namespaces/leno-system/secrets/leno-ca") => found(&cluster.secret),
        (&Method::POST, "/api/v1/namespaces/leno-system/secrets") => {
            if let Some(faster) = cluster.faster.take() {
                cluster.secret = Some(faster);
            }
            if cluster.secret.is_some() {
                return failure(StatusCode::CONFLICT);
            }
            cluster.secret.clone_from(&body);
            (StatusCode::CREATED, body.unwrap())
        }
        (&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews") => {
            let mut review = body.unwrap();
            review["status"] = cluster.review.clone();
            (StatusCode::CREATED, review)
        }
        (&Method::GET, "/api/v1/namespaces/shop/pods/web-1") => found(&cluster.pod),
        (&Method::POST, "/apis/events.k8s.io/v1/namespaces/leno-system/events") => {
            cluster.events.push(body.clone().unwrap());
            (StatusCode::CREATED, body.unwrap())
        }
        _ => unreachable!("nobody asks for {method} {path}"),
    }
}

fn domains() -> Domains {
    Domains { own: "cluster.local".into(), also: Vec::new() }
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn object(kept: &Kept) -> Value {
    serde_json::to_value(kept.to_new_secret()).unwrap()
}

fn brought(kept: &Kept) -> Value {
    let mut object = object(kept);
    object["metadata"]["labels"] = json!({"controller.cert-manager.io/fao": "true"});
    object
}

/// One replica's keeper, and what it has seen.
struct Replica {
    keeper: Keeper,
    seen: Seen,
    health: Arc<Health>,
    _leading: watch::Sender<bool>,
    _stop: DropGuard,
}

fn replica(cluster: &Shared) -> Replica {
    let (publisher, task) = Publisher::new(Translator::new(Defaults::new("cluster.local")), [], tokio::sync::mpsc::channel(1).1);
    let (cancel, health, (leading, is_leading)) = (CancellationToken::new(), Arc::new(Health::default()), watch::channel(true));
    tokio::spawn(task.run(cancel.clone()));
    let keeper = Keeper {
        store: Store::new(client(cluster), "leno-system", domains()),
        domains: domains(),
        current: watch::channel(None).0,
        publisher,
        health: health.clone(),
        events: Events::new(client(cluster), "leno-system", "leno-controller-0", is_leading),
    };
    Replica { keeper, seen: Seen::default(), health, _leading: leading, _stop: cancel.drop_guard() }
}

impl Replica {
    async fn look(&mut self, now: Timestamp) {
        self.keeper.look(&mut self.seen, now).await;
    }

    /// The certificate that signs here, and the roots that proxies are told of.
    async fn signs_and_tells(&self) -> (Option<String>, usize) {
        let signs = self.keeper.current.borrow().as_ref().map(|authority| authority.signer().fingerprint.clone());
        let told = self.keeper.publisher.standing().await.unwrap().trust;
        (signs, told.map_or(0, |trust| trust.roots.len()))
    }
}

fn fingerprint(kept: &Kept) -> Option<String> {
    crate::ca::authority::fingerprint(&kept.signing.certificate)
}

fn stored(cluster: &Shared) -> Kept {
    let secret: Secret = serde_json::from_value(cluster.lock().unwrap().secret.clone().unwrap()).unwrap();
    Kept::of(&secret).unwrap()
}

#[tokio::test]
async fn the_first_replica_makes_the_authority_and_the_others_use_it() {
    let cluster = Shared::default();
    let (mut one, mut two) = (replica(&cluster), replica(&cluster));
    assert!(one.health.ready().is_err());
    one.look(now()).await;
    two.look(now()).await;
    assert_eq!(one.signs_and_tells().await, (fingerprint(&stored(&cluster)), 1));
    assert_eq!(two.signs_and_tells().await, one.signs_and_tells().await);
    let made = cluster.lock().unwrap().secret.clone().unwrap();
    assert_eq!((&made["type"], &made["metadata"]["labels"]["app.kubernetes.io/managed-by"]), (&json!("kubernetes.io/tls"), &json!("leno")));
}

#[tokio::test]
async fn who_loses_the_race_takes_what_the_winner_wrote() {
    let cluster = Shared::default();
    let winner = make(&domains(), now()).unwrap();
    cluster.lock().unwrap().faster = Some(object(&winner));
    let mut loser = replica(&cluster);
    loser.look(now()).await;
    assert_eq!((loser.signs_and_tells().await.0, stored(&cluster)), (fingerprint(&winner), winner));
}

#[tokio::test]
async fn a_secret_that_was_brought_is_used_and_never_written() {
    let cluster = Shared::default();
    let theirs = make(&domains(), now()).unwrap();
    cluster.lock().unwrap().secret = Some(brought(&theirs));
    let mut replica = replica(&cluster);
    replica.look(now()).await;
    assert_eq!(replica.signs_and_tells().await, (fingerprint(&theirs), 1));
    cluster.lock().unwrap().secret = None;
    replica.look(now()).await;
    assert_eq!(replica.signs_and_tells().await, (fingerprint(&theirs), 1), "what it held stays in force");
    let asked = std::mem::take(&mut cluster.lock().unwrap().asked);
    assert!(asked.iter().all(|it| !it.starts_with("POST") || it.contains("/events")), "{asked:?}");
    assert!(cluster.lock().unwrap().events[0]["note"].as_str().unwrap().contains("bring it again"));
}

#[tokio::test]
async fn a_secret_of_lenos_that_was_deleted_is_written_again_as_it_was() {
    let cluster = Shared::default();
    let mut replica = replica(&cluster);
    replica.look(now()).await;
    let before = stored(&cluster);
    cluster.lock().unwrap().secret = None;
    replica.look(now()).await;
    assert_eq!(stored(&cluster), before);
}

#[tokio::test]
async fn a_damaged_secret_changes_nothing_is_told_once_and_counts_again_once_it_is_mended() {
    let cluster = Shared::default();
    let mut replica = replica(&cluster);
    replica.look(now()).await;
    let good = stored(&cluster);
    let bad = Kept { signing: Pair { key: "?".into(), ..good.signing.clone() }, ..good.clone() };
    cluster.lock().unwrap().secret = Some(object(&bad));
    for _ in 0..3 {
        replica.look(now()).await;
    }
    assert_eq!(replica.signs_and_tells().await.0, fingerprint(&good));
    let events = std::mem::take(&mut cluster.lock().unwrap().events);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (&events[0]["reason"], &events[0]["regarding"]["name"], &events[0]["type"]),
        (&json!("Unusable"), &json!("leno-ca"), &json!("Warning"))
    );
    assert!(events[0]["note"].as_str().unwrap().contains("tls.key holds no private key"));

    let next = make(&domains(), now()).unwrap();
    cluster.lock().unwrap().secret = Some(object(&next));
    replica.look(now()).await;
    assert_eq!(replica.signs_and_tells().await.0, fingerprint(&next));
}

#[tokio::test]
async fn every_step_of_a_rotation_is_in_force_as_soon_as_it_is_seen() {
    let cluster = Shared::default();
    let mut replica = replica(&cluster);
    replica.look(now()).await;
    let old = stored(&cluster);
    let mut kept = rotation::begin(&old, &domains(), now()).unwrap();
    let mut seen = Vec::new();
    loop {
        cluster.lock().unwrap().secret = Some(object(&kept));
        replica.look(now()).await;
        let (signs, roots) = replica.signs_and_tells().await;
        seen.push((signs == fingerprint(&old), roots));
        let listing = crate::ca::listing::Listing::new(replica.keeper.publisher.standing().await.unwrap());
        match rotation::next(&kept, &[listing], &std::collections::BTreeSet::new()).unwrap() {
            rotation::Action::Write(next) => kept = *next,
            rotation::Action::Idle => break,
            rotation::Action::Wait(waiting) => panic!("{waiting}"),
        }
    }
    assert_eq!(seen, [(true, 2), (false, 2), (false, 1), (false, 1)]);
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_told_of_on_the_secret() {
    let cluster = Shared::default();
    let mut replica = replica(&cluster);
    replica.look(now()).await;
    assert_eq!(cluster.lock().unwrap().events.len(), 0);
    let late = now() + ROOT_LIFE - SignedDuration::from_hours(24 * 29);
    replica.look(late).await;
    replica.look(late).await;
    let events = std::mem::take(&mut cluster.lock().unwrap().events);
    assert_eq!(events.len(), 1);
    assert!(events[0]["note"].as_str().unwrap().contains("leno ca rotate"), "{events:?}");
}

#[test]
fn what_is_wrong_is_said_once_and_again_after_a_while() {
    let (mut seen, now) = (Seen::default(), Timestamp::UNIX_EPOCH);
    assert!(seen.is_news("a", now));
    assert!(!seen.is_news("a", now + REPEAT - SignedDuration::from_secs(1)));
    assert!(seen.is_news("a", now + REPEAT));
    assert!(seen.is_news("b", now + REPEAT));
}

#[tokio::test]
async fn the_reviewer_asks_for_its_own_audience_and_then_for_the_pod() {
    let cluster = Shared::default();
    let extra = json!({"authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/pod-uid": ["u1"]});
    let user = json!({"username": "system:serviceaccount:shop:web", "extra": extra});
    cluster.lock().unwrap().review = json!({"authenticated": true, "audiences": ["leno.dev"], "user": user});
    let reviewer = Reviewer::new(client(&cluster));
    let web = WorkloadId::new("shop", "web-1");
    assert_eq!(reviewer.authenticate("token", now()).await, Err(Refusal::Gone(web.clone())));
    cluster.lock().unwrap().pod =
        Some(json!({"metadata": {"name": "web-1", "uid": "u1"}, "spec": {"serviceAccountName": "web", "containers": []}}));
    let applicant = reviewer.authenticate("token", now()).await.unwrap();
    assert_eq!((applicant.workload, &*applicant.service_account), (web, "web"));
    cluster.lock().unwrap().review = json!({"authenticated": false, "error": "token has expired"});
    assert_eq!(reviewer.authenticate("token", now()).await, Err(Refusal::Token("token has expired".into())));
}
