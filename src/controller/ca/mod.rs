//! The mesh's certificate authority: it signs the certificates by which proxies know each other.
//!
//! What it signs with is a Secret ([`secret::Kept`]) that Leno makes at its first start, or that the user brings in the layout
//! of cert-manager: `tls.crt` (the certificate that signs, then what leads to a root), `tls.key` and `ca.crt` (every root that
//! is trusted). It is not the CA of the controller's own serving certificate, see [`crate::certificates`].
//!
//! Decided without I/O, time and randomness as arguments: [`authority`] (is the material good, what is signed), [`request`]
//! (what counts of a signing request), [`rotation`] (from one root to the next without a failed request), [`expiry`] (when to
//! warn), [`limit`]. Around them: [`store`] (where replicas agree), [`keeper`] (follows the Secret), [`authenticate`] (whose
//! token it is) and [`signer`] (all of it together, for one request).

pub mod authenticate;
pub mod authority;
pub mod count;
pub mod expiry;
pub mod keeper;
pub mod limit;
pub mod listing;
pub mod proof;
pub mod request;
pub mod rotation;
pub mod secret;
pub mod signer;
pub mod store;
