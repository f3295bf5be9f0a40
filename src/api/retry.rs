//! The part of a `TrafficPolicy` that says what is tried again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rules;

/// What is tried again, how often and after how long. Tries go to another endpoint where there is one. All of them
/// together stay within the request's timeout, and a service gets no more retries than 20 % of its requests and 10 each
/// second, from each worker of a proxy. A body of more than 64 KiB is not sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    /// Tries after the first, at most 10; 0: none at all. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub attempts: Option<u32>,
    /// Time for one try, up to the head of its response: a duration such as 300ms or 1s. Default: only the request's timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    /// What is tried again. 5xx: any 5xx; gateway-error: 502, 503 and 504; each also means a try without an answer.
    /// connect-failure: no connection, whatever the method, because no app has seen the request. reset: no whole head of a
    /// valid response. timeout: the try's time is over. retriable-4xx: 408, 409, 425 and 429. grpc-unavailable and the like: that
    /// status of gRPC in a response without messages; it is said for gRPC requests only, though their method is POST.
    /// `Retry-After` of 429 and 503 is waited for where the time allows it. Default: gateway-error, connect-failure, reset, timeout.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 11), extend("x-kubernetes-list-type" = "set"))]
    pub retry_on: Vec<RetryOn>,
    /// Methods whose requests may reach the app twice. A POST among them is repeated for every reason in `retryOn`. Default: the
    /// methods that may be repeated without harm: GET, HEAD, OPTIONS, TRACE, PUT and DELETE.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)), extend(
        "x-kubernetes-list-type" = "set",
        "x-kubernetes-validations" = rules::list(&[&rules::RETRY_METHODS]),
    ))]
    pub methods: Vec<String>,
    /// Time between tries. Default: up to 25ms, doubled for each further try up to 250ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
}

/// Time between tries: a random part of `base`, of twice that for the next one, and so on up to `max`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::BACKOFF])))]
pub struct Backoff {
    /// Most before the second try. Default: 25ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Duration>,
    /// Most before any try. Default: ten times base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

/// What is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Any 5xx, or no answer.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503 or 504, or no answer.
    GatewayError,
    /// No connection.
    ConnectFailure,
    /// No whole head of a valid response.
    Reset,
    /// The time for one try is over.
    Timeout,
    /// 408, 409, 425 or 429.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// gRPC's CANCELLED.
    GrpcCancelled,
    /// gRPC's DEADLINE_EXCEEDED.
    GrpcDeadlineExceeded,
    /// gRPC's INTERNAL.
    GrpcInternal,
    /// gRPC's RESOURCE_EXHAUSTED.
    GrpcResourceExhausted,
    /// gRPC's UNAVAILABLE.
    GrpcUnavailable,
}
