//! The request to explain, as the command line gives it.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;
use leno_core::authorize::Claims;
use leno_core::names::{Identity, Name, WorkloadId};
use leno_core::request::{Caller, RequestHead};
use serde::Serialize;

/// The address of a caller of whom nobody said where it is.
pub const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One request that somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Method, as given.
    pub method: String,
    /// The URL, as given.
    pub url: String,
    /// What the URL's scheme says is spoken.
    pub scheme: Scheme,
    /// Host of the URL: a name or an address, without brackets.
    pub host: String,
    /// Its port, or the scheme's.
    pub port: u16,
    /// `Host` or `:authority` of the request.
    pub authority: String,
    /// Path of the target.
    pub path: String,
    /// Query of the target.
    pub query: String,
    /// The other header fields.
    pub headers: Vec<(String, String)>,
    /// Who sends it.
    pub from: Option<WorkloadId>,
    /// Who it proves to be, if somebody says so.
    pub identity: Option<Identity>,
    /// Where its connection comes from; [`UNKNOWN`] where nobody says.
    pub source: IpAddr,
    /// Claims of its verified token.
    pub claims: Claims,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// The app's own TLS.
    Https,
    /// Bytes.
    Tcp,
}

/// The command line does not describe a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The method is no token.
    #[error("{0:?} is no method: write one such as GET or POST, before the URL")]
    Method(String),
    /// The URL cannot be read.
    #[error("{0:?} is no URL that can be asked for: write http://HOST/PATH, such as http://payment.shop/api, or tcp://HOST:PORT")]
    Url(String),
    /// There is no port.
    #[error("{0:?} names no port: write tcp://HOST:PORT")]
    Port(String),
    /// A header without a colon, or with a name that is no token.
    #[error("{0:?} is no header field: write NAME:VALUE, such as -H x-user-type:premium")]
    Header(String),
}

impl Question {
    /// The request described by a method, a URL and header fields (`NAME:VALUE`).
    ///
    /// # Errors
    /// When one of them cannot be read, in words for who wrote it.
    pub fn new(method: &str, url: &str, headers: &[String], from: Option<&WorkloadId>) -> Result<Self, QuestionError> {
        let is_method = http::Method::from_bytes(method.as_bytes()).is_ok() && !method.contains('/');
        if !is_method {
            return Err(QuestionError::Method(method.to_owned()));
        }
        let bad = || QuestionError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_invalid: http::uri::InvalidUri| bad())?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http" | "ws" | "grpc") => (Scheme::Http, Some(80)),
            Some("https" | "wss") => (Scheme::Https, Some(443)),
            Some("tcp") => (Scheme::Tcp, None),
            Some(_) | None => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        let (host, port) = leno_core::names::split_authority(authority.as_str()).ok_or_else(bad)?;
        let port = port.or(default_port).ok_or_else(|| QuestionError::Port(url.to_owned()))?;
        let mut fields = Vec::new();
        let mut named_authority = None;
        for header in headers {
            let (name, value) = field(header)?;
            if name.eq_ignore_ascii_case("host") {
                named_authority = Some(value);
            } else {
                fields.push((name, value));
            }
        }
        Ok(Self {
            method: method.to_owned(),
            url: url.to_owned(),
            scheme,
            host: host.to_owned(),
            port,
            authority: named_authority.unwrap_or_else(|| authority.to_string()),
            path: if uri.path().is_empty() { "/".to_owned() } else { uri.path().to_owned() },
            query: uri.query().unwrap_or_default().to_owned(),
            headers: fields,
            from: from.cloned(),
            identity: None,
            source: UNKNOWN,
            claims: Claims::new(),
        })
    }

    /// Namespace of who sends it.
    pub fn namespace(&self) -> &str {
        self.from.as_ref().map_or("default", |from| &from.namespace)
    }

    /// Its head; `caller` is [`Question::caller`].
    pub fn head<'h>(&'h self, caller: &'h Caller) -> RequestHead<'h> {
        RequestHead {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            authority: &self.authority,
            headers: &self.headers,
            caller,
        }
    }

    /// Who sends it, as a decision sees it.
    pub fn caller(&self) -> Caller {
        Caller { namespace: Some(Name::from(self.namespace())), identity: None }
    }
}

/// `NAME:VALUE`, with optional spaces around the value (RFC 9112 section 5).
fn field(header: &str) -> Result<(String, String), QuestionError> {
    let bad = || QuestionError::Header(header.to_owned());
    let (name, value) = header.split_once(':').ok_or_else(bad)?;
    http::HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| bad())?;
    http::HeaderValue::from_str(value.trim()).map_err(|_invalid| bad())?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, url: &str, headers: &[&str]) -> Result<Question, QuestionError> {
        let headers: Vec<String> = headers.iter().map(|it| (*it).to_owned()).collect();
        Question::new(method, url, &headers, None)
    }

    #[test]
    fn a_url_is_taken_apart() {
        let question = ask("GET", "http://payment.shop/a/b?c=d", &["X-A: 1", "host:other"]).unwrap();
        assert_eq!((question.host.as_str(), question.port, question.authority.as_str()), ("payment.shop", 80, "other"));
        assert_eq!((question.path.as_str(), question.query.as_str()), ("/a/b", "c=d"));
        assert_eq!(question.headers, [("X-A".to_owned(), "1".to_owned())]);
        let question = ask("GET", "https://[fd00::1]:8443", &[]).unwrap();
        assert_eq!((question.host.as_str(), question.port, question.path.as_str()), ("fd00::1", 8443, "/"));
    }

    #[test]
    fn what_is_no_request_is_refused_in_words() {
        let cases = [
            (ask("http://payment/", "GET", &[]), "no method"),
            (ask("GET", "payment/api", &[]), "http://HOST/PATH"),
            (ask("GET", "ftp://payment/", &[]), "http://HOST/PATH"),
            (ask("GET", "http://user@payment/", &[]), "http://HOST/PATH"),
            (ask("GET", "tcp://payment", &[]), "tcp://HOST:PORT"),
            (ask("GET", "http://payment/", &["x-user-type=premium"]), "NAME:VALUE"),
            (ask("GET", "http://payment/", &["x y:1"]), "NAME:VALUE"),
        ];
        for (asked, words) in cases {
            let error = asked.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
