//! An issuer's keys (JSON Web Key Set, RFC 7517), and whether one of them has signed a token.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

use super::token::{Token, TokenError};

/// Keys of one issuer that are looked at; no issuer has as many.
const KEYS_MAX: usize = 64;

/// The keys of one issuer that can verify tokens.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The algorithms that fit it: by its kind, and only the one it is made for where it says so.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads a key set. What cannot verify a token here (symmetric keys, unknown kinds, keys for encryption) is left out; text that
    /// is no key set has no keys.
    pub fn parse(text: &str) -> Self {
        let set: KeySet = serde_json::from_str(text).unwrap_or_else(|_| KeySet { keys: Vec::new() });
        Self(set.keys.into_iter().filter_map(Key::parse).take(KEYS_MAX).collect())
    }

    /// Whether one of the keys has signed `token`.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), TokenError> {
        if self.0.is_empty() {
            return Err(TokenError::NoKeys);
        }
        let algorithm = asymmetric(&token.algorithm).ok_or(TokenError::Algorithm)?;
        let named: Vec<&Key> = match &token.key {
            Some(id) => self.0.iter().filter(|key| key.id.as_ref() == Some(id)).collect(),
            None => self.0.iter().collect(),
        };
        if named.is_empty() {
            return Err(TokenError::UnknownKey);
        }
        let fitting: Vec<&Key> = named.into_iter().filter(|key| key.algorithms.contains(&algorithm)).collect();
        match (&fitting[..], &token.key) {
            ([], _) => Err(TokenError::Algorithm),
            // Which of them is meant is the token's to say.
            ([_, _, ..], None) => Err(TokenError::UnknownKey),
            (keys, _) => {
                let has_signed = |key: &&Key| crypto::verify(token.signature, token.signed.as_bytes(), &key.key, algorithm);
                if keys.iter().any(|key| has_signed(key).unwrap_or(false)) { Ok(()) } else { Err(TokenError::Signature) }
            }
        }
    }
}

impl Key {
    fn parse(json: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json).ok()?;
        let is_to_verify = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
            && jwk.common.key_operations.as_ref().is_none_or(|allowed| allowed.contains(&KeyOperations::Verify));
        if !is_to_verify {
            return None;
        }
        let mut algorithms = fitting(&jwk.algorithm);
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| Algorithm::try_from(only).is_ok_and(|only| only == *algorithm));
        }
        if algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// The asymmetric algorithm called `name` (RFC 7518 section 3.1, RFC 8037). `none` and the symmetric ones are nobody's: whoever can
/// read a public key could sign with it.
fn asymmetric(name: &str) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let all = [
        ("RS256", RS256),
        ("RS384", RS384),
        ("RS512", RS512),
        ("PS256", PS256),
        ("PS384", PS384),
        ("PS512", PS512),
        ("ES256", ES256),
        ("ES384", ES384),
        ("EdDSA", EdDSA),
    ];
    all.into_iter().find(|(known, _)| *known == name).map(|(_, algorithm)| algorithm)
}

/// The algorithms that fit a kind of key.
fn fitting(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![ES256],
            EllipticCurve::P384 => vec![ES384],
            EllipticCurve::P521 | EllipticCurve::Ed25519 | _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        AlgorithmParameters::OctetKeyPair(_) | AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_) | _ => Vec::new(),
    }
}
