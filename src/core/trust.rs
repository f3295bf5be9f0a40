//! Trust: by which roots the mesh's peers are verified.

use std::sync::Arc;

use crate::names::{Identity, Name};

/// Who is trusted. The same for every proxy of a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The mesh's own trust domain.
    pub trust_domain: Name,
    /// Further trust domains whose peers are let in; the roots must vouch for them too.
    pub also: Vec<Name>,
    /// Root certificates, DER (RFC 5280). Several while a root is replaced.
    pub roots: Vec<Arc<[u8]>>,
    /// SHA-256 of the certificate that signs now, DER. A proxy whose certificate another one signed asks for a new one.
    pub issuer: Vec<u8>,
}

impl Trust {
    /// Whether peers of this identity's trust domain are let in.
    pub fn admits(&self, identity: &Identity) -> bool {
        self.trust_domain == identity.trust_domain || self.also.contains(&identity.trust_domain)
    }
}

/// The certificate a proxy holds, as far as others may know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name it proves.
    pub identity: Identity,
    /// Its serial number, hexadecimal.
    pub serial: Name,
    /// End of its validity, seconds since 1970-01-01T00:00:00Z.
    pub not_after: i64,
    /// SHA-256 of the certificate that signed it, DER; empty when that is not known.
    pub issuer: Vec<u8>,
}
