//! The controller's own certificates: a CA, and the serving certificate of webhook and control stream that it signs.
//!
//! What to do is decided without I/O: [`Material::next`] says whether the material at hand is good, and [`renew`] makes what
//! is missing; time comes in as an argument. [`store`] keeps the material in a Secret that all replicas share, and
//! [`serving`] hands it to listeners, which take a new certificate without being restarted.
//!
//! The CA lives ten years and is replaced a year before its end; the one before stays in the bundle until it ends. Proxies
//! learn the bundle when their pod is created, so a pod would have to run for nine years to miss the change.

pub mod serving;
pub mod store;
pub mod upkeep;

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// How long certificates live, and what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Life of a CA.
    pub ca_life: SignedDuration,
    /// A CA that has less than this left is replaced.
    pub ca_renew_before: SignedDuration,
    /// Life of a serving certificate. It is replaced once a third of this is left.
    pub serving_life: SignedDuration,
    /// DNS names and IP addresses of the controller.
    pub names: Vec<String>,
}

impl Policy {
    /// Ten years for the CA, thirty days for the serving certificate.
    pub fn new(names: Vec<String>) -> Self {
        let days = |days: i64| SignedDuration::from_hours(24 * days);
        Self { ca_life: days(3650), ca_renew_before: days(365), serving_life: days(30), names }
    }
}

/// All that replicas share, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Certificates to trust: the CA first, then the one before it while it is valid.
    pub ca_bundle: String,
    /// Key of the first certificate of the bundle.
    pub ca_key: String,
    /// Serving certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// What replicas show each other.
    pub peer_token: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("ca_bundle", &self.ca_bundle).finish_non_exhaustive()
    }
}

/// What the material at hand needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this time.
    KeepUntil(Timestamp),
    /// A new serving certificate by the same CA.
    NewServing,
    /// A new CA too.
    NewCa,
}

/// Certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A time outside what certificates can say.
    #[error("{0} is no time for a certificate")]
    Time(Timestamp),
    /// PEM that does not hold what it should.
    #[error("{0} cannot be read: delete the Secret, and the controller makes a new one")]
    Unreadable(&'static str),
    /// rustls refused the serving certificate.
    #[error("the serving certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl Material {
    /// What is to be done at `now`.
    pub fn next(&self, policy: &Policy, now: Timestamp) -> Next {
        let Some((_, ca_end)) = first_validity(&self.ca_bundle) else { return Next::NewCa };
        let ca_due = ca_end - policy.ca_renew_before;
        if now >= ca_due || KeyPair::from_pem(&self.ca_key).is_err() || self.peer_token.is_empty() {
            return Next::NewCa;
        }
        let readable = KeyPair::from_pem(&self.key).is_ok() && serves(&self.certificate, &policy.names);
        let Some((_, end)) = first_validity(&self.certificate).filter(|_| readable) else { return Next::NewServing };
        let due = end - policy.serving_life / 3;
        if now >= due { Next::NewServing } else { Next::KeepUntil(due.min(ca_due)) }
    }
}

/// The material to use at `now`: `held` when it is good, else what must be new is made.
///
/// # Errors
/// When certificates cannot be made.
pub fn renew(held: Option<&Material>, policy: &Policy, now: Timestamp) -> Result<Material, CertificateError> {
    match held.map(|material| (material, material.next(policy, now))) {
        Some((material, Next::KeepUntil(_))) => Ok(material.clone()),
        Some((material, Next::NewServing)) => with_serving(material.clone(), policy, now),
        Some((material, Next::NewCa)) => with_serving(new_ca(Some(material), policy, now)?, policy, now),
        None => with_serving(new_ca(None, policy, now)?, policy, now),
    }
}

/// Clocks differ: what is made now is valid from a bit earlier.
const BACKDATED: SignedDuration = SignedDuration::from_mins(10);

fn new_ca(before: Option<&Material>, policy: &Policy, now: Timestamp) -> Result<Material, CertificateError> {
    let mut params = params(Vec::new(), now, policy.ca_life, "leno-controller CA")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let mut ca_bundle = params.self_signed(&key)?.pem();
    if let Some(previous) = before.and_then(|material| still_valid(&material.ca_bundle, now)) {
        ca_bundle.push_str(&previous);
    }
    Ok(Material { ca_bundle, ca_key: key.serialize_pem(), certificate: String::new(), key: String::new(), peer_token: random_token()? })
}

fn with_serving(mut material: Material, policy: &Policy, now: Timestamp) -> Result<Material, CertificateError> {
    let mut params = params(policy.names.clone(), now, policy.serving_life, "leno-controller")?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let ca_key = KeyPair::from_pem(&material.ca_key)?;
    let issuer = Issuer::from_ca_cert_pem(&material.ca_bundle, ca_key)?;
    let key = KeyPair::generate()?;
    material.certificate = params.signed_by(&key, &issuer)?.pem();
    material.key = key.serialize_pem();
    Ok(material)
}

fn params(names: Vec<String>, now: Timestamp, life: SignedDuration, common_name: &str) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    (params.not_before, params.not_after) = (time_of(now - BACKDATED)?, time_of(now + life)?);
    Ok(params)
}

fn time_of(at: Timestamp) -> Result<time::OffsetDateTime, CertificateError> {
    time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_range: time::error::ComponentRange| CertificateError::Time(at))
}

/// 122 random bits, from the same source as keys.
fn random_token() -> Result<String, CertificateError> {
    use std::fmt::Write as _;
    let key = KeyPair::generate()?;
    Ok(key.public_key_raw().iter().skip(1).take(32).fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    }))
}

/// Start and end of the first certificate in `pem`; `None` when there is none that can be read.
pub fn first_validity(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let der = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    validity(&der)
}

fn validity(der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(certificate.validity().not_before)?, at(certificate.validity().not_after)?))
}

/// Whether the certificate holds exactly `names`.
fn serves(pem: &str, names: &[String]) -> bool {
    let Some(Ok(der)) = CertificateDer::pem_slice_iter(pem.as_bytes()).next() else { return false };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return false };
    let Ok(Some(held)) = certificate.subject_alternative_name() else { return false };
    let Ok(wanted) = CertificateParams::new(names.to_vec()) else { return false };
    held.value.general_names.len() == wanted.subject_alt_names.len()
        && held.value.general_names.iter().zip(&wanted.subject_alt_names).all(|(held, wanted)| same_name(held, wanted))
}

fn same_name(held: &x509_parser::extensions::GeneralName<'_>, wanted: &rcgen::SanType) -> bool {
    use x509_parser::extensions::GeneralName;
    match (held, wanted) {
        (GeneralName::DNSName(held), rcgen::SanType::DnsName(wanted)) => *held == wanted.as_str(),
        (GeneralName::IPAddress(held), rcgen::SanType::IpAddress(std::net::IpAddr::V4(wanted))) => *held == wanted.octets(),
        (GeneralName::IPAddress(held), rcgen::SanType::IpAddress(std::net::IpAddr::V6(wanted))) => *held == wanted.octets(),
        _ => false,
    }
}

/// The first certificate of `bundle`, while it is valid: the CA before this one.
fn still_valid(bundle: &str, now: Timestamp) -> Option<String> {
    let (_, end) = first_validity(bundle)?;
    let close = "-----END CERTIFICATE-----";
    let first = bundle.find(close).map(|at| &bundle[..at + close.len()])?;
    (now < end).then(|| format!("{first}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            ca_life: SignedDuration::from_hours(100),
            ca_renew_before: SignedDuration::from_hours(10),
            serving_life: SignedDuration::from_hours(3),
            names: vec!["leno-controller.leno-system.svc".into(), "127.0.0.1".into()],
        }
    }

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    #[test]
    fn the_first_start_makes_a_ca_and_a_certificate_that_it_signed() {
        let made = renew(None, &policy(), start()).unwrap();
        assert_eq!(made.next(&policy(), start()), Next::KeepUntil(start() + hours(2)));
        let (ca, leaf) = (der(&made.ca_bundle), der(&made.certificate));
        let (_, ca) = x509_parser::parse_x509_certificate(&ca).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        leaf.verify_signature(Some(ca.public_key())).unwrap();
        assert!(ca.is_ca() && !leaf.is_ca());
    }

    #[test]
    fn a_good_certificate_is_kept_and_one_that_has_a_third_left_is_replaced_by_the_same_ca() {
        let first = renew(None, &policy(), start()).unwrap();
        assert_eq!(renew(Some(&first), &policy(), start() + hours(2) - SignedDuration::from_secs(1)).unwrap(), first);
        let second = renew(Some(&first), &policy(), start() + hours(2)).unwrap();
        assert_eq!((&second.ca_bundle, &second.ca_key, &second.peer_token), (&first.ca_bundle, &first.ca_key, &first.peer_token));
        assert_ne!((&second.certificate, &second.key), (&first.certificate, &first.key));
        assert_eq!(second.next(&policy(), start() + hours(2)), Next::KeepUntil(start() + hours(4)));
    }

    #[test]
    fn the_ca_is_replaced_before_its_end_and_the_one_before_stays_trusted() {
        let first = renew(None, &policy(), start()).unwrap();
        let at = start() + hours(90);
        let second = renew(Some(&first), &policy(), at).unwrap();
        assert_eq!(CertificateDer::pem_slice_iter(second.ca_bundle.as_bytes()).count(), 2);
        assert!(second.ca_bundle.ends_with(&first.ca_bundle), "new first, then the old");
        let third = renew(Some(&second), &policy(), at + hours(90)).unwrap();
        assert!(!third.ca_bundle.contains(&first.ca_bundle), "what has ended goes");
    }

    #[test]
    fn a_certificate_for_other_names_is_replaced() {
        let made = renew(None, &policy(), start()).unwrap();
        let elsewhere = Policy { names: vec!["leno-controller.mesh.svc".into()], ..policy() };
        assert_eq!(made.next(&elsewhere, start()), Next::NewServing);
    }

    #[test]
    fn damaged_material_is_replaced() {
        let good = renew(None, &policy(), start()).unwrap();
        let cases = [
            (Material { ca_bundle: "?".into(), ..good.clone() }, Next::NewCa),
            (Material { ca_key: "?".into(), ..good.clone() }, Next::NewCa),
            (Material { peer_token: String::new(), ..good.clone() }, Next::NewCa),
            (Material { certificate: "?".into(), ..good.clone() }, Next::NewServing),
            (Material { key: "?".into(), ..good.clone() }, Next::NewServing),
        ];
        for (damaged, next) in cases {
            assert_eq!(damaged.next(&policy(), start()), next);
            let mended = renew(Some(&damaged), &policy(), start()).unwrap();
            assert!(matches!(mended.next(&policy(), start()), Next::KeepUntil(_)));
        }
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).next().unwrap().unwrap()
    }
}
