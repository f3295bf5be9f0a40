//! Rules of how endpoints are chosen (`MeshService.spec.loadBalancer`).

use serde_json::Value;

use super::filters::may_change;
use super::{Rule, Test};

/// A cookie's name (RFC 6265 section 4.1.1).
pub const COOKIE_NAME: Rule = Rule {
    message: "write a cookie's name in letters, digits, - and _, such as session",
    test: Test::Pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
};

/// What is hashed is one thing.
pub const ONE_HASH_KEY: Rule = Rule {
    message: "give consistentHash exactly one of header, cookie, query and sourceIp, such as {header: x-user}",
    test: Test::OneOf(&["header", "cookie", "query", "sourceIp"]),
};

/// A flag that is there is set.
pub const WRITE_TRUE: Rule =
    Rule { message: "write true, or leave the field out", test: Test::Cel("self", |value| value == &Value::Bool(true)) };

/// Something to hash, and the algorithm that hashes.
pub const HASH_WITH_ITS_ALGORITHM: Rule = Rule {
    message: "write consistentHash together with algorithm: ConsistentHash, such as {algorithm: ConsistentHash, consistentHash: {header: \
              x-user}}, or neither",
    test: Test::Cel("has(self.consistentHash) == (has(self.algorithm) && self.algorithm == 'ConsistentHash')", |value| {
        value.get("consistentHash").is_some() == (value.get("algorithm").and_then(Value::as_str) == Some("ConsistentHash"))
    }),
};

/// A key alone decides.
pub const HASH_ALONE: Rule = Rule {
    message: "leave slowStart, locality and sessionAffinity out where algorithm is ConsistentHash: what the request says alone decides there",
    test: Test::Cel(
        "!(has(self.consistentHash) && (has(self.slowStart) || has(self.sessionAffinity) \
         || (has(self.locality) && self.locality != 'Anywhere')))",
        |value| {
            let locality = value.get("locality").and_then(Value::as_str).unwrap_or("Anywhere");
            let others = ["slowStart", "sessionAffinity"].iter().any(|field| value.get(*field).is_some());
            value.get("consistentHash").is_none() || (!others && locality == "Anywhere")
        },
    ),
};

/// Sessions are told apart by one thing.
pub const ONE_AFFINITY: Rule = Rule {
    message: "give sessionAffinity exactly one of cookie and header, such as {cookie: {ttl: 1h}}",
    test: Test::OneOf(&["cookie", "header"]),
};

/// A header field that proxies may write.
pub const SESSION_HEADER: Rule = Rule {
    message: "write a header of your own in letters, digits and -, such as x-session: those that frame messages, belong to the connection, \
              carry cookies or are written by proxies cannot carry sessions",
    test: Test::Cel(
        r#"self.matches(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") && !self.matches(r"^(?i:host|content-length|transfer-encoding|connection|keep-alive|proxy-connection|te|trailer|upgrade|http2-settings|x-request-id|x-forwarded-for|x-leno-.*|cookie|set-cookie)$")"#,
        |value| value.as_str().is_some_and(may_name_sessions),
    ),
};

/// The path of a cookie (RFC 6265 section 4.1.1).
pub const COOKIE_PATH: Rule = Rule {
    message: "begin the cookie's path with /, and write it without spaces, commas and semicolons, such as /shop",
    test: Test::Pattern("^/[!-+.-:<-~/-]*$"),
};

/// Whether sessions may be told apart by the header field called `name`.
pub fn may_name_sessions(name: &str) -> bool {
    may_change(name) && !["cookie", "set-cookie"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// The rules of this file.
pub(super) const ALL: [&Rule; 8] =
    [&COOKIE_NAME, &ONE_HASH_KEY, &WRITE_TRUE, &HASH_WITH_ITS_ALGORITHM, &HASH_ALONE, &ONE_AFFINITY, &SESSION_HEADER, &COOKIE_PATH];
