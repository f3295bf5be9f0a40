//! `MeshService`: what a service is.
#![expect(clippy::duplicated_attributes, reason = "two printer columns of one type are no duplicates")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::load_balancer::LoadBalancer;
use crate::resilience::{AdaptiveConcurrency, CircuitBreaker, Connections, HealthCheck, OutlierDetection};
use crate::rules;
use crate::status::{ProxyStatus, conditions_schema};

/// What a service of the mesh is, beyond what its Kubernetes Service says. An empty spec is valid: every field has a default.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "leno.dev",
    version = "v1alpha1",
    kind = "MeshService",
    plural = "meshservices",
    singular = "meshservice",
    shortname = "msvc",
    category = "leno",
    namespaced,
    status = "MeshServiceStatus",
    derive = "PartialEq",
    doc = "MeshService says what a service of the mesh is: its versions, its ports' protocols, the names its callers use and how its endpoints are chosen. A Service without a MeshService is in the mesh with all defaults.",
    printcolumn(name = "Service", type_ = "string", json_path = ".status.service", description = "The Kubernetes Service behind it"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.endpoints.ready", description = "Endpoints that take requests"),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.endpoints.total", description = "All endpoints"),
    printcolumn(
        name = "Current",
        type_ = "integer",
        json_path = ".status.proxies.current",
        description = "Subscribed proxies that run the present configuration"
    ),
    printcolumn(name = "Proxies", type_ = "integer", json_path = ".status.proxies.subscribed", description = "Subscribed proxies"),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#,
        description = "Whether every subscribed proxy runs the present configuration"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::SERVICE_OR_EXTERNAL, &rules::NO_VERSIONS_OUTSIDE, &rules::NO_CONCURRENCY_OUTSIDE])))]
pub struct MeshServiceSpec {
    /// Name of the Service (v1) behind it, in the same namespace. Default: the name of this object. Not together with external.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::SERVICE_NAME])))]
    pub service: Option<String>,

    /// Something outside the cluster, instead of a Service: this object is then a service of its own, called as it is.
    /// Apps go on calling it by its own names; their proxies know it by the address that is dialled, by the Host of HTTP requests
    /// and by the server name of TLS. Default: nothing outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,

    /// Further host names by which callers reach the service, beside those of cluster DNS: full names, lower case,
    /// without scheme and port. They count where callers address their sidecar by name (an HTTP proxy's way, as under
    /// `leno up`) and in `leno explain`; a redirected connection is known by the address it dials. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::HOSTS]),
    ))]
    pub hosts: Vec<String>,

    /// What is spoken on the service's ports. A port that is not listed speaks what the Service's `appProtocol` says, and
    /// without one the proxy detects HTTP/1.1 and HTTP/2 by the first bytes and carries the rest as TCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    pub ports: Vec<PortSpec>,

    /// Named subsets of the service's endpoints, for policies to send traffic to. An endpoint belongs to every version
    /// whose labels its pod has. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub versions: Vec<VersionSpec>,

    /// How one endpoint is chosen among many. Default: LeastRequest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,

    /// What may be under way to the service at once. Requests beyond a limit are answered 503. Default: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,

    /// Asks endpoints whether they are well, and leaves out those that are not. Default: they are not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,

    /// Gives each pod no more requests at once than its app bears, as its sidecar learns. Answers count up to their head, so streams may
    /// go on; apps that let callers wait on purpose (long polling) are not for it. Requests of HTTP and gRPC only. Default: pods get
    /// all requests that come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,

    /// Leaves endpoints out for a time that fail. Default: none is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,

    /// Stops calling an endpoint that fails, until trials succeed. When the breakers of all endpoints are open, requests are answered
    /// 503 at once. Default: no breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// When fewer than this share of the endpoints, in percent, are healthy (not left out by healthCheck or outlierDetection), all of them are used:
    /// a few that are healthy would not bear what was meant for all. 0 is never, and requests are answered 503 when nobody is
    /// healthy. Endpoints whose circuit breaker is open are not called in any case. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub healthy_panic_percent: Option<u8>,
}

/// Something outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Where it is: host names in lower case, which the controller looks up every 30 seconds, and IP addresses. Callers find it by
    /// the host names too, as if they stood in hosts.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::OUTSIDE_ADDRESSES]),
    ))]
    pub addresses: Vec<String>,
    /// The ports that callers dial. What is spoken on them is said in spec.ports, or told by the first bytes.
    #[schemars(length(min = 1, max = 64), inner(range(min = 1, max = 65535)), extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<u16>,
    /// TLS that the proxy begins on the app's behalf: the app speaks plain text, the server outside sees TLS (1.3 or 1.2) and must
    /// prove its name. What the app encrypts itself is carried as it is. Default: bytes go out as the app sends them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<OutsideTls>,
}

/// TLS that proxies begin with something outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutsideTls {
    /// The port at which the server speaks TLS, such as 443 where apps dial 80. Default: the port that was dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The name that the server's certificate must be for; a host name is sent as SNI. Default: the first of addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::list(&[&rules::OUTSIDE_NAME])))]
    pub server_name: Option<String>,
    /// Certificates (PEM) of the authorities that may have signed the server's certificate. Default: the public authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536), extend("x-kubernetes-validations" = rules::list(&[&rules::CA_BUNDLE])))]
    pub ca_bundle: Option<String>,
}

/// What is spoken on one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortSpec {
    /// The Service's port (what callers dial), not the container's.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// HTTP (HTTP/1.1; a client that speaks HTTP/2 is understood too), HTTP2 (without upgrade), GRPC (HTTP2 whose errors are
    /// spoken as grpc-status), TLS (the app's own, carried as it is) or TCP (opaque bytes; the server may speak first).
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// HTTP/1.1; a client that opens with HTTP/2 is understood too.
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/2 with prior knowledge.
    #[serde(rename = "HTTP2")]
    Http2,
    /// gRPC.
    #[serde(rename = "GRPC")]
    Grpc,
    /// The app's own TLS, carried as it is.
    #[serde(rename = "TLS")]
    Tls,
    /// Opaque bytes.
    #[serde(rename = "TCP")]
    Tcp,
}

/// A named subset of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionSpec {
    /// Name of the version, unique in the service; policies name it, metrics carry it.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::VERSION_NAME])))]
    pub name: String,
    /// Labels that a pod has when it is of this version: all of them.
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,
}

/// What Leno makes of a MeshService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshServiceStatus {
    /// The generation of the object that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The service it is: `spec.service` or its default; with `spec.external` the object's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service: Option<String>,
    /// The service's endpoints, counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointCounts>,
    /// The endpoints of each version, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub versions: Vec<VersionStatus>,
    /// How many proxies talk to the service, and how many of them run its present configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxyStatus>,
    /// What is true of the object now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// Endpoints, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointCounts {
    /// Those that take requests.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// All, ready or not.
    #[schemars(range(min = 0))]
    pub total: i32,
}

/// What a version has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// Name of the version.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its endpoints that take requests.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub endpoints: i32,
}

impl MeshService {
    /// The name of the Service behind it: `spec.service`, by default the object's own name.
    pub fn service_name(&self) -> &str {
        self.spec.service.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

/// The schema of a label selector by equality.
fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Labels that a pod has when it is of this version: all of them, at least one.",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
        "x-kubernetes-validations": rules::list(&[&rules::LABELS]),
    })
}
