//! `TrafficPolicy.spec.routes[].fault`: faults on purpose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rules;
use crate::rules::filters as filter_rules;

/// Faults that befall some requests, to see how callers take them. A request that is delayed and aborted is answered after the delay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::SOME_FAULT])))]
pub struct Fault {
    /// Some requests are sent on later. The delay counts against the timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Some requests are answered by the proxy, and reach nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A delay before requests are sent on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// How long: a duration such as 300ms, 10s or 1m30s.
    pub duration: Duration,
    /// Of how many of 100 requests; fractions such as 0.5 count. Default: 100.
    #[serde(default = "percentage_default")]
    #[schemars(range(min = 0, max = 100))]
    pub percentage: f64,
}

/// An answer of the proxy: exactly one of `status` and `grpcStatus`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&filter_rules::ONE_ABORT])))]
pub struct Abort {
    /// The HTTP status, 400 to 599; gRPC callers hear what gRPC makes of it (503: UNAVAILABLE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// The gRPC status, 1 to 16; other callers hear the HTTP status that it stands for (14: 503).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub grpc_status: Option<u16>,
    /// Of how many of 100 requests; fractions such as 0.5 count. Default: 100.
    #[serde(default = "percentage_default")]
    #[schemars(range(min = 0, max = 100))]
    pub percentage: f64,
}

fn percentage_default() -> f64 {
    100.0
}
