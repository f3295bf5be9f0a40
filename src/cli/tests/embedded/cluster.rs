//! `leno check`, `leno identity` and `leno ca` against an API server that says what a cluster with one replica and one proxy says.

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::Secret;
use leno_controller::ca::authority::{Domains, fingerprint, fingerprints, make};
use leno_controller::ca::secret::Kept;
use leno_controller::certificates::{Material, Policy, renew};
use serde_json::{Value, json};

const SYSTEM: &str = "/api/v1/namespaces/leno-system";

/// What the API server holds.
struct World {
    material: Material,
    authority: Secret,
    /// Whether the caller may read Secrets.
    allowed: bool,
    /// The steps that were written, in order.
    steps: Vec<Option<String>>,
}

type Shared = Arc<Mutex<World>>;

fn world(change: impl FnOnce(&mut World)) -> Shared {
    let now = jiff::Timestamp::now();
    let material = renew(None, &Policy::new(vec!["leno-controller".into()]), now).unwrap();
    let kept = make(&Domains { own: "cluster.local".into(), also: Vec::new() }, now).unwrap();
    let mut world = World { material, authority: kept.to_new_secret(), allowed: true, steps: Vec::new() };
    change(&mut world);
    Arc::new(Mutex::new(world))
}

/// What the replica lists: its one proxy has done all that the Secret says.
fn listing(world: &World) -> Value {
    let kept = Kept::of(&world.authority).unwrap();
    let issuer = fingerprint(&kept.signing.certificate).unwrap();
    let ends = jiff::Timestamp::now().as_second() + 80_000;
    let proxy = json!({"workload": "shop/web", "identity": "spiffe://cluster.local/ns/shop/sa/web", "serial": "0a1b2c3d4e5f60",
                       "notAfter": ends, "issuer": issuer, "trust": "7"});
    json!({"trustDomain": "cluster.local", "roots": fingerprints(&kept.roots), "issuer": issuer, "trustVersion": "7", "proxies": [proxy]})
}

fn pods() -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let running = json!([{"name": "leno-proxy", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]);
    json!({"metadata": {}, "items": [
        {"metadata": {"name": "web", "namespace": "shop", "annotations": {"leno.dev/injected": version}},
         "spec": {"containers": [], "initContainers": [{"name": "leno-proxy"}]}, "status": {"phase": "Running", "initContainerStatuses": running}},
        {"metadata": {"name": "old", "namespace": "shop"}, "spec": {"containers": []}, "status": {"phase": "Running"}},
    ]})
}

fn serving(material: &Material) -> Value {
    let text = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    let data = json!({"ca.crt": text(&material.ca_bundle), "tls.crt": text(&material.certificate), "peer-token": text("secret")});
    json!({"metadata": {"name": "leno-controller-tls"}, "data": data})
}

fn webhook(material: &Material) -> Value {
    let bundle = k8s_openapi::ByteString(material.ca_bundle.as_bytes().to_vec());
    json!({"webhooks": [{"name": "pod.leno.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"caBundle": bundle}}]})
}

fn kind(path: &str) -> Option<Value> {
    let name = path.strip_prefix("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/")?;
    let found = leno_api::crds().into_iter().find(|crd| crd.metadata.name.as_deref() == Some(name))?;
    Some(serde_json::to_value(found).unwrap())
}

async fn answer(State(world): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut world = world.lock().unwrap();
    let path = parts.uri.path();
    if path.starts_with(&format!("{SYSTEM}/secrets/")) && !world.allowed {
        let status = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "secrets is forbidden"});
        return (StatusCode::FORBIDDEN, Json(status)).into_response();
    }
    if parts.method == Method::PUT {
        world.authority = serde_json::from_slice(&body).unwrap();
        let step = Kept::of(&world.authority).unwrap().step.map(|step| step.to_string());
        world.steps.push(step);
        return Json(serde_json::to_value(&world.authority).unwrap()).into_response();
    }
    let version = env!("CARGO_PKG_VERSION");
    let found = match path.strip_prefix(SYSTEM).unwrap_or(path) {
        "/version" => json!({"major": "1", "minor": "33", "gitVersion": "v1.33.1", "gitCommit": "", "gitTreeState": "", "buildDate": "",
                             "goVersion": "", "compiler": "", "platform": ""}),
        "/pods" if path.starts_with(SYSTEM) => {
            json!({"metadata": {}, "items": [{"metadata": {"name": "leno-controller-1"}, "status": {"phase": "Running"}}]})
        }
        "/pods/https:leno-controller-1:8443/proxy/identities" => match parts.headers.get("x-leno-token").map(|it| it.as_bytes()) {
            Some(b"secret") => listing(&world),
            _ => return StatusCode::UNAUTHORIZED.into_response(),
        },
        "/secrets/leno-controller-tls" => serving(&world.material),
        "/secrets/leno-ca" => serde_json::to_value(&world.authority).unwrap(),
        "/api/v1/pods" => pods(),
        "/api/v1/namespaces" => {
            json!({"metadata": {}, "items": [{"metadata": {"name": "shop", "labels": {"leno.dev/inject": "enabled"}}}]})
        }
        "/apis/apps/v1/namespaces/leno-system/deployments/leno-controller" => {
            json!({"metadata": {"labels": {"app.kubernetes.io/version": version}}, "spec": {"replicas": 1, "selector": {}, "template": {}},
                   "status": {"readyReplicas": 1}})
        }
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/leno-injector" => webhook(&world.material),
        "/apis/discovery.k8s.io/v1/namespaces/leno-system/endpointslices" => {
            json!({"metadata": {}, "items": [{"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": []}]})
        }
        other => match kind(other) {
            Some(kind) => kind,
            None => {
                let status = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": path});
                return (StatusCode::NOT_FOUND, Json(status)).into_response();
            }
        },
    };
    Json(found).into_response()
}

/// What `leno` says to a cluster that is like `world`.
fn leno(world: &Shared, arguments: &[&str]) -> (i32, String, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer).with_state(Arc::clone(world));
    let served = runtime.spawn(async move { axum::serve(listener, router).await });
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {"server": server}}],
                            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}]});
    let path = folder.path().join("config");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_leno")).args(arguments).env("KUBECONFIG", path).output().unwrap();
    served.abort();
    let Output { status, stdout, stderr } = done;
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn identity_lists_the_proxies_that_the_replicas_know() {
    let (code, out, error) = leno(&world(|_| ()), &["identity"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("POD       IDENTITY") && lines.len() == 2, "{out}");
    assert!(
        lines[1].starts_with("shop/web  spiffe://cluster.local/ns/shop/sa/web  0a1b2c3d4e5f  ") && lines[1].contains("22h 13m"),
        "{out}"
    );
    let (_, json, _) = leno(&world(|_| ()), &["identity", "-o", "json", "-n", "bank"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["proxies"], json!([]));
}

#[test]
fn who_may_not_read_the_secret_is_told_what_right_is_missing() {
    let (code, out, error) = leno(&world(|it| it.allowed = false), &["identity"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.starts_with("leno: you may not read Secret leno-system/leno-controller-tls: ask who administers the cluster"), "{error}");
}

#[test]
fn check_says_line_by_line_how_the_mesh_is() {
    let (code, out, error) = leno(&world(|_| ()), &["check"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let marks: String = out.lines().filter_map(|line| line.chars().next()).collect();
    assert_eq!(marks, "✓✓✓✓✓✓✓!", "{out}");
    assert!(
        out.lines().last().unwrap().starts_with("! sidecars             asked for and not there: 1 pod (shop/old): they were there"),
        "{out}"
    );
    let (code, out, _) = leno(&world(|it| it.authority.data = None), &["check"]);
    assert_eq!(code, 1);
    assert!(out.contains("✗ authority            what the Secret leno-ca holds cannot be used: tls.crt holds no certificate"), "{out}");
    let (code, out, _) = leno(&world(|it| it.allowed = false), &["check"]);
    assert_eq!(code, 0, "what may not be read is not broken: {out}");
    assert!(out.contains("! authority            cannot be told: you may not read Secret leno-system/leno-ca"), "{out}");
}

#[test]
fn a_rotation_goes_through_its_steps_and_one_that_is_under_way_is_gone_on_with() {
    let of_leno = world(|_| ());
    let before = of_leno.lock().unwrap().authority.clone();
    let (code, out, error) = leno(&of_leno, &["ca", "rotate", "--wait", "1m"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let steps = ["distribute", "issue", "retire"].map(|step| Some(step.to_owned()));
    assert_eq!(of_leno.lock().unwrap().steps, [&steps[..], &[None]].concat());
    assert!(out.ends_with("done: the new root alone signs and is trusted\n"), "{out}");
    assert_ne!(of_leno.lock().unwrap().authority.data, before.data);

    of_leno.lock().unwrap().authority.metadata.annotations = Some([("leno.dev/rotation".to_owned(), "retire".to_owned())].into());
    let (code, out, _) = leno(&of_leno, &["ca", "rotate"]);
    assert!(code == 0 && out.starts_with("going on with the rotation that is under way\nretire: "), "{out}");
    let (code, out, _) = leno(&of_leno, &["ca", "status"]);
    assert!(code == 0 && out.contains("rotation      none is under way\n") && out.contains("1 of 1 trust just these roots"), "{out}");
}

#[test]
fn an_authority_that_somebody_brought_is_not_written() {
    let brought = world(|it| it.authority.metadata.labels = None);
    let (code, _, error) = leno(&brought, &["ca", "rotate"]);
    assert!(code == 2 && error.contains("rotate where it comes from"), "{error}");
    assert!(brought.lock().unwrap().steps.is_empty());
}

#[test]
fn without_a_cluster_the_error_says_how_to_name_one() {
    let done =
        Command::new(env!("CARGO_BIN_EXE_leno")).arg("check").env("KUBECONFIG", "nowhere/config").env("HOME", "/nowhere").output().unwrap();
    let error = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(2) && error.starts_with("leno: no cluster to ask: point KUBECONFIG at one"), "{error}");
}
