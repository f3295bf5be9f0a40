//! `TrafficPolicy.spec.routes[].rateLimit`: how many requests may pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rules;

/// How many requests of a route may pass in each proxy that sends them. What is beyond is answered 429 with Retry-After (gRPC:
/// RESOURCE_EXHAUSTED).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// So many requests in each `per`, in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// The time they are counted over: a duration such as 1s or 1m. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Duration>,
    /// So many may come at once after a quiet time. Default: as many as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// Which requests are counted together: `source` for those of one caller of the proxy, `header:NAME` for those with one value of
    /// a header field. Default: all of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules::list(&[&rules::RATE_KEY])))]
    pub key: Option<String>,
}
