//! What a token says: its parts, its claims, and whether they fit an issuer. Whether the issuer has said it is judged in
//! [`super::keys`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leno_core::authorize::{Claims, Issuer};
use leno_core::names::Name;
use serde_json::{Map, Value};

/// Bytes a token may have.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of an issuer and of this proxy may be apart, in seconds.
const LEEWAY_SECONDS: f64 = 30.0;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// Not three parts of base64url, or no JSON objects in them, or times that are no numbers.
    #[error("the token is malformed")]
    Malformed,
    /// Its header has extensions that must be understood (`crit`); none are.
    #[error("the token demands an extension that is not understood")]
    Extension,
    /// Not asymmetric, or not known, or not one that fits the key.
    #[error("the token's algorithm does not fit the issuer's key")]
    Algorithm,
    /// Nobody whose tokens are taken here.
    #[error("the token's issuer is not one of those taken here")]
    UnknownIssuer,
    /// The issuer's keys are not known yet.
    #[error("the issuer's keys are not known")]
    NoKeys,
    /// None of the issuer's keys is the one it names, or it names none and there are several.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// The signature is another's.
    #[error("the token's signature is wrong")]
    Signature,
    /// It says no time at which it expires.
    #[error("the token does not say when it expires")]
    NoExpiry,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
}

impl TokenError {
    /// Metric label and log field: a closed set.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "token-too-long",
            Self::Malformed => "token-malformed",
            Self::Extension => "token-extension",
            Self::Algorithm => "token-algorithm",
            Self::UnknownIssuer => "token-issuer",
            Self::NoKeys => "token-no-keys",
            Self::UnknownKey => "token-key",
            Self::Signature => "token-signature",
            Self::NoExpiry => "token-without-expiry",
            Self::Expired => "token-expired",
            Self::NotYet => "token-not-yet",
            Self::Audience => "token-audience",
        }
    }
}

/// A token that has been read, and not been verified.
#[derive(Debug)]
pub struct Token<'t> {
    /// What is signed: header and claims as they were sent.
    pub signed: &'t str,
    /// The signature, base64url.
    pub signature: &'t str,
    /// The algorithm it says it is signed with.
    pub algorithm: String,
    /// The key it says it is signed with.
    pub key: Option<String>,
    claims: Map<String, Value>,
}

impl<'t> Token<'t> {
    /// Reads a token in the compact serialization (RFC 7515 section 7.1).
    pub fn parse(text: &'t str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let mut header = object(header)?;
        if header.contains_key("crit") {
            return Err(TokenError::Extension);
        }
        let Some(Value::String(algorithm)) = header.remove("alg") else { return Err(TokenError::Malformed) };
        let key = match header.remove("kid") {
            Some(Value::String(key)) => Some(key),
            None => None,
            Some(_) => return Err(TokenError::Malformed),
        };
        Ok(Self { signed, signature, algorithm, key, claims: object(claims)? })
    }

    /// Whether it says that `issuer` has issued it.
    pub fn is_by(&self, issuer: &Issuer) -> bool {
        self.claims.get("iss").and_then(Value::as_str) == Some(&*issuer.issuer)
    }

    /// Its claims, if they fit `issuer` and are valid at `now` (RFC 7519 section 4.1).
    pub fn accept(&self, issuer: &Issuer, now: i64) -> Result<Claims, TokenError> {
        if !self.is_by(issuer) {
            return Err(TokenError::UnknownIssuer);
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds of any near century are exact in 52 bits")]
        let now = now as f64;
        let expires = self.time("exp")?.ok_or(TokenError::NoExpiry)?;
        if now >= expires + LEEWAY_SECONDS {
            return Err(TokenError::Expired);
        }
        if self.time("nbf")?.is_some_and(|begins| now + LEEWAY_SECONDS < begins) {
            return Err(TokenError::NotYet);
        }
        let audiences = self.claims.get("aud").map(strings).unwrap_or_default();
        if !issuer.audiences.is_empty() && !audiences.iter().any(|audience| issuer.audiences.iter().any(|wanted| **wanted == **audience)) {
            return Err(TokenError::Audience);
        }
        Ok(self.claims.iter().filter_map(|(name, value)| Some((Name::from(name.as_str()), values(name, value)?))).collect())
    }

    fn time(&self, claim: &str) -> Result<Option<f64>, TokenError> {
        match self.claims.get(claim) {
            None => Ok(None),
            Some(Value::Number(seconds)) => seconds.as_f64().filter(|seconds| seconds.is_finite()).map(Some).ok_or(TokenError::Malformed),
            Some(_) => Err(TokenError::Malformed),
        }
    }
}

/// The JSON object in one part of a token.
fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).ok().ok_or(TokenError::Malformed)?;
    serde_json::from_slice(&json).ok().ok_or(TokenError::Malformed)
}

/// The values of a claim as rules see it; `None` for what is neither text nor a list.
fn values(name: &str, value: &Value) -> Option<Vec<Name>> {
    match value {
        Value::String(text) if name == "scope" => Some(text.split(' ').filter(|part| !part.is_empty()).map(Name::from).collect()),
        Value::String(_) | Value::Array(_) => Some(strings(value).into_iter().map(Name::from).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// A text, or the texts of a list.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}
