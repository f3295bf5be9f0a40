//! The admission webhook: a review in, the injector's decision out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower_http::timeout::TimeoutLayer;

use crate::certificates::serving::Serving;
use crate::inject::{Config, Injection, inject};
use crate::metrics::Metrics;

/// The API server sends objects of at most 3 MiB (etcd takes 1.5).
const BODY_MAX: usize = 3 * 1024 * 1024;
/// Less than the 5 s that the webhook's configuration allows.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What the webhook needs.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The injector's configuration; its CA is taken from `serving`.
    pub config: Arc<Config>,
    /// Whose CA bundle the proxies trust.
    pub serving: Serving,
    /// Where admissions are counted.
    pub metrics: Arc<Metrics>,
}

/// `POST /inject`.
pub fn router(webhook: Webhook) -> Router {
    Router::new()
        .route("/inject", post(answer))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, TIMEOUT))
        .with_state(webhook)
}

#[derive(Deserialize)]
struct Review {
    request: Option<Request>,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: String,
    object: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Refused>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
}

#[derive(Serialize)]
struct Refused {
    code: u16,
    reason: &'static str,
    message: String,
}

async fn answer(State(webhook): State<Webhook>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            webhook.metrics.admitted(None);
            return rejection.into_response();
        }
    };
    match read(&body) {
        Ok(request) => {
            let answer = decide(&webhook, request);
            let review = serde_json::json!({
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "response": answer,
            });
            Json(review).into_response()
        }
        Err(message) => {
            webhook.metrics.admitted(None);
            tracing::warn!(message, "an admission review cannot be read");
            (StatusCode::BAD_REQUEST, message).into_response()
        }
    }
}

fn read(body: &[u8]) -> Result<Request, String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("this is no admission.k8s.io/v1 AdmissionReview in JSON: {error}"))?;
    review.request.ok_or_else(|| "the AdmissionReview has no request".to_owned())
}

fn decide(webhook: &Webhook, request: Request) -> Answer {
    let Request { uid, namespace, object } = request;
    let pod: Pod = match serde_json::from_value(object.unwrap_or_default()) {
        Ok(pod) => pod,
        Err(error) => {
            webhook.metrics.admitted(None);
            return refused(uid, &format!("the pod cannot be read: {error}"));
        }
    };
    let config = Config { control_ca: webhook.serving.ca_bundle(), ..Config::clone(&webhook.config) };
    let injection = inject(&pod, &config);
    webhook.metrics.admitted(Some(&injection));
    let name = pod.metadata.name.as_deref().or(pod.metadata.generate_name.as_deref()).unwrap_or_default();
    match injection {
        Injection::Unchanged(why) => {
            tracing::info!(%namespace, pod = name, ?why, "pod stays as it is");
            Answer { uid, allowed: true, status: None, patch_type: None, patch: None }
        }
        Injection::Patch(patch) => match serde_json::to_vec(&patch) {
            Ok(patch) => {
                tracing::info!(%namespace, pod = name, "pod gets its sidecar");
                Answer { uid, allowed: true, status: None, patch_type: Some("JSONPatch"), patch: Some(ByteString(patch)) }
            }
            Err(error) => refused(uid, &format!("the sidecar cannot be written down: {error}")),
        },
        Injection::Refused(refusal) => {
            tracing::info!(%namespace, pod = name, reason = refusal.reason(), %refusal, "pod is refused");
            refused(uid, &refusal.to_string())
        }
    }
}

fn refused(uid: String, message: &str) -> Answer {
    let status = Refused { code: 422, reason: "Invalid", message: format!("Leno cannot add its sidecar: {message}") };
    Answer { uid, allowed: false, status: Some(status), patch_type: None, patch: None }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use serde_json::json;
    use tower::ServiceExt as _;

    use super::*;
    use crate::certificates::{Policy, renew};
    use crate::inject::Settings;

    fn webhook() -> Webhook {
        let policy = Policy::new(vec!["leno-controller.leno-system.svc".into()]);
        let material = renew(None, &policy, "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        let config = Config {
            proxy_image: "leno-proxy".into(),
            image_pull_policy: None,
            control_address: "leno-controller.leno-system.svc:15110".into(),
            cluster_domain: "cluster.local".into(),
            control_ca: String::new(),
            tracing: None,
            defaults: Settings::default(),
        };
        Webhook { config: Arc::new(config), serving: Serving::new(material).unwrap(), metrics: Arc::default() }
    }

    async fn post(webhook: Webhook, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let request = axum::http::Request::post("/inject").body(body.into()).unwrap();
        let response = router(webhook).oneshot(request).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    fn review(pod: &Value) -> String {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u1", "namespace": "shop", "object": pod}})
            .to_string()
    }

    #[tokio::test]
    async fn a_pod_gets_a_patch_with_the_ca_that_is_served() {
        let webhook = webhook();
        let ca = webhook.serving.ca_bundle();
        let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "app"}]}});
        let (status, body) = post(webhook, review(&pod)).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &answer["response"]["uid"], &answer["response"]["allowed"]), (StatusCode::OK, &json!("u1"), &json!(true)));
        let patch: ByteString = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch.0).unwrap();
        let mut patched = pod;
        json_patch::patch(&mut patched, &patch).unwrap();
        let env = patched["spec"]["initContainers"][1]["env"].as_array().unwrap();
        assert!(env.contains(&json!({"name": "LENO_CONTROL_CA", "value": ca})));
    }

    #[tokio::test]
    async fn a_refused_pod_is_told_why() {
        let pod = json!({"spec": {"hostNetwork": true, "containers": []}});
        let (_, body) = post(webhook(), review(&pod)).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["response"]["allowed"], false);
        assert!(answer["response"]["status"]["message"].as_str().unwrap().contains("hostNetwork"));
    }

    #[tokio::test]
    async fn what_is_no_review_is_refused_in_words_and_counted() {
        let cases = [("{", "no admission.k8s.io/v1 AdmissionReview"), ("{}", "has no request")];
        for (body, words) in cases {
            let webhook = webhook();
            let metrics = Arc::clone(&webhook.metrics);
            let (status, body) = post(webhook, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(String::from_utf8_lossy(&body).contains(words));
            assert!(metrics.render().contains("outcome=\"unreadable\"} 1"));
        }
    }

    #[tokio::test]
    async fn a_review_may_be_as_long_as_the_limit_and_no_longer() {
        let (at_limit, _) = post(webhook(), vec![b' '; BODY_MAX]).await;
        let (over, _) = post(webhook(), vec![b' '; BODY_MAX + 1]).await;
        assert_eq!((at_limit, over), (StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE));
    }
}
