//! A little certificate authority and a clock, for tests.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use leno_core::trust::Trust;
use leno_xds::security::trust_message;
use leno_xds::wire::leno::SigningResponse;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName, DnType};
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// Where test clocks begin.
pub(crate) const START: Duration = Duration::from_secs(1_800_000_000);

thread_local! {
    static BEGAN: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// The time since 1970 by tokio's clock, which tests pause. The first look is at [`START`].
pub(crate) fn paused_clock() -> Duration {
    let now = tokio::time::Instant::now();
    let began = BEGAN.get().unwrap_or_else(|| {
        BEGAN.set(Some(now));
        now
    });
    START + (now - began)
}

fn date(since_1970: Duration) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(since_1970.as_secs()).unwrap()).unwrap()
}

/// A root that signs what it is given.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (date(Duration::ZERO), date(START * 2));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    /// A certificate for the key of `csr` that names `names`, from ten minutes before `now` for `life`.
    pub(crate) fn sign(&self, csr: &[u8], names: &[&str], now: Duration, life: Duration) -> CertificateDer<'static> {
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr.to_vec())).unwrap();
        let params = &mut request.params;
        params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        (params.not_before, params.not_after) = (date(now - Duration::from_secs(600)), date(now + life));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.0).unwrap().der().clone()
    }

    /// An authority of the second rank.
    pub(crate) fn intermediate(&self) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "second");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (date(Duration::ZERO), date(START * 2));
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        Sha256::digest(self.der()).to_vec()
    }
}

/// Trust in `roots`, the first of which signs.
pub(crate) fn trust(roots: &[&Authority]) -> Arc<Trust> {
    Arc::new(Trust {
        trust_domain: "cluster.local".into(),
        also: Vec::new(),
        roots: roots.iter().map(|root| Arc::from(&root.der()[..])).collect(),
        issuer: roots[0].fingerprint(),
    })
}

/// The controller's answer.
pub(crate) fn answer(chain: &[&CertificateDer<'_>], trust: &Trust) -> SigningResponse {
    SigningResponse { chain: chain.iter().map(|der| der.to_vec().into()).collect(), trust: Some(trust_message(trust)) }
}
