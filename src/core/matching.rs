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
        // The regex crate draws the place over several lines and says the reason in the last.
        let reason = |error: regex::Error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").trim_end_matches('.').to_owned()
        };
        let invalid = |error: regex::Error| InvalidPattern { pattern: source.to_owned(), reason: reason(error) };
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
pub(crate) fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    parameters.find(|(key, _)| key == name).map(|(_, value)| value.into_owned().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Caller, split_target};
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.into()
    }

    fn pattern(source: &str) -> Pattern {
        Pattern::new(source).unwrap()
    }

    fn field(name: &str, value: ValueMatch) -> FieldMatch {
        FieldMatch { name: name.into(), value }
    }

    /// Whether `conditions` hold for `GET target` to `authority` with `headers`.
    fn holds(conditions: &Match, target: &str, authority: &str, headers: &[(&str, &str)]) -> bool {
        let (path, query) = split_target(target);
        let headers: Vec<(String, String)> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let caller = Caller::default();
        conditions.check(&RequestHead { method: "GET", path, query, authority, headers: &headers, caller: &caller }).is_ok()
    }

    #[test]
    fn paths_match_whole_or_by_whole_segments() {
        let cases = [
            (PathMatch::Exact(name("/api")), "/api", true),
            (PathMatch::Exact(name("/api")), "/api/", false),
            (PathMatch::Exact(name("/api")), "/API", false),
            (PathMatch::Exact(name("/api/")), "/api/", true),
            (PathMatch::Exact(name("*")), "*", true),
            (PathMatch::Prefix(name("/api")), "/api", true),
            (PathMatch::Prefix(name("/api")), "/api/", true),
            (PathMatch::Prefix(name("/api")), "/api/v1", true),
            (PathMatch::Prefix(name("/api")), "/apis", false),
            (PathMatch::Prefix(name("/api")), "/ap", false),
            (PathMatch::Prefix(name("/api")), "/", false),
            (PathMatch::Prefix(name("/api/")), "/api", true),
            (PathMatch::Prefix(name("/api/")), "/api/v1", true),
            (PathMatch::Prefix(name("/api/")), "/apis", false),
            (PathMatch::Prefix(name("/")), "/", true),
            (PathMatch::Prefix(name("/")), "/anything", true),
            (PathMatch::Prefix(name("/")), "*", false),
            (PathMatch::Prefix(name("/api")), "/api%2Fv1", false),
            (PathMatch::Regex(pattern("/v[12]/.*")), "/v1/x", true),
            (PathMatch::Regex(pattern("/v[12]/.*")), "/v3/x", false),
            (PathMatch::Regex(pattern("/v[12]")), "/v1/x", false),
            (PathMatch::Regex(pattern("v1")), "/v1", false),
            (PathMatch::Regex(pattern("/a|/b")), "/a", true),
            (PathMatch::Regex(pattern("/a|/b")), "/b", true),
            (PathMatch::Regex(pattern("/a|/b")), "/ax", false),
            (PathMatch::Regex(pattern("/a|/b")), "x/b", false),
            (PathMatch::Regex(pattern("(?i)/a")), "/A", true),
            (PathMatch::Regex(pattern("(?m)/a")), "/a\n/b", false),
        ];
        for (path, request, want) in cases {
            assert_eq!(path.matches(request), want, "{path:?} for {request}");
        }
    }

    #[test]
    fn header_fields_are_compared_as_they_are_joined() {
        let with = |value| Match { headers: vec![field("x-user", value)], ..Match::default() };
        type Fields = [(&'static str, &'static str)];
        let cases: [(ValueMatch, &Fields, bool); 11] = [
            (ValueMatch::Exact(name("premium")), &[("X-User", "premium")], true),
            (ValueMatch::Exact(name("premium")), &[("x-user", "Premium")], false),
            (ValueMatch::Exact(name("premium")), &[], false),
            (ValueMatch::Exact(name("")), &[("x-user", "")], true),
            (ValueMatch::Exact(name("a, b")), &[("x-user", "a"), ("x-other", "c"), ("X-USER", "b")], true),
            (ValueMatch::Regex(pattern("prem.*")), &[("x-user", "premium")], true),
            (ValueMatch::Regex(pattern("prem")), &[("x-user", "premium")], false),
            (ValueMatch::Regex(pattern(".*")), &[], false),
            (ValueMatch::Present(true), &[("x-user", "")], true),
            (ValueMatch::Present(false), &[("x-user", "")], false),
            (ValueMatch::Present(false), &[], true),
        ];
        for (value, headers, want) in cases {
            let label = format!("{value:?} for {headers:?}");
            assert_eq!(holds(&with(value), "/", "payment", headers), want, "{label}");
        }
    }

    #[test]
    fn host_is_the_authority_whatever_the_fields_say() {
        let conditions = Match { headers: vec![field("host", ValueMatch::Exact(name("payment:80")))], ..Match::default() };
        assert!(holds(&conditions, "/", "payment:80", &[]));
        assert!(!holds(&conditions, "/", "payment", &[("host", "payment:80")]));
    }

    #[test]
    fn the_first_query_parameter_of_a_name_counts_decoded() {
        let with = |value| Match { query: vec![field("q", value)], ..Match::default() };
        let cases = [
            (ValueMatch::Exact(name("1")), "/?q=1", true),
            (ValueMatch::Exact(name("1")), "/?a=b&q=1", true),
            (ValueMatch::Exact(name("1")), "/?q=2&q=1", false),
            (ValueMatch::Exact(name("1")), "/?Q=1", false),
            (ValueMatch::Exact(name("a b")), "/?q=a+b", true),
            (ValueMatch::Exact(name("a b")), "/?%71=a%20b", true),
            (ValueMatch::Exact(name("")), "/?q", true),
            (ValueMatch::Present(true), "/?q", true),
            (ValueMatch::Present(true), "/q", false),
            (ValueMatch::Present(false), "/", true),
            (ValueMatch::Regex(pattern("[0-9]+")), "/?q=12", true),
            (ValueMatch::Regex(pattern("[0-9]+")), "/?q=12x", false),
        ];
        for (value, target, want) in cases {
            let label = format!("{value:?} for {target}");
            assert_eq!(holds(&with(value), target, "payment", &[]), want, "{label}");
        }
    }

    #[test]
    fn the_first_condition_that_fails_is_named() {
        let conditions = Match {
            path: Some(PathMatch::Prefix(name("/api"))),
            method: Some(name("GET")),
            headers: vec![field("a", ValueMatch::Present(true)), field("b", ValueMatch::Present(true))],
            query: vec![field("q", ValueMatch::Present(true))],
        };
        let all = [("/api?q", "GET", "a,b"), ("/api", "GET", "a,b"), ("/api", "GET", "a"), ("/api", "POST", ""), ("/", "POST", "")];
        let want = [
            Ok(()),
            Err(Mismatch::Query(&conditions.query[0])),
            Err(Mismatch::Header(&conditions.headers[1])),
            Err(Mismatch::Method("GET")),
            Err(Mismatch::Path(conditions.path.as_ref().unwrap())),
        ];
        for ((target, method, fields), want) in all.into_iter().zip(want) {
            let (path, query) = split_target(target);
            let headers: Vec<(String, String)> = fields.split(',').map(|name| (name.to_owned(), String::new())).collect();
            let caller = Caller::default();
            let request = RequestHead { method, path, query, authority: "payment", headers: &headers, caller: &caller };
            assert_eq!(conditions.check(&request), want, "{method} {target} {fields}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_used_are_refused_in_words() {
        for bad in ["(", "a)|(b", "(?=a)", r"(a)\1", "(a{1000}){1000}"] {
            let error = Pattern::new(bad).unwrap_err().to_string();
            assert!(error.contains("RE2") && error.contains(&format!("{bad:?}")) && !error.contains('\n'), "{error}");
        }
    }

    proptest! {
        /// A prefix holds for exactly the paths that begin with its segments, with or without a final slash.
        #[test]
        fn prefix_means_whole_segments(
            prefix in prop::collection::vec("[ab]{1,2}", 0..4),
            path in prop::collection::vec("[ab]{1,2}", 0..4),
            slash: bool,
        ) {
            let written = if slash { format!("/{}/", prefix.join("/")) } else { format!("/{}", prefix.join("/")) };
            let requested = format!("/{}", path.join("/"));
            prop_assume!(written != "//");
            prop_assert_eq!(PathMatch::Prefix(written.into()).matches(&requested), path.starts_with(&prefix));
        }

        /// What holds with more conditions holds with fewer.
        #[test]
        fn fewer_conditions_never_match_less(fields in prop::collection::vec(("[ab]", "[xy]"), 0..4), sent in prop::collection::vec(("[ab]", "[xy]"), 0..4)) {
            let sent: Vec<(&str, &str)> = sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let headers: Vec<FieldMatch> = fields.iter().map(|(name, value)| field(name, ValueMatch::Exact(value.as_str().into()))).collect();
            let all = Match { headers: headers.clone(), ..Match::default() };
            if holds(&all, "/", "payment", &sent) {
                for keep in 0..headers.len() {
                    let fewer = Match { headers: headers[..keep].to_vec(), ..Match::default() };
                    prop_assert!(holds(&fewer, "/", "payment", &sent));
                }
            }
        }
    }
}
