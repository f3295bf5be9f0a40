//! What a route's filters mean. The schema says the same; files and older schemas may not have been held against it.

use std::collections::BTreeSet;
use std::sync::Arc;

use leno_api::filters as spec;
use leno_api::rules::filters as rules;
use leno_api::traffic_policy::Route;
use leno_core::cors::Cors;
use leno_core::fault::{Abort, AbortStatus, Delay, Fault};
use leno_core::filters::{FieldChanges, Filters, PathChange, Redirect, Rewrite, Scheme};
use leno_core::names::Name;
use leno_core::percentage::Percentage;

/// Status of a redirect that names none.
const FOUND: u16 = 302;

/// Reads the filters of the route at `path`; what is wrong is told to `problem`, with its place.
pub(crate) fn read(path: &str, route: &Route, problem: &mut impl FnMut(&str, &str)) -> Option<Arc<Filters>> {
    let request = fields(&format!("{path}.requestHeaders"), route.request_headers.as_ref(), problem);
    let response = fields(&format!("{path}.responseHeaders"), route.response_headers.as_ref(), problem);
    let rewrite = route.rewrite.as_ref().map(|it| Rewrite {
        path: it.path.as_ref().and_then(|it| path_change(&format!("{path}.rewrite.path"), it, problem)),
        host: it.host.as_deref().map(Name::from),
    });
    let redirect = route.redirect.as_ref().map(|it| redirect(&format!("{path}.redirect"), it, problem));
    for (field, rule) in [("redirect", &rules::REDIRECT_ALONE), ("matches", &rules::PREFIX_OF_A_PREFIX)] {
        // The twin of the schema's rule, which looks at the route as it is written.
        if serde_json::to_value(route).is_ok_and(|route| !rule.holds(&route)) {
            problem(&format!("{path}.{field}"), &format!("{}.", rule.message));
        }
    }
    let fault = route.fault.as_ref().map(|it| fault(&format!("{path}.fault"), it, problem));
    let cors = route.cors.as_ref().map(|it| cors(&format!("{path}.cors"), it, problem));
    let filters = Filters { request, response, rewrite, redirect, fault, cors };
    (filters != Filters::default()).then(|| Arc::new(filters))
}

fn fields(path: &str, spec: Option<&spec::HeaderChanges>, problem: &mut impl FnMut(&str, &str)) -> FieldChanges {
    let Some(spec) = spec else { return FieldChanges::default() };
    let mut seen = BTreeSet::new();
    let mut name = |list: &str, name: &str, problem: &mut dyn FnMut(&str, &str)| -> Name {
        let lower = name.to_ascii_lowercase();
        if !rules::may_change(name) {
            problem(&format!("{path}.{list}"), &format!("{name:?} is no header field that a policy may change."));
        } else if !seen.insert(lower.clone()) {
            problem(&format!("{path}.{list}"), &format!("{lower} is there twice: write it once, in one of set, add and remove."));
        }
        lower.into()
    };
    let mut lines = |list: &str, fields: &std::collections::BTreeMap<String, String>| -> Vec<(Name, Name)> {
        let line = |(field, value): (&String, &String)| {
            if !rules::is_field_value(value) {
                problem(&format!("{path}.{list}.{field}"), "write the value in visible ASCII, without space before and after it.");
            }
            (name(list, field, problem), Name::from(value.as_str()))
        };
        fields.iter().map(line).collect()
    };
    let (set, add) = (lines("set", &spec.set), lines("add", &spec.add));
    let remove = spec.remove.iter().map(|field| name("remove", field, problem)).collect();
    FieldChanges { set, add, remove }
}

fn path_change(path: &str, spec: &spec::PathChange, problem: &mut impl FnMut(&str, &str)) -> Option<PathChange> {
    let mut new = |field: &str, text: &str| {
        if !rules::NEW_PATH.holds(&text.into()) {
            problem(&format!("{path}.{field}"), &format!("{}.", rules::NEW_PATH.message));
        }
        Name::from(text)
    };
    match (&spec.prefix, &spec.full) {
        (Some(prefix), None) => Some(PathChange::Prefix(new("prefix", prefix))),
        (None, Some(full)) => Some(PathChange::Full(new("full", full))),
        (_, _) => {
            problem(path, &format!("{}.", rules::ONE_PATH_CHANGE.message));
            None
        }
    }
}

fn fault(path: &str, spec: &leno_api::fault::Fault, problem: &mut impl FnMut(&str, &str)) -> Fault {
    let mut share = |field: &str, percent: f64| {
        let share = Percentage::from_percent(percent);
        share.unwrap_or_else(|error| {
            problem(&format!("{path}.{field}.percentage"), &format!("{error}."));
            Percentage::NONE
        })
    };
    let shares = [spec.delay.as_ref().map(|it| share("delay", it.percentage)), spec.abort.as_ref().map(|it| share("abort", it.percentage))];
    let delay = spec.delay.as_ref().zip(shares[0]).and_then(|(it, percentage)| match it.duration.parse() {
        Ok(duration) => Some(Delay { duration, percentage }),
        Err(error) => {
            problem(&format!("{path}.delay.duration"), &format!("{error}."));
            None
        }
    });
    let abort = spec.abort.as_ref().zip(shares[1]).and_then(|(it, percentage)| match (it.status, it.grpc_status) {
        (Some(status @ 400..=599), None) => Some(Abort { status: AbortStatus::Http(status), percentage }),
        (None, Some(code @ 1..=16)) => Some(Abort { status: AbortStatus::Grpc(code), percentage }),
        (_, _) => {
            problem(&format!("{path}.abort"), "write exactly one of status, from 400 to 599, and grpcStatus, from 1 to 16.");
            None
        }
    });
    Fault { delay, abort }
}

fn cors(path: &str, spec: &leno_api::cors::Cors, problem: &mut impl FnMut(&str, &str)) -> Cors {
    for (field, rule, list) in
        [("allowOrigins", &rules::ORIGINS, &spec.allow_origins), ("allowMethods", &rules::CORS_METHODS, &spec.allow_methods)]
    {
        if !rule.holds(&list.iter().map(String::as_str).collect()) {
            problem(&format!("{path}.{field}"), &format!("{}.", rule.message));
        }
    }
    if serde_json::to_value(spec).is_ok_and(|cors| !rules::NAMED_ORIGINS.holds(&cors)) {
        problem(path, &format!("{}.", rules::NAMED_ORIGINS.message));
    }
    let names = |field: &str, list: &[String], problem: &mut dyn FnMut(&str, &str)| -> Vec<Name> {
        if !leno_api::rules::HEADER_NAMES.holds(&list.iter().map(String::as_str).collect()) {
            problem(&format!("{path}.{field}"), &format!("{}.", leno_api::rules::HEADER_NAMES.message));
        }
        list.iter().map(|name| name.to_ascii_lowercase().into()).collect()
    };
    let max_age = spec.max_age.as_ref().and_then(|age| match age.parse() {
        Ok(age) => Some(age),
        Err(error) => {
            problem(&format!("{path}.maxAge"), &format!("{error}."));
            None
        }
    });
    let plain = |list: &[String]| list.iter().map(|it| Name::from(it.as_str())).collect();
    Cors {
        origins: plain(&spec.allow_origins),
        methods: plain(&spec.allow_methods),
        headers: names("allowHeaders", &spec.allow_headers, problem),
        expose: names("exposeHeaders", &spec.expose_headers, problem),
        max_age,
        credentials: spec.allow_credentials,
    }
}

fn redirect(path: &str, spec: &spec::Redirect, problem: &mut impl FnMut(&str, &str)) -> Redirect {
    let status = spec.status.unwrap_or(FOUND);
    if !rules::REDIRECT_STATUS.holds(&status.into()) {
        problem(&format!("{path}.status"), &format!("{}.", rules::REDIRECT_STATUS.message));
    }
    Redirect {
        scheme: spec.scheme.map(|scheme| match scheme {
            spec::Scheme::Http => Scheme::Http,
            spec::Scheme::Https => Scheme::Https,
        }),
        host: spec.host.as_deref().map(Name::from),
        port: spec.port,
        path: spec.path.as_ref().and_then(|it| path_change(&format!("{path}.path"), it, problem)),
        status,
    }
}
