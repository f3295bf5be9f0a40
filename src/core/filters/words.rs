//! Filters in words, for people: `leno explain`, and reviewers of scenarios.

use std::fmt;

use crate::cors::Cors;
use crate::fault::{AbortStatus, Fault};

use super::{Asked, FieldChanges, Filters, PathChange, Redirect, Rewrite};

impl Filters {
    /// What is written, one line for each filter: its name, and what it does.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let mut words = Vec::new();
        words.extend(self.cors.as_ref().map(|it| ("cors", it.to_string())));
        words.extend(self.fault.as_ref().map(|it| ("fault", it.to_string())));
        words.extend(self.redirect.as_ref().map(|it| ("redirect", it.to_string())));
        words.extend(self.rewrite.as_ref().map(|it| ("rewrite", it.to_string())));
        words.extend((!self.request.is_empty()).then(|| ("request", self.request.to_string())));
        words.extend((!self.response.is_empty()).then(|| ("response", self.response.to_string())));
        words
    }

    /// What becomes of one request: the same, with the page that asks, a redirect's place and the new target worked out.
    pub fn explain(&self, asked: &Asked<'_>) -> Vec<(&'static str, String)> {
        let filtered = self.judge(asked);
        let target = |it: &Rewrite| {
            let query = if asked.request.query.is_empty() { String::new() } else { format!("?{}", asked.request.query) };
            let path = filtered.path.as_deref().unwrap_or(asked.request.path);
            let host = it.host.as_deref().unwrap_or(asked.request.authority);
            format!("sent on as {path}{query} for host {host}")
        };
        let mut words = self.words();
        for (name, text) in &mut words {
            if let ("cors", Some(cors)) = (*name, &self.cors) {
                text.push_str(&of_page(cors, asked));
            }
            match (*name, &self.redirect, &self.rewrite) {
                ("redirect", Some(redirect), _) => *text = format!("{} to {}", redirect.status, redirect.location(asked)),
                ("rewrite", _, Some(rewrite)) => *text = target(rewrite),
                (_, _, _) => (),
            }
        }
        words
    }
}

/// Whether the page that sends this request may.
fn of_page(cors: &Cors, asked: &Asked<'_>) -> String {
    let Some(origin) = asked.request.headers.get("origin") else { return "; this request comes from no page".to_owned() };
    let origin = String::from_utf8_lossy(&origin);
    let may = if cors.allows(&origin) { "may" } else { "may not" };
    format!("; this one, of {origin}, {may}")
}

impl fmt::Display for FieldChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.set.iter().map(|(name, value)| format!("{name} set to {value:?}"));
        let add = self.add.iter().map(|(name, value)| format!("{value:?} added to {name}"));
        let remove = self.remove.iter().map(|name| format!("{name} removed"));
        f.write_str(&set.chain(add).chain(remove).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delay = self.delay.iter().map(|it| format!("{} of requests held for {:?}", it.percentage, it.duration));
        let abort = self.abort.iter().map(|it| match it.status {
            AbortStatus::Http(status) => format!("{} answered {status}", it.percentage),
            AbortStatus::Grpc(code) => format!("{} answered gRPC status {code}", it.percentage),
        });
        f.write_str(&delay.chain(abort).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for PathChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(new) => write!(f, "the matched prefix becomes {new}"),
            Self::Full(new) => write!(f, "the path becomes {new}"),
        }
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.iter().map(ToString::to_string);
        let host = self.host.iter().map(|host| format!("the host becomes {host}"));
        f.write_str(&path.chain(host).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(scheme) = self.scheme {
            write!(f, ", scheme {}", scheme.text())?;
        }
        if let Some(host) = &self.host {
            write!(f, ", host {host}")?;
        }
        if let Some(port) = self.port {
            write!(f, ", port {port}")?;
        }
        match &self.path {
            Some(path) => write!(f, ", {path}"),
            None => Ok(()),
        }
    }
}
