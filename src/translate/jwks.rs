//! Key sets of token issuers (RFC 7517), held against what proxies can verify with.

use serde_json::Value;

/// A key set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// No key set.
    #[error("it is not a JSON Web Key Set: write {{\"keys\": [...]}}, as the issuer publishes it (RFC 7517)")]
    Shape,
    /// None of its keys verifies anything.
    #[error("it has no public key of the type RSA, EC or OKP, so no token could be verified")]
    NoKey,
    /// What nobody but the issuer should have.
    #[error(
        "it holds a private or symmetric key, with which whoever reads it could make tokens: write the public keys only, and replace that key"
    )]
    Secret,
}

/// Whether tokens can be verified with the key set `text`. Keys of types that are not known may be among the others.
///
/// # Errors
/// When it is no key set, or none to verify with, or holds secrets.
pub fn check(text: &str) -> Result<(), InvalidKeys> {
    let set: Value = serde_json::from_str(text).map_err(|_not_json: serde_json::Error| InvalidKeys::Shape)?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or(InvalidKeys::Shape)?;
    // RFC 7518 section 6: `d` is in every private key, `k` is a symmetric one.
    if keys.iter().any(|key| key.get("d").is_some() || key.get("k").is_some()) {
        return Err(InvalidKeys::Secret);
    }
    let public = |key: &Value| matches!(key.get("kty").and_then(Value::as_str), Some("RSA" | "EC" | "OKP"));
    if keys.iter().any(public) { Ok(()) } else { Err(InvalidKeys::NoKey) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_sets_are_told_by_what_they_can_verify() {
        let cases = [
            (r#"{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB"}]}"#, Ok(())),
            (r#"{"keys": [{"kty": "new"}, {"kty": "EC"}]}"#, Ok(())),
            (r#"{"keys": []}"#, Err(InvalidKeys::NoKey)),
            (r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "EC"}]}"#, Err(InvalidKeys::Secret)),
            (r#"{"keys": [{"kty": "EC", "d": "AQ"}]}"#, Err(InvalidKeys::Secret)),
            (r#"{"keys": {}}"#, Err(InvalidKeys::Shape)),
            ("<html>", Err(InvalidKeys::Shape)),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text), expected, "{text}");
        }
    }
}
