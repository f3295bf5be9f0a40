//! What a rule asks of a request, and how specific that is.

use std::borrow::Cow;
use std::cmp::Reverse;

use regex::bytes::Regex;

use crate::names::Name;
use crate::request::RequestHead;

/// One set of conditions; a request matches when all of them hold. An empty match holds for every request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Condition on the path.
    pub path: Option<PathMatch>,
    /// The method, compared with case.
    pub method: Option<Name>,
    /// Conditions on header fields; names are lower case.
    pub headers: Vec<FieldMatch>,
    /// Conditions on query parameters; the first parameter of a name counts (Gateway API `queryParams`).
    pub query: Vec<FieldMatch>,
}

/// A condition on the path, without the query.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// The whole path.
    Exact(Name),
    /// A prefix of whole segments: `/api` holds for `/api` and `/api/x`, not for `/apis` (Gateway API `PathPrefix`).
    Prefix(Name),
    /// A pattern for the whole path.
    Regex(Pattern),
}

/// A condition on one named field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldMatch {
    /// Header field (lower case) or query parameter (as it is).
    pub name: Name,
    /// What its value must be.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    /// Exactly this.
    Exact(Name),
    /// A pattern for the whole value.
    Regex(Pattern),
    /// Whether the field is there at all.
    Present(bool),
}

/// A regular expression (syntax of the `regex` crate, which runs in linear time) that the whole text must match.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Name,
    regex: Regex,
}

/// The regular expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("regular expression {pattern:?} is not valid: {reason}; write it in RE2 syntax (no look-around, no back-references)")]
pub struct InvalidPattern {
    /// The expression as written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a request does not match, borrowed from the rule: costs nothing until somebody prints it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mismatch<'m> {
    /// The path is another.
    Path(&'m PathMatch),
    /// The method is another.
    Method(&'m str),
    /// A header field is missing or different.
    Header(&'m FieldMatch),
    /// A query parameter is missing or different.
    Query(&'m FieldMatch),
}

/// How specific a match is; a smaller rank is judged first. See [`Match::rank`].
pub type Rank = (u8, Reverse<usize>, u8, Reverse<usize>, Reverse<usize>);

/// The compiled size a pattern may have: enough for any path or header rule, small enough for every proxy to hold.
const PATTERN_SIZE_MAX: usize = 256 * 1024;

impl Pattern {
    /// Compiles `source`, anchored at both ends.
    pub fn new(source: &str) -> Result<Self, InvalidPattern> {
        let invalid = |error: regex::Error| InvalidPattern { pattern: source.to_owned(), reason: error.to_string() };
        // The source must stand on its own: `a)|(b` would otherwise escape the anchors.
        regex::bytes::RegexBuilder::new(source).size_limit(PATTERN_SIZE_MAX).build().map_err(invalid)?;
        let anchored = format!("^(?:{source})$");
        let regex = regex::bytes::RegexBuilder::new(&anchored).size_limit(PATTERN_SIZE_MAX).build().map_err(invalid)?;
        Ok(Self { source: source.into(), regex })
    }

    /// The expression as written.
    pub fn source(&self) -> &Name {
        &self.source
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl PathMatch {
    /// Whether `path` meets the condition.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => path == &**wanted,
            Self::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(pattern) => pattern.is_match(path.as_bytes()),
        }
    }
}

impl ValueMatch {
    /// Whether a field that has `value` (`None`: is not there) meets the condition.
    pub fn matches(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Present(wanted), value) => *wanted == value.is_some(),
            (Self::Exact(wanted), Some(value)) => value == wanted.as_bytes(),
            (Self::Regex(pattern), Some(value)) => pattern.is_match(value),
            (Self::Exact(_) | Self::Regex(_), None) => false,
        }
    }
}

impl Match {
    /// Whether every condition holds; otherwise the first that does not.
    pub fn check(&self, request: &RequestHead<'_>) -> Result<(), Mismatch<'_>> {
        if let Some(path) = self.path.as_ref().filter(|path| !path.matches(request.path)) {
            return Err(Mismatch::Path(path));
        }
        if let Some(method) = self.method.as_deref().filter(|method| *method != request.method) {
            return Err(Mismatch::Method(method));
        }
        if let Some(field) = self.headers.iter().find(|field| !field.value.matches(header(request, &field.name).as_deref())) {
            return Err(Mismatch::Header(field));
        }
        match self.query.iter().find(|field| !field.value.matches(parameter(request.query, &field.name).as_deref())) {
            Some(field) => Err(Mismatch::Query(field)),
            None => Ok(()),
        }
    }

    /// How specific the match is: exact path before pattern before prefix, longer before shorter, then a method,
    /// then more headers, then more query parameters (Gateway API HTTPRouteRule precedence; patterns, which that
    /// leaves to implementations, stand between exact paths and prefixes).
    pub fn rank(&self) -> Rank {
        let (kind, length) = match &self.path {
            Some(PathMatch::Exact(path)) => (0, path.len()),
            Some(PathMatch::Regex(pattern)) => (1, pattern.source.len()),
            Some(PathMatch::Prefix(prefix)) => (2, prefix.strip_suffix('/').unwrap_or(prefix).len()),
            None => (2, 0),
        };
        (kind, Reverse(length), u8::from(self.method.is_none()), Reverse(self.headers.len()), Reverse(self.query.len()))
    }
}

/// The header field `name`; `host` is the authority, in HTTP/1.1 and HTTP/2 alike (RFC 9113 section 8.3.1).
fn header<'a>(request: &RequestHead<'a>, name: &str) -> Option<Cow<'a, [u8]>> {
    if name == "host" {
        return Some(Cow::Borrowed(request.authority.as_bytes()));
    }
    request.headers.get(name)
}

/// The first parameter called `name`, decoded (WHATWG URL, application/x-www-form-urlencoded).
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    parameters.find(|(key, _)| key == name).map(|(_, value)| value.into_owned().into_bytes())
}
