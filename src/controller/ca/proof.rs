//! Who a client of the control port has proven to be.
//!
//! The handshake asks for a certificate and lets everybody in; [`proven`] says afterwards, at each stream, whom the certificate
//! names. So a client without a good one can be told why, may still ask for a certificate, and one that resumes a session (which
//! brings back the certificate of an earlier handshake, and asks no verifier) is verified like the others.

use std::sync::Arc;

use jiff::Timestamp;
use leno_core::names::{Identity, InvalidIdentity};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;

use super::authority::Authority;

/// Why a client is nobody.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unproven {
    /// It showed nothing.
    #[error("a certificate of this mesh is needed, and none was shown: get one by {}", leno_xds::SIGN_PATH)]
    Nothing,
    /// No root vouches for it, or not any more.
    #[error("the certificate is not valid here ({0}): get a new one")]
    Untrusted(rustls::Error),
    /// It names nobody, or several.
    #[error("the certificate must name exactly one SPIFFE ID and nothing else")]
    Names,
    /// It names something else.
    #[error("the certificate names no workload: {0}")]
    Identity(#[from] InvalidIdentity),
    /// It is of another mesh.
    #[error("the certificate is of the trust domain {0}, which gets no configuration here")]
    Domain(String),
}

/// Whom the certificates of a handshake name, by `authority` and at `now`.
///
/// # Errors
/// When they name nobody of this mesh.
pub fn proven(authority: &Authority, certificates: &[CertificateDer<'_>], now: Timestamp) -> Result<Identity, Unproven> {
    let (leaf, rest) = certificates.split_first().ok_or(Unproven::Nothing)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    authority.verifier().verify_client_cert(leaf, rest, at).map_err(Unproven::Untrusted)?;
    let identity = named(leaf)?;
    if identity.trust_domain != authority.trust().trust_domain {
        return Err(Unproven::Domain(identity.trust_domain.to_string()));
    }
    Ok(identity)
}

/// The one SPIFFE ID that a certificate names.
fn named(leaf: &CertificateDer<'_>) -> Result<Identity, Unproven> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok().ok_or(Unproven::Names)?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(Unproven::Names)?;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => Ok(uri.parse()?),
        _ => Err(Unproven::Names),
    }
}

/// Asks every client for a certificate and takes none for an answer, see the module's documentation. That the client holds the
/// certificate's key is verified.
#[derive(Debug)]
pub struct Asking(pub Arc<CryptoProvider>);

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
