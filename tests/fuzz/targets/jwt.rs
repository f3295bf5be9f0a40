//! Tokens: what is read is what another reader reads, and what is accepted fits the issuer and the time.
//!
//! The first byte chooses: a token as it is, or lines (header, claims, signature) that are put together to one.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leno_core::authorize::Issuer;
use leno_parsers::jwt::token::{TOKEN_BYTES_MAX, Token, TokenError};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const NOW: i64 = 1_800_000_000;

fuzz_target!(|input: &[u8]| {
    let [choice, bytes @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let text = if choice & 1 == 0 { text.to_owned() } else { assembled(text) };
    let token = match Token::parse(&text) {
        Ok(token) => token,
        Err(error) => return assert_eq!(error == TokenError::TooLong, text.len() > TOKEN_BYTES_MAX),
    };
    let parts: Vec<&str> = text.split('.').collect();
    assert_eq!(parts.len(), 3, "a token of other than three parts");
    assert_eq!((token.signed, token.signature), (text[..parts[0].len() + 1 + parts[1].len()].as_ref(), parts[2]));
    let (header, claims) = (object(parts[0]), object(parts[1]));
    assert_eq!(header.get("alg").and_then(Value::as_str), Some(&*token.algorithm));
    assert_eq!(header.get("kid").and_then(Value::as_str), token.key.as_deref());
    assert!(!header.contains_key("crit"));
    for audiences in [Vec::new(), vec!["payment".into()]] {
        check_accepted(&token, &claims, &Issuer { issuer: "i".into(), audiences, headers: Vec::new(), keys: "".into() });
    }
});

fn assembled(text: &str) -> String {
    let mut lines = text.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (header, claims, signature) = (next(), next(), next());
    format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn object(part: &str) -> Map<String, Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("a part is base64url")).expect("a part is a JSON object")
}

fn check_accepted(token: &Token<'_>, claims: &Map<String, Value>, issuer: &Issuer) {
    let Ok(accepted) = token.accept(issuer, NOW) else { return };
    assert_eq!(claims["iss"], *issuer.issuer);
    assert!(claims["exp"].as_f64().expect("an expiry") > (NOW - 30) as f64, "expired");
    assert!(claims.get("nbf").is_none_or(|begins| begins.as_f64().expect("a time") <= (NOW + 30) as f64), "not valid yet");
    let holds = |value: &Value, wanted: &str| match value {
        Value::String(text) => text == wanted,
        Value::Array(list) => list.iter().any(|value| value == wanted),
        _ => false,
    };
    assert!(issuer.audiences.is_empty() || issuer.audiences.iter().any(|audience| holds(&claims["aud"], audience)), "another's");
    for (name, values) in &accepted {
        let claim = &claims[&**name];
        assert!(values.iter().all(|value| holds(claim, value) || (&**name == "scope" && claim.as_str().is_some())), "{name} is made up");
    }
}
