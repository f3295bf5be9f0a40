//! What the cluster says. One thing that cannot be read does not keep the others from being checked.

use std::collections::BTreeSet;

use anyhow::Context as _;
use jiff::SignedDuration;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use leno_controller::ca::secret::{self, Kept};
use leno_controller::certificates::store::{CA_BUNDLE, CERTIFICATE};
use leno_controller::inject::annotations::INJECT;
use leno_controller::settings::{NAME, SECRET, WEBHOOK};
use serde_json::Value;

use crate::cluster::{Mesh, annotation, injected, label, phase, refused, runs_sidecar, text, workload};
use crate::identity::{self, Identities};

/// Something known, or in words why it is not.
pub(super) type Fact<T> = Result<T, String>;

/// All that is judged.
pub(super) struct Facts {
    pub(super) namespace: String,
    pub(super) server: String,
    pub(super) kinds: Vec<(String, Fact<KindState>)>,
    pub(super) controller: Fact<Option<Controller>>,
    pub(super) webhook: Fact<Option<Webhook>>,
    pub(super) endpoints: Fact<usize>,
    pub(super) serving: Fact<Option<Serving>>,
    pub(super) authority: Fact<Option<Kept>>,
    pub(super) identities: Fact<Identities>,
    pub(super) pods: Fact<Vec<PodFacts>>,
}

/// How a kind is known to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindState {
    Missing,
    /// With another schema than this program's.
    Other,
    Same,
}

/// The controller's Deployment.
#[derive(Clone, Debug, Default)]
pub(super) struct Controller {
    pub(super) wanted: i32,
    pub(super) ready: i32,
    pub(super) version: String,
    /// Life of a proxy's certificate.
    pub(super) life: SignedDuration,
}

/// The webhook configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Webhook {
    /// What each entry trusts, PEM; empty when nothing.
    pub(super) bundles: Vec<String>,
    /// Namespaces whose pods never come to it.
    pub(super) excluded: BTreeSet<String>,
}

/// What the controller serves with, PEM.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving {
    pub(super) certificate: String,
    pub(super) bundle: String,
}

/// One pod.
#[derive(Clone, Debug, Default)]
pub(super) struct PodFacts {
    /// `namespace/name`.
    pub(super) name: String,
    pub(super) namespace: String,
    /// Whether it, or its namespace, asks for a sidecar.
    pub(super) asks: bool,
    /// The version of its sidecar.
    pub(super) sidecar: Option<String>,
    /// Whether that runs.
    pub(super) runs: bool,
}

/// Asks for everything.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn gather(mesh: &Mesh) -> anyhow::Result<Facts> {
    let server = mesh.client.apiserver_version().await.context("the API server does not answer: see kubectl cluster-info")?;
    Ok(Facts {
        namespace: mesh.namespace.clone(),
        server: server.git_version,
        kinds: kinds(mesh).await,
        controller: fact(controller(mesh).await),
        webhook: fact(webhook(mesh).await),
        endpoints: fact(endpoints(mesh).await),
        serving: fact(serving(mesh).await),
        authority: fact(authority(mesh).await),
        identities: fact(mesh.listings().await.and_then(identity::heard)),
        pods: fact(pods(mesh).await),
    })
}

fn fact<T>(result: anyhow::Result<T>) -> Fact<T> {
    result.map_err(|error| format!("{error:#}"))
}

async fn kinds(mesh: &Mesh) -> Vec<(String, Fact<KindState>)> {
    let api: Api<CustomResourceDefinition> = Api::all(mesh.client.clone());
    let mut found = Vec::new();
    for wanted in leno_api::crds() {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let there = api.get_opt(&name).await.map_err(|error| refused(error, &format!("read CustomResourceDefinition {name}")));
        found.push((wanted.spec.names.kind.clone(), fact(there.map(|there| kind_state(&wanted, there.as_ref())))));
    }
    found
}

fn kind_state(wanted: &CustomResourceDefinition, there: Option<&CustomResourceDefinition>) -> KindState {
    let schemas = |crd: &CustomResourceDefinition| -> Vec<_> {
        crd.spec.versions.iter().map(|version| (version.name.clone(), serde_json::to_value(&version.schema).map(as_served).ok())).collect()
    };
    match there {
        None => KindState::Missing,
        Some(there) if schemas(there) == schemas(wanted) => KindState::Same,
        Some(_) => KindState::Other,
    }
}

/// A schema as API servers give it back: they write a default of 100.0 as 100.
fn as_served(mut schema: Value) -> Value {
    match &mut schema {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < 2_f64.powi(53)) {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within 53 bits")]
                let whole = whole as i64;
                *number = whole.into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = as_served(value.take())),
        Value::Object(fields) => fields.values_mut().for_each(|value| *value = as_served(value.take())),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
    schema
}

async fn controller(mesh: &Mesh) -> anyhow::Result<Option<Controller>> {
    let api: Api<Deployment> = Api::namespaced(mesh.client.clone(), &mesh.namespace);
    let found = api.get_opt(NAME).await.map_err(|error| refused(error, &format!("read Deployment {}/{NAME}", mesh.namespace)))?;
    Ok(found.map(|it| controller_of(&it)))
}

fn controller_of(deployment: &Deployment) -> Controller {
    let spec = deployment.spec.as_ref();
    let arguments = spec.and_then(|spec| spec.template.spec.as_ref()).into_iter().flat_map(|pod| &pod.containers);
    let mut arguments = arguments.flat_map(|container| container.args.iter().flatten());
    let life = arguments.find_map(|argument| argument.strip_prefix("--certificate-life="));
    let life = life.and_then(|life| leno_api::Duration(life.to_owned()).parse().ok()).and_then(|life| SignedDuration::try_from(life).ok());
    Controller {
        wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default(),
        version: label(&deployment.metadata, "app.kubernetes.io/version").unwrap_or_default().to_owned(),
        life: life.unwrap_or(SignedDuration::from_hours(24)),
    }
}

async fn webhook(mesh: &Mesh) -> anyhow::Result<Option<Webhook>> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(mesh.client.clone());
    let found = api.get_opt(WEBHOOK).await.map_err(|error| refused(error, &format!("read MutatingWebhookConfiguration {WEBHOOK}")))?;
    Ok(found.map(|it| webhook_of(&it)))
}

fn webhook_of(config: &MutatingWebhookConfiguration) -> Webhook {
    let entries = config.webhooks.as_deref().unwrap_or_default();
    let bundle = |bytes: &k8s_openapi::ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
    let selectors = entries.iter().filter_map(|entry| entry.namespace_selector.as_ref());
    let expressions = selectors.flat_map(|selector| selector.match_expressions.iter().flatten());
    let excluding = expressions.filter(|it| it.key == "kubernetes.io/metadata.name" && it.operator == "NotIn");
    Webhook {
        bundles: entries.iter().map(|entry| entry.client_config.ca_bundle.as_ref().map(bundle).unwrap_or_default()).collect(),
        excluded: excluding.flat_map(|it| it.values.iter().flatten().cloned()).collect(),
    }
}

async fn endpoints(mesh: &Mesh) -> anyhow::Result<usize> {
    let api: Api<EndpointSlice> = Api::namespaced(mesh.client.clone(), &mesh.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={NAME}"));
    let slices = api.list(&of_service).await.map_err(|error| refused(error, &format!("list EndpointSlices in {}", mesh.namespace)))?;
    let ready = slices.items.iter().flat_map(|slice| &slice.endpoints);
    Ok(ready.filter(|endpoint| endpoint.conditions.as_ref().is_none_or(|it| it.ready.unwrap_or(true))).count())
}

async fn serving(mesh: &Mesh) -> anyhow::Result<Option<Serving>> {
    let found = mesh.secret(SECRET).await?;
    Ok(found.map(|secret| {
        let of = |key| text(&secret, key).unwrap_or_default();
        Serving { certificate: of(CERTIFICATE), bundle: of(CA_BUNDLE) }
    }))
}

async fn authority(mesh: &Mesh) -> anyhow::Result<Option<Kept>> {
    let found = mesh.secret(secret::NAME).await?;
    found.map(|secret| Kept::of(&secret)).transpose().with_context(|| format!("Secret {}/{}", mesh.namespace, secret::NAME))
}

async fn pods(mesh: &Mesh) -> anyhow::Result<Vec<PodFacts>> {
    let namespaces: Vec<Namespace> = mesh.all(Api::all(mesh.client.clone()), "namespaces").await?;
    let asking = namespaces.iter().filter(|it| label(&it.metadata, INJECT) == Some("enabled"));
    let asking: BTreeSet<&str> = asking.filter_map(|it| it.metadata.name.as_deref()).collect();
    let pods: Vec<Pod> = mesh.all(Api::all(mesh.client.clone()), "pods in all namespaces").await?;
    let living = pods.iter().filter(|pod| matches!(phase(pod), "Pending" | "Running") && pod.metadata.deletion_timestamp.is_none());
    Ok(living.filter_map(|pod| pod_facts(pod, &asking)).collect())
}

fn pod_facts(pod: &Pod, asking: &BTreeSet<&str>) -> Option<PodFacts> {
    let id = workload(&pod.metadata)?;
    Some(PodFacts {
        name: id.to_string(),
        namespace: id.namespace.to_string(),
        asks: asks(&pod.metadata, asking.contains(&*id.namespace)),
        sidecar: injected(pod).map(str::to_owned),
        runs: runs_sidecar(pod),
    })
}

/// The webhook's own conditions: what the pod says outweighs its namespace, and `disabled` outweighs all.
fn asks(metadata: &ObjectMeta, namespace_asks: bool) -> bool {
    let words = [annotation(metadata, INJECT), label(metadata, INJECT)];
    let said: Vec<&str> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    let mirror = annotation(metadata, "kubernetes.io/config.mirror").is_some();
    if said.is_empty() { namespace_asks && !mirror } else { !said.contains(&"disabled") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn a_pod_asks_by_itself_or_by_its_namespace_and_disabled_wins() {
        let cases = [
            ("{}", true, true),
            ("{}", false, false),
            ("{annotations: {leno.dev/inject: enabled}}", false, true),
            ("{labels: {leno.dev/inject: enabled}}", false, true),
            ("{labels: {leno.dev/inject: disabled}}", true, false),
            ("{labels: {leno.dev/inject: disabled}, annotations: {leno.dev/inject: enabled}}", true, false),
            ("{annotations: {kubernetes.io/config.mirror: x}}", true, false),
        ];
        for (metadata, namespace_asks, wanted) in cases {
            assert_eq!(asks(&decoded(metadata), namespace_asks), wanted, "{metadata}, namespace asks: {namespace_asks}");
        }
    }

    #[test]
    fn a_kind_is_missing_the_same_or_of_another_version() {
        for wanted in leno_api::crds() {
            let mut there = wanted.clone();
            assert_eq!(kind_state(&wanted, Some(&there)), KindState::Same);
            let default = |number| {
                let schema = serde_json::json!({"openAPIV3Schema": {"type": "number", "default": number}});
                Some(serde_json::from_value(schema).unwrap())
            };
            let (mut whole, mut float) = (wanted.clone(), wanted.clone());
            whole.spec.versions[0].schema = default(serde_json::json!(100));
            float.spec.versions[0].schema = default(serde_json::json!(100.0));
            assert_eq!(kind_state(&whole, Some(&float)), KindState::Same);
            there.spec.versions[0].schema = None;
            assert_eq!(kind_state(&wanted, Some(&there)), KindState::Other);
            assert_eq!(kind_state(&wanted, None), KindState::Missing);
        }
    }

    #[test]
    fn the_deployment_and_the_webhook_are_read_as_the_chart_writes_them() {
        let controller = controller_of(&decoded(
            "{metadata: {labels: {app.kubernetes.io/version: 9.9.9}}, spec: {replicas: 2, selector: {}, template: {spec: {containers: \
             [{name: controller, args: [--log=info, --certificate-life=90m]}]}}}, status: {readyReplicas: 1}}",
        ));
        assert_eq!((controller.wanted, controller.ready, controller.version.as_str()), (2, 1, "9.9.9"));
        assert_eq!(controller.life, SignedDuration::from_mins(90));
        let webhook = webhook_of(&decoded(
            "{webhooks: [{name: a, admissionReviewVersions: [v1], sideEffects: None, clientConfig: {caBundle: UEVN}, namespaceSelector: \
             {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system]}]}}, {name: b, \
             admissionReviewVersions: [v1], sideEffects: None, clientConfig: {}}]}",
        ));
        assert_eq!(webhook.bundles, ["PEM", ""]);
        assert_eq!(webhook.excluded, BTreeSet::from(["kube-system".to_owned()]));
    }
}
