//! `TrafficPolicy.spec.routes[].cors`: which pages of other origins may call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rules;
use crate::rules::filters as filter_rules;

/// Which pages of other origins may call, as browsers ask before they let them (CORS). The proxy answers preflights, and says in
/// responses who may read them. It is a browser's affair: other callers are kept out by SecurityPolicies only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::NAMED_ORIGINS])))]
pub struct Cors {
    /// Origins of the pages: exact such as `https://shop.example.com`, everything below such as `https://*.example.com`, or `*` for all.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&filter_rules::ORIGINS]),
    ))]
    pub allow_origins: Vec<String>,
    /// Methods that they may use, or `*` for all. Default: what browsers allow without asking: GET, HEAD and POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&filter_rules::CORS_METHODS]),
    ))]
    pub allow_methods: Vec<String>,
    /// Header fields that they may send, or `*` for all. Default: what browsers allow without asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::HEADER_NAMES]),
    ))]
    pub allow_headers: Vec<String>,
    /// Header fields of responses that they may read, or `*` for all. Default: what browsers allow without asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::HEADER_NAMES]),
    ))]
    pub expose_headers: Vec<String>,
    /// How long browsers may keep the answer to a preflight, in whole seconds: a duration such as 10m. Default: as the browser has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Whether requests may carry cookies, HTTP authentication and client certificates. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_credentials: bool,
}
