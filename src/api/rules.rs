//! What the schema demands beyond types and bounds. Each rule stands here once, with the sentence that a person reads:
//! the API server runs it as CEL (`x-kubernetes-validations`), [`crate::check()`] runs its twin in Rust on files.
//!
//! The object tables in `tests/objects` hold both sides to the same answers.

pub mod balancing;
pub mod filters;

use regex::Regex;
use serde_json::{Value, json};

use crate::duration::Duration;

/// One rule on a value of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What to write instead.
    pub message: &'static str,
    /// What must hold.
    pub test: Test,
}

/// What a rule demands.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// The string matches this regular expression.
    Pattern(&'static str),
    /// Exactly one of these fields is there.
    OneOf(&'static [&'static str]),
    /// A CEL expression, and the same in Rust.
    Cel(&'static str, fn(&Value) -> bool),
}

/// A duration more than zero, in whole milliseconds.
pub const DURATION: Rule = Rule {
    message: "write a duration such as 300ms, 1.5s or 1h30m: numbers with the units ms, s, m or h, in whole milliseconds, \
              more than zero; without a limit, leave the field out",
    test: Test::Cel(r#"self.matches(r"^([0-9]{1,5}(ms|([.][0-9]{1,3})?(s|m|h))){1,4}$") && self.matches("[1-9]")"#, |value| {
        value.as_str().is_some_and(|text| Duration::from(text).parse().is_ok())
    }),
};

/// Name of a Service.
pub const SERVICE_NAME: Rule = Rule {
    message: "write the name of a Service of this namespace, without namespace or domain: lower-case letters, digits and -, \
              such as payment",
    test: Test::Pattern(DNS_LABEL),
};

/// Name of another service.
pub const OTHER_SERVICE: Rule = Rule {
    message: "write the name of a service, without domain: lower-case letters, digits and -, such as ledger; its namespace, where that \
              is another one, goes to namespace",
    test: Test::Pattern(DNS_LABEL),
};

/// Name of a namespace.
pub const NAMESPACE_NAME: Rule =
    Rule { message: "write a namespace's name in lower-case letters, digits and -, such as shop", test: Test::Pattern(DNS_LABEL) };

/// Name of a MeshService or Service that a policy is for.
pub const TARGET_NAME: Rule = Rule {
    message: "write the name of a MeshService or Service of this namespace: lower-case letters, digits, - and ., such as payment",
    test: Test::Pattern(DNS_NAME),
};

/// Name of a version.
pub const VERSION_NAME: Rule =
    Rule { message: "write a version's name in lower-case letters, digits and -, such as v1", test: Test::Pattern(DNS_LABEL) };

/// Name of a route.
pub const ROUTE_NAME: Rule =
    Rule { message: "write a route's name in lower-case letters, digits and -, such as premium-users", test: Test::Pattern(DNS_LABEL) };

/// Name of a workload's port.
pub const PORT_NAME: Rule =
    Rule { message: "write a port's name in lower-case letters, digits and -, such as http", test: Test::Pattern(DNS_LABEL) };

/// Name of a workload's service account.
pub const ACCOUNT_NAME: Rule = Rule {
    message: "write the name of a service account, without namespace: lower-case letters, digits, - and ., such as orders",
    test: Test::Pattern(DNS_NAME),
};

/// Host names.
pub const HOSTS: Rule = Rule {
    message: "write hosts as full host names in lower case, without scheme, port or wildcard, such as payment.example.com",
    test: Test::Cel(r#"self.all(h, h.matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))"#, |value| {
        strings(value).all(|host| is_match(DNS_NAME, host))
    }),
};

/// A Service or something outside.
pub const SERVICE_OR_EXTERNAL: Rule = Rule {
    message: "write service (a Service of this namespace) or external (something outside the cluster), not both",
    test: Test::Cel("!(has(self.service) && has(self.external))", |value| {
        value.get("service").is_none() || value.get("external").is_none()
    }),
};

/// No versions outside.
pub const NO_VERSIONS_OUTSIDE: Rule = Rule {
    message: "leave versions out where external is written: what is outside the cluster has no pods whose labels could tell versions apart",
    test: Test::Cel("!(has(self.versions) && self.versions.size() > 0 && has(self.external))", |value| {
        value.get("versions").is_none_or(|versions| elements(versions).next().is_none()) || value.get("external").is_none()
    }),
};

/// Host names and IP addresses.
pub const OUTSIDE_ADDRESSES: Rule = Rule {
    message: "write addresses as host names in lower case or IP addresses, without scheme, port or wildcard, such as api.example.com",
    test: Test::Cel(
        r#"self.all(a, a.matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$") || a.matches(r"^[0-9a-f.]*:[0-9a-f:.]*$"))"#,
        |value| strings(value).all(is_outside),
    ),
};

/// A host name or an IP address.
pub const OUTSIDE_NAME: Rule = Rule {
    message: "write the server's name as a host name in lower case or an IP address, such as api.example.com",
    test: Test::Cel(
        r#"self.matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$") || self.matches(r"^[0-9a-f.]*:[0-9a-f:.]*$")"#,
        |value| value.as_str().is_some_and(is_outside),
    ),
};

/// Certificates.
pub const CA_BUNDLE: Rule = Rule {
    message: "write the certificates of the authorities in PEM, each from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----",
    test: Test::Cel("self.contains('-----BEGIN CERTIFICATE-----')", |value| {
        value.as_str().is_some_and(|text| text.contains("-----BEGIN CERTIFICATE-----"))
    }),
};

/// Egress belongs to callers.
pub const EGRESS_WITHOUT_TARGET: Rule = Rule {
    message: "write egress in a policy without targetRef: where pods may connect to is said for pods (selector) or the whole namespace",
    test: Test::Cel("!(has(self.targetRef) && has(self.egress))", |value| {
        value.get("targetRef").is_none() || value.get("egress").is_none()
    }),
};

/// Labels of pods.
pub const LABELS: Rule = Rule {
    message: "write labels as pods carry them: keys such as version or app.kubernetes.io/version, values of at most 63 letters, \
              digits, -, _ and .",
    test: Test::Cel(
        r#"self.all(k, k.size() <= 317 && k.matches(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$") && self[k].matches(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))"#,
        |value| {
            value.as_object().is_some_and(|labels| {
                labels.iter().all(|(key, value)| {
                    key.len() <= 317 && is_match(LABEL_KEY, key) && value.as_str().is_some_and(|text| is_match(LABEL_VALUE, text))
                })
            })
        },
    ),
};

/// Unique names of routes.
pub const ROUTE_NAMES: Rule = Rule {
    message: "give each route a name of its own",
    test: Test::Cel("self.all(r, self.exists_one(other, other.name == r.name))", |value| {
        let names: Vec<_> = elements(value).map(|route| &route["name"]).collect();
        names.iter().all(|name| names.iter().filter(|other| other == &name).count() == 1)
    }),
};

/// Somebody takes the requests.
pub const SOME_WEIGHT: Rule = Rule {
    message: "give at least one destination a weight above 0, or leave destinations out to use all the service's endpoints",
    test: Test::Cel("self.size() == 0 || self.exists(d, !has(d.weight) || d.weight > 0)", |value| {
        let mut weights = elements(value).map(|destination| destination.get("weight").and_then(Value::as_i64).unwrap_or(1)).peekable();
        weights.peek().is_none() || weights.any(|weight| weight > 0)
    }),
};

/// A method.
pub const METHOD: Rule = Rule {
    message: "write the method in capitals, such as GET or POST; for every method, leave the field out",
    test: Test::Pattern("^[A-Z][A-Z0-9_-]*$"),
};

/// Methods that may be repeated.
pub const RETRY_METHODS: Rule = Rule {
    message: "write methods in capitals, such as POST; for those that may be repeated without harm, leave methods out",
    test: Test::Cel(r#"self.all(m, m.matches("^[A-Z][A-Z0-9_-]*$"))"#, |value| {
        elements(value).all(|method| method.as_str().is_some_and(|text| is_match("^[A-Z][A-Z0-9_-]*$", text)))
    }),
};

/// Times between tries.
pub const BACKOFF: Rule = Rule {
    message: "write a backoff whose max is not below its base, such as {base: 25ms, max: 250ms}",
    test: Test::Cel("!has(self.base) || !has(self.max) || duration(self.base) <= duration(self.max)", |value| {
        let time = |field: &str| value.get(field).and_then(Value::as_str).and_then(|text| Duration::from(text).parse().ok());
        time("base").zip(time("max")).is_none_or(|(base, max)| base <= max)
    }),
};

/// Bounds in their order.
pub const MIN_AND_MAX_LIMIT: Rule = Rule {
    message: "write a maxLimit that is not below minLimit, such as {minLimit: 3, maxLimit: 100}",
    test: Test::Cel("!has(self.minLimit) || !has(self.maxLimit) || self.minLimit <= self.maxLimit", |value| {
        let limit = |field: &str| value.get(field).and_then(Value::as_i64);
        limit("minLimit").zip(limit("maxLimit")).is_none_or(|(min, max)| min <= max)
    }),
};

/// No adaptive concurrency outside.
pub const NO_CONCURRENCY_OUTSIDE: Rule = Rule {
    message: "leave adaptiveConcurrency out where external is written: what is outside the cluster has no sidecar that could learn it; \
              write connections.maxRequests instead",
    test: Test::Cel("!(has(self.adaptiveConcurrency) && has(self.external))", |value| {
        value.get("adaptiveConcurrency").is_none() || value.get("external").is_none()
    }),
};

/// One kind of health check.
pub const ONE_PROBE: Rule = Rule {
    message: "give healthCheck exactly one of http, grpc and tcp, such as {http: {path: /healthz}}; without checks, leave healthCheck out",
    test: Test::OneOf(&["http", "grpc", "tcp"]),
};

/// What a health check asks for.
pub const PROBE_PATH: Rule = Rule {
    message: "begin the path with /, and write it as it is sent: in visible ASCII, without fragment (#), such as /healthz?full=1",
    test: Test::Pattern(r"^/[!\x22$-~]*$"),
};

/// One condition on a path.
pub const ONE_PATH: Rule = Rule {
    message: "give path exactly one of exact, prefix and regex, such as {prefix: /api}; for every path, leave path out",
    test: Test::OneOf(&["exact", "prefix", "regex"]),
};

/// A whole path.
pub const PATH_EXACT: Rule = Rule {
    message: "begin the exact path with /, and write it without query (?) and fragment (#); conditions on the query go to query",
    test: Test::Pattern("^/[^?#]*$"),
};

/// The beginning of a path.
pub const PATH_PREFIX: Rule = Rule {
    message: "begin the prefix with /, and write it without query (?) and fragment (#); conditions on the query go to query",
    test: Test::Pattern("^/[^?#]*$"),
};

/// One condition on a value.
pub const ONE_VALUE: Rule = Rule {
    message: "give the field exactly one of value, regex and present, such as {name: x-user-type, value: premium}",
    test: Test::OneOf(&["value", "regex", "present"]),
};

/// Name of a header field (RFC 9110 section 5.1).
pub const HEADER_NAME: Rule = Rule {
    message: "write a header's name in letters, digits and -, such as x-user-type; conditions on path and method have fields of \
              their own, and the authority is host",
    test: Test::Pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
};

/// One kind of destination.
pub const ONE_DESTINATION: Rule = Rule {
    message: "give the destination exactly one of version and service, such as {version: v1, weight: 90}",
    test: Test::OneOf(&["version", "service"]),
};

/// A mirror is one thing.
pub const ONE_MIRROR: Rule = Rule {
    message: "give the mirror exactly one of version and service, such as {version: v3, percentage: 5}",
    test: Test::OneOf(&["version", "service"]),
};

/// Which requests are counted together.
pub const RATE_KEY: Rule = Rule {
    message: "write source (each caller has its own) or header:NAME, such as header:x-user; to count all requests of the route together, \
              leave the field out",
    test: Test::Pattern("^(source|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$"),
};

/// A port belongs to a service.
pub const PORT_WITH_SERVICE: Rule = Rule {
    message: "leave port out, or name a service: a version is reached at the port the request was for",
    test: Test::Cel("!has(self.port) || has(self.service)", |value| value.get("port").is_none() || value.get("service").is_some()),
};

/// A namespace belongs to a service.
pub const NAMESPACE_WITH_SERVICE: Rule = Rule {
    message: "leave namespace out, or name a service: versions are those of the policy's target",
    test: Test::Cel("!has(self.namespace) || has(self.service)", |value| {
        value.get("namespace").is_none() || value.get("service").is_some()
    }),
};

/// What a SecurityPolicy is for.
pub const TARGET_OR_SELECTOR: Rule = Rule {
    message: "write targetRef (a service), or selector (pods by their labels), or neither (the whole namespace), but not both",
    test: Test::Cel("!(has(self.targetRef) && has(self.selector))", |value| {
        value.get("targetRef").is_none() || value.get("selector").is_none()
    }),
};

/// A policy without content.
pub const SAYS_SOMETHING: Rule = Rule {
    message: "say something: at least one of mtls, jwt, authorization and egress; to refuse every call, write action: Deny and \
              authorization: [{}]",
    test: Test::Cel("has(self.mtls) || has(self.jwt) || has(self.authorization) || has(self.egress)", |value| {
        ["mtls", "jwt", "authorization", "egress"].iter().any(|field| value.get(field).is_some())
    }),
};

/// Where an issuer's keys are.
pub const ONE_KEY_SET: Rule = Rule {
    message: "give the issuer exactly one of jwks (its keys) and jwksUri (where to fetch them)",
    test: Test::OneOf(&["jwks", "jwksUri"]),
};

/// Where keys are fetched.
pub const KEYS_URL: Rule = Rule {
    message: "write where the keys are fetched as an https or http URL without user information and fragment, such as \
              https://login.example.com/.well-known/jwks.json",
    test: Test::Pattern("^https?://([A-Za-z0-9.-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?(/[!$-~]*)?$"),
};

/// Names of header fields.
pub const HEADER_NAMES: Rule = Rule {
    message: "write the names of header fields in letters, digits and -, such as x-token",
    test: Test::Cel(r#"self.all(h, h.matches(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))"#, |value| {
        strings(value).all(|name| is_match("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", name))
    }),
};

/// Methods.
pub const METHODS: Rule = Rule {
    message: "write methods in capitals, such as GET and POST; for every method, leave the list out",
    test: Test::Cel(r#"self.all(m, m.matches(r"^[A-Z][A-Z0-9_-]*$"))"#, |value| {
        strings(value).all(|method| is_match("^[A-Z][A-Z0-9_-]*$", method))
    }),
};

/// Paths of calls.
pub const PATHS: Rule = Rule {
    message: "begin each path with /, write it without query (?), fragment (#), double slashes and dot segments, and * only as /* \
              at its end, such as /api/v1/process or /api/*",
    test: Test::Cel(
        r#"self.all(p, p.matches(r"^/([^?#*]*|([^?#*]*/)?[*])$") && !p.contains("//") && !p.matches(r"/[.][.]?(/|$)"))"#,
        |value| {
            strings(value)
                .all(|path| is_match("^/([^?#*]*|([^?#*]*/)?[*])$", path) && !path.contains("//") && !is_match("/[.][.]?(/|$)", path))
        },
    ),
};

/// Names of claims.
pub const CLAIM_NAMES: Rule = Rule {
    message: "write the names of claims in at most 128 characters, such as scope",
    test: Test::Cel("self.all(c, c.size() > 0 && c.size() <= 128)", |value| {
        let names = value.as_object().into_iter().flat_map(|claims| claims.keys());
        names.map(|name| name.chars().count()).all(|length| length > 0 && length <= 128)
    }),
};

/// One kind of caller.
pub const ONE_SOURCE: Rule = Rule {
    message: "give each entry of from exactly one of serviceAccount, namespace, trustDomain and ipBlock, such as \
              {serviceAccount: shop/orders}",
    test: Test::OneOf(&["serviceAccount", "namespace", "trustDomain", "ipBlock"]),
};

/// A service account, perhaps of another namespace.
pub const ACCOUNT: Rule = Rule {
    message: "write a service account as namespace/name, or as the name alone for one of the policy's own namespace, such as shop/orders",
    test: Test::Pattern("^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
};

/// A namespace.
pub const NAMESPACE: Rule =
    Rule { message: "write a namespace's name in lower-case letters, digits and -, such as ops", test: Test::Pattern(DNS_LABEL) };

/// A trust domain (SPIFFE ID specification, section 2.1).
pub const TRUST_DOMAIN: Rule = Rule {
    message: "write a trust domain in lower-case letters, digits, -, _ and ., such as cluster.local",
    test: Test::Pattern("^[a-z0-9._-]+$"),
};

/// A network or an address.
pub const IP_BLOCK: Rule = Rule {
    message: "write a network such as 10.0.0.0/8 or 2001:db8::/32, or one address",
    test: Test::Pattern(
        "^(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(/(3[0-2]|[12]?[0-9]))?|\
         [0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$",
    ),
};

/// RFC 1123 label; its length is bounded by the schema.
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// RFC 1123 subdomain; its length is bounded by the schema.
const DNS_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Key of a label.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// Value of a label.
const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// Every rule, for [`crate::check`] to find by its message.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    ALL.iter().copied().chain(filters::ALL).chain(balancing::ALL)
}

/// The rules of this file.
const ALL: &[&Rule] = &[
    &DURATION,
    &SERVICE_NAME,
    &TARGET_NAME,
    &VERSION_NAME,
    &ROUTE_NAME,
    &PORT_NAME,
    &ACCOUNT_NAME,
    &HOSTS,
    &LABELS,
    &ROUTE_NAMES,
    &SOME_WEIGHT,
    &METHOD,
    &RETRY_METHODS,
    &BACKOFF,
    &ONE_PATH,
    &PATH_EXACT,
    &PATH_PREFIX,
    &ONE_VALUE,
    &HEADER_NAME,
    &ONE_DESTINATION,
    &ONE_MIRROR,
    &RATE_KEY,
    &PORT_WITH_SERVICE,
    &OTHER_SERVICE,
    &NAMESPACE_NAME,
    &NAMESPACE_WITH_SERVICE,
    &TARGET_OR_SELECTOR,
    &SAYS_SOMETHING,
    &EGRESS_WITHOUT_TARGET,
    &SERVICE_OR_EXTERNAL,
    &NO_VERSIONS_OUTSIDE,
    &NO_CONCURRENCY_OUTSIDE,
    &MIN_AND_MAX_LIMIT,
    &ONE_PROBE,
    &PROBE_PATH,
    &OUTSIDE_ADDRESSES,
    &OUTSIDE_NAME,
    &CA_BUNDLE,
    &ONE_KEY_SET,
    &KEYS_URL,
    &HEADER_NAMES,
    &METHODS,
    &PATHS,
    &CLAIM_NAMES,
    &ONE_SOURCE,
    &ACCOUNT,
    &NAMESPACE,
    &TRUST_DOMAIN,
    &IP_BLOCK,
];

impl Rule {
    /// The rule in CEL.
    pub fn cel(&self) -> String {
        match self.test {
            Test::Pattern(pattern) => format!("self.matches(r\"{pattern}\")"),
            Test::OneOf(fields) => {
                let counts: Vec<_> = fields.iter().map(|field| format!("(has(self.{field}) ? 1 : 0)")).collect();
                format!("{} == 1", counts.join(" + "))
            }
            Test::Cel(cel, _) => cel.to_owned(),
        }
    }

    /// Whether the rule holds for a value that the rest of the schema accepts.
    pub fn holds(&self, value: &Value) -> bool {
        match self.test {
            Test::Pattern(pattern) => value.as_str().is_some_and(|text| is_match(pattern, text)),
            Test::OneOf(fields) => fields.iter().filter(|field| value.get(**field).is_some()).count() == 1,
            Test::Cel(_, holds) => holds(value),
        }
    }
}

/// The rules as `x-kubernetes-validations`.
pub(crate) fn list(rules: &[&Rule]) -> Value {
    rules.iter().map(|rule| json!({"rule": rule.cel(), "message": rule.message})).collect()
}

fn is_match(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
}

/// Whether `text` has the form of a host name or an IP address.
fn is_outside(text: &str) -> bool {
    is_match(DNS_NAME, text) || is_match("^[0-9a-f.]*:[0-9a-f:.]*$", text)
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    elements(value).filter_map(Value::as_str)
}
