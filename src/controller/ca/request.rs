//! What counts of a signing request: its public key, and the proof that the caller holds the private one.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384};
use x509_parser::prelude::FromDer as _;

/// Longest request that is read.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The request cannot be granted whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too long, or not PKCS #10.
    #[error("the request is no PKCS #10 certification request (DER, at most {REQUEST_BYTES_MAX} bytes)")]
    Unreadable,
    /// Its signature is not by its own key.
    #[error("the request is not signed by the key that it names")]
    NoProof,
    /// A key of another kind.
    #[error("the request's key is of another kind than ECDSA P-256 or P-384")]
    Key,
}

/// The public key of a PKCS #10 request (RFC 2986). Names and extensions that it asks for are not looked at.
///
/// # Errors
/// When it is no request, does not prove possession of its key, or the key is of a kind that proxies do not use.
pub fn public_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, RequestError> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err(RequestError::Unreadable);
    }
    let (rest, parsed) = X509CertificationRequest::from_der(request).ok().ok_or(RequestError::Unreadable)?;
    if !rest.is_empty() {
        return Err(RequestError::Unreadable);
    }
    let key = &parsed.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || !curve.is_some_and(|it| it == OID_EC_P256 || it == OID_NIST_EC_P384) {
        return Err(RequestError::Key);
    }
    parsed.verify_signature().ok().ok_or(RequestError::NoProof)?;
    SubjectPublicKeyInfo::from_der(key.raw).ok().ok_or(RequestError::Key)
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType, SignatureAlgorithm};

    use super::*;

    /// A request by `key` that asks for the name of another.
    pub(crate) fn request(key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://cluster.local/ns/kube-system/sa/admin".try_into().unwrap())];
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn key(kind: &'static SignatureAlgorithm) -> KeyPair {
        KeyPair::generate_for(kind).unwrap()
    }

    #[test]
    fn the_key_of_a_proven_request_is_taken_and_nothing_else_of_it() {
        for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = key(kind);
            assert_eq!(public_key(&request(&key)).unwrap().subject_public_key_info(), key.subject_public_key_info());
        }
    }

    #[test]
    fn requests_without_proof_of_another_kind_or_of_no_shape_are_refused() {
        let good = request(&key(&rcgen::PKCS_ECDSA_P256_SHA256));
        let mut forged = good.clone();
        let at = forged.windows(11).position(|it| it == b"kube-system").unwrap();
        forged[at] = b'x';
        let cases = [
            (forged, RequestError::NoProof),
            (request(&key(&rcgen::PKCS_ED25519)), RequestError::Key),
            (good[..good.len() - 1].to_vec(), RequestError::Unreadable),
            ([good.clone(), vec![0]].concat(), RequestError::Unreadable),
            (Vec::new(), RequestError::Unreadable),
            (vec![0x30; REQUEST_BYTES_MAX + 1], RequestError::Unreadable),
        ];
        for (bytes, expected) in cases {
            assert_eq!(public_key(&bytes).err(), Some(expected));
        }
    }

    /// A key put in place of the signer's own: whoever has seen a public key cannot have it certified.
    #[test]
    fn the_key_of_another_is_not_certified() {
        let (mine, other) = (key(&rcgen::PKCS_ECDSA_P256_SHA256), key(&rcgen::PKCS_ECDSA_P256_SHA256));
        let mut bytes = request(&mine);
        let at = bytes.windows(65).position(|it| it == mine.public_key_raw()).unwrap();
        bytes[at..at + 65].copy_from_slice(other.public_key_raw());
        assert_eq!(public_key(&bytes).err(), Some(RequestError::NoProof));
    }
}
