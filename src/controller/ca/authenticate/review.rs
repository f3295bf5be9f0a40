//! Asks the API server whose token it is (TokenReview), and whether the pod it was given to is there.
//!
//! What is read off the answers is decided by [`bound_pod`] and [`check`], without I/O. The token must be of the audience
//! [`AUDIENCE`], so that one which an app sends elsewhere is worth nothing here and the other way round.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use leno_core::names::WorkloadId;

use super::{Applicant, Refusal};

/// Whom the token is for.
pub const AUDIENCE: &str = "leno.dev";
/// Where the API server says which pod a token was given to (KEP-4193).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// How long the API server may take for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A pod that should have been gone for this long is taken for gone, though its object may linger.
const LINGERS_MAX: SignedDuration = SignedDuration::from_mins(5);

/// The pod that a token was given to, as the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    applicant: Applicant,
    uid: String,
}

/// Asks the API server.
#[derive(Clone)]
pub struct Reviewer {
    client: Client,
}

impl Reviewer {
    /// Asks by `client`, which may create TokenReviews and get Pods.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whose `token` it is, if the pod it was given to is there at `now`.
    ///
    /// # Errors
    /// When it is nobody's, the pod is gone, or the API server cannot be asked.
    pub async fn authenticate(&self, token: &str, now: Timestamp) -> Result<Applicant, Refusal> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = in_time("TokenReview", reviews.create(&PostParams::default(), &review)).await?;
        let bound = bound_pod(&reviewed.status.unwrap_or_default())?;

        let workload = &bound.applicant.workload;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &workload.namespace);
        let pod = in_time("Pod", pods.get_opt(&workload.name)).await?;
        check(&bound, pod.as_ref(), now)?;
        Ok(bound.applicant)
    }
}

async fn in_time<T>(what: &str, answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::warn!(%error, what, "the API server did not say whose token it is");
            Err(Refusal::Unavailable(format!("the API server did not answer about the {what}, see the controller's log")))
        }
        Err(_elapsed) => Err(Refusal::Unavailable(format!("the API server took too long about the {what}"))),
    }
}

/// The pod that a reviewed token was given to.
///
/// # Errors
/// When the token is not valid for [`AUDIENCE`], not a service account's, or not bound to a pod.
pub fn bound_pod(status: &TokenReviewStatus) -> Result<Bound, Refusal> {
    if status.authenticated != Some(true) {
        let reason = status.error.as_deref().filter(|error| !error.is_empty()).unwrap_or("the API server does not know it");
        return Err(Refusal::Token(reason.to_owned()));
    }
    // An API server that knows no audiences leaves them out: then the token may be for anybody.
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(Refusal::Token(format!("it is not for the audience {AUDIENCE}")));
    }
    let user = status.user.clone().unwrap_or_default();
    let account = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:"));
    let Some((namespace, account)) = account.and_then(|name| name.split_once(':')) else {
        return Err(Refusal::Token("it is no service account's".to_owned()));
    };
    let extra = user.extra.unwrap_or_default();
    let (Some(pod), Some(uid)) = (only(&extra, POD_NAME), only(&extra, POD_UID)) else { return Err(Refusal::Unbound) };
    Ok(Bound { applicant: Applicant { workload: WorkloadId::new(namespace, pod), service_account: account.into() }, uid: uid.to_owned() })
}

/// The one value under `key`.
fn only<'a>(extra: &'a BTreeMap<String, Vec<String>>, key: &str) -> Option<&'a str> {
    match extra.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// Whether the pod as it is at `now` is the one that the token was given to, and runs.
///
/// # Errors
/// When it is gone, or another.
pub fn check(bound: &Bound, pod: Option<&Pod>, now: Timestamp) -> Result<(), Refusal> {
    let workload = &bound.applicant.workload;
    let Some(pod) = pod else { return Err(Refusal::Gone(workload.clone())) };
    if pod.metadata.uid.as_deref() != Some(&bound.uid) {
        return Err(Refusal::Another(workload.clone()));
    }
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    if account != &*bound.applicant.service_account {
        return Err(Refusal::Another(workload.clone()));
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let lingers = pod.metadata.deletion_timestamp.as_ref().is_some_and(|deletion| now > deletion.0 + LINGERS_MAX);
    if matches!(phase, Some("Succeeded" | "Failed")) || lingers { Err(Refusal::Gone(workload.clone())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(change: impl FnOnce(&mut Value)) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["leno.dev"],
            "user": {
                "username": "system:serviceaccount:shop:web",
                "extra": {"authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/pod-uid": ["u1"]},
            },
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1"},
            "spec": {"serviceAccountName": "web", "containers": []},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn web() -> WorkloadId {
        WorkloadId::new("shop", "web-1")
    }

    #[test]
    fn a_token_of_a_pod_names_the_pod_and_its_service_account() {
        let bound = bound_pod(&status(|_| ())).unwrap();
        assert_eq!(bound.applicant, Applicant { workload: web(), service_account: "web".into() });
        assert_eq!(check(&bound, Some(&pod(|_| ())), Timestamp::UNIX_EPOCH), Ok(()));
    }

    #[test]
    fn tokens_of_others_are_refused() {
        let unknown = |reason: &str| Refusal::Token(reason.to_owned());
        let extra = "/user/extra";
        let cases: [(&str, TokenReviewStatus, Refusal); 8] = [
            ("unknown", status(|it| it["authenticated"] = json!(false)), unknown("the API server does not know it")),
            ("expired", status(|it| *it = json!({"error": "token has expired"})), unknown("token has expired")),
            (
                "audience of the API",
                status(|it| it["audiences"] = json!(["https://kubernetes.default.svc"])),
                unknown("it is not for the audience leno.dev"),
            ),
            ("an API server without audiences", status(|it| it["audiences"] = Value::Null), unknown("it is not for the audience leno.dev")),
            ("a person", status(|it| it["user"]["username"] = json!("system:admin")), unknown("it is no service account's")),
            ("unbound", status(|it| *it.pointer_mut(extra).unwrap() = json!({})), Refusal::Unbound),
            ("two pods", status(|it| it.pointer_mut(extra).unwrap()[POD_NAME] = json!(["a", "b"])), Refusal::Unbound),
            ("no uid", status(|it| it.pointer_mut(extra).unwrap()[POD_UID] = json!([""])), Refusal::Unbound),
        ];
        for (name, status, expected) in cases {
            assert_eq!(bound_pod(&status), Err(expected), "{name}");
        }
    }

    #[test]
    fn a_pod_that_is_gone_or_another_is_refused() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let bound = bound_pod(&status(|_| ())).unwrap();
        let deleted = |at: &str| pod(|it| it["metadata"]["deletionTimestamp"] = json!(at));
        let cases = [
            ("absent", None, Err(Refusal::Gone(web()))),
            ("recreated under its name", Some(pod(|it| it["metadata"]["uid"] = json!("u2"))), Err(Refusal::Another(web()))),
            ("of another account", Some(pod(|it| it["spec"]["serviceAccountName"] = json!("admin"))), Err(Refusal::Another(web()))),
            ("failed", Some(pod(|it| it["status"]["phase"] = json!("Failed"))), Err(Refusal::Gone(web()))),
            ("completed", Some(pod(|it| it["status"]["phase"] = json!("Succeeded"))), Err(Refusal::Gone(web()))),
            ("starting", Some(pod(|it| it["status"] = json!({"phase": "Pending"}))), Ok(())),
            ("ending in good order", Some(deleted("2026-01-01T12:10:00Z")), Ok(())),
            ("to be gone a moment ago", Some(deleted("2026-01-01T11:56:00Z")), Ok(())),
            ("to be gone long ago", Some(deleted("2026-01-01T11:54:00Z")), Err(Refusal::Gone(web()))),
        ];
        for (name, pod, expected) in cases {
            assert_eq!(check(&bound, pod.as_ref(), now), expected, "{name}");
        }
    }
}
