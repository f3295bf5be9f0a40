//! What is said about a request: plain data, the JSON of `-o json`.

use std::net::SocketAddr;

use serde::Serialize;

/// What happens to a request, and why. Its JSON form is what `-o json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The request.
    pub request: Asked,
    /// How it ends.
    pub outcome: Outcome,
    /// The service it is for; none when it passes through untouched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Found>,
    /// The policy in force, `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Every match that was judged, most specific first, up to the one that holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<Judged>,
    /// The route that holds; none when the service's own endpoints take the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// What the route does to requests and responses besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// The path it is sent on with, where that is another.
    #[serde(skip)]
    pub path: Option<String>,
    /// Where the request may go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// How many such requests each proxy lets pass, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<String>,
    /// Who gets a copy of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Destination>,
    /// Whether the pods that may take it let the caller pass; none where no policy says anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
    /// How long it may take; none is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// What is tried again; none: only what no app can have seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Time in which, once a response has begun, a byte must come or go, such as `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// How one endpoint is chosen among many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<String>,
    /// What else there is to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The request as it was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Its URL.
    pub url: String,
    /// Who sends it, `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// An endpoint takes it.
    Routed,
    /// It is no concern of the mesh.
    PassesThrough,
    /// No endpoint can take it, or not for every draw.
    Refused,
}

/// The service that a request is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// `namespace/name`.
    pub name: String,
    /// How it was found, in words.
    pub found_by: String,
    /// Its port.
    pub port: u16,
    /// What is spoken there, in words.
    pub protocol: String,
}

/// One match that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// Name of its route.
    pub route: String,
    /// Its place among the matches of the route, from 1; 0 when the route has none and so holds for every request.
    #[serde(rename = "match")]
    pub place: usize,
    /// Whether it holds.
    pub holds: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One thing that a route does to requests or responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Which of its filters: `rewrite`, `redirect`, `request`, `response` …
    pub name: String,
    /// What it does, in words.
    pub does: String,
}

/// One place where the request may go.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Its share of such requests.
    pub percent: f64,
    /// What it is, in words: `version v1`, `service shop/other, port 80`.
    pub name: String,
    /// Whether `--draw` falls on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drawn: Option<bool>,
    /// Who may take the request.
    pub endpoints: Vec<Candidate>,
    /// How one of them is chosen, where more decides it than the algorithm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub balancing: Vec<String>,
    /// How they are guarded: circuit breaker, outlier detection, limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<String>,
    /// What the proxy answers itself, when nobody may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// What some pods say to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Whether it may pass.
    pub allowed: bool,
    /// By whom that is decided, in words.
    pub words: String,
    /// Whether callers must prove who they are.
    pub mode: String,
    /// Who the caller proves to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Every rule that was judged, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<String>,
    /// The pods.
    pub workloads: Vec<String>,
}

/// One endpoint that may take the request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod or process behind it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// Its namespace: that of the service it serves.
    #[serde(skip)]
    pub namespace: String,
    /// The versions it belongs to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// Its weight, where that is not 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Its share of what the destination gets, in percent, while nothing is wrong with any; none where all have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
}

/// What is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// Time for one try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<String>,
    /// What a request with this method is tried again on.
    pub on: Vec<&'static str>,
    /// Why it is tried again on no more than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Most before the second try, and before any.
    pub backoff: [String; 2],
    /// Who says so, in words.
    pub set_by: String,
}

/// How long a request may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeout {
    /// The time, such as `5s`.
    pub after: String,
    /// Who says so, in words.
    pub set_by: String,
}
