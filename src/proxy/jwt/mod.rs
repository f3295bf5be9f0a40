//! JSON Web Tokens (RFC 7519): who asks, beside which workload asks.
//!
//! Reading order: [`verify`], [`token`] (what a token says), [`keys`] (whether its issuer has said it), [`KeyCache`].
//!
//! Invariants: a token's own word never chooses how it is verified. The key says which algorithms fit it, keys that a token brings
//! along or points to are not looked at, and only asymmetric algorithms are known here at all.

pub mod keys;
#[cfg(test)]
mod tests;
pub mod token;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use leno_core::authorize::{Claims, Issuer};

pub use keys::Keys;
pub use token::{Token, TokenError};

/// An issuer whose tokens are taken, with its keys ready for use.
pub struct Trusted<'a> {
    /// What is asked of its tokens.
    pub issuer: &'a Issuer,
    /// Its keys.
    pub keys: Rc<Keys>,
}

/// The claims of `token`, if one of the `trusted` has issued it for this place and it is valid at `now` (seconds since
/// 1970-01-01T00:00:00Z). Of several entries for one issuer, any may accept it.
pub fn verify(token: &str, trusted: &[Trusted<'_>], now: i64) -> Result<Claims, TokenError> {
    let token = Token::parse(token)?;
    let mut refused = TokenError::UnknownIssuer;
    for trusted in trusted.iter().filter(|trusted| token.is_by(trusted.issuer)) {
        match trusted.keys.verify(&token).and_then(|()| token.accept(trusted.issuer, now)) {
            Ok(claims) => return Ok(claims),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Keys that were read already: each issuer's once per worker, for as long as some workload's rules name it.
#[derive(Default)]
pub struct KeyCache(RefCell<Vec<(Arc<Issuer>, Rc<Keys>)>>);

impl KeyCache {
    /// The keys of `issuer`.
    pub fn keys(&self, issuer: &Arc<Issuer>) -> Rc<Keys> {
        let mut known = self.0.borrow_mut();
        if let Some((_, keys)) = known.iter().find(|(other, _)| Arc::ptr_eq(other, issuer)) {
            return Rc::clone(keys);
        }
        // A new one comes with a new state of the workload: what only the old state named is let go.
        known.retain(|(other, _)| Arc::strong_count(other) > 1);
        let keys = Rc::new(Keys::parse(&issuer.keys));
        known.push((Arc::clone(issuer), Rc::clone(&keys)));
        keys
    }
}
