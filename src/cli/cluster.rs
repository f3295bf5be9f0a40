//! The mesh of the cluster that kubectl talks to: its controller's replicas, Secrets and sidecars, read for people.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, Client};
use leno_controller::ca::listing::{self, Listing};
use leno_controller::certificates::store::PEER_TOKEN;
use leno_controller::inject::{INJECTED, PROXY_CONTAINER};
use leno_controller::settings::{NAME, SECRET};
use leno_controller::status::peers::TOKEN_HEADER;
use leno_core::names::WorkloadId;

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// The replicas' HTTPS port.
const PORT: u16 = 8443;

/// Where the controller is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Where {
    /// Namespace that Leno is installed in
    #[arg(long, value_name = "NAMESPACE", default_value = "leno-system")]
    pub(crate) controller_namespace: String,
}

/// The mesh of one cluster.
#[derive(Clone)]
pub(crate) struct Mesh {
    pub(crate) client: Client,
    /// Namespace of the controller.
    pub(crate) namespace: String,
}

/// One replica of the controller, and what it lists.
pub(crate) struct Replica {
    pub(crate) pod: String,
    /// An error in words, when it does not answer.
    pub(crate) listing: Result<Listing, String>,
}

/// Runs a command that talks to a cluster.
pub(crate) fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}

impl Mesh {
    /// The cluster of the present context.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn connect(place: &Where) -> anyhow::Result<Self> {
        // Its text holds that of its causes.
        let client =
            Client::try_default().await.map_err(|error| anyhow::anyhow!("no cluster to ask: point KUBECONFIG at one ({error})"))?;
        Ok(Self { client, namespace: place.controller_namespace.clone() })
    }

    /// The pods of the controller that run.
    pub(crate) async fn replicas(&self) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let selector = format!("app.kubernetes.io/name={NAME}");
        let pods = api.list(&ListParams::default().labels(&selector)).await;
        let pods = pods.map_err(|error| refused(error, &format!("list pods in {}", self.namespace)))?;
        Ok(pods.items.into_iter().filter(|pod| phase(pod) == "Running").collect())
    }

    /// What every replica lists, by the token that replicas show each other.
    pub(crate) async fn listings(&self) -> anyhow::Result<Vec<Replica>> {
        let replicas = self.replicas().await?;
        anyhow::ensure!(
            !replicas.is_empty(),
            "no replica of {NAME} runs in the namespace {}: see kubectl -n {0} get pods, or name Leno's namespace with --controller-namespace",
            self.namespace
        );
        let secret = self.secret(SECRET).await?.with_context(|| {
            format!("Secret {}/{SECRET} is not there: the controller makes it when it starts, see its log", self.namespace)
        })?;
        let token = text(&secret, PEER_TOKEN).with_context(|| {
            format!("Secret {}/{SECRET} holds no {PEER_TOKEN}: delete it, and the controller makes it anew", self.namespace)
        })?;
        let names = replicas.into_iter().filter_map(|pod| pod.metadata.name);
        let asked = names.map(async |pod| Replica { listing: self.listing(&pod, &token).await, pod });
        Ok(futures_util::future::join_all(asked).await)
    }

    async fn listing(&self, pod: &str, token: &str) -> Result<Listing, String> {
        let path = format!("/api/v1/namespaces/{}/pods/https:{pod}:{PORT}/proxy{}", self.namespace, listing::PATH);
        let request = http::Request::get(path).header(TOKEN_HEADER, token).body(Vec::new()).map_err(|error| error.to_string())?;
        self.client.request::<Listing>(request).await.map_err(|error| match forbidden(&error) {
            Some(words) => format!("you may not ask it: {words}"),
            None => error.to_string(),
        })
    }

    /// A Secret of the controller's namespace.
    pub(crate) async fn secret(&self, name: &str) -> anyhow::Result<Option<Secret>> {
        self.secrets().get_opt(name).await.map_err(|error| refused(error, &format!("read Secret {}/{name}", self.namespace)))
    }

    /// The Secrets of the controller's namespace.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Every object of a kind, in all namespaces or in one.
    pub(crate) async fn all<K>(&self, api: Api<K>, what: &str) -> anyhow::Result<Vec<K>>
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = api.list(&params).await.map_err(|error| refused(error, &format!("list {what}")))?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    /// The pods whose sidecar runs.
    pub(crate) async fn sidecars(&self) -> anyhow::Result<BTreeSet<WorkloadId>> {
        let pods: Vec<Pod> = self.all(Api::all(self.client.clone()), "pods in all namespaces").await?;
        Ok(pods.iter().filter(|pod| runs_sidecar(pod)).filter_map(|pod| workload(&pod.metadata)).collect())
    }
}

/// What kube says, with what to do where that is clear.
pub(crate) fn refused(error: kube::Error, what: &str) -> anyhow::Error {
    match forbidden(&error) {
        Some(words) => anyhow::anyhow!("you may not {what}: ask who administers the cluster for that right ({words})"),
        None => anyhow::Error::new(error).context(format!("cannot {what}")),
    }
}

/// What the API server says to somebody who may not.
fn forbidden(error: &kube::Error) -> Option<&str> {
    let kube::Error::Api(status) = error else { return None };
    matches!(status.code, 401 | 403).then_some(&*status.message)
}

/// A text that a Secret holds.
pub(crate) fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
}

/// `Running`, `Pending` …
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The version of the sidecar that was put into a pod.
pub(crate) fn injected(pod: &Pod) -> Option<&str> {
    let has = pod.spec.as_ref()?.init_containers.iter().flatten().any(|container| container.name == PROXY_CONTAINER);
    annotation(&pod.metadata, INJECTED).filter(|_| has)
}

/// Whether a sidecar runs in the pod and is not about to end.
pub(crate) fn runs_sidecar(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let mut proxies = statuses.filter(|status| status.name == PROXY_CONTAINER);
    let runs = proxies.any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    runs && pod.metadata.deletion_timestamp.is_none() && injected(pod).is_some()
}

/// The value of an annotation.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(&metadata.annotations, key)
}

/// The value of a label.
pub(crate) fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(&metadata.labels, key)
}

fn value<'a>(map: &'a Option<BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    map.as_ref()?.get(key).map(String::as_str)
}

/// The pod's name and namespace.
pub(crate) fn workload(metadata: &ObjectMeta) -> Option<WorkloadId> {
    Some(WorkloadId::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?))
}
