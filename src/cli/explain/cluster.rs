//! The objects of the cluster that kubectl talks to, read once.

use std::collections::BTreeSet;

use anyhow::Context as _;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use leno_controller::source::folder::decode;
use leno_core::names::Name;
use leno_translate::{Change, Kind, ObjectKey, Translator};

use super::defaults::{Assumed, of_controller};
use super::question::Question;
use crate::cluster::Mesh;

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// What the cluster says about the service that `question` is for, the mesh's trust domain, and what could not be read.
///
/// # Errors
/// When the cluster cannot be reached or does not allow reading.
pub(super) fn read(question: &Question, assumed: &Assumed) -> anyhow::Result<(Translator, Name, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Its text holds that of its causes.
        let client = Client::try_default().await.map_err(|error| {
            anyhow::anyhow!("no cluster to ask: point KUBECONFIG at one, or explain a folder of manifests with -f DIR ({error})")
        })?;
        let namespace = assumed.place.controller_namespace.clone();
        let controllers = Mesh { client: client.clone(), namespace }.replicas().await;
        let (defaults, notes) = match controllers.as_deref().map(of_controller) {
            Ok(Some(defaults)) => (assumed.over(defaults), Vec::new()),
            Ok(None) => (assumed.alone(), vec![unknown_defaults(assumed, "no controller of this version runs there")]),
            Err(error) => (assumed.alone(), vec![unknown_defaults(assumed, &error.to_string())]),
        };
        let trust_domain = defaults.trust_domain.clone();
        let mut translator = Translator::new(defaults);
        read_all(&client, question, &mut translator).await?;
        Ok((translator, trust_domain, notes))
    })
}

fn unknown_defaults(assumed: &Assumed, why: &str) -> String {
    let namespace = &assumed.place.controller_namespace;
    format!(
        "the flags of the controller in {namespace} are not known ({why}): --controller-namespace says where it is; or \
         --cluster-domain, --trust-domain, --mtls-mode and --authorization-default say what holds"
    )
}

async fn read_all(client: &Client, question: &Question, translator: &mut Translator) -> anyhow::Result<()> {
    for kind in [Kind::Service, Kind::MeshService, Kind::TrafficPolicy, Kind::SecurityPolicy] {
        list(client, kind, None, translator).await?;
    }
    // Clusters may do without them, and serve them as v1 or as v1beta1.
    for version in ["v1", "v1beta1"] {
        let resource = resource_of(Kind::ReferenceGrant, ("gateway.networking.k8s.io", version, "referencegrants"));
        if list_all(client, Kind::ReferenceGrant, &resource, None, translator).await? {
            break;
        }
    }
    // Endpoints and pods are many: only those of the namespaces that the answer is about.
    let mut namespaces = namespaces(question, translator);
    for namespace in &namespaces {
        list(client, Kind::EndpointSlice, Some(namespace), translator).await?;
    }
    namespaces.extend(question.from.iter().map(|from| from.namespace.clone()));
    for namespace in &namespaces {
        list(client, Kind::Pod, Some(namespace), translator).await?;
    }
    Ok(())
}

/// The namespaces of the service asked for and of its routes' destinations.
fn namespaces(question: &Question, translator: &Translator) -> BTreeSet<Name> {
    let id = match question.host.parse() {
        Ok(ip) => translator.find_address(std::net::SocketAddr::new(ip, question.port)),
        Err(_no_address) => translator.find_host(&question.host, question.namespace()),
    };
    let service = id.and_then(|id| translator.service(&id));
    let others = service.iter().flat_map(|service| service.routes.other_services()).map(|(id, _)| Name::clone(&id.namespace));
    others.chain(service.iter().map(|service| Name::clone(&service.id.namespace))).collect()
}

async fn list(client: &Client, kind: Kind, namespace: Option<&str>, translator: &mut Translator) -> anyhow::Result<()> {
    let is_known = list_all(client, kind, &resource(kind), namespace, translator).await?;
    anyhow::ensure!(
        is_known,
        "the cluster does not know {kind}: install Leno (helm install), or its definitions (leno crds | kubectl apply -f -)"
    );
    Ok(())
}

/// Reads every object of `kind`. `false`: the cluster does not know it.
async fn list_all(
    client: &Client,
    kind: Kind,
    resource: &ApiResource,
    namespace: Option<&str>,
    translator: &mut Translator,
) -> anyhow::Result<bool> {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("cannot list {kind} objects")),
        };
        for object in page.items {
            translator.apply(change(kind, object, resource)?);
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            Some(_) | None => return Ok(true),
        }
    }
}

/// Items of a list do not say what they are; one that does not decode is told to the translator as such.
fn change(kind: Kind, mut object: DynamicObject, resource: &ApiResource) -> anyhow::Result<Change> {
    object.types = Some(kube::core::TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    object.metadata.managed_fields = None;
    let key = ObjectKey::new(
        kind,
        object.metadata.namespace.as_deref().unwrap_or("default"),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let generation = object.metadata.generation;
    Ok(match decode(&serde_json::to_value(object)?) {
        Some(Ok(object)) => Change::Apply(object),
        Some(Err((path, error))) => Change::Unreadable { key, generation, error: format!("{path}: {error}") },
        None => anyhow::bail!("{key} is of a kind that the mesh does not read"),
    })
}

fn resource(kind: Kind) -> ApiResource {
    let of_kind = match kind {
        Kind::Service => ("", "v1", "services"),
        Kind::Pod => ("", "v1", "pods"),
        Kind::EndpointSlice => ("discovery.k8s.io", "v1", "endpointslices"),
        Kind::MeshService => (leno_api::GROUP, leno_api::VERSION, "meshservices"),
        Kind::ReferenceGrant => ("gateway.networking.k8s.io", "v1", "referencegrants"),
        Kind::TrafficPolicy => (leno_api::GROUP, leno_api::VERSION, "trafficpolicies"),
        Kind::SecurityPolicy => (leno_api::GROUP, leno_api::VERSION, "securitypolicies"),
        Kind::Workload => (leno_api::GROUP, leno_api::VERSION, "workloads"),
    };
    resource_of(kind, of_kind)
}

fn resource_of(kind: Kind, (group, version, plural): (&str, &str, &str)) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind.to_string()), plural)
}
