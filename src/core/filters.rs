//! Filters: what a rule does to its requests and responses besides saying where they go.
//!
//! In: the filters of the rule that holds, and the request as it came. Out: a [`Filtered`]: the path and authority to send on,
//! changes of fields, or an answer that the proxy gives itself. A rule without filters has none of this, and costs nothing.
//!
//! Semantics are those of Gateway API HTTPRoute filters (`RequestHeaderModifier`, `ResponseHeaderModifier`, `URLRewrite`,
//! `RequestRedirect`).
//!
//! Reading order: [`Filters::judge`], [`FieldChanges`], [`PathChange::apply`], [`Redirect::location`].

use std::time::Duration;

use crate::cors::{Cors, Judged};
use crate::fault::{AbortStatus, Fault};
use crate::matching::{Match, PathMatch};
use crate::names::{Name, ServiceId, split_authority};
use crate::request::RequestHead;

/// Everything a rule does besides naming destinations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Changes of the request's fields.
    pub request: FieldChanges,
    /// Changes of the response's fields. Answers of the proxy itself stay as they are.
    pub response: FieldChanges,
    /// What the request's target becomes.
    pub rewrite: Option<Rewrite>,
    /// The proxy answers itself, and names another place.
    pub redirect: Option<Redirect>,
    /// What befalls some requests, on purpose.
    pub fault: Option<Fault>,
    /// Which pages of other origins may call.
    pub cors: Option<Cors>,
}

/// Changes of header fields. A name is in one of the three lists at most, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldChanges {
    /// Fields that have this value then, and no other.
    pub set: Vec<(Name, Name)>,
    /// Values that come after those that are there.
    pub add: Vec<(Name, Name)>,
    /// Fields that are not there then.
    pub remove: Vec<Name>,
}

/// What a request's target becomes. The query stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Change of the path.
    pub path: Option<PathChange>,
    /// The new authority.
    pub host: Option<Name>,
}

/// Change of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// Instead of the prefix by which the rule's match holds.
    Prefix(Name),
    /// Instead of the whole path.
    Full(Name),
}

/// Where a request is sent by its answer. What is `None` is as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host.
    pub host: Option<Name>,
    /// The port; `None` is the scheme's own where that is given, else the request's.
    pub port: Option<u16>,
    /// Change of the path.
    pub path: Option<PathChange>,
    /// Status of the answer.
    pub status: u16,
}

/// Schemes of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// A request whose rule has filters.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Its head, as it came.
    pub request: &'a RequestHead<'a>,
    /// The match by which the rule holds; `None` where the rule has none.
    pub matched: Option<&'a Match>,
    /// The service it is for.
    pub service: &'a ServiceId,
    /// That service's port.
    pub port: u16,
    /// For what befalls only some requests: uniform over `u64` and independent.
    pub draws: [u64; 2],
}

/// What the filters make of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// The path to send on instead of the one that came, without query.
    pub path: Option<String>,
    /// It is held for this long before anything else happens to it.
    pub delay: Option<Duration>,
    /// Changes that every response gets for browsers, the proxy's own answers as well.
    pub cors: Option<FieldChanges>,
    /// The proxy answers itself.
    pub reply: Option<Reply>,
}

/// An answer that the rule has the proxy give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// What gRPC callers hear; `None` is what gRPC makes of the status.
    pub grpc_status: Option<u16>,
    /// Fields it has besides those of every answer; names in lower case.
    pub fields: Vec<(Name, Name)>,
    /// What the caller is told.
    pub text: &'static str,
    /// Metric label and log field: a closed set.
    pub reason: &'static str,
}

impl Filters {
    /// What becomes of a request.
    pub fn judge(&self, asked: &Asked<'_>) -> Filtered {
        let cors = match self.cors.as_ref().map(|cors| cors.judge(asked.request)) {
            Some(Judged::Preflight(reply)) => return Filtered { reply: Some(reply), ..Filtered::default() },
            Some(Judged::Passes(changes)) => Some(changes),
            None => None,
        };
        let fault = self.fault.as_ref().map(|fault| fault.draw(asked.draws)).unwrap_or_default();
        let aborted = fault.abort.map(AbortStatus::reply);
        let reply = aborted.or_else(|| self.redirect.as_ref().map(|redirect| redirect.reply(asked)));
        let path = self.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref()).and_then(|change| change.of(asked));
        Filtered { path, delay: fault.delay, cors, reply }
    }

    /// The authority to send on instead of the one that came.
    pub fn host(&self) -> Option<&Name> {
        self.rewrite.as_ref().and_then(|rewrite| rewrite.host.as_ref())
    }
}

impl FieldChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// These changes and then `more`, which has the last word.
    pub fn then(&self, more: &Self) -> Self {
        let keeps = |name: &Name| !more.drops(name.as_bytes());
        let of = |list: &[(Name, Name)]| list.iter().filter(|(name, _)| keeps(name)).cloned().collect::<Vec<_>>();
        let mut all =
            Self { set: of(&self.set), add: of(&self.add), remove: self.remove.iter().filter(|name| keeps(name)).cloned().collect() };
        all.set.extend_from_slice(&more.set);
        all.add.extend_from_slice(&more.add);
        all.remove.extend_from_slice(&more.remove);
        all
    }

    /// Whether the lines called `name`, in any case, go away: the field is removed, or set anew.
    pub fn drops(&self, name: &[u8]) -> bool {
        let is = |other: &Name| other.as_bytes().eq_ignore_ascii_case(name);
        self.set.iter().any(|(other, _)| is(other)) || self.remove.iter().any(is)
    }

    /// The lines that come in.
    pub fn lines(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.set.iter().chain(&self.add).map(|(name, value)| (name, value))
    }
}

impl PathChange {
    /// What becomes of `path`, which begins with `prefix`. Whole segments are replaced: a slash at the seam is there once.
    pub fn apply(&self, path: &str, prefix: &str) -> String {
        match self {
            Self::Full(path) => path.to_string(),
            Self::Prefix(new) => {
                let rest = path.strip_prefix(without_slash(prefix)).unwrap_or(path);
                let new = if rest.starts_with('/') { without_slash(new) } else { new };
                if new.is_empty() && rest.is_empty() { "/".to_owned() } else { format!("{new}{rest}") }
            }
        }
    }

    /// The new path of a request; a target that is no path (`*`) has none.
    fn of(&self, asked: &Asked<'_>) -> Option<String> {
        asked.request.path.starts_with('/').then(|| self.apply(asked.request.path, asked.prefix()))
    }
}

impl Asked<'_> {
    /// The prefix by which the rule's match holds: `/` where it speaks of no prefix.
    fn prefix(&self) -> &str {
        match self.matched.and_then(|matched| matched.path.as_ref()) {
            Some(PathMatch::Prefix(prefix)) => prefix,
            Some(PathMatch::Exact(_) | PathMatch::Regex(_)) | None => "/",
        }
    }
}

impl Redirect {
    /// The answer to a request.
    fn reply(&self, asked: &Asked<'_>) -> Reply {
        let location = Name::from(self.location(asked));
        let fields = vec![("location".into(), location)];
        Reply { status: self.status, grpc_status: None, fields, text: "the service is elsewhere\n", reason: "redirect" }
    }

    /// Where the request is sent: an absolute URL made of what is given here and, for the rest, of the request itself.
    ///
    /// A request without an authority is sent to the service's name in cluster DNS. The port is left out where it is the scheme's own.
    pub fn location(&self, asked: &Asked<'_>) -> String {
        let request = asked.request;
        let own = || format!("{}.{}", asked.service.name, asked.service.namespace);
        let host = match (&self.host, split_authority(request.authority)) {
            (Some(host), _) => host.to_string(),
            (None, Some((host, _))) if host.contains(':') => format!("[{host}]"),
            (None, Some((host, _))) if !host.is_empty() => host.to_owned(),
            (None, Some(_) | None) => own(),
        };
        // What a proxy sees of the request came over http; TLS of the app's own is not looked into.
        let scheme = self.scheme.unwrap_or(Scheme::Http);
        let port = self.port.unwrap_or_else(|| if self.scheme.is_some() { scheme.port() } else { asked.port });
        let port = if port == scheme.port() { String::new() } else { format!(":{port}") };
        let path = self.path.as_ref().and_then(|change| change.of(asked));
        let path = path.as_deref().unwrap_or(if request.path.starts_with('/') { request.path } else { "/" });
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        format!("{}://{host}{port}{path}{query}", scheme.text())
    }
}

impl Scheme {
    /// As a URL has it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme means when it names none.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[path = "filters/words.rs"]
mod words;

#[cfg(test)]
#[path = "filters/tests.rs"]
mod tests;
