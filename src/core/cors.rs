//! Cross-origin requests (the CORS protocol of the Fetch standard): which pages may call, and what browsers are told.
//!
//! In: a rule's [`Cors`] and a request's head. Out: the answer to a preflight, or the changes of fields by which the browser lets the page
//! read the response. A browser keeps to what it is told; this keeps nobody else out.
//!
//! <https://fetch.spec.whatwg.org/#http-cors-protocol>

use std::fmt;
use std::time::Duration;

use crate::filters::{FieldChanges, Reply};
use crate::names::Name;
use crate::request::RequestHead;

const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE: &str = "access-control-expose-headers";

/// Which pages may call, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Their origins: `https://shop.example.com`, `https://*.example.com` (any name below), or `*`. Never `*` with credentials.
    pub origins: Vec<Name>,
    /// Methods they may use besides GET, HEAD and POST, or `*`.
    pub methods: Vec<Name>,
    /// Header fields they may send besides the harmless ones, or `*`.
    pub headers: Vec<Name>,
    /// Header fields of responses they may read besides the harmless ones, or `*`.
    pub expose: Vec<Name>,
    /// How long browsers keep the answer to a preflight; `None` is for them to say.
    pub max_age: Option<Duration>,
    /// Whether requests may carry cookies and the like.
    pub credentials: bool,
}

/// What becomes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It asks whether another may come: the proxy answers.
    Preflight(Reply),
    /// It passes, and its response gets these changes.
    Passes(FieldChanges),
}

impl Cors {
    /// What becomes of a request.
    pub fn judge(&self, request: &RequestHead<'_>) -> Judged {
        let origin = request.headers.get("origin");
        let origin = origin.as_deref().and_then(|origin| std::str::from_utf8(origin).ok());
        let is_preflight = request.method == "OPTIONS" && request.headers.get("access-control-request-method").is_some();
        match (origin, is_preflight) {
            (Some(origin), true) => Judged::Preflight(self.preflight(origin)),
            (_, _) => Judged::Passes(self.response(origin)),
        }
    }

    /// Whether pages of `origin` may call.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|pattern| (&**pattern != "*" || !self.credentials) && matches(pattern, origin))
    }

    fn preflight(&self, origin: &str) -> Reply {
        if !self.allows(origin) {
            let fields = vec![("vary".into(), "Origin".into())];
            return Reply {
                status: 403,
                grpc_status: None,
                fields,
                text: "pages of this origin may not call this\n",
                reason: "cors-refused",
            };
        }
        let mut fields = self.answered(origin);
        let mut list = |name: &str, values: &[Name]| {
            if !values.is_empty() {
                fields.push((name.into(), values.join(", ").into()));
            }
        };
        list("access-control-allow-methods", &self.methods);
        list("access-control-allow-headers", &self.headers);
        fields.extend(self.max_age.map(|age| ("access-control-max-age".into(), age.as_secs().to_string().into())));
        fields.push(("vary".into(), "Origin, Access-Control-Request-Method, Access-Control-Request-Headers".into()));
        Reply { status: 200, grpc_status: None, fields, text: "", reason: "cors-preflight" }
    }

    /// What the service says of this itself goes away: the rule has the say.
    fn response(&self, origin: Option<&str>) -> FieldChanges {
        let mut set = origin.filter(|origin| self.allows(origin)).map(|origin| self.answered(origin)).unwrap_or_default();
        if !set.is_empty() && !self.expose.is_empty() {
            set.push((EXPOSE.into(), self.expose.join(", ").into()));
        }
        let is_set = |name: &&str| set.iter().any(|(other, _)| &**other == *name);
        let remove = [ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE].into_iter().filter(|name| !is_set(name)).map(Name::from).collect();
        // Caches must not give the answer for one origin to another.
        let add = if self.is_for_all() { Vec::new() } else { vec![("vary".into(), "Origin".into())] };
        FieldChanges { set, add, remove }
    }

    fn answered(&self, origin: &str) -> Vec<(Name, Name)> {
        let allowed = if self.is_for_all() { "*" } else { origin };
        let mut fields = vec![(ALLOW_ORIGIN.into(), allowed.into())];
        if self.credentials {
            fields.push((ALLOW_CREDENTIALS.into(), "true".into()));
        }
        fields
    }

    fn is_for_all(&self) -> bool {
        !self.credentials && self.origins.iter().any(|origin| &**origin == "*")
    }
}

/// Whether `origin` is one that `pattern` means.
fn matches(pattern: &str, origin: &str) -> bool {
    match pattern.split_once("://*") {
        _ if pattern == "*" => true,
        None => pattern == origin,
        Some((scheme, below)) => {
            let name = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).and_then(|rest| rest.strip_suffix(below));
            name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)))
        }
    }
}

impl fmt::Display for Cors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pages of {} may call", self.origins.join(", "))?;
        for (what, values) in [("methods", &self.methods), ("fields", &self.headers), ("readable fields", &self.expose)] {
            if !values.is_empty() {
                write!(f, ", {what} {}", values.join(", "))?;
            }
        }
        if self.credentials {
            f.write_str(", with credentials")?;
        }
        match self.max_age {
            Some(age) => write!(f, ", kept for {age:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Caller;

    fn names(names: &[&str]) -> Vec<Name> {
        names.iter().map(|name| Name::from(*name)).collect()
    }

    fn shop() -> Cors {
        Cors {
            origins: names(&["https://shop.example.com", "https://*.example.org"]),
            methods: names(&["GET", "PUT"]),
            headers: names(&["x-team", "content-type"]),
            expose: names(&["x-total"]),
            max_age: Some(Duration::from_secs(600)),
            credentials: true,
        }
    }

    fn judged(cors: &Cors, method: &str, fields: &[(&str, &str)]) -> Judged {
        let headers: Vec<(String, String)> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let caller = Caller::default();
        cors.judge(&RequestHead { method, path: "/", query: "", authority: "payment", headers: &headers, caller: &caller })
    }

    fn lines(fields: &[(Name, Name)]) -> Vec<String> {
        fields.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn an_origin_is_named_whole_or_by_what_it_is_below() {
        let cases = [
            ("https://shop.example.com", "https://shop.example.com", true),
            ("https://shop.example.com", "http://shop.example.com", false),
            ("https://shop.example.com", "https://shop.example.com:8443", false),
            ("https://shop.example.com", "https://shop.example.com.evil.example", false),
            ("https://*.example.org", "https://a.example.org", true),
            ("https://*.example.org", "https://a.b.example.org", true),
            ("https://*.example.org", "https://example.org", false),
            ("https://*.example.org", "https://.example.org", false),
            ("https://*.example.org", "https://evilexample.org", false),
            ("https://*.example.org", "http://a.example.org", false),
            ("https://*.example.org", "https://evil.example/.example.org", false),
            ("https://*.example.org", "https://evil.example#.example.org", false),
            ("https://*.example.org:8443", "https://a.example.org:8443", true),
            ("https://*.example.org:8443", "https://a.example.org", false),
            ("*", "https://anybody", true),
            ("https://shop.example.com", "null", false),
        ];
        for (pattern, origin, want) in cases {
            assert_eq!(matches(pattern, origin), want, "{pattern} {origin}");
        }
    }

    #[test]
    fn a_preflight_is_answered_with_what_may_come() {
        let Judged::Preflight(reply) =
            judged(&shop(), "OPTIONS", &[("Origin", "https://shop.example.com"), ("Access-Control-Request-Method", "PUT")])
        else {
            panic!("no preflight")
        };
        assert_eq!((reply.status, reply.text, reply.reason), (200, "", "cors-preflight"));
        assert_eq!(
            lines(&reply.fields),
            [
                "access-control-allow-origin: https://shop.example.com",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-headers: x-team, content-type",
                "access-control-max-age: 600",
                "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            ]
        );
        let Judged::Preflight(reply) =
            judged(&shop(), "OPTIONS", &[("origin", "https://evil.example"), ("access-control-request-method", "PUT")])
        else {
            panic!("no preflight")
        };
        assert_eq!((reply.status, reply.reason, lines(&reply.fields)), (403, "cors-refused", vec!["vary: Origin".to_owned()]));
    }

    #[test]
    fn responses_say_who_may_read_them() {
        let changes = |cors: &Cors, method: &str, fields: &[(&str, &str)]| match judged(cors, method, fields) {
            Judged::Passes(changes) => (lines(&changes.set), lines(&changes.add), changes.remove),
            Judged::Preflight(reply) => panic!("{reply:?}"),
        };
        let (set, add, remove) = changes(&shop(), "PUT", &[("origin", "https://a.example.org")]);
        let want = [
            "access-control-allow-origin: https://a.example.org",
            "access-control-allow-credentials: true",
            "access-control-expose-headers: x-total",
        ];
        assert_eq!((set, add, remove), (want.map(str::to_owned).to_vec(), vec!["vary: Origin".to_owned()], Vec::new()));
        let all = names(&[ALLOW_ORIGIN, ALLOW_CREDENTIALS, EXPOSE]);
        for fields in [&[("origin", "https://evil.example")][..], &[]] {
            let (set, add, remove) = changes(&shop(), "GET", fields);
            assert_eq!((set, add, remove), (Vec::new(), vec!["vary: Origin".to_owned()], all.clone()));
        }
        // OPTIONS without a method asked for is a request as any other.
        assert!(!changes(&shop(), "OPTIONS", &[("origin", "https://a.example.org")]).0.is_empty());
        let anybody = Cors { origins: names(&["*"]), ..Cors::default() };
        let (set, add, _) = changes(&anybody, "GET", &[("origin", "https://a.example.org")]);
        assert_eq!((set, add), (vec!["access-control-allow-origin: *".to_owned()], Vec::new()));
    }

    /// A browser takes no `*` where credentials are sent, and no origin that was not named is ever told yes with them.
    #[test]
    fn credentials_are_never_for_everybody() {
        let cors = Cors { origins: names(&["*"]), credentials: true, ..Cors::default() };
        let Judged::Passes(changes) = judged(&cors, "GET", &[("origin", "https://a.example")]) else { panic!("no preflight") };
        assert!(changes.set.is_empty(), "{changes:?}");
    }
}
