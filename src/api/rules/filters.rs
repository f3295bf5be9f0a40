//! What the schema demands of a route's filters.

use serde_json::Value;

use super::{DNS_NAME, Rule, Test, elements, is_match, strings};

/// Name of a header field (RFC 9110 section 5.1).
const FIELD_NAME: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";
/// Fields that are not a policy's to change: they frame the message, belong to the connection, or are the proxies' own.
const NOT_TO_CHANGE: &str = "^(?i:host|content-length|transfer-encoding|connection|keep-alive|proxy-connection|te|trailer|upgrade|http2-settings|x-request-id|x-forwarded-for|x-leno-.*)$";
/// Value of a header field: visible ASCII, with spaces and tabs within.
const FIELD_VALUE: &str = "^([!-~]([\\t -~]*[!-~])?)?$";

/// Whether a policy may change the header field called `name`, in any case.
pub fn may_change(name: &str) -> bool {
    name.len() <= 128 && is_match(FIELD_NAME, name) && !is_match(NOT_TO_CHANGE, name)
}

/// Whether `value` can be that of a header field.
pub fn is_field_value(value: &str) -> bool {
    is_match(FIELD_VALUE, value)
}

/// Header fields and the values they are given.
pub const FIELDS_TO_WRITE: Rule = Rule {
    message: "write header fields as NAME: VALUE, the name in letters, digits and -, the value in visible ASCII, such as {x-team: shop}. \
              Not to be changed: host (use rewrite.host), content-length, transfer-encoding, what belongs to the connection (connection, \
              keep-alive, proxy-connection, te, trailer, upgrade, http2-settings), and x-request-id, x-forwarded-for and x-leno-…, which \
              proxies write",
    test: Test::Cel(
        r#"self.all(k, k.size() <= 128 && k.matches(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") && !k.matches(r"^(?i:host|content-length|transfer-encoding|connection|keep-alive|proxy-connection|te|trailer|upgrade|http2-settings|x-request-id|x-forwarded-for|x-leno-.*)$") && self[k].matches(r"^([!-~]([\t -~]*[!-~])?)?$"))"#,
        |value| {
            let fields = value.as_object().into_iter().flatten();
            fields.into_iter().all(|(name, value)| may_change(name) && value.as_str().is_some_and(is_field_value))
        },
    ),
};

/// Header fields that are taken out.
pub const FIELDS_TO_REMOVE: Rule = Rule {
    message: "write the names of header fields in letters, digits and -, such as x-internal. Not to be removed: host, content-length, \
              transfer-encoding, what belongs to the connection (connection, keep-alive, proxy-connection, te, trailer, upgrade, \
              http2-settings), and x-request-id, x-forwarded-for and x-leno-…, which proxies write",
    test: Test::Cel(
        r#"self.all(k, k.matches(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") && !k.matches(r"^(?i:host|content-length|transfer-encoding|connection|keep-alive|proxy-connection|te|trailer|upgrade|http2-settings|x-request-id|x-forwarded-for|x-leno-.*)$"))"#,
        |value| strings(value).all(may_change),
    ),
};

/// Changes of header fields that say something, once.
pub const FIELD_CHANGES: Rule = Rule {
    message: "write at least one of set, add and remove, and each header field in one of them only, such as {set: {x-team: shop}, \
              remove: [x-internal]}",
    test: Test::Cel(
        "(has(self.set) || has(self.add) || has(self.remove)) \
         && (!has(self.set) || !has(self.add) || self.set.all(k, !(k in self.add))) \
         && (!has(self.remove) || self.remove.all(k, (!has(self.set) || !(k in self.set)) && (!has(self.add) || !(k in self.add))))",
        |value| {
            let names = |field: &str| -> Vec<&str> {
                let map = value[field].as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
                map.chain(strings(&value[field])).collect()
            };
            let lists = ["set", "add", "remove"].map(names);
            let is_one = ["set", "add", "remove"].iter().any(|field| value.get(*field).is_some());
            let twice = |a: usize, b: usize| lists[a].iter().any(|name| lists[b].contains(name));
            is_one && !twice(0, 1) && !twice(0, 2) && !twice(1, 2)
        },
    ),
};

/// One change of a path.
pub const ONE_PATH_CHANGE: Rule = Rule {
    message: "give path exactly one of prefix (instead of the prefix that the route matches) and full (instead of the whole path), such \
              as {prefix: /v2}; to leave the path as it is, leave path out",
    test: Test::OneOf(&["prefix", "full"]),
};

/// A path that is sent on.
pub const NEW_PATH: Rule = Rule {
    message: "begin the new path with /, and write it as it is sent: in visible ASCII, without query (?) and fragment (#), which stay as \
              they are",
    test: Test::Pattern("^/[!$->@-~]*$"),
};

/// A rewrite that says something.
pub const REWRITES: Rule = Rule {
    message: "write what is rewritten: at least one of path and host, such as {path: {prefix: /}}",
    test: Test::Cel("has(self.path) || has(self.host)", |value| value.get("path").is_some() || value.get("host").is_some()),
};

/// A new authority.
pub const NEW_HOST: Rule = Rule {
    message: "write the new host as a host name in lower case, without scheme, port, path or wildcard, such as payment.example.com",
    test: Test::Pattern(DNS_NAME),
};

/// Status of a redirect.
pub const REDIRECT_STATUS: Rule = Rule {
    message: "write one of the statuses 301, 302, 303, 307 and 308",
    test: Test::Cel("self in [301, 302, 303, 307, 308]", |value| {
        value.as_i64().is_some_and(|status| [301, 302, 303, 307, 308].contains(&status))
    }),
};

/// A redirect that leads elsewhere.
pub const REDIRECTS: Rule = Rule {
    message: "write where the request is sent: at least one of scheme, host, port and path, such as {scheme: https}",
    test: Test::Cel("has(self.scheme) || has(self.host) || has(self.port) || has(self.path)", |value| {
        ["scheme", "host", "port", "path"].iter().any(|field| value.get(field).is_some())
    }),
};

/// A redirect is an answer.
pub const REDIRECT_ALONE: Rule = Rule {
    message: "a redirect answers the request, so nothing is sent on: leave destinations, mirror, rewrite, requestHeaders and responseHeaders out \
              of this route, or leave redirect out",
    test: Test::Cel(
        "!has(self.redirect) || !((has(self.destinations) && self.destinations.size() > 0) || has(self.mirror) || has(self.rewrite) \
         || has(self.requestHeaders) || has(self.responseHeaders))",
        |value| {
            let sends = elements(&value["destinations"]).next().is_some();
            let changes = ["mirror", "rewrite", "requestHeaders", "responseHeaders"].iter().any(|field| value.get(field).is_some());
            value.get("redirect").is_none() || !(sends || changes)
        },
    ),
};

/// A prefix is replaced only where one matched.
pub const PREFIX_OF_A_PREFIX: Rule = Rule {
    message: "path.prefix replaces the prefix that the request's path matched, so every match of the route that speaks of a path must \
              give a prefix; with exact or regex, write path.full",
    test: Test::Cel(
        "!((has(self.rewrite) && has(self.rewrite.path) && has(self.rewrite.path.prefix)) \
         || (has(self.redirect) && has(self.redirect.path) && has(self.redirect.path.prefix))) \
         || !has(self.matches) || self.matches.all(m, !has(m.path) || has(m.path.prefix))",
        |value| {
            let replaces = |filter: &str| value.pointer(&format!("/{filter}/path/prefix")).is_some();
            let by_prefix = |it: &Value| it.get("path").is_none_or(|path| path.get("prefix").is_some());
            !(replaces("rewrite") || replaces("redirect")) || elements(&value["matches"]).all(by_prefix)
        },
    ),
};

/// A fault that befalls somebody.
pub const SOME_FAULT: Rule = Rule {
    message: "write what befalls the requests: at least one of delay and abort, such as {abort: {status: 503, percentage: 10}}",
    test: Test::Cel("has(self.delay) || has(self.abort)", |value| value.get("delay").is_some() || value.get("abort").is_some()),
};

/// One status of an abort.
pub const ONE_ABORT: Rule = Rule {
    message: "give abort exactly one of status (such as 503) and grpcStatus (such as 14, UNAVAILABLE)",
    test: Test::OneOf(&["status", "grpcStatus"]),
};

/// Origins of pages.
pub const ORIGINS: Rule = Rule {
    message: "write origins as a browser sends them, in lower case and without path: https://shop.example.com, with its port where it is not \
              the scheme's own; https://*.example.com for every name below; or * for all",
    test: Test::Cel(
        r#"self.all(o, o.matches(r"^([*]|https?://([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*(:[0-9]{1,5})?)$"))"#,
        |value| strings(value).all(|origin| is_match(ORIGIN, origin)),
    ),
};

/// An origin, or what origins are below.
const ORIGIN: &str = "^([*]|https?://([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*(:[0-9]{1,5})?)$";

/// Methods of pages.
pub const CORS_METHODS: Rule = Rule {
    message: "write methods in capitals, such as PUT and DELETE, or * for all",
    test: Test::Cel(r#"self.all(m, m == "*" || m.matches(r"^[A-Z][A-Z0-9_-]*$"))"#, |value| {
        strings(value).all(|method| method == "*" || is_match("^[A-Z][A-Z0-9_-]*$", method))
    }),
};

/// Credentials are for those who are named.
pub const NAMED_ORIGINS: Rule = Rule {
    message: "with allowCredentials, name the origins, methods and fields: browsers take no * then, and any page could act for its visitor",
    test: Test::Cel(
        "!has(self.allowCredentials) || !self.allowCredentials || (!('*' in self.allowOrigins) \
         && (!has(self.allowMethods) || !('*' in self.allowMethods)) && (!has(self.allowHeaders) || !('*' in self.allowHeaders)) \
         && (!has(self.exposeHeaders) || !('*' in self.exposeHeaders)))",
        |value| {
            let lists = ["allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders"];
            let for_all = lists.iter().any(|list| strings(&value[*list]).any(|it| it == "*"));
            !for_all || value.get("allowCredentials") != Some(&Value::Bool(true))
        },
    ),
};

/// The rules of this file.
pub(super) const ALL: [&Rule; 16] = [
    &FIELDS_TO_WRITE,
    &FIELDS_TO_REMOVE,
    &FIELD_CHANGES,
    &ONE_PATH_CHANGE,
    &NEW_PATH,
    &REWRITES,
    &NEW_HOST,
    &REDIRECT_STATUS,
    &REDIRECTS,
    &REDIRECT_ALONE,
    &PREFIX_OF_A_PREFIX,
    &SOME_FAULT,
    &ONE_ABORT,
    &ORIGINS,
    &CORS_METHODS,
    &NAMED_ORIGINS,
];
