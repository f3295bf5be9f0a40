//! What a route does to requests and responses besides saying where they go.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::rules;
use crate::rules::filters as filter_rules;

/// Changes of header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::FIELD_CHANGES])))]
pub struct HeaderChanges {
    /// Fields that have this value then, and no other, whether they were there or not. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields_to_set")]
    pub set: BTreeMap<String, String>,
    /// Values that come after those that the fields have already. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields_to_add")]
    pub add: BTreeMap<String, String>,
    /// Fields that are taken out. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&filter_rules::FIELDS_TO_REMOVE]),
    ))]
    pub remove: Vec<String>,
}

/// What a request's target becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::REWRITES])))]
pub struct Rewrite {
    /// What the path becomes; the query stays as it is. Default: the path stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// The host that the request is then for (`Host`, in HTTP/2 `:authority`). Where it goes does not depend on it. Default: as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::list(&[&filter_rules::NEW_HOST])))]
    pub host: Option<String>,
}

/// What a path becomes: exactly one of `prefix` and `full`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::ONE_PATH_CHANGE])))]
pub struct PathChange {
    /// Stands instead of the prefix that the route's match names, or before the whole path where it names none: with the match
    /// `{prefix: /api}`, `/v2` makes `/v2/pay` of `/api/pay`, and `/` makes `/pay` of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::list(&[&filter_rules::NEW_PATH])))]
    pub prefix: Option<String>,
    /// Stands instead of the whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::list(&[&filter_rules::NEW_PATH])))]
    pub full: Option<String>,
}

/// Where requests are sent by the proxy's own answer. What is left out is as in the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::REDIRECTS])))]
pub struct Redirect {
    /// http or https. Default: http, as the request came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host. Default: that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::list(&[&filter_rules::NEW_HOST])))]
    pub host: Option<String>,
    /// The port. Default: that of `scheme` where it is given, else the port the request was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// What the path becomes; the query stays as it is. Default: the path stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// Status of the answer: 301 and 308 are for good, 302, 303 and 307 for now; 307 and 308 keep method and body. Default: 302.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 300, max = 399), extend("x-kubernetes-validations" = rules::list(&[&filter_rules::REDIRECT_STATUS])))]
    pub status: Option<u16>,
}

/// Schemes of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

fn fields_to_set(generator: &mut SchemaGenerator) -> Schema {
    fields(generator, "Fields that have this value then, and no other, whether they were there or not. Default: none.")
}

fn fields_to_add(generator: &mut SchemaGenerator) -> Schema {
    fields(generator, "Values that come after those that the fields have already. Default: none.")
}

fn fields(_: &mut SchemaGenerator, description: &str) -> Schema {
    json_schema!({
        "type": "object",
        "description": description,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 1024},
        "x-kubernetes-validations": rules::list(&[&filter_rules::FIELDS_TO_WRITE]),
    })
}
