//! Tokens known beforehand: for processes on plain machines, and for `leno up`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leno_core::names::{InvalidId, WorkloadId};
use rustls::crypto::SecureRandom;
use sha2::{Digest as _, Sha256};

use super::Applicant;
use crate::ca::authority::hex;

/// Shortest token that is taken: what is shorter can be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// Whose token is whose. Only digests are kept, so that looking one up takes a time that tells nothing of it.
#[derive(Debug, Default)]
pub struct Tokens {
    table: Mutex<HashMap<[u8; 32], Applicant>>,
}

/// The file of tokens cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// A line of another shape.
    #[error("line {0}: write TOKEN NAMESPACE/WORKLOAD SERVICE-ACCOUNT, parted by spaces")]
    Shape(usize),
    /// The workload is not named as it should.
    #[error("line {line}: {source}")]
    Workload {
        /// Counted from one.
        line: usize,
        /// What is wrong.
        source: InvalidId,
    },
    /// A name that fits into no identity.
    #[error("line {0}: namespaces and service accounts are made of letters, digits, dots and dashes")]
    Name(usize),
    /// Too easy to guess.
    #[error("line {0}: a token has at least {TOKEN_CHARS_MIN} characters; make one with: openssl rand -hex 16")]
    Short(usize),
    /// Twice the same.
    #[error("line {0}: this token stands further up already")]
    Twice(usize),
}

impl Tokens {
    /// Reads a file of lines `TOKEN NAMESPACE/WORKLOAD SERVICE-ACCOUNT`. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// When a line says something else. The token itself is never in the text.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let mut table = HashMap::new();
        for (line, text) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let [token, workload, account] = text.split_whitespace().collect::<Vec<_>>()[..] else {
                return Err(TokensError::Shape(line));
            };
            if token.len() < TOKEN_CHARS_MIN {
                return Err(TokensError::Short(line));
            }
            let workload = workload.parse().map_err(|source| TokensError::Workload { line, source })?;
            let applicant = Applicant { workload, service_account: account.into() };
            applicant.identity(&"cluster.local".into()).ok().ok_or(TokensError::Name(line))?;
            if table.insert(digest(token), applicant).is_some() {
                return Err(TokensError::Twice(line));
            }
        }
        Ok(Self { table: Mutex::new(table) })
    }

    /// Makes a token for a workload, which is nobody else's; one it had before is worth nothing any more.
    ///
    /// # Panics
    /// When the machine has no random numbers: there is nothing to be done then.
    pub fn give(&self, workload: &WorkloadId, service_account: &str, random: &dyn SecureRandom) -> String {
        let mut bytes = [0; 32];
        random.fill(&mut bytes).expect("the machine has random numbers");
        let token = hex(&bytes);
        self.take(workload);
        let applicant = Applicant { workload: workload.clone(), service_account: service_account.into() };
        self.lock().insert(digest(&token), applicant);
        token
    }

    /// The workload is gone, and with it the worth of its token.
    pub fn take(&self, workload: &WorkloadId) {
        self.lock().retain(|_, applicant| applicant.workload != *workload);
    }

    /// Whose token it is.
    pub fn whose(&self, token: &str) -> Option<Applicant> {
        self.lock().get(&digest(token)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Applicant>> {
        // Every change is whole, so what a panic left behind can be read.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn a_file_of_tokens_says_whose_each_is() {
        let tokens = Tokens::parse(&format!("# ours\n\n{TOKEN} shop/web-1 web\n {TOKEN}2  shop/cart-1\tdefault\n")).unwrap();
        let web = Applicant { workload: WorkloadId::new("shop", "web-1"), service_account: "web".into() };
        assert_eq!(tokens.whose(TOKEN), Some(web.clone()));
        assert_eq!(tokens.whose(&TOKEN[1..]), None);
        assert_eq!(web.identity(&"example.org".into()).unwrap().to_string(), "spiffe://example.org/ns/shop/sa/web");
    }

    #[test]
    fn a_line_of_another_shape_is_refused_by_its_number_and_without_the_token() {
        let cases = [
            (format!("{TOKEN} shop/web-1"), TokensError::Shape(1)),
            (format!("\n{TOKEN} shop/web-1 web more"), TokensError::Shape(2)),
            ("short shop/web-1 web".to_owned(), TokensError::Short(1)),
            (format!("{TOKEN} shop/web-1 ../admin"), TokensError::Name(1)),
            (format!("{TOKEN} shop/a a\n{TOKEN} shop/b b"), TokensError::Twice(2)),
        ];
        for (text, expected) in cases {
            let error = Tokens::parse(&text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains(TOKEN));
        }
        assert!(matches!(Tokens::parse(&format!("{TOKEN} web web")), Err(TokensError::Workload { line: 1, .. })));
    }

    #[test]
    fn a_token_is_given_to_one_workload_until_it_is_taken_or_given_anew() {
        let (tokens, web) = (Tokens::default(), WorkloadId::new("shop", "web"));
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        let first = tokens.give(&web, "web", random);
        let second = tokens.give(&web, "web", random);
        assert_eq!((tokens.whose(&first), tokens.whose(&second).unwrap().workload), (None, web.clone()));
        tokens.take(&web);
        assert_eq!(tokens.whose(&second), None);
    }
}
