//! `SecurityPolicy`: who may call a service, and whether callers must prove who they are.
//!
//! Unlike other kinds, it does not decode with fields that this version does not know: a rule that is not wholly understood must
//! never be taken for a wider one.
#![expect(clippy::duplicated_attributes, reason = "two printer columns of one type are no duplicates")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::rules;
use crate::status::{ProxyStatus, conditions_schema};
use crate::traffic_policy::TargetRef;

/// Who may call the pods that the policy is for, and whether callers must prove who they are.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "leno.dev",
    version = "v1alpha1",
    kind = "SecurityPolicy",
    plural = "securitypolicies",
    singular = "securitypolicy",
    shortname = "secp",
    category = "leno",
    namespaced,
    status = "SecurityPolicyStatus",
    derive = "PartialEq",
    doc = "SecurityPolicy says who may call a service, some pods or a whole namespace, and whether callers must prove who they are by mutual TLS. Policies add up: a Deny rule refuses whatever else allows; where a policy with action Allow has rules, only what some Allow rule matches passes; where there is none, the mesh's default holds.",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name", description = "The service the policy is for"),
    printcolumn(name = "mTLS", type_ = "string", json_path = ".spec.mtls.mode", description = "Whether callers must prove who they are"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action", description = "What the rules do"),
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
        description = "Proxies concerned that run the present configuration"
    ),
    printcolumn(name = "Proxies", type_ = "integer", json_path = ".status.proxies.subscribed", description = "Proxies concerned"),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#,
        description = "Whether every proxy concerned runs the present configuration"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::TARGET_OR_SELECTOR, &rules::SAYS_SOMETHING, &rules::EGRESS_WITHOUT_TARGET])))]
pub struct SecurityPolicySpec {
    /// The service that the policy is for, in the same namespace: the policy holds for the ports of its pods to which the service
    /// leads, for all callers, however they address the pod. Default: by selector; without one, every pod of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,

    /// The pods that the policy is for, in the same namespace, with all their ports. Default: by targetRef; without one,
    /// every pod of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,

    /// Whether callers must prove who they are by mutual TLS. What a policy with targetRef or selector says counts before what a
    /// policy of the whole namespace says; of several of one kind the strictest counts. Default: as in the rest of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,

    /// Where the pods may connect to outside the cluster; not with targetRef. What a policy with selector says counts before what a
    /// policy of the whole namespace says; of several of one kind the strictest counts. Default: as in the rest of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,

    /// Whose tokens (JSON Web Tokens, RFC 7519) are taken. A request with a token that does not verify is answered 401, whatever
    /// the rules say; one without a token has no claims. Default: tokens are not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer"]))]
    pub jwt: Vec<Jwt>,

    /// Rules for calls; a call that matches one of them matches the policy. What then happens is said by action. A call that is
    /// refused is answered 403 (gRPC: PERMISSION_DENIED; other TCP: closed). Default: the policy has no say in who may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub authorization: Vec<Rule>,

    /// What happens to calls that match a rule. Allow: they pass, and calls that no Allow rule matches are refused.
    /// Deny: they are refused, whatever other policies allow. Audit: as Allow, but what would be refused is only counted and logged.
    /// Default: Allow.
    pub action: Action,
}

/// Some pods of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels that the pods have, all of them.
    #[schemars(schema_with = "labels_schema")]
    pub match_labels: BTreeMap<String, String>,
}

/// Mutual TLS between proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    /// Strict: only callers that prove who they are. Permissive: callers of the mesh do, others may speak plain text.
    /// Disabled: callers of the mesh speak plain text too.
    pub mode: Mode,
}

/// Whether callers must prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Plain connections are refused.
    Strict,
    /// Peers of the mesh use mutual TLS, others may speak plain.
    #[default]
    Permissive,
    /// Everybody speaks plain.
    Disabled,
}

/// Connections to the outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    /// Allow: anywhere. RegisteredOnly: only to services, and to what a MeshService registers (spec.external); HTTP requests to
    /// anything else are answered 502, other connections are reset.
    pub mode: EgressMode,
}

/// Where pods may connect to outside the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EgressMode {
    /// Anywhere.
    #[default]
    Allow,
    /// Only to what is registered.
    RegisteredOnly,
}

/// What happens to calls that match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// They pass; others do not.
    #[default]
    Allow,
    /// They are refused.
    Deny,
    /// As Allow, but nothing is refused, only counted and logged.
    Audit,
}

/// Whose tokens are taken: exactly one of `jwks` and `jwksUri` says how they are verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_KEY_SET])))]
pub struct Jwt {
    /// What the tokens' `iss` claim is, to the letter.
    #[schemars(length(min = 1, max = 256))]
    pub issuer: String,
    /// The issuer's public keys: a JSON Web Key Set (RFC 7517) as text, `{"keys": […]}`, with RSA, EC or OKP keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub jwks: Option<String>,
    /// Where the controller fetches the key set, every five minutes; while that cannot be reached, the keys that were last fetched
    /// stay. An https URL, verified by public certificate authorities, or an http one for a server inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::list(&[&rules::KEYS_URL])))]
    pub jwks_uri: Option<String>,
    /// One of these must be among the tokens' audiences (`aud`). Default: any audience will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub audiences: Vec<String>,
    /// Header fields that carry the token as their whole value. Default: authorization, with the scheme Bearer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 128)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::HEADER_NAMES]),
    ))]
    pub from_headers: Vec<String>,
}

/// Conditions on a call: all of them hold when it matches. A rule without conditions matches every call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    /// Who calls: any of these. Default: everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<Source>,
    /// The port that is called, any of these: of a policy with targetRef the service's ports, otherwise ports of the pods.
    /// Default: every port that the policy is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 65535)), extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<u16>,
    /// The method, any of these, in capitals. A call that is not HTTP has none: it matches no rule of Allow, and every rule of Deny.
    /// Default: every method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 32)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::METHODS]),
    ))]
    pub methods: Vec<String>,
    /// The path without the query, any of these: a whole path, or the beginning of one with `/*` at its end. `/api/*` matches `/api`
    /// and everything below it. Paths are compared in their normal form (RFC 3986 section 6.2.2), which is also what the app
    /// is given. A call that is not HTTP has none, see methods. Default: every path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 512)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::PATHS]),
    ))]
    pub paths: Vec<String>,
    /// Claims of a token that jwt verifies: for each name here, one of its values. The values of `scope` are the words in it.
    /// A call without a token has none, see methods. Default: no condition.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "claims_schema")]
    pub claims: BTreeMap<String, Vec<String>>,
}

/// Who calls: exactly one of the fields. Names are proven by mutual TLS; a caller that speaks plain text has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_SOURCE])))]
pub struct Source {
    /// A service account as namespace/name; without a namespace, one of the policy's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317), extend("x-kubernetes-validations" = rules::list(&[&rules::ACCOUNT])))]
    pub service_account: Option<String>,
    /// Every service account of a namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::NAMESPACE])))]
    pub namespace: Option<String>,
    /// Every identity of a trust domain: that of this mesh (mostly cluster.local), or another one that the mesh trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), extend("x-kubernetes-validations" = rules::list(&[&rules::TRUST_DOMAIN])))]
    pub trust_domain: Option<String>,
    /// Addresses that the connection may come from, whoever is there: a network such as 10.0.0.0/8, or one address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 43), extend("x-kubernetes-validations" = rules::list(&[&rules::IP_BLOCK])))]
    pub ip_block: Option<String>,
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Labels that the pods have, all of them.",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
        "x-kubernetes-validations": rules::list(&[&rules::LABELS]),
    })
}

fn claims_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Claims of a token that jwt verifies: for each name here, one of its values. The values of `scope` are the words in it. A call without a token has none, see methods. Default: no condition.",
        "minProperties": 1,
        "maxProperties": 8,
        "additionalProperties": {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {"type": "string", "minLength": 1, "maxLength": 256},
            "x-kubernetes-list-type": "set",
        },
        "x-kubernetes-validations": rules::list(&[&rules::CLAIM_NAMES]),
    })
}

/// What Leno makes of a SecurityPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityPolicyStatus {
    /// The generation of the object that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many connected proxies stand before pods that the policy is for, and how many of them run its present configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxyStatus>,
    /// What is true of the object now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}
