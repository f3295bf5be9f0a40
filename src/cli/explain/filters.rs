//! What the route's filters make of the request, in words.

use leno_core::filters::Asked;
use leno_core::request::RequestHead;
use leno_core::route::Decision;
use leno_core::service::Service;

use super::explanation::Filter;

/// Draws that belong to a share only when it is the whole.
const RARE: [u64; 2] = [999_999; 2];

/// What filters make of a request.
#[derive(Default)]
pub(super) struct Explained {
    /// One line for each.
    pub(super) filters: Vec<Filter>,
    /// The path it is sent on with, where that is another.
    pub(super) path: Option<String>,
    /// The answer that the proxy gives itself, where it always gives one.
    pub(super) answer: Option<String>,
}

/// What the filters of the route that holds make of a request.
pub(super) fn of(decision: &Decision<'_>, request: &RequestHead<'_>, service: &Service, port: u16) -> Explained {
    let Some(filters) = decision.rule.and_then(|rule| rule.filters.as_ref()) else { return Explained::default() };
    let asked = Asked { request, matched: decision.matched, service: &service.id, port, draws: RARE };
    let words = filters.explain(&asked).into_iter().map(|(name, does)| Filter { name: name.to_owned(), does });
    let filtered = filters.judge(&asked);
    let answer = filtered.reply.map(|reply| match reply.text.trim_end() {
        "" => format!("{}, without a body ({})", reply.status, reply.reason),
        text => format!("{}: {text}", reply.status),
    });
    Explained { filters: words.collect(), path: filtered.path, answer }
}
