//! A request as decisions see it: its head, and who sends it.

use std::borrow::Cow;

use crate::names::{Identity, Name};

/// The head of one HTTP request, borrowed from wherever it was parsed.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// Method token, case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// Path of the target, beginning with `/` (or `*` for OPTIONS), as sent, without query.
    pub path: &'a str,
    /// Query of the target without the `?`; empty when there is none.
    pub query: &'a str,
    /// `Host` or `:authority`, as sent; empty when there is none.
    pub authority: &'a str,
    /// All other fields.
    pub headers: &'a dyn Headers,
    /// Who sends it.
    pub caller: &'a Caller,
}

/// Look-up of header fields by name. Names are compared without case (RFC 9110 section 5.1).
pub trait Headers {
    /// The value of the field `name` (given in lower case); several lines are joined with `, ` (RFC 9110 section 5.3).
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>>;

    /// Tells `visit` the name and value of every line.
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8]));
}

/// What outlives a head: what keys of balancing may be made of ([`crate::balance::key`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptHead {
    query: Box<str>,
    fields: Vec<Line>,
}

impl KeptHead {
    /// What is kept of `head`.
    pub fn of(head: &RequestHead<'_>) -> Self {
        let mut fields = Vec::new();
        head.headers.each(&mut |name, value| fields.push((name.into(), value.into())));
        Self { query: head.query.into(), fields }
    }

    /// Lets `look` see it as a head, of which no more is known.
    pub fn with_head<T>(&self, look: impl FnOnce(&RequestHead<'_>) -> T) -> T {
        let caller = Caller::default();
        look(&RequestHead { method: "", path: "", query: &self.query, authority: "", headers: &self.fields, caller: &caller })
    }
}

/// Name and value.
type Line = (Box<[u8]>, Box<[u8]>);

impl Headers for Vec<Line> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        join(self.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| &**value))
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.iter().for_each(|(name, value)| visit(name, value));
    }
}

/// Header fields as pairs of name and value: for tests and for commands.
impl Headers for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values = self.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes());
        join(values)
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.iter().for_each(|(name, value)| visit(name.as_bytes(), value.as_bytes()));
    }
}

/// Joins the values of one field's lines (RFC 9110 section 5.3); `None` when there is no line. One line is borrowed.
pub fn join<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let mut value = Cow::Borrowed(lines.next()?);
    for line in lines {
        let joined = value.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line);
    }
    Some(value)
}

/// Splits a request target in origin-form into path and query.
pub fn split_target(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

/// Who sends the request, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the calling workload.
    pub namespace: Option<Name>,
    /// The identity the peer has proven by mutual TLS; `None` on a plain connection.
    pub identity: Option<Identity>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_field_are_joined_in_order() {
        let headers = vec![("X-A".to_owned(), "1".to_owned()), ("x-b".to_owned(), "2".to_owned()), ("x-a".to_owned(), "3".to_owned())];
        assert_eq!(headers.get("x-a").as_deref(), Some(b"1, 3".as_slice()));
        assert_eq!(headers.get("x-c"), None);
    }

    #[test]
    fn what_is_kept_of_a_head_says_the_same() {
        let headers = vec![("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())];
        let caller = Caller::default();
        let kept =
            KeptHead::of(&RequestHead { method: "GET", path: "/", query: "q=1", authority: "a", headers: &headers, caller: &caller });
        kept.with_head(|head| {
            assert_eq!((head.query, head.headers.get("x-a").as_deref()), ("q=1", Some(b"1, 2".as_slice())));
            assert_eq!(head.headers.get("x-b"), None);
        });
    }

    #[test]
    fn target_splits_at_the_first_question_mark() {
        assert_eq!(split_target("/a?b=c?d"), ("/a", "b=c?d"));
        assert_eq!(split_target("/a"), ("/a", ""));
    }
}
