//! What is said about an object to who wrote it.

use leno_core::names::{Name, ServiceId};

/// What became of one MeshService, TrafficPolicy or SecurityPolicy. The controller writes it to the object's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `metadata.generation` of the version that the report is about.
    pub generation: Option<i64>,
    /// The service it is for, where that is known; never of a SecurityPolicy, which workloads enforce.
    pub service: Option<ServiceId>,
    /// The service's endpoints (of a MeshService that is in force).
    pub endpoints: Option<EndpointCounts>,
    /// Ready endpoints of each version, in the order of the spec (of a MeshService that is in force).
    pub versions: Vec<(Name, usize)>,
    /// `Accepted`, then `ResolvedRefs`.
    pub conditions: Vec<Condition>,
}

/// The endpoints of a service, each pod counted once whatever its ports and addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Those that are ready.
    pub ready: usize,
    /// All.
    pub total: usize,
}

/// One condition of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted` or `ResolvedRefs` (the constants of `leno_api::status`).
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word from a closed set.
    pub reason: &'static str,
    /// Sentences: what is wrong and what to do.
    pub message: String,
}

impl Report {
    /// The condition `kind` (`Accepted`, `ResolvedRefs`).
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// The words of [`Condition::reason`].
pub mod reason {
    /// The object is in force.
    pub const ACCEPTED: &str = "Accepted";
    /// Everything it names exists.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// It says something that cannot be used.
    pub const INVALID: &str = "Invalid";
    /// An older object is for the same service.
    pub const CONFLICTED: &str = "Conflicted";
    /// What a policy is for does not exist.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// A Service it names does not exist.
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    /// A Service it names leads outside the cluster.
    pub const SERVICE_NOT_IN_MESH: &str = "ServiceNotInMesh";
    /// A version it names does not exist.
    pub const VERSION_NOT_FOUND: &str = "VersionNotFound";
    /// A port it names does not exist.
    pub const PORT_NOT_FOUND: &str = "PortNotFound";
    /// What a pod says of its share of requests is no weight.
    pub const INVALID_WEIGHT: &str = "InvalidWeight";
    /// A service of another namespace that it names may not be named by it.
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    /// No pod has the labels that it selects.
    pub const NOTHING_SELECTED: &str = "NothingSelected";
    /// The keys of an issuer of tokens have never been had.
    pub const KEYS_NOT_FETCHED: &str = "KeysNotFetched";
    /// Nobody says whose tokens are taken.
    pub const ISSUER_NOT_FOUND: &str = "IssuerNotFound";
    /// A host name outside the cluster means no address.
    pub const HOST_NOT_FOUND: &str = "HostNotFound";
    /// An older MeshService names the same host.
    pub const HOST_CONFLICTED: &str = "HostConflicted";
}
