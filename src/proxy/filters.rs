//! What the filters of a route make of the request at hand.
//!
//! [`leno_core::filters`] decides; this file keeps what was decided for as long as the request lives. A request whose route has no
//! filters has none of this.

use std::sync::Arc;
use std::time::Duration;

use leno_core::filters::{Asked, FieldChanges, Filters, Reply};
use leno_core::names::Name;

/// The filters of one request's route, judged.
pub struct Filtered {
    filters: Arc<Filters>,
    /// The path to send on instead of the one that came, without query.
    pub path: Option<String>,
    /// The request is held for this long before anything else happens to it.
    pub delay: Option<Duration>,
    reply: Option<Reply>,
    /// Changes of the response's fields for browsers.
    cors: Option<FieldChanges>,
    /// The route's changes of the response's fields, and these.
    response: Option<FieldChanges>,
}

impl Filtered {
    /// Judges a request.
    pub fn judge(filters: &Arc<Filters>, asked: &Asked<'_>) -> Box<Self> {
        let leno_core::filters::Filtered { path, delay, cors, reply } = filters.judge(asked);
        let response = cors.as_ref().map(|cors| filters.response.then(cors));
        Box::new(Self { filters: Arc::clone(filters), path, delay, reply, cors, response })
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
        self.response.as_ref().or(Some(&self.filters.response)).filter(|changes| !changes.is_empty())
    }

    /// Fields that answers of the proxy itself have, so that a page may read them.
    pub fn for_pages(&self) -> Vec<(Name, Name)> {
        self.cors.iter().flat_map(FieldChanges::lines).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The answer that the proxy gives itself.
    pub fn reply(&self) -> Option<&Reply> {
        self.reply.as_ref()
    }

    /// The same with everything it says.
    pub fn whole_reply(&self) -> Option<Reply> {
        let mut reply = self.reply.clone()?;
        reply.fields.extend(self.for_pages());
        Some(reply)
    }
}
