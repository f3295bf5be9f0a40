//! What the route's filters do to a request before it is tried.

use super::attempts::{Arrived, Failure};
use super::{Exchange, Target};
use crate::filters::Filtered;

impl Target {
    /// What its route does besides, where it does anything.
    pub(super) fn filtered(&self) -> Option<&Filtered> {
        match self {
            Self::Service(route) => route.filtered.as_deref(),
            Self::Address(_) | Self::Nobody(_) => None,
        }
    }
}

impl Exchange {
    /// What the route's filters leave of it: an answer of the proxy itself, or the request's attempts.
    pub(super) async fn filtered_attempts(&mut self) -> Result<Arrived, Failure> {
        match self.target.filtered().and_then(Filtered::reply) {
            None => {
                self.mirror();
                self.attempts().await
            }
            Some(_) => Err(Failure::Replied),
        }
    }

    /// The proxy answers itself, as the route has it.
    pub(super) fn reply(&mut self) {
        if let Some(reply) = self.target.filtered().and_then(Filtered::reply).cloned() {
            self.answer_with(reply.status, reply.text, reply.reason, &reply.fields);
        }
    }
}
