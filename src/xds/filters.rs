//! Filters of a rule ↔ their resource form.

use std::sync::Arc;

use leno_core::cors::Cors;
use leno_core::fault::{Abort, AbortStatus, Delay, Fault};
use leno_core::filters::{FieldChanges, Filters, PathChange, Redirect, Rewrite, Scheme};
use leno_core::names::Name;
use leno_core::percentage::Percentage;

use crate::decode::{DecodeError, duration as duration_of, port};
use crate::encode::duration;
use crate::wire::leno as wire;

pub(crate) fn encode(filters: &Filters) -> wire::Filters {
    wire::Filters {
        request: field_changes(&filters.request),
        response: field_changes(&filters.response),
        rewrite: filters.rewrite.as_ref().map(|it| wire::Rewrite { path: it.path.as_ref().map(path_change), host: text(it.host.as_ref()) }),
        redirect: filters.redirect.as_ref().map(redirect),
        fault: filters.fault.as_ref().map(fault),
        cors: filters.cors.as_ref().map(cors),
    }
}

pub(crate) fn decode(message: wire::Filters) -> Result<Arc<Filters>, DecodeError> {
    Ok(Arc::new(Filters {
        request: message.request.map(field_changes_of).unwrap_or_default(),
        response: message.response.map(field_changes_of).unwrap_or_default(),
        rewrite: message.rewrite.map(rewrite_of).transpose()?,
        redirect: message.redirect.map(redirect_of).transpose()?,
        fault: message.fault.map(fault_of).transpose()?,
        cors: message.cors.map(cors_of).transpose()?,
    }))
}

fn text(name: Option<&Name>) -> Option<String> {
    name.map(ToString::to_string)
}

fn field_changes(changes: &FieldChanges) -> Option<wire::FieldChanges> {
    let fields =
        |list: &[(Name, Name)]| list.iter().map(|(name, value)| wire::Field { name: name.to_string(), value: value.to_string() }).collect();
    let remove = changes.remove.iter().map(ToString::to_string).collect();
    (!changes.is_empty()).then(|| wire::FieldChanges { set: fields(&changes.set), add: fields(&changes.add), remove })
}

fn field_changes_of(message: wire::FieldChanges) -> FieldChanges {
    let fields = |list: Vec<wire::Field>| list.into_iter().map(|it| (it.name.into(), it.value.into())).collect();
    FieldChanges { set: fields(message.set), add: fields(message.add), remove: message.remove.into_iter().map(Name::from).collect() }
}

fn path_change(change: &PathChange) -> wire::PathChange {
    use wire::path_change::Kind;
    let kind = match change {
        PathChange::Prefix(new) => Kind::Prefix(new.to_string()),
        PathChange::Full(new) => Kind::Full(new.to_string()),
    };
    wire::PathChange { kind: Some(kind) }
}

fn path_change_of(message: wire::PathChange) -> Result<PathChange, DecodeError> {
    use wire::path_change::Kind;
    Ok(match message.kind.ok_or(DecodeError::Unknown("change of a path"))? {
        Kind::Prefix(new) => PathChange::Prefix(new.into()),
        Kind::Full(new) => PathChange::Full(new.into()),
    })
}

fn rewrite_of(message: wire::Rewrite) -> Result<Rewrite, DecodeError> {
    Ok(Rewrite { path: message.path.map(path_change_of).transpose()?, host: message.host.map(Name::from) })
}

fn cors(cors: &Cors) -> wire::Cors {
    let texts = |list: &[Name]| list.iter().map(ToString::to_string).collect();
    wire::Cors {
        origins: texts(&cors.origins),
        methods: texts(&cors.methods),
        headers: texts(&cors.headers),
        expose: texts(&cors.expose),
        max_age: cors.max_age.map(duration),
        credentials: cors.credentials,
    }
}

fn cors_of(message: wire::Cors) -> Result<Cors, DecodeError> {
    let names = |list: Vec<String>| list.into_iter().map(Name::from).collect();
    Ok(Cors {
        origins: names(message.origins),
        methods: names(message.methods),
        headers: names(message.headers),
        expose: names(message.expose),
        max_age: duration_of(message.max_age)?,
        credentials: message.credentials,
    })
}

fn fault(fault: &Fault) -> wire::Fault {
    use wire::abort::With;
    let with = |status| match status {
        AbortStatus::Http(status) => With::Status(u32::from(status)),
        AbortStatus::Grpc(code) => With::GrpcStatus(u32::from(code)),
    };
    wire::Fault {
        delay: fault.delay.map(|it| wire::Delay { duration: Some(duration(it.duration)), millionths: it.percentage.millionths() }),
        abort: fault.abort.map(|it| wire::Abort { millionths: it.percentage.millionths(), with: Some(with(it.status)) }),
    }
}

fn fault_of(message: wire::Fault) -> Result<Fault, DecodeError> {
    use wire::abort::With;
    let number = |number| u16::try_from(number).ok().ok_or(DecodeError::Unknown("status of a fault"));
    let delay = message.delay.map(|it| {
        let duration = duration_of(it.duration)?.ok_or(DecodeError::Unknown("delay"))?;
        Ok::<_, DecodeError>(Delay { duration, percentage: Percentage::from_millionths(it.millionths)? })
    });
    let abort = message.abort.map(|it| {
        let status = match it.with.ok_or(DecodeError::Unknown("kind of abort"))? {
            With::Status(status) => AbortStatus::Http(number(status)?),
            With::GrpcStatus(code) => AbortStatus::Grpc(number(code)?),
        };
        Ok::<_, DecodeError>(Abort { status, percentage: Percentage::from_millionths(it.millionths)? })
    });
    Ok(Fault { delay: delay.transpose()?, abort: abort.transpose()? })
}

fn redirect(redirect: &Redirect) -> wire::Redirect {
    let scheme = match redirect.scheme {
        None => wire::Scheme::Same,
        Some(Scheme::Http) => wire::Scheme::Http,
        Some(Scheme::Https) => wire::Scheme::Https,
    };
    wire::Redirect {
        scheme: scheme.into(),
        host: text(redirect.host.as_ref()),
        port: redirect.port.map(u32::from),
        path: redirect.path.as_ref().map(path_change),
        status: redirect.status.into(),
    }
}

fn redirect_of(message: wire::Redirect) -> Result<Redirect, DecodeError> {
    let scheme = match wire::Scheme::try_from(message.scheme) {
        Ok(wire::Scheme::Same) => None,
        Ok(wire::Scheme::Http) => Some(Scheme::Http),
        Ok(wire::Scheme::Https) => Some(Scheme::Https),
        Err(_) => return Err(DecodeError::Unknown("scheme of a redirect")),
    };
    Ok(Redirect {
        scheme,
        host: message.host.map(Name::from),
        port: message.port.map(port).transpose()?,
        path: message.path.map(path_change_of).transpose()?,
        status: u16::try_from(message.status).ok().ok_or(DecodeError::Unknown("status of a redirect"))?,
    })
}
