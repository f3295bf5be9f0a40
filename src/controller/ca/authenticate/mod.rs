//! Whose token it is: asked of the Kubernetes API ([`review`]), or known beforehand ([`tokens`]).

pub mod review;
pub mod tokens;

use std::sync::Arc;

use jiff::Timestamp;
use leno_core::names::{Identity, InvalidIdentity, Name, WorkloadId};

use self::review::Reviewer;
use self::tokens::Tokens;

/// Longest token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Who asks for a certificate, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// The pod, or the process on a plain machine.
    pub workload: WorkloadId,
    /// Its service account, of the same namespace.
    pub service_account: Name,
}

impl Applicant {
    /// The name that it is given in `trust_domain`.
    ///
    /// # Errors
    /// When one of its parts does not fit into a SPIFFE ID.
    pub fn identity(&self, trust_domain: &Name) -> Result<Identity, InvalidIdentity> {
        let namespace = self.workload.namespace.clone();
        let identity = Identity { trust_domain: trust_domain.clone(), namespace, service_account: self.service_account.clone() };
        identity.to_string().parse()
    }
}

/// Why somebody is not who the token should say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a token of this mesh, or no longer.
    #[error("the token is not valid here: {0}")]
    Token(String),
    /// A service account's token that no pod was given.
    #[error("the token is not bound to a pod: mount a projected service-account token with the audience {}", review::AUDIENCE)]
    Unbound,
    /// The pod is not there (any more).
    #[error("pod {0} is gone: a certificate is only for pods that run")]
    Gone(WorkloadId),
    /// The pod is there, but is another than the token's.
    #[error("pod {0} is another than the one that the token was given to")]
    Another(WorkloadId),
    /// Who could say cannot be asked.
    #[error("tokens cannot be checked now: {0}")]
    Unavailable(String),
}

/// Who says whose token it is.
#[derive(Clone)]
pub enum Authenticator {
    /// The API server, about pods.
    Cluster(Reviewer),
    /// A table, for processes on plain machines.
    Static(Arc<Tokens>),
}

impl Authenticator {
    /// Whose `token` it is, at `now`.
    ///
    /// # Errors
    /// When it is nobody's, or nobody can say.
    pub async fn authenticate(&self, token: &str, now: Timestamp) -> Result<Applicant, Refusal> {
        match self {
            Self::Cluster(reviewer) => reviewer.authenticate(token, now).await,
            Self::Static(tokens) => tokens.whose(token).ok_or_else(|| Refusal::Token("nobody here was given it".to_owned())),
        }
    }
}
