//! Every way in which a token may be wrong, with keys made here.

use std::slice;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use leno_core::names::Name;
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};

use super::token::TOKEN_BYTES_MAX;
use super::*;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example.com";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair with the JSON of its public half.
struct Signer {
    pair: KeyPair,
    algorithm: Algorithm,
}

impl Signer {
    fn new(algorithm: Algorithm) -> Self {
        let kinds: [(Algorithm, &'static rcgen::SignatureAlgorithm); 4] = [
            (Algorithm::RS256, &rcgen::PKCS_RSA_SHA256),
            (Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
            (Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384),
            (Algorithm::EdDSA, &rcgen::PKCS_ED25519),
        ];
        let (_, kind) = kinds.into_iter().find(|(known, _)| *known == algorithm).unwrap();
        Self { pair: KeyPair::generate_for(kind).unwrap(), algorithm }
    }

    fn jwk(&self, id: Option<&str>) -> Value {
        let public = self.pair.der_bytes();
        let mut jwk = if self.algorithm == Algorithm::RS256 {
            let (modulus, exponent) = rsa_parts(public);
            json!({"kty": "RSA", "n": base64(modulus), "e": base64(exponent)})
        } else if self.algorithm == Algorithm::EdDSA {
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64(public)})
        } else {
            let (x, y) = public[1..].split_at((public.len() - 1) / 2);
            let curve = if x.len() == 32 { "P-256" } else { "P-384" };
            json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)})
        };
        if let Some(id) = id {
            jwk["kid"] = id.into();
        }
        jwk
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let signature = if matches!(self.algorithm, Algorithm::ES256 | Algorithm::ES384) {
            crypto::sign(signed.as_bytes(), &EncodingKey::from_ec_der(self.pair.serialized_der()), self.algorithm).unwrap()
        } else {
            base64(self.pair.sign(signed.as_bytes()).unwrap())
        };
        format!("{signed}.{signature}")
    }
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 appendix A.1.1), whose modulus has 256 bytes.
fn rsa_parts(der: &[u8]) -> (&[u8], &[u8]) {
    let modulus = &der[der.len() - 5 - 256..der.len() - 5];
    (modulus, &der[der.len() - 3..])
}

fn issuer(audiences: &[&str], keys: &[Value]) -> Issuer {
    Issuer {
        issuer: ISSUER.into(),
        audiences: audiences.iter().map(|audience| Name::from(*audience)).collect(),
        headers: Vec::new(),
        keys: json!({ "keys": keys }).to_string().into(),
    }
}

fn verify_by(token: &str, issuers: &[&Issuer]) -> Result<Claims, TokenError> {
    let trusted: Vec<_> = issuers.iter().map(|issuer| Trusted { issuer, keys: Rc::new(Keys::parse(&issuer.keys)) }).collect();
    verify(token, &trusted, NOW)
}

fn good() -> Value {
    json!({"iss": ISSUER, "aud": "payment", "exp": NOW + 60, "sub": "anna"})
}

fn with(change: &Value) -> Value {
    let mut claims = good();
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            drop(claims.as_object_mut().unwrap().remove(name));
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn header(algorithm: &str) -> Value {
    json!({"alg": algorithm, "kid": "k", "typ": "JWT"})
}

#[test]
fn tokens_of_every_asymmetric_kind_are_verified_and_a_changed_one_is_not() {
    for (algorithm, name) in
        [(Algorithm::RS256, "RS256"), (Algorithm::ES256, "ES256"), (Algorithm::ES384, "ES384"), (Algorithm::EdDSA, "EdDSA")]
    {
        let signer = Signer::new(algorithm);
        let issuer = issuer(&["payment"], &[signer.jwk(Some("k"))]);
        let token = signer.sign(&header(name), &good());
        let claims = verify_by(&token, &[&issuer]).unwrap();
        assert_eq!(claims["sub"], [Name::from("anna")], "{name}");
        let changed = token.replacen(&base64(good().to_string()), &base64(with(&json!({"sub": "eve"})).to_string()), 1);
        assert_ne!(changed, token);
        assert_eq!(verify_by(&changed, &[&issuer]), Err(TokenError::Signature), "{name}");
        let stranger = Signer::new(algorithm).sign(&header(name), &good());
        assert_eq!(verify_by(&stranger, &[&issuer]), Err(TokenError::Signature), "{name}");
    }
}

#[test]
fn what_a_token_claims_must_fit() {
    let signer = Signer::new(Algorithm::ES256);
    let issuer = issuer(&["payment", "ledger"], &[signer.jwk(Some("k"))]);
    let cases = [
        (json!({}), Ok(())),
        (json!({"iss": "https://other.example.com"}), Err(TokenError::UnknownIssuer)),
        (json!({"iss": null}), Err(TokenError::UnknownIssuer)),
        (json!({"iss": [ISSUER]}), Err(TokenError::UnknownIssuer)),
        (json!({"aud": "orders"}), Err(TokenError::Audience)),
        (json!({"aud": null}), Err(TokenError::Audience)),
        (json!({"aud": ["orders", "ledger"]}), Ok(())),
        (json!({"aud": ["orders"]}), Err(TokenError::Audience)),
        (json!({"aud": {"payment": 1}}), Err(TokenError::Audience)),
        (json!({"exp": NOW - 29}), Ok(())),
        (json!({"exp": NOW - 30}), Err(TokenError::Expired)),
        (json!({"exp": 0}), Err(TokenError::Expired)),
        (json!({"exp": -1.5}), Err(TokenError::Expired)),
        (json!({"exp": null}), Err(TokenError::NoExpiry)),
        (json!({"exp": (NOW + 60).to_string()}), Err(TokenError::Malformed)),
        (json!({"nbf": NOW + 30}), Ok(())),
        (json!({"nbf": NOW + 31}), Err(TokenError::NotYet)),
        (json!({"nbf": "0"}), Err(TokenError::Malformed)),
    ];
    for (change, want) in cases {
        let token = signer.sign(&header("ES256"), &with(&change));
        assert_eq!(verify_by(&token, &[&issuer]).map(drop), want, "{change}");
    }
}

#[test]
fn the_key_says_which_algorithm_fits_and_not_the_token() {
    let (rsa, ec, small) = (Signer::new(Algorithm::RS256), Signer::new(Algorithm::ES256), Signer::new(Algorithm::EdDSA));
    let named = |signer: &Signer, id: &str| signer.jwk(Some(id));
    let issuer = issuer(&[], &[named(&rsa, "rsa"), named(&ec, "ec"), named(&small, "ed")]);
    let token = |signer: &Signer, algorithm: &str, key: &str| signer.sign(&json!({"alg": algorithm, "kid": key}), &good());
    let unsigned =
        |algorithm: &str| format!("{}.{}.", base64(json!({"alg": algorithm, "kid": "rsa"}).to_string()), base64(good().to_string()));
    // The classic confusion: HMAC with the text of the public key, which everybody can read.
    let by_public_key = |secret: &[u8], algorithm: Algorithm| {
        let header = json!({"alg": format!("{algorithm:?}"), "kid": "rsa"});
        let signed = format!("{}.{}", base64(header.to_string()), base64(good().to_string()));
        let signature = crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(secret), algorithm).unwrap();
        format!("{signed}.{signature}")
    };
    let modulus = rsa_parts(rsa.pair.der_bytes()).0;
    let cases = [
        ("right RSA", token(&rsa, "RS256", "rsa"), Ok(())),
        ("right EC", token(&ec, "ES256", "ec"), Ok(())),
        ("RSA as ES256", token(&rsa, "ES256", "rsa"), Err(TokenError::Algorithm)),
        ("EC as RS256", token(&ec, "RS256", "ec"), Err(TokenError::Algorithm)),
        ("EC as EdDSA", token(&ec, "EdDSA", "ec"), Err(TokenError::Algorithm)),
        ("P-256 as ES384", token(&ec, "ES384", "ec"), Err(TokenError::Algorithm)),
        ("EC under the RSA key's name", token(&ec, "ES256", "rsa"), Err(TokenError::Algorithm)),
        ("RSA with another padding", token(&rsa, "PS256", "rsa"), Err(TokenError::Signature)),
        ("none", unsigned("none"), Err(TokenError::Algorithm)),
        ("None", unsigned("None"), Err(TokenError::Algorithm)),
        ("nothing signed as RS256", unsigned("RS256"), Err(TokenError::Signature)),
        ("HS256 by the public key's DER", by_public_key(rsa.pair.der_bytes(), Algorithm::HS256), Err(TokenError::Algorithm)),
        ("HS384 by the public key's DER", by_public_key(rsa.pair.der_bytes(), Algorithm::HS384), Err(TokenError::Algorithm)),
        ("HS512 by the modulus", by_public_key(modulus, Algorithm::HS512), Err(TokenError::Algorithm)),
        ("HS256 by the PEM", by_public_key(rsa.pair.public_key_pem().as_bytes(), Algorithm::HS256), Err(TokenError::Algorithm)),
        ("HS256 by the key set", by_public_key(issuer.keys.as_bytes(), Algorithm::HS256), Err(TokenError::Algorithm)),
        ("small letters", token(&rsa, "rs256", "rsa"), Err(TokenError::Algorithm)),
        ("ES512", token(&ec, "ES512", "ec"), Err(TokenError::Algorithm)),
    ];
    for (name, token, want) in cases {
        assert_eq!(verify_by(&token, &[&issuer]).map(drop), want, "{name}");
    }
}

#[test]
fn keys_are_found_by_their_names_and_used_for_what_they_are_made_for() {
    let (one, two) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let keys = |keys: &[Value]| issuer(&[], keys);
    let (first, second, nameless) = (one.jwk(Some("1")), two.jwk(Some("2")), one.jwk(None));
    let marked = |name: &str, value: Value| {
        let mut key = one.jwk(Some("1"));
        key[name] = value;
        key
    };
    let secret = json!({"kty": "oct", "k": base64([7; 32]), "kid": "1", "alg": "HS256"});
    let strange = json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "1"});
    let token = |key: Value| one.sign(&with_key(key), &good());
    let named = token("1".into());
    let cases = [
        ("named", &named, keys(&[first.clone(), second.clone()]), Ok(())),
        ("unknown name", &token("3".into()), keys(&[first.clone(), second.clone()]), Err(TokenError::UnknownKey)),
        ("another's name", &token("2".into()), keys(&[first.clone(), second.clone()]), Err(TokenError::Signature)),
        ("no name, one key", &token(Value::Null), keys(slice::from_ref(&nameless)), Ok(())),
        ("no name, one key of the kind", &token(Value::Null), keys(&[first.clone(), Signer::new(Algorithm::EdDSA).jwk(None)]), Ok(())),
        ("no name, several keys", &token(Value::Null), keys(&[first.clone(), second.clone()]), Err(TokenError::UnknownKey)),
        ("a name, keys without", &named, keys(&[nameless]), Err(TokenError::UnknownKey)),
        ("a name twice", &named, keys(&[two.jwk(Some("1")), first.clone()]), Ok(())),
        ("a name that is no text", &token(json!(1)), keys(slice::from_ref(&first)), Err(TokenError::Malformed)),
        ("made for it", &named, keys(&[marked("alg", "ES256".into()), second.clone()]), Ok(())),
        ("made for another", &named, keys(&[marked("alg", "ES384".into()), second.clone()]), Err(TokenError::UnknownKey)),
        ("made for unknown", &named, keys(&[marked("alg", "X".into()), second.clone()]), Err(TokenError::UnknownKey)),
        ("for signatures", &named, keys(&[marked("use", "sig".into())]), Ok(())),
        ("for encryption", &named, keys(&[marked("use", "enc".into())]), Err(TokenError::NoKeys)),
        ("to verify", &named, keys(&[marked("key_ops", json!(["verify"]))]), Ok(())),
        ("to encrypt", &named, keys(&[marked("key_ops", json!(["encrypt"]))]), Err(TokenError::NoKeys)),
        ("beside ones nobody knows", &named, keys(&[json!({"kty": "new"}), json!(1), strange, secret.clone(), first.clone()]), Ok(())),
        ("symmetric only", &named, keys(&[secret]), Err(TokenError::NoKeys)),
        ("none", &named, keys(&[]), Err(TokenError::NoKeys)),
        ("not known yet", &named, Issuer { keys: "".into(), ..keys(&[]) }, Err(TokenError::NoKeys)),
        ("no key set", &named, Issuer { keys: "[]".into(), ..keys(&[]) }, Err(TokenError::NoKeys)),
    ];
    for (name, token, issuer, want) in cases {
        assert_eq!(verify_by(token, &[&issuer]).map(drop), want, "{name}");
    }
}

fn with_key(key: Value) -> Value {
    let mut header = json!({"alg": "ES256"});
    if !key.is_null() {
        header["kid"] = key;
    }
    header
}

#[test]
fn a_key_that_a_token_brings_along_is_not_looked_at() {
    let (signer, thief) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let issuer = issuer(&[], &[signer.jwk(Some("k"))]);
    let brought = json!({"alg": "ES256", "kid": "k", "jwk": thief.jwk(Some("k")), "jku": "http://127.0.0.1:1/keys"});
    assert_eq!(verify_by(&thief.sign(&brought, &good()), &[&issuer]), Err(TokenError::Signature));
    let critical = json!({"alg": "ES256", "kid": "k", "crit": ["b64"], "b64": false});
    assert_eq!(verify_by(&signer.sign(&critical, &good()), &[&issuer]), Err(TokenError::Extension));
}

#[test]
fn what_is_no_token_is_refused_and_so_is_one_of_any_size_beyond_the_bound() {
    let signer = Signer::new(Algorithm::ES256);
    let issuer = issuer(&[], &[signer.jwk(Some("k"))]);
    let token = signer.sign(&header("ES256"), &good());
    let parts: Vec<&str> = token.split('.').collect();
    let with_payload = |payload: &str| format!("{}.{}.{}", parts[0], base64(payload), parts[2]);
    let malformed = [
        String::new(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}.x"),
        format!("{token}, {token}"),
        format!(" {token}"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[1], parts[2]),
        with_payload("[]"),
        with_payload("{\"iss\""),
        with_payload("\"text\""),
        signer.sign(&json!({"kid": "k"}), &good()),
        signer.sign(&json!({"alg": ["ES256"]}), &good()),
    ];
    for text in malformed {
        assert_eq!(verify_by(&text, &[&issuer]), Err(TokenError::Malformed), "{text}");
    }
    for end in [format!("{}.{}.%%%", parts[0], parts[1]), format!("{token}=")] {
        assert_eq!(verify_by(&end, &[&issuer]), Err(TokenError::Signature), "{end}");
    }
    let filled = |fill: usize| signer.sign(&header("ES256"), &with(&json!({"fill": "x".repeat(fill)})));
    let fill = (0..TOKEN_BYTES_MAX).rev().find(|fill| filled_length(&filled(0), *fill) <= TOKEN_BYTES_MAX).unwrap();
    let (at, beyond) = (filled(fill), filled(fill + 3));
    assert!(at.len() <= TOKEN_BYTES_MAX && beyond.len() > TOKEN_BYTES_MAX, "{} {}", at.len(), beyond.len());
    assert_eq!(verify_by(&at, &[&issuer]).map(drop), Ok(()));
    assert_eq!(verify_by(&beyond, &[&issuer]), Err(TokenError::TooLong));
}

/// The length of `token`, whose claims have an empty text in them, once that text has `fill` characters more.
fn filled_length(token: &str, fill: usize) -> usize {
    let payload = token.split('.').nth(1).unwrap().len();
    token.len() - payload + (payload * 3 / 4 + fill).div_ceil(3) * 4
}

#[test]
fn several_entries_for_one_issuer_add_up_and_each_keeps_its_own_audience() {
    let (one, two) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let first = issuer(&["a"], &[one.jwk(Some("k"))]);
    let second = issuer(&["b"], &[two.jwk(Some("k"))]);
    let token = |signer: &Signer, audience: &str| signer.sign(&header("ES256"), &with(&json!({"aud": audience})));
    assert!(verify_by(&token(&one, "a"), &[&first, &second]).is_ok());
    assert!(verify_by(&token(&two, "b"), &[&first, &second]).is_ok());
    assert!(verify_by(&token(&one, "b"), &[&first, &second]).is_err());
    assert!(verify_by(&token(&one, "a"), &[&second]).is_err());
    assert_eq!(verify_by(&token(&one, "a"), &[]), Err(TokenError::UnknownIssuer));
}

#[test]
fn claims_are_texts_scopes_are_split_and_lists_are_many() {
    let signer = Signer::new(Algorithm::ES256);
    let claims =
        with(&json!({"scope": " read  write ", "group": ["a b", 7, "c"], "admin": true, "level": 3, "deep": {"a": "b"}, "x": null}));
    let token = signer.sign(&header("ES256"), &claims);
    let got = verify_by(&token, &[&issuer(&[], &[signer.jwk(Some("k"))])]).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
    let want = [
        ("aud", names(&["payment"])),
        ("group", names(&["a b", "c"])),
        ("iss", names(&[ISSUER])),
        ("scope", names(&["read", "write"])),
        ("sub", names(&["anna"])),
    ];
    assert_eq!(got, want.into_iter().map(|(name, values)| (Name::from(name), values)).collect());
}

#[test]
fn keys_are_read_once_and_let_go_with_the_rules_that_named_them() {
    let cache = KeyCache::default();
    let named = Arc::new(issuer(&[], &[Signer::new(Algorithm::ES256).jwk(None)]));
    let keys = cache.keys(&named);
    assert!(Rc::ptr_eq(&keys, &cache.keys(&named)));
    let later = Arc::new(issuer(&[], &[]));
    drop(cache.keys(&later));
    assert_eq!(cache.0.borrow().len(), 2);
    drop(named);
    drop(cache.keys(&Arc::new(issuer(&[], &[]))));
    let known: Vec<bool> = cache.0.borrow().iter().map(|(issuer, _)| Arc::ptr_eq(issuer, &later)).collect();
    assert_eq!(known, [true, false], "what nobody names any more is gone");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_pass(text in "([A-Za-z0-9_.=-]|eyJ){0,80}(\\.[A-Za-z0-9_-]{0,8}){0,3}") {
        let issuer = Issuer { issuer: ISSUER.into(), audiences: Vec::new(), headers: Vec::new(), keys: "".into() };
        prop_assert!(verify_by(&text, &[&issuer]).is_err());
    }
}
