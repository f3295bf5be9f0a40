//! What a change touched.

use std::collections::BTreeSet;

use leno_core::endpoints::EndpointsId;
use leno_core::names::{ServiceId, WorkloadId};

use crate::object::ObjectKey;

/// Everything whose value may differ after a change. What is not named here is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services whose ports, names or routes may differ, that came or went. Endpoint churn never stands here.
    pub services: BTreeSet<ServiceId>,
    /// Endpoint lists that may differ, that came or went.
    pub endpoints: BTreeSet<EndpointsId>,
    /// Workloads whose inbound ports or guards may differ, that came or went.
    pub workloads: BTreeSet<WorkloadId>,
    /// MeshServices, TrafficPolicies and SecurityPolicies whose report may differ, that came or went.
    pub reports: BTreeSet<ObjectKey>,
    /// Whether some address or host may lead to another service than before.
    pub names: bool,
}

impl Touched {
    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.endpoints.is_empty() && self.workloads.is_empty() && self.reports.is_empty() && !self.names
    }

    /// Adds what another change touched.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.endpoints.extend(other.endpoints);
        self.workloads.extend(other.workloads);
        self.reports.extend(other.reports);
        self.names |= other.names;
    }
}
