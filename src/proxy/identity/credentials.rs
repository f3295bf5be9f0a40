//! The controller's answer, checked before it is used: the chain leads to a trusted root, the key is the one of the request, and
//! the name is one of this workload's namespace.

use std::sync::Arc;
use std::time::Duration;

use leno_core::names::{Identity, InvalidIdentity, Name};
use leno_core::trust::{Held, Trust};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Credentials;
use super::request::Request;

/// Why a signed certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The answer holds none.
    #[error("the answer holds no certificate")]
    Empty,
    /// It is no certificate, or no trusted root vouches for it now.
    #[error("the certificate is not vouched for by a trusted root: {0}; if it is not valid yet, compare the clocks of the nodes")]
    Chain(#[from] webpki::Error),
    /// Its times and number cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(#[from] x509_parser::asn1_rs::Err<x509_parser::error::X509Error>),
    /// It is for another key than the one asked for.
    #[error("the certificate is for another key than the one it was asked for: {0}")]
    Key(#[from] rustls::Error),
    /// It does not name exactly one identity.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It names somebody else.
    #[error("the certificate names {found}, but this workload is in the namespace {namespace:?} of the trust domain {trust_domain:?}")]
    Stranger {
        /// Whom it names.
        found: Identity,
        /// The workload's namespace.
        namespace: Name,
        /// The mesh's trust domain.
        trust_domain: Name,
    },
}

/// A certificate does not name exactly one identity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// None or several.
    #[error("the certificate has {0} URI names; an identity is exactly one")]
    Count(usize),
    /// Something else.
    #[error(transparent)]
    Invalid(#[from] InvalidIdentity),
}

/// The one identity that a certificate names: its only URI subject alternative name, a SPIFFE ID (X509-SVID, section 2).
///
/// # Errors
/// When there is none, another kind of name, or more than one.
pub fn identity_of(certificate: &EndEntityCert<'_>) -> Result<Identity, NameError> {
    let names: Vec<&str> = certificate.valid_uri_names().collect();
    match names[..] {
        [name] => Ok(name.parse()?),
        _ => Err(NameError::Count(names.len())),
    }
}

/// The roots of `trust` as webpki takes them; one that cannot be read vouches for nobody.
pub fn anchors<'a>(roots: &'a [CertificateDer<'a>]) -> Vec<TrustAnchor<'a>> {
    roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect()
}

/// The roots of `trust` as certificates.
pub fn roots(trust: &Trust) -> Vec<CertificateDer<'static>> {
    trust.roots.iter().map(|root| CertificateDer::from(root.to_vec())).collect()
}

/// The credentials that `chain`, the answer to `request`, gives to a workload of `namespace` at `now` (since 1970).
///
/// # Errors
/// When the answer must not be used.
pub fn accept(
    request: &Request,
    chain: Vec<CertificateDer<'static>>,
    trust: &Trust,
    namespace: &Name,
    now: Duration,
) -> Result<Credentials, CredentialsError> {
    let leaf = chain.first().ok_or(CredentialsError::Empty)?;
    let certificate = EndEntityCert::try_from(leaf)?;
    let issuer = signer_of(&certificate, &chain[1..], trust, now)?;
    let identity = identity_of(&certificate)?;
    if identity.namespace != *namespace || identity.trust_domain != trust.trust_domain {
        let (namespace, trust_domain) = (Name::clone(namespace), Name::clone(&trust.trust_domain));
        return Err(CredentialsError::Stranger { found: identity, namespace, trust_domain });
    }
    let (_, parsed) = X509Certificate::from_der(leaf)?;
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    let held = Held { identity, serial, not_after: parsed.validity().not_after.timestamp(), issuer };
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&request.key())?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match()?;
    Ok(Credentials { certified: Arc::new(certified), held })
}

/// Verifies the chain, for both ends of a connection, and gives the SHA-256 of the certificate that signed the leaf.
fn signer_of(
    leaf: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust,
    now: Duration,
) -> Result<Vec<u8>, webpki::Error> {
    let roots = roots(trust);
    let anchors = anchors(&roots);
    let verify = |usage| {
        let time = UnixTime::since_unix_epoch(now);
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, intermediates, time, usage, None, None)
    };
    verify(KeyUsage::server_auth())?;
    let path = verify(KeyUsage::client_auth())?;
    if let Some(intermediate) = path.intermediate_certificates().next() {
        return Ok(Sha256::digest(intermediate.der()).to_vec());
    }
    let signer = roots.iter().find(|root| webpki::anchor_from_trusted_cert(root).is_ok_and(|anchor| anchor == *path.anchor()));
    Ok(signer.map(|root| Sha256::digest(root).to_vec()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, START, trust};
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

    fn taken(chain: Vec<CertificateDer<'static>>, request: &Request, root: &Authority, at: Duration) -> Result<Held, String> {
        let credentials = accept(request, chain, &trust(&[root]), &"shop".into(), at);
        credentials.map(|credentials| credentials.held).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_answer_is_held_with_its_name_end_and_signer() {
        let (root, request) = (Authority::new("mesh"), Request::new().unwrap());
        let held = taken(vec![root.sign(request.csr(), &[WEB], START, DAY)], &request, &root, START).unwrap();
        assert_eq!(held.identity.to_string(), WEB);
        assert_eq!(Duration::from_secs(held.not_after.unsigned_abs()), START + DAY);
        assert_eq!(held.issuer, root.fingerprint());
        assert!(held.serial.len() >= 16 && held.serial.chars().all(|digit| digit.is_ascii_hexdigit()), "{}", held.serial);
    }

    #[test]
    fn the_signer_is_the_intermediate_where_there_is_one() {
        let (root, request) = (Authority::new("mesh"), Request::new().unwrap());
        let second = root.intermediate();
        let chain = vec![second.sign(request.csr(), &[WEB], START, DAY), second.der().clone()];
        assert_eq!(taken(chain, &request, &root, START).unwrap().issuer, second.fingerprint());
    }

    #[test]
    fn wrong_answers_are_refused_in_words() {
        let (root, other, request) = (Authority::new("mesh"), Authority::new("other"), Request::new().unwrap());
        let foreign = Request::new().unwrap();
        let signed = |by: &Authority, csr: &[u8], names: &[&str]| vec![by.sign(csr, names, START, DAY)];
        let cases = [
            ("nothing", Vec::new(), START, "no certificate"),
            ("another key", signed(&root, foreign.csr(), &[WEB]), START, "another key"),
            ("a root nobody trusts", signed(&other, request.csr(), &[WEB]), START, "trusted root"),
            ("another namespace", signed(&root, request.csr(), &["spiffe://cluster.local/ns/bank/sa/web"]), START, "namespace \"shop\""),
            ("another domain", signed(&root, request.csr(), &["spiffe://elsewhere/ns/shop/sa/web"]), START, "\"cluster.local\""),
            ("no name", signed(&root, request.csr(), &[]), START, "exactly one"),
            ("two names", signed(&root, request.csr(), &[WEB, "spiffe://cluster.local/ns/shop/sa/b"]), START, "exactly one"),
            ("no identity", signed(&root, request.csr(), &["https://example.com/"]), START, "spiffe://TRUST-DOMAIN"),
            ("not yet valid", signed(&root, request.csr(), &[WEB]), START - DAY, "clocks"),
            ("ended", signed(&root, request.csr(), &[WEB]), START + DAY * 2, "trusted root"),
            ("no certificate at all", vec![CertificateDer::from(vec![1, 2, 3])], START, "trusted root"),
        ];
        for (name, chain, at, words) in cases {
            let error = taken(chain, &request, &root, at).expect_err(name);
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
