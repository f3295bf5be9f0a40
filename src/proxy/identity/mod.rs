//! Identity: what the proxy proves itself with.

use std::fmt;
use std::sync::Arc;

use leno_core::trust::Held;
use rustls::sign::CertifiedKey;

/// A certificate with its key; replaced as a whole at each renewal. The key never leaves memory.
pub struct Credentials {
    /// The chain and the key, as rustls takes them.
    pub certified: Arc<CertifiedKey>,
    /// What others may know of it.
    pub held: Held,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("held", &self.held).finish_non_exhaustive()
    }
}
