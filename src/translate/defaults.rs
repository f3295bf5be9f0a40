//! What holds for the whole mesh where no object says otherwise.

use ipnet::IpNet;
use leno_core::authorize::{Mode, Posture};
use leno_core::names::Name;
use leno_core::workload::Egress;

/// The trust domain of a mesh that names none.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// What holds for the whole mesh where no object says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The DNS domain of the cluster, mostly `cluster.local`.
    pub cluster_domain: Name,
    /// The SPIFFE trust domain of every identity of this mesh.
    pub trust_domain: Name,
    /// Whether callers must prove who they are, where no SecurityPolicy says.
    pub mode: Mode,
    /// Whether callers that no SecurityPolicy speaks of may pass.
    pub posture: Posture,
    /// Whether an endpoint whose pod is not known is held back. In a cluster slices and pods come by two watches, and until the
    /// pod is seen nobody knows who must answer there: to call it plain would be to send in the clear what must not be. In
    /// files, where slices may stand for pods that nobody lists, it is not.
    pub holds_unknown_pods: bool,
    /// Where apps may connect to outside the cluster, where no SecurityPolicy says.
    pub egress: Egress,
    /// Networks whose addresses are never outside: those of pods, which may be dialled without a service.
    pub inside: Vec<IpNet>,
}

impl Defaults {
    /// Those of a mesh that configures nothing but its DNS domain: trust domain `cluster.local`, Permissive, everybody may pass.
    pub fn new(cluster_domain: &str) -> Self {
        Self {
            cluster_domain: cluster_domain.into(),
            trust_domain: TRUST_DOMAIN.into(),
            mode: Mode::default(),
            posture: Posture::default(),
            holds_unknown_pods: false,
            egress: Egress::default(),
            inside: Vec::new(),
        }
    }
}
