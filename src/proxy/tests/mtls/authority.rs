//! A certificate authority of a test.

use std::sync::Arc;

use leno_core::trust::{Held, Trust};
use leno_proxy::identity::Credentials;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// `web` of the tests' namespace.
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
/// `payment` of the tests' namespace.
pub(crate) const PAYMENT: &str = "spiffe://cluster.local/ns/shop/sa/payment";

/// Signs what a test asks for.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Now,
    Past,
    Future,
    /// For so many seconds more.
    For(i64),
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn params(uris: &[&str], life: Life) -> (CertificateParams, OffsetDateTime) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let now = OffsetDateTime::now_utc();
        let (from, to) = match life {
            Life::Now => (now - Duration::hours(1), now + Duration::hours(1)),
            Life::For(seconds) => (now - Duration::hours(1), now + Duration::seconds(seconds)),
            Life::Past => (now - Duration::hours(2), now - Duration::hours(1)),
            Life::Future => (now + Duration::hours(1), now + Duration::hours(2)),
        };
        (params.not_before, params.not_after) = (from, to);
        (params, to)
    }

    /// A certificate with these names.
    pub(crate) fn certified(&self, uris: &[&str], life: Life) -> (CertifiedKey, i64) {
        let key = KeyPair::generate().unwrap();
        let (params, end) = Self::params(uris, life);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certified(certificate.der().clone(), &key), end.unix_timestamp())
    }

    pub(crate) fn credentials_for(&self, identity: &str, life: Life) -> Arc<Credentials> {
        let (certified, not_after) = self.certified(&[identity], life);
        let held = Held { identity: identity.parse().unwrap(), serial: "01".into(), not_after, issuer: Vec::new() };
        Arc::new(Credentials { certified: Arc::new(certified), held })
    }

    pub(crate) fn credentials(&self, identity: &str) -> Arc<Credentials> {
        self.credentials_for(identity, Life::Now)
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        trust(&[self])
    }

    pub(crate) fn root(&self) -> Arc<[u8]> {
        Arc::from(&**self.0.der())
    }
}

/// All of them are trusted.
pub(crate) fn trust(authorities: &[&Authority]) -> Arc<Trust> {
    let roots = authorities.iter().map(|authority| authority.root()).collect();
    Arc::new(Trust { trust_domain: "cluster.local".into(), also: Vec::new(), roots, issuer: Vec::new() })
}

/// A certificate that nobody has signed but its own key.
pub(crate) fn self_signed(identity: &str) -> CertifiedKey {
    let key = KeyPair::generate().unwrap();
    let (params, _) = Authority::params(&[identity], Life::Now);
    let certificate = params.self_signed(&key).unwrap();
    certified(certificate.der().clone(), &key)
}

fn certified(certificate: CertificateDer<'static>, key: &KeyPair) -> CertifiedKey {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    CertifiedKey::new(vec![certificate], rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap())
}
