//! What a record says of a connection that was mutual TLS.

use std::rc::Rc;

use leno_core::names::Identity;

use super::{Agreed, Security};

/// Both ends of a connection that was mutual TLS, and what they agreed on. Made once for each, and shared by all its requests.
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
    /// A connection that `source` made to this proxy.
    pub(super) fn inbound(source: &Identity, agreed: Agreed, security: &Security) -> Option<Rc<Self>> {
        let own = security.credentials()?;
        Some(Rc::new(Self { source: source.clone(), destination: own.held.identity.clone(), agreed }))
    }

    /// A connection that this proxy made to `destination`.
    pub(super) fn outbound(destination: &Identity, agreed: Agreed, security: &Security) -> Option<Rc<Self>> {
        let own = security.credentials()?;
        Some(Rc::new(Self { source: own.held.identity.clone(), destination: destination.clone(), agreed }))
    }
}
