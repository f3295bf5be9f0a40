//! What a proxy asks a certificate with: a key of its own, and a request that proves to have it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivateKeyDer;

/// A new key and the request for it. A key is used for one certificate.
pub struct Request {
    key: KeyPair,
    csr: Vec<u8>,
}

impl Request {
    /// Makes a key (ECDSA, P-256) and a request (PKCS #10) that names nobody: who this is the controller knows by the token.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// The request, DER.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The key, as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }
}
