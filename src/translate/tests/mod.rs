//! Tests of the whole translation: objects as people write them in, model and reports out.

mod endpoints;
mod grants;
mod guards;
mod incremental;
mod outside;
mod policies;
mod reports;
mod services;
mod size;

use leno_api as api;
use leno_core::endpoints::{Endpoints, EndpointsId};
use leno_core::names::{ServiceId, WorkloadId};
use leno_core::service::Service;
use serde::Deserialize;
use serde_yaml::Value;

use crate::{Change, Defaults, Kind, Object, ObjectKey, Report, Touched, Translator};

/// A Service with one selector and one port.
pub(crate) const PAYMENT: &str = "
kind: Service
metadata: {name: payment, namespace: shop}
spec:
  clusterIP: 10.96.0.5
  clusterIPs: [10.96.0.5]
  selector: {app: payment}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
";

/// A MeshService with two versions.
pub(crate) const VERSIONS: &str = "
kind: MeshService
metadata: {name: payment, namespace: shop, generation: 1, creationTimestamp: 2026-01-02T00:00:00Z}
spec:
  versions:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
";

/// The slice of two pods behind payment.
pub(crate) const SLICE: &str = "
kind: EndpointSlice
metadata: {name: payment-x, namespace: shop, labels: {kubernetes.io/service-name: payment}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.0.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: payment-2}}
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: payment-1}}
";

/// The two pods.
pub(crate) const PODS: &str = "
kind: Pod
metadata: {name: payment-1, namespace: shop, labels: {app: payment, version: v1}}
---
kind: Pod
metadata: {name: payment-2, namespace: shop, labels: {app: payment, version: v2}}
";

/// A translator that has seen the objects of `manifests`, several documents each.
pub(crate) fn translator(manifests: &[&str]) -> Translator {
    let mut translator = Translator::new(Defaults::new("cluster.local"));
    for manifest in manifests {
        apply(&mut translator, manifest);
    }
    translator
}

/// Applies every document of `yaml`.
pub(crate) fn apply(translator: &mut Translator, yaml: &str) -> Touched {
    let mut touched = Touched::default();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        touched.merge(translator.apply(change(Value::deserialize(document).unwrap())));
    }
    touched
}

/// The change that brings `document`.
pub(crate) fn change(document: Value) -> Change {
    let kind = document["kind"].as_str().unwrap().to_owned();
    let object = match kind.as_str() {
        "Service" => Object::Service(serde_yaml::from_value::<api::k8s::Watched<_>>(document).unwrap().object),
        "EndpointSlice" => Object::EndpointSlice(serde_yaml::from_value::<api::k8s::Watched<_>>(document).unwrap().object),
        "Pod" => Object::Pod(serde_yaml::from_value::<api::k8s::Watched<_>>(document).unwrap().object),
        "ReferenceGrant" => Object::ReferenceGrant(serde_yaml::from_value::<api::k8s::Watched<_>>(document).unwrap().object),
        "MeshService" => Object::MeshService(serde_yaml::from_value(with_version(document)).unwrap()),
        "TrafficPolicy" => Object::TrafficPolicy(serde_yaml::from_value(with_version(document)).unwrap()),
        "SecurityPolicy" => Object::SecurityPolicy(serde_yaml::from_value(with_version(document)).unwrap()),
        "Workload" => Object::Workload(serde_yaml::from_value(with_version(document)).unwrap()),
        _ => panic!("no object of kind {kind}"),
    };
    Change::Apply(object)
}

fn with_version(mut document: Value) -> Value {
    document["apiVersion"] = "leno.dev/v1alpha1".into();
    document
}

pub(crate) fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, "shop", name)
}

pub(crate) fn service_id(name: &str) -> ServiceId {
    ServiceId::new("shop", name)
}

pub(crate) fn endpoints_id(name: &str, port: u16) -> EndpointsId {
    EndpointsId::new(service_id(name), port)
}

pub(crate) fn workload_id(name: &str) -> WorkloadId {
    WorkloadId::new("shop", name)
}

pub(crate) fn service(translator: &Translator, name: &str) -> Service {
    translator.service(&service_id(name)).unwrap()
}

/// The endpoints as `address workload version,version`.
pub(crate) fn lines(endpoints: Option<Endpoints>) -> Vec<String> {
    let line = |it: leno_core::endpoints::Endpoint| format!("{} {} {}", it.address, it.workload, it.versions.join(","));
    endpoints.unwrap().endpoints.into_iter().map(line).collect()
}

/// The report as `Accepted=True Reason; ResolvedRefs=False Reason`.
pub(crate) fn outcome(report: &Report) -> String {
    let conditions = report.conditions.iter().map(|it| format!("{}={} {}", it.kind, if it.holds { "True" } else { "False" }, it.reason));
    conditions.collect::<Vec<_>>().join("; ")
}
