//! What the filters of a route make of the request at hand.
//!
//! [`leno_core::filters`] decides; this file keeps what was decided for as long as the request lives. A request whose route has no
//! filters has none of this.

use std::sync::Arc;

use leno_core::filters::{Asked, FieldChanges, Filters, Reply};

/// The filters of one request's route, judged.
pub struct Filtered {
    filters: Arc<Filters>,
    /// The path to send on instead of the one that came, without query.
    pub path: Option<String>,
    reply: Option<Reply>,
}

impl Filtered {
    /// Judges a request.
    pub fn judge(filters: &Arc<Filters>, asked: &Asked<'_>) -> Box<Self> {
        let leno_core::filters::Filtered { path, reply } = filters.judge(asked);
        Box::new(Self { filters: Arc::clone(filters), path, reply })
    }

    /// The authority to send on instead of the one that came.
    pub fn authority(&self) -> Option<&str> {
        self.filters.host().map(|host| &**host)
    }

    /// Changes of the request's fields, where there are any.
    pub fn request(&self) -> Option<&FieldChanges> {
        Some(&self.filters.request).filter(|changes| !changes.is_empty())
    }

    /// Changes of the response's fields, where there are any.
    pub fn response(&self) -> Option<&FieldChanges> {
        Some(&self.filters.response).filter(|changes| !changes.is_empty())
    }

    /// The answer that the proxy gives itself.
    pub fn reply(&self) -> Option<&Reply> {
        self.reply.as_ref()
    }
}
