//! `MeshService.spec.loadBalancer`: how one endpoint is chosen among many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rules;

/// How one endpoint is chosen among many. Each proxy chooses by what it knows itself. It holds for everybody who sends requests to the
/// service, whatever routes lead there. An endpoint's share beside others is said by its pod, in the annotation leno.dev/weight: a whole
/// number from 0 to 1000; pods without it have 100, and one with 0 gets nothing while any other can take requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::HASH_WITH_ITS_ALGORITHM, &rules::balancing::HASH_ALONE])))]
pub struct LoadBalancer {
    /// LeastRequest (of two endpoints taken at random, the one with fewer requests under way), RoundRobin (one after the other, as
    /// often as their weights say), Random (any, with equal chance), WeightedRandom (any, with a chance by weight), PeakEwma (of two
    /// taken at random, the one that has answered faster lately, by the requests under way there; who fails counts as slow) or
    /// ConsistentHash (the same endpoint for the same value of something in the request). Of connections that are not looked into,
    /// the open ones are what is under way, and what takes long is to connect. Default: LeastRequest.
    pub algorithm: Algorithm,
    /// What of a request ConsistentHash goes by. Requests that lack it go by LeastRequest, and so do connections that are not looked
    /// into unless it is sourceIp. When endpoints come or go, as few values as can be move to another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// In how much time an endpoint that comes to others gets its full share: a tenth of it at first, and then evenly more: a duration such
    /// as 30s. Every proxy counts from when it hears of the endpoint. Not together with ConsistentHash. Default: the full share at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// PreferZone: requests stay in the zone of the pod that calls (topology.kubernetes.io/zone), as far as the healthy endpoints there bear
    /// them: as much as each zone sends if all send the same. What is beyond goes to zones whose endpoints bear more than their own
    /// requests. A caller of which no zone is known prefers none. Not together with ConsistentHash. Default: Anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Requests of one session stay with the endpoint that took its first one, for as long as it is there and healthy; then another one takes
    /// the session. The algorithm chooses for new sessions. A pod of weight 0 keeps its sessions and gets no new ones. Not together with
    /// ConsistentHash. Default: every request is chosen for anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinity>,
}

/// How sessions are told apart: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::ONE_AFFINITY])))]
pub struct SessionAffinity {
    /// A cookie that the proxy sets on responses to requests without a valid one (HttpOnly); it names the endpoint by a hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<SessionCookie>,
    /// A header field for callers that keep no cookies: responses to requests without it name the endpoint in it, by a hash, and callers
    /// send it back. A value that callers make up themselves works as well: by consistent hashing the same value meets the same
    /// endpoint, and when endpoints come or go as few values as can be move.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::SESSION_HEADER])))]
    pub header: Option<String>,
}

/// The cookie of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionCookie {
    /// Its name. Default: `leno-` and a hash of the service's name, so that services of one site have each their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::COOKIE_NAME])))]
    pub name: Option<String>,
    /// How long callers keep it, in whole seconds: a duration such as 1h. Default: until the caller's own session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// For which paths callers send it. Default: /.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::COOKIE_PATH])))]
    pub path: Option<String>,
}

/// Whether requests stay in the caller's zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Locality {
    /// Zones do not matter.
    #[default]
    Anywhere,
    /// As far as its endpoints bear them.
    PreferZone,
}

/// How one endpoint is chosen among many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// Of two taken at random, the one with fewer requests under way.
    #[default]
    LeastRequest,
    /// One after the other, as often as their weights say.
    RoundRobin,
    /// Any, with equal chance.
    Random,
    /// Any, with a chance by weight.
    WeightedRandom,
    /// Of two taken at random, the one that has answered faster lately.
    PeakEwma,
    /// The same endpoint for the same value of something in the request.
    ConsistentHash,
}

/// What of a request is hashed: one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::ONE_HASH_KEY])))]
pub struct ConsistentHash {
    /// A header field: requests with the same value meet the same endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules::list(&[&rules::HEADER_NAME])))]
    pub header: Option<String>,
    /// A cookie that the app or its callers set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::COOKIE_NAME])))]
    pub cookie: Option<String>,
    /// A query parameter; of several with this name the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub query: Option<String>,
    /// The address that the connection comes from: every pod that calls meets one endpoint. Write true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::list(&[&rules::balancing::WRITE_TRUE])))]
    pub source_ip: Option<bool>,
}
