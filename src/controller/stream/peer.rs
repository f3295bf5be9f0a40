//! Who is at the other end of a connection, and what it may ask for.

use std::net::IpAddr;

use jiff::Timestamp;
use leno_core::names::{Identity, WorkloadId};
use leno_xds::server::Intake;
use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;

use crate::ca::proof::{Unproven, proven};
use crate::ca::signer::Signer;
use crate::publish::Caller;

/// What is known of a client after its handshake.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Where it calls from.
    pub(super) address: Option<IpAddr>,
    /// What it has shown; that it holds the first one's key is certain.
    certificates: Vec<CertificateDer<'static>>,
}

/// A client that gets no configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Stranger {
    #[error(transparent)]
    Unproven(#[from] Unproven),
    #[error("there is no usable certificate authority now, so nobody can be known: see the controller's log")]
    NotReady,
}

/// A proxy says that it is somebody else than it has proven to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Impostor {
    #[error("{identity} is no identity of {node}: node.id must be a pod of the same namespace")]
    Node { identity: Identity, node: WorkloadId },
    #[error("{identity} tells of a certificate of {other}")]
    Certificate { identity: Identity, other: Identity },
}

impl Peer {
    /// A client whose handshake, if there was one, came to `session`.
    pub(super) fn new(address: Option<IpAddr>, session: Option<&ServerConnection>) -> Self {
        let certificates = session.and_then(|session| session.peer_certificates()).unwrap_or_default();
        Self { address, certificates: certificates.to_vec() }
    }

    /// Who it is at `now`, by the authority of that moment: a connection may be older than the authority. Without a `signer` identities are
    /// not in use; with one it is an error not to have proven to be anybody.
    pub(super) fn caller(&self, signer: Option<&Signer>, now: Timestamp) -> Result<Caller, Stranger> {
        let Some(signer) = signer else { return Ok(Caller::Anybody) };
        let authority = signer.authority().ok_or(Stranger::NotReady)?;
        Ok(Caller::Proven(proven(&authority, &self.certificates, now)?))
    }
}

/// Whether `caller` may say this of itself: that it is `node`, and what is in `intake`.
pub(super) fn check(caller: &Caller, node: Option<&WorkloadId>, intake: &[Intake]) -> Result<(), Impostor> {
    let Caller::Proven(identity) = caller else { return Ok(()) };
    if let Some(node) = node
        && node.namespace != identity.namespace
    {
        return Err(Impostor::Node { identity: identity.clone(), node: node.clone() });
    }
    for it in intake {
        if let Intake::Holds(held) = it
            && held.identity != *identity
        {
            return Err(Impostor::Certificate { identity: identity.clone(), other: held.identity.clone() });
        }
    }
    Ok(())
}
