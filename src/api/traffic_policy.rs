//! `TrafficPolicy`: how traffic to a service behaves.
#![expect(clippy::duplicated_attributes, reason = "two printer columns of one type are no duplicates")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cors::Cors;
use crate::duration::Duration;
use crate::fault::Fault;
use crate::filters::{HeaderChanges, Redirect, Rewrite};
use crate::mirror::Mirror;
use crate::rate_limit::RateLimit;
use crate::retry::Retry;
use crate::rules;
use crate::rules::filters as filter_rules;
use crate::status::{ProxyStatus, conditions_schema};

/// How traffic to one service behaves: where its requests go, and how long they may take.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "leno.dev",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    plural = "trafficpolicies",
    singular = "trafficpolicy",
    shortname = "tp",
    category = "leno",
    namespaced,
    status = "TrafficPolicyStatus",
    derive = "PartialEq",
    doc = "TrafficPolicy says how traffic to one service behaves: which requests go to which version or service, and how long they may take. Of two policies for one service the older holds, whole; the younger says so in its status.",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name", description = "The service the policy is for"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#,
        description = "Whether the policy is in force"
    ),
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
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// The service the policy is for, in the same namespace.
    pub target_ref: TargetRef,

    /// Time a request may take, from its first byte to the head of its response, unless its route says otherwise:
    /// a duration such as 300ms, 10s or 1m30s. A request that takes longer is answered 504 (gRPC: DEADLINE_EXCEEDED).
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,

    /// What is tried again, for every route that does not say it itself. Default: only what no app can have seen, at up to
    /// two other endpoints, and once more a request that may be repeated and met a connection that was just being closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// Rules for requests. The most specific match wins, whatever the order of the list: exact path, then regex, then the
    /// longest prefix; then a method; then most headers; then most query parameters; then the first in the list. What no
    /// route matches goes to the service's own endpoints. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend(
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = rules::list(&[&rules::ROUTE_NAMES]),
    ))]
    pub routes: Vec<Route>,
}

/// The service a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// MeshService or Service. Default: MeshService.
    #[serde(default)]
    pub kind: TargetKind,
    /// Name of the MeshService or Service.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::list(&[&rules::TARGET_NAME])))]
    pub name: String,
}

/// The kinds a policy may be for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// leno.dev/v1alpha1 MeshService.
    #[default]
    MeshService,
    /// v1 Service.
    Service,
}

/// One rule for requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::REDIRECT_ALONE, &filter_rules::PREFIX_OF_A_PREFIX])))]
pub struct Route {
    /// Name of the route, unique in the policy; logs, metrics and `leno explain` carry it.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::ROUTE_NAME])))]
    pub name: String,
    /// The route is for requests that match any of these. Default: every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<Match>,
    /// Where these requests go, each to one of these by weight. Default: the service's own endpoints, of all versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend(
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = rules::list(&[&rules::SOME_WEIGHT]),
    ))]
    pub destinations: Vec<Destination>,
    /// Time a request of this route may take: a duration such as 300ms, 10s or 1m30s. Default: `spec.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Who else gets a copy of these requests, with the body up to 64 KiB; longer requests are not mirrored. Default: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub mirror: Vec<Mirror>,
    /// Changes of the header fields of requests, before they are sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderChanges>,
    /// Changes of the header fields of responses. Answers of the proxy itself, such as 504 after the timeout, stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderChanges>,
    /// What path and host of requests become, before they are sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Requests of this route are answered with another place to go to; nothing is sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Time in which, once a response has begun, at least one byte must come or go: of the response, of a request that is
    /// still on its way, or of what a WebSocket carries. After that the stream is reset. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// What of this route is tried again; it stands for the whole of `spec.retry`. Default: `spec.retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many of these requests may pass in each proxy that sends them. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Faults that befall some requests of this route, on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Which pages of other origins may call this route from a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// Conditions on a request: all of them hold when it matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Match {
    /// Condition on the path, without the query. Default: every path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The method, in capitals. Default: every method.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = rules::list(&[&rules::METHOD])))]
    pub method: Option<String>,
    /// Conditions on header fields; `host` is the authority, in HTTP/2 too. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HeaderMatch>,
    /// Conditions on query parameters. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub query: Vec<QueryMatch>,
}

/// A condition on the path: exactly one of `exact`, `prefix` and `regex`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_PATH])))]
pub struct PathMatch {
    /// The whole path, compared with case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::list(&[&rules::PATH_EXACT])))]
    pub exact: Option<String>,
    /// A prefix of whole segments: `/api` matches `/api`, `/api/` and `/api/v1`, not `/apis`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::list(&[&rules::PATH_PREFIX])))]
    pub prefix: Option<String>,
    /// A regular expression in RE2 syntax that the whole path matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub regex: Option<String>,
}

/// A condition on one header field: exactly one of `value`, `regex` and `present`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_VALUE])))]
pub struct HeaderMatch {
    /// Name of the field, in any case.
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules::list(&[&rules::HEADER_NAME])))]
    pub name: String,
    /// The whole value, compared with case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// A regular expression in RE2 syntax that the whole value matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub regex: Option<String>,
    /// true: the field is there, whatever its value; false: it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// A condition on one query parameter: exactly one of `value`, `regex` and `present`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_VALUE])))]
pub struct QueryMatch {
    /// Name of the parameter, decoded, compared with case. The first parameter of that name counts.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The whole value, decoded, compared with case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// A regular expression in RE2 syntax that the whole value matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub regex: Option<String>,
    /// true: the parameter is there, whatever its value; false: it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// Where requests go: exactly one of `version` and `service`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_DESTINATION, &rules::PORT_WITH_SERVICE, &rules::NAMESPACE_WITH_SERVICE])))]
pub struct Destination {
    /// A version of the target, as its MeshService names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// Another service: a Service, or what a MeshService of this name registers outside the cluster. Its own routes are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::OTHER_SERVICE])))]
    pub service: Option<String>,
    /// Namespace of the other service. Another namespace than the policy's must allow it by a ReferenceGrant
    /// (gateway.networking.k8s.io) from TrafficPolicy of leno.dev to Service, or to MeshService of leno.dev; until then these
    /// requests are answered 500. Default: the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::NAMESPACE_NAME])))]
    pub namespace: Option<String>,
    /// Port of the other service. Default: the port the request was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Share of the requests, relative to the sum of the route's weights. 0 takes none. Default: 1.
    #[serde(default = "weight_default")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

impl Default for Destination {
    fn default() -> Self {
        Self { version: None, service: None, namespace: None, port: None, weight: weight_default() }
    }
}

fn weight_default() -> u32 {
    1
}

/// What Leno makes of a TrafficPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicyStatus {
    /// The generation of the object that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many proxies talk to the target, and how many of them run its present configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxyStatus>,
    /// What is true of the object now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}
