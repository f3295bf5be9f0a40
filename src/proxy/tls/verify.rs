//! Verification: whether a certificate proves an identity of the mesh.
//!
//! In: the roots everybody trusts, a certificate chain and the time. Out: the [`Identity`] it proves, or [`Wrong`].
//! A name in DNS or an address proves nothing here: the one URI in the certificate does (SPIFFE X.509-SVID, section 2).
//!
//! Reading order: [`Roots::verify`], [`Wrong`], [`ServerIs`], [`MeshClient`].

use std::fmt;
use std::sync::Arc;

use leno_core::names::{Identity, InvalidIdentity};
use leno_core::trust::Trust;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

/// What a certificate is presented for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// By who was dialled.
    ByServer,
    /// By who dialled.
    ByClient,
}

/// By whom certificates may be signed, and for which trust domains.
pub struct Roots {
    trust: Arc<Trust>,
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a certificate proves nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Wrong {
    /// None was presented.
    #[error("the peer has presented no certificate")]
    Missing,
    /// It is not valid any more, or not yet.
    #[error("the peer's certificate is not valid at this time: {0}; compare the clocks of both nodes, and see why it was not renewed")]
    Time(webpki::Error),
    /// None of the roots has signed it.
    #[error("no root that this proxy trusts has signed the peer's certificate: {0}")]
    Untrusted(webpki::Error),
    /// It is no certificate, or one for another use.
    #[error("the peer's certificate cannot be used: {0}")]
    Unusable(webpki::Error),
    /// It has not exactly one URI.
    #[error("the peer's certificate has {0} URIs among its names, and a workload's has one")]
    Names(usize),
    /// Its URI is no identity.
    #[error("the URI in the peer's certificate is no identity: {0}")]
    Name(#[from] InvalidIdentity),
    /// Its trust domain is not let in.
    #[error("{0} is of a trust domain that this mesh does not let in")]
    Domain(Box<Identity>),
    /// It proves that somebody else is there.
    #[error("{found} answers where {expected} should; the address may have passed to another pod")]
    Identity {
        /// Who was to answer.
        expected: Arc<Identity>,
        /// Who did.
        found: Box<Identity>,
    },
}

impl Wrong {
    /// Metric label: a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "no-peer-certificate",
            Self::Time(_) => "expired",
            Self::Untrusted(_) => "unknown-root",
            Self::Unusable(_) | Self::Names(_) | Self::Name(_) => "bad-certificate",
            Self::Domain(_) => "other-trust-domain",
            Self::Identity { .. } => "identity-mismatch",
        }
    }

    fn from_chain(error: webpki::Error) -> Self {
        use webpki::Error as E;
        // Everything webpki does not say in other words is about how the certificate is made.
        #[expect(clippy::wildcard_enum_match_arm, reason = "webpki's errors are many, and open")]
        match error {
            E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity => Self::Time(error),
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Self::Untrusted(error),
            _ => Self::Unusable(error),
        }
    }

    /// As rustls carries it, with the alert that fits.
    fn into_rustls(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }

    /// What rustls was given by [`ServerIs`] or [`MeshClient`], out of its error.
    pub fn of(error: &Error) -> Option<&Self> {
        let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else { return None };
        inner.downcast_ref()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("trust_domain", &self.trust.trust_domain).field("roots", &self.anchors.len()).finish_non_exhaustive()
    }
}

impl Roots {
    /// The roots of `trust`; those that are no certificates are left out, and told.
    pub fn new(trust: Arc<Trust>, provider: &CryptoProvider) -> Self {
        let anchor = |root: &Arc<[u8]>| {
            let der = CertificateDer::from(&**root);
            let anchor = webpki::anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned());
            anchor.inspect_err(|error| tracing::warn!(%error, "the controller sent a root that is no certificate; it is not used")).ok()
        };
        let anchors = trust.roots.iter().filter_map(anchor).collect();
        Self { trust, anchors, algorithms: provider.signature_verification_algorithms }
    }

    /// The identity that `chain` (the peer's own certificate first) proves at the time `now`.
    pub fn verify(&self, chain: &[CertificateDer<'_>], presented: Presented, now: UnixTime) -> Result<Identity, Wrong> {
        let [own, between @ ..] = chain else { return Err(Wrong::Missing) };
        let certificate = EndEntityCert::try_from(own).map_err(Wrong::from_chain)?;
        let usage = match presented {
            Presented::ByServer => KeyUsage::server_auth(),
            Presented::ByClient => KeyUsage::client_auth(),
        };
        certificate.verify_for_usage(self.algorithms.all, &self.anchors, between, now, usage, None, None).map_err(Wrong::from_chain)?;
        self.named(&certificate)
    }

    /// The identity that `chain` proves, which [`Roots::verify`] has let in a moment ago: only the name is read again.
    pub fn verified(&self, chain: &[CertificateDer<'_>]) -> Result<Identity, Wrong> {
        let own = chain.first().ok_or(Wrong::Missing)?;
        self.named(&EndEntityCert::try_from(own).map_err(Wrong::from_chain)?)
    }

    fn named(&self, certificate: &EndEntityCert<'_>) -> Result<Identity, Wrong> {
        let mut names = certificate.valid_uri_names();
        let name = names.next().ok_or(Wrong::Names(0))?;
        let more = names.count();
        if more > 0 {
            return Err(Wrong::Names(1 + more));
        }
        let identity: Identity = name.parse()?;
        if self.trust.admits(&identity) { Ok(identity) } else { Err(Wrong::Domain(Box::new(identity))) }
    }

    /// As [`Roots::verify`], and that it is `expected` who answers.
    pub fn verify_server(&self, chain: &[CertificateDer<'_>], expected: &Arc<Identity>, now: UnixTime) -> Result<Identity, Wrong> {
        let found = self.verify(chain, Presented::ByServer, now)?;
        if found == **expected { Ok(found) } else { Err(Wrong::Identity { expected: Arc::clone(expected), found: Box::new(found) }) }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

fn chain<'c>(own: &CertificateDer<'c>, between: &[CertificateDer<'c>]) -> Vec<CertificateDer<'c>> {
    std::iter::once(own).chain(between).cloned().collect()
}

/// Lets in one server: who is expected.
#[derive(Debug)]
pub struct ServerIs {
    pub(super) roots: Arc<Roots>,
    pub(super) expected: Arc<Identity>,
}

impl ServerCertVerifier for ServerIs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        self.roots.verify_server(&chain, &self.expected, now).map_err(Wrong::into_rustls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.algorithms.supported_schemes()
    }
}

/// Lets in every client of the mesh; what it may do is decided later, by who it is.
#[derive(Debug)]
pub struct MeshClient {
    pub(super) roots: Arc<Roots>,
}

impl ClientCertVerifier for MeshClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain(end_entity, intermediates);
        self.roots.verify(&chain, Presented::ByClient, now).map_err(Wrong::into_rustls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.algorithms.supported_schemes()
    }
}
