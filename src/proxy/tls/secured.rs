//! What a record says of a connection that was mutual TLS.

use std::sync::Arc;

use leno_core::names::Identity;
use leno_core::request::Caller;

use super::{Agreed, Security};

/// Both ends of a connection that was mutual TLS, and what they agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Who dialled.
    pub source: Identity,
    /// Who was dialled.
    pub destination: Identity,
    /// What the handshake agreed on.
    pub agreed: Agreed,
}

impl Secured {
    /// A connection that `caller` made to this proxy; `None` where it is plain.
    pub fn inbound(caller: &Caller, tls: Option<Agreed>, security: &Security) -> Option<Self> {
        let (agreed, source, own) = (tls?, caller.identity.clone()?, security.credentials()?);
        Some(Self { source, destination: own.held.identity.clone(), agreed })
    }

    /// A connection that this proxy made to `expected`; `None` where it is plain.
    pub fn outbound(expected: Option<&Arc<Identity>>, tls: Option<Agreed>, security: &Security) -> Option<Self> {
        let (agreed, destination, own) = (tls?, expected?, security.credentials()?);
        Some(Self { source: own.held.identity.clone(), destination: Identity::clone(destination), agreed })
    }
}
