//! `TrafficPolicy.spec.routes[].mirror`: who else gets copies of requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Who gets a copy of requests: exactly one of `version` and `service`. What it answers is dropped, and whatever becomes of the
/// copy, the request itself is neither slowed nor failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_MIRROR, &rules::PORT_WITH_SERVICE, &rules::NAMESPACE_WITH_SERVICE])))]
pub struct Mirror {
    /// A version of the target, as its MeshService names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// Another service: a Service, or what a MeshService of this name registers outside the cluster. Its own routes are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::OTHER_SERVICE])))]
    pub service: Option<String>,
    /// Namespace of the other service. Another namespace than the policy's must allow it by a ReferenceGrant, as for
    /// destinations; until then no copies are sent there. Default: the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::list(&[&rules::NAMESPACE_NAME])))]
    pub namespace: Option<String>,
    /// Port of the other service. Default: the port the request was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Of how many of 100 requests a copy is sent; fractions such as 0.5 count. Each mirror draws on its own. Default: 100.
    #[serde(default = "percentage_default")]
    #[schemars(range(min = 0, max = 100))]
    pub percentage: f64,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { version: None, service: None, namespace: None, port: None, percentage: percentage_default() }
    }
}

fn percentage_default() -> f64 {
    100.0
}
