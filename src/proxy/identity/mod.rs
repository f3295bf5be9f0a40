//! Identity: what the proxy proves itself with, how it comes by that, and how it keeps it.
//!
//! Reading order: [`keeper`] asks for certificates for as long as the proxy lives, [`renewal`] says when, [`request`] makes a key and
//! a request, [`sign`] asks the controller, [`credentials`] checks its answer, [`presented`] shows it on the control stream,
//! [`shown`] tells people.

pub mod credentials;
pub mod keeper;
pub mod presented;
pub mod renewal;
pub mod request;
pub mod shown;
pub mod sign;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::sync::Arc;

use leno_core::trust::Held;
use rustls::sign::CertifiedKey;

pub use sign::Token;

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
