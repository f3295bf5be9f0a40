//! Why a match does not hold, in words: what was wanted and what the request has.

use leno_core::matching::{FieldMatch, Mismatch, PathMatch, ValueMatch};
use leno_core::request::RequestHead;

/// The reason why `request` does not meet a condition.
pub(super) fn why(mismatch: Mismatch<'_>, request: &RequestHead<'_>) -> String {
    match mismatch {
        Mismatch::Path(PathMatch::Exact(path)) => format!("the path must be {path}, it is {}", request.path),
        Mismatch::Path(PathMatch::Prefix(path)) => format!("the path must begin with {path}, it is {}", request.path),
        Mismatch::Path(PathMatch::Regex(pattern)) => format!("the path must match {}, it is {}", pattern.source(), request.path),
        Mismatch::Method(method) => format!("the method must be {method}, it is {}", request.method),
        Mismatch::Header(field) => {
            let has = match &*field.name {
                "host" => Some(request.authority.to_owned()),
                name => request.headers.get(name).map(|value| String::from_utf8_lossy(&value).into_owned()),
            };
            named("header", field, has)
        }
        Mismatch::Query(field) => {
            let mut parameters = form_urlencoded::parse(request.query.as_bytes());
            let has = parameters.find(|(name, _)| *name == *field.name).map(|(_, value)| value.into_owned());
            named("query parameter", field, has)
        }
    }
}

fn named(what: &str, field: &FieldMatch, has: Option<String>) -> String {
    let name = &field.name;
    let wanted = match &field.value {
        ValueMatch::Exact(value) => format!("must be {value:?}"),
        ValueMatch::Regex(pattern) => format!("must match {:?}", pattern.source()),
        ValueMatch::Present(true) => "must be there".to_owned(),
        ValueMatch::Present(false) => "must not be there".to_owned(),
    };
    match has {
        Some(value) => format!("{what} {name} {wanted}, it is {value:?}"),
        None => format!("{what} {name} {wanted}, it is missing"),
    }
}
