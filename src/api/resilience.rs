//! What a MeshService says of endpoints that fail and of callers that are too many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rules;

/// Endpoints are asked whether they are well. Every sidecar that uses the service asks itself, over connections secured like those of its
/// requests, for as long as it uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::ONE_PROBE])))]
pub struct HealthCheck {
    /// A request: an endpoint is well that answers with an expected status. Exactly one of http, grpc and tcp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// A call of grpc.health.v1.Health/Check: an endpoint is well that answers SERVING. Exactly one of http, grpc and tcp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// A connection: an endpoint is well that takes it. Exactly one of http, grpc and tcp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// How often each endpoint is asked, give or take a tenth, so that sidecars do not ask in time. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long an endpoint has to answer, connection included. Default: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Checks in a row that must fail before an endpoint is left out. The first check of a new endpoint decides alone; until then it
    /// is used. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub unhealthy_threshold: Option<u32>,
    /// Checks in a row that must succeed before it is used again. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub healthy_threshold: Option<u32>,
}

/// A request that tells whether an endpoint is well. SecurityPolicies judge it like any request of the calling workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    /// What is asked for with GET: a path, and a query if wanted, such as /healthz.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::list(&[&rules::PROBE_PATH])))]
    pub path: String,
    /// The container's port that is asked. Default: the one that requests go to, in HTTP/2 where it is declared HTTP2 or GRPC; another
    /// port is asked in HTTP/1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Statuses of an endpoint that is well. Every other one, 403 of a SecurityPolicy too, says that it is not. Default: 200 to 299.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(length(max = 32), inner(range(min = 200, max = 599)), extend("x-kubernetes-list-type" = "set"))]
    pub expected_statuses: Vec<u16>,
}

/// A call of grpc.health.v1.Health/Check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcProbe {
    /// The gRPC service that is asked for, such as shop.Payment. Default: the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service: Option<String>,
}

/// A connection that tells whether an endpoint is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TcpProbe {}

/// Endpoints that fail are left out for a time. Every sidecar judges by what it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Failures in a row after which an endpoint is left out: answers of 5xx (in gRPC UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and
    /// DATA_LOSS), connections that cannot be made or break, and requests that are not answered in time. 0 is never. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub consecutive_errors: Option<u32>,
    /// The same, for failures that a gateway tells: 502, 503 and 504 (in gRPC UNAVAILABLE and DEADLINE_EXCEEDED), connections that
    /// cannot be made or break, and requests that are not answered in time. 0 is never. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub consecutive_gateway_errors: Option<u32>,
    /// How often success rates are compared, and how long an endpoint has to be in for one of its ejections to be forgotten.
    /// Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long an endpoint is left out the first time; the second time it is twice as long, and so on. Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<Duration>,
    /// How long an endpoint is left out at most, if that is more than baseEjectionTime. Default: 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejection_time: Option<Duration>,
    /// Which share of the endpoints may be left out at once, in percent. One always may; see healthyPanicPercent too. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max_ejection_percent: Option<u8>,
    /// Leaves endpoints out that fail much more than the others, too. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
}

/// Which endpoints fail much more than the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessRate {
    /// How many requests an endpoint must have had from one sidecar within an interval for its rate to count. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<u32>,
    /// How many endpoints must have had that many for rates to be compared. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000))]
    pub min_endpoints: Option<u32>,
    /// How far below the mean of all rates an endpoint's may be, in percent of their standard deviation. Default: 190.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub deviation_percent: Option<u32>,
}

/// When an endpoint is not called any more, and when it is again. Every sidecar judges by what it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    /// Failures in a row (as outlierDetection.consecutiveErrors counts them) that open the breaker: the endpoint is not called. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failure_threshold: Option<u32>,
    /// Successful trials that close it again; one that fails opens it anew. Default: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub success_threshold: Option<u32>,
    /// How long it stays open before trials are let pass, and how long trials may all stay without an answer before others are.
    /// Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Duration>,
    /// Trials that may wait for an answer at once. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub half_open_requests: Option<u32>,
}

/// How many requests each pod of the service bears at once, learnt by its own sidecar from how long its app takes to answer: while answers
/// take as long as they do without a queue the limit rises, and when they take longer it falls. What is beyond it is answered 503
/// at once, or goes to another pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::MIN_AND_MAX_LIMIT])))]
pub struct AdaptiveConcurrency {
    /// The limit is never below this. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_limit: Option<u32>,
    /// The limit is never above this. Default: 1000, or minLimit if that is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_limit: Option<u32>,
    /// By how much answers may take longer than without a queue, in percent, before the limit is lowered; 5 ms are always allowed.
    /// Default: 100, which is twice as long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 10_000))]
    pub tolerance_percent: Option<u32>,
}

/// What may be under way from one sidecar to the service at once. Each limit holds for the whole sidecar and each port of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Connections {
    /// Connections that carry something: with HTTP/1.1 a request each; connections that rest are closed to make room. With HTTP/2,
    /// one connection to each endpoint is always allowed, and counts. Default: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// Requests and opaque connections that may wait, in turn, when maxConnections is reached. Those beyond are answered 503, or
    /// closed. Default: 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_pending_requests: Option<u32>,
    /// Requests whose response is not complete yet. Those beyond are answered 503. Default: unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,
    /// Requests that are being sent once more by a retry policy. Those beyond get what came of their try. Default: unlimited, but
    /// for the policy's budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_retries: Option<u32>,
    /// How long an endpoint may take to accept a connection and prove who it is. Default: 2s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// How long a connection to an endpoint is kept without a request on it, and an opaque one without a byte either way. Default:
    /// 4.5s with HTTP/1.1, below what servers allow, and otherwise unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
}
