//! The authority itself: reads what the Secret holds, says in words what is wrong with it, and signs.
//!
//! Reading order: [`Authority::load`], [`Authority::sign`], [`make_root`].

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use leno_core::names::{Identity, Name};
use leno_core::trust::Trust;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;

use super::secret::{Kept, Pair, key};

/// Life of a root that Leno makes.
pub const ROOT_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// Clocks differ: what is signed now is valid from a bit earlier.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);
/// A proxy's certificate that would live shorter than this is not worth signing.
const LIFE_MIN: SignedDuration = SignedDuration::from_secs(30);

/// Whose mesh it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domains {
    /// The trust domain that identities are issued in.
    pub own: Name,
    /// Further trust domains whose peers are let in.
    pub also: Vec<Name>,
}

/// What the Secret holds cannot be used. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key of the Secret is absent, or holds nothing of the kind.
    #[error(
        "{key} holds no {what} (PEM): put one there, or delete the Secret, and Leno writes again what it used before, or else a new root"
    )]
    Unreadable {
        /// Key of the Secret.
        key: &'static str,
        /// What it should hold.
        what: &'static str,
    },
    /// The key is not the certificate's.
    #[error("tls.key is not the key of the first certificate in tls.crt: put the two that belong together there")]
    OtherKey,
    /// The certificate may not sign.
    #[error(
        "the first certificate in tls.crt may not sign others (basicConstraints CA:TRUE, keyUsage keyCertSign): issue one with isCA: true"
    )]
    NotCa,
    /// Too late or too early.
    #[error("the certificate {subject} in {key} is valid from {from} to {until}: replace it")]
    Validity {
        /// Key of the Secret.
        key: &'static str,
        /// Whose certificate.
        subject: String,
        /// Start.
        from: Timestamp,
        /// End.
        until: Timestamp,
    },
    /// Nobody would believe what it signs.
    #[error(
        "what tls.crt signs is not trusted by any root in ca.crt ({0}): add the root that tls.crt leads to to ca.crt, and what is between them to tls.crt"
    )]
    Untrusted(rustls::Error),
    /// It ends too soon to sign with.
    #[error("the certificate that signs ends at {0}: renew it (leno ca rotate)")]
    Ends(Timestamp),
    /// The library refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A time outside what certificates can say.
    #[error("{0} is no time for a certificate")]
    Time(Timestamp),
    /// A part of the verifier cannot be built.
    #[error("the roots in ca.crt cannot be used: {0}")]
    Roots(String),
}

/// One certificate in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of its DER, hexadecimal.
    pub fingerprint: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}

/// A certificate that was signed.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate, then what leads from it to a root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// What signs now, and who is trusted. Never changed: a new Secret makes a new one.
pub struct Authority {
    trust: Arc<Trust>,
    issuer: Issuer<'static, KeyPair>,
    /// The signing certificate and what leads from it to a root, which is not among them.
    chain: Vec<CertificateDer<'static>>,
    signer: About,
    roots: Vec<About>,
    /// The latest start and the earliest end of the chain.
    window: (Timestamp, Timestamp),
    verifier: Arc<dyn ClientCertVerifier>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("signer", &self.signer).field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads what `kept` holds and proves, by signing and verifying, that it works at `now`. Roots that have ended are left out.
    ///
    /// # Errors
    /// When anything is missing, does not fit or has ended, in words.
    pub fn load(kept: &Kept, domains: &Domains, now: Timestamp) -> Result<Self, AuthorityError> {
        let chain = certificates(&kept.signing.certificate).unwrap_or_default();
        let first = chain.first().ok_or(AuthorityError::Unreadable { key: key::CERTIFICATE, what: "certificate" })?;
        let signing_key =
            KeyPair::from_pem(&kept.signing.key).ok().ok_or(AuthorityError::Unreadable { key: key::KEY, what: "private key" })?;
        check_signer(&parsed(first, key::CERTIFICATE)?, &signing_key)?;
        let roots = roots_of(kept, &chain, now)?;
        let chain: Vec<_> = chain.iter().filter(|it| !roots.contains(it)).cloned().collect();

        let mut window = (Timestamp::MIN, Timestamp::MAX);
        for certificate in std::iter::once(first).chain(&chain) {
            let about = About::of(certificate, key::CERTIFICATE)?;
            about.check(key::CERTIFICATE, now)?;
            window = (window.0.max(about.not_before), window.1.min(about.not_after));
        }
        let trust = Trust {
            trust_domain: domains.own.clone(),
            also: domains.also.clone(),
            roots: roots.iter().map(|root| Arc::from(root.as_ref())).collect(),
            issuer: Sha256::digest(first).to_vec(),
        };
        let authority = Self {
            trust: Arc::new(trust),
            signer: About::of(first, key::CERTIFICATE)?,
            roots: roots.iter().map(|root| About::of(root, key::ROOTS)).collect::<Result<_, _>>()?,
            issuer: Issuer::from_ca_cert_der(first, signing_key)?,
            chain,
            window,
            verifier: verifier(&roots)?,
        };
        authority.prove(now)?;
        Ok(authority)
    }

    /// Who is trusted, and whose signature is the present one.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The certificate that signs.
    pub fn signer(&self) -> &About {
        &self.signer
    }

    /// The roots that are trusted.
    pub fn roots(&self) -> &[About] {
        &self.roots
    }

    /// Whether something of it has ended, so that it has to be loaded anew.
    pub fn has_aged(&self, now: Timestamp) -> bool {
        self.roots.iter().any(|root| now >= root.not_after) || now >= self.window.1
    }

    /// Verifies certificates that this mesh's roots vouch for.
    pub fn verifier(&self) -> &Arc<dyn ClientCertVerifier> {
        &self.verifier
    }

    /// A certificate for the holder of `key`, in the name of `identity` and in no other.
    ///
    /// * `life`: from `now` on; it never outlives what signs it.
    /// * `serial`: random.
    ///
    /// # Errors
    /// When what signs is about to end.
    pub fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        life: SignedDuration,
        serial: [u8; 16],
        now: Timestamp,
    ) -> Result<Signed, AuthorityError> {
        let (from, until) = ((now - BACKDATED).max(self.window.0), (now + life).min(self.window.1));
        if until < now + LIFE_MIN.min(life) {
            return Err(AuthorityError::Ends(self.window.1));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // With an empty subject the alternative name is critical (RFC 5280, 4.2.1.6; X.509-SVID, 4.1).
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number(serial));
        (params.not_before, params.not_after) = (time_of(from)?, time_of(until)?);
        let certificate = params.signed_by(key, &self.issuer)?;
        let chain = std::iter::once(certificate.der().clone()).chain(self.chain.iter().cloned()).collect();
        Ok(Signed { chain, serial: hex(serial_number(serial).as_ref()), not_after: until })
    }

    /// Signs for nobody and verifies that, as every proxy will.
    fn prove(&self, now: Timestamp) -> Result<(), AuthorityError> {
        let nobody = Identity { trust_domain: self.trust.trust_domain.clone(), namespace: "none".into(), service_account: "none".into() };
        let key = KeyPair::generate()?;
        let signed = self.sign(&key, &nobody, LIFE_MIN, [0; 16], now)?;
        let (leaf, rest) = signed.chain.split_first().expect("a signed chain begins with what was signed");
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        self.verifier.verify_client_cert(leaf, rest, at).map(drop).map_err(AuthorityError::Untrusted)
    }
}

impl About {
    /// What `der`, found under `key`, is.
    pub(crate) fn of(der: &CertificateDer<'_>, key: &'static str) -> Result<Self, AuthorityError> {
        let certificate = parsed(der, key)?;
        let at = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp())
                .ok()
                .ok_or(AuthorityError::Unreadable { key, what: "certificate with a readable validity" })
        };
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: hex(certificate.raw_serial()),
            fingerprint: hex(&Sha256::digest(der)),
            not_before: at(certificate.validity().not_before)?,
            not_after: at(certificate.validity().not_after)?,
        })
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        now >= self.not_before && now < self.not_after
    }

    fn check(&self, key: &'static str, now: Timestamp) -> Result<(), AuthorityError> {
        if self.is_valid(now) {
            return Ok(());
        }
        Err(AuthorityError::Validity { key, subject: self.subject.clone(), from: self.not_before, until: self.not_after })
    }
}

/// A root of ten years for `trust_domain`, and its key.
///
/// # Errors
/// When the library refuses, or `now` is no time for certificates.
pub fn make_root(trust_domain: &str, now: Timestamp) -> Result<Pair, AuthorityError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Leno");
    subject.push(DnType::CommonName, format!("{trust_domain} root {}", now.strftime("%Y-%m-%d")));
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (time_of(now - BACKDATED)?, time_of(now + ROOT_LIFE)?);
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// What a mesh without a Secret begins with: a root of its own.
///
/// # Errors
/// As [`make_root`].
pub fn make(domains: &Domains, now: Timestamp) -> Result<Kept, AuthorityError> {
    let signing = make_root(&domains.own, now)?;
    Ok(Kept { roots: signing.certificate.clone(), signing, next: None, step: None, own: true })
}

/// SHA-256 of the first certificate in `pem`, hexadecimal; `None` when there is none.
pub fn fingerprint(pem: &str) -> Option<String> {
    certificates(pem)?.first().map(|der| hex(&Sha256::digest(der)))
}

/// SHA-256 of every certificate in `pem`, hexadecimal; `None` when it cannot be read.
pub fn fingerprints(pem: &str) -> Option<Vec<String>> {
    Some(certificates(pem)?.iter().map(|der| hex(&Sha256::digest(der))).collect())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Every certificate in `pem`; `None` when one of them is damaged.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()
}

/// `ca.crt`; where it is absent, the self-signed certificate at the end of `tls.crt`. Each once; those that have ended not.
fn roots_of(kept: &Kept, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let missing = AuthorityError::Unreadable { key: key::ROOTS, what: "root certificate" };
    let mut all = certificates(&kept.roots).ok_or(missing)?;
    if let (true, Some(last)) = (all.is_empty(), chain.last()) {
        let certificate = parsed(last, key::CERTIFICATE)?;
        if certificate.subject() == certificate.issuer() && certificate.verify_signature(None).is_ok() {
            all.push(last.clone());
        }
    }
    let mut roots: Vec<CertificateDer<'static>> = Vec::new();
    let mut ended = None;
    for root in all {
        let about = About::of(&root, key::ROOTS)?;
        match about.check(key::ROOTS, now) {
            Ok(()) if roots.contains(&root) => (),
            Ok(()) => roots.push(root),
            Err(error) => ended = Some(error),
        }
    }
    let missing = AuthorityError::Unreadable { key: key::ROOTS, what: "root certificate" };
    if roots.is_empty() { Err(ended.unwrap_or(missing)) } else { Ok(roots) }
}

fn check_signer(certificate: &X509Certificate<'_>, signing_key: &KeyPair) -> Result<(), AuthorityError> {
    if certificate.public_key().raw != signing_key.subject_public_key_info() {
        return Err(AuthorityError::OtherKey);
    }
    let may_sign = certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    if certificate.is_ca() && may_sign { Ok(()) } else { Err(AuthorityError::NotCa) }
}

fn verifier(roots: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, AuthorityError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| AuthorityError::Roots(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
    builder.build().map_err(|error| AuthorityError::Roots(error.to_string()))
}

fn parsed<'a>(der: &'a CertificateDer<'_>, key: &'static str) -> Result<X509Certificate<'a>, AuthorityError> {
    let parsed = x509_parser::parse_x509_certificate(der).ok().map(|(_, certificate)| certificate);
    parsed.ok_or(AuthorityError::Unreadable { key, what: "readable certificate" })
}

/// The first two bits are fixed, so that it is positive and always of the same length.
fn serial_number(mut random: [u8; 16]) -> SerialNumber {
    random[0] = random[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&random)
}

fn time_of(at: Timestamp) -> Result<time::OffsetDateTime, AuthorityError> {
    time::OffsetDateTime::from_unix_timestamp(at.as_second()).ok().ok_or(AuthorityError::Time(at))
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
