//! What status is made of, for every kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// Condition type: the object is in force.
pub const ACCEPTED: &str = "Accepted";
/// Condition type: everything the object names exists.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Condition type: every subscribed proxy runs the object's current generation.
pub const PROGRAMMED: &str = "Programmed";

/// How far the proxies are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// Proxies concerned: those whose workload has talked to the service of late; of a SecurityPolicy those that stand before it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub subscribed: i32,
    /// Of these, the proxies that have acknowledged the present configuration.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub current: i32,
    /// Time at which the last subscribed proxy became current; absent while one is behind, or while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The schema of `status.conditions`: a list that server-side apply merges by type.
pub(crate) fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Vec::<Condition>::json_schema(generator);
    let object = schema.ensure_object();
    object.insert("description".into(), "What is true of the object now: Accepted, ResolvedRefs, Programmed.".into());
    object.insert("maxItems".into(), 8.into());
    object.insert("x-kubernetes-list-type".into(), "map".into());
    object.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema
}
