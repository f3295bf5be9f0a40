//! Filters of a rule ↔ their resource form.

use std::sync::Arc;

use leno_core::filters::{FieldChanges, Filters, PathChange, Redirect, Rewrite, Scheme};
use leno_core::names::Name;

use crate::decode::{DecodeError, port};
use crate::wire::leno as wire;

pub(crate) fn encode(filters: &Filters) -> wire::Filters {
    wire::Filters {
        request: field_changes(&filters.request),
        response: field_changes(&filters.response),
        rewrite: filters.rewrite.as_ref().map(|it| wire::Rewrite { path: it.path.as_ref().map(path_change), host: text(it.host.as_ref()) }),
        redirect: filters.redirect.as_ref().map(redirect),
    }
}

pub(crate) fn decode(message: wire::Filters) -> Result<Arc<Filters>, DecodeError> {
    Ok(Arc::new(Filters {
        request: message.request.map(field_changes_of).unwrap_or_default(),
        response: message.response.map(field_changes_of).unwrap_or_default(),
        rewrite: message.rewrite.map(rewrite_of).transpose()?,
        redirect: message.redirect.map(redirect_of).transpose()?,
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
