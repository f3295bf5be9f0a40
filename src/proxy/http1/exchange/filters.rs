//! What the route's filters do to a request before it is tried.

use super::attempts::{Arrived, Failure};
use super::{End, Exchange};
use crate::filters::Filtered;

impl Exchange<'_> {
    /// What the route's filters leave of it, after a delay where they want one: an answer of the proxy itself, or the request's attempts.
    pub(super) async fn filtered_attempts(&mut self) -> Result<Arrived, Failure> {
        if let Some(delay) = self.target.filtered().and_then(|filtered| filtered.delay) {
            Box::pin(tokio::time::sleep(delay)).await;
        }
        match self.target.filtered().and_then(Filtered::reply) {
            None => {
                self.mirror();
                self.attempts().await
            }
            Some(_) => Err(Failure::Replied),
        }
    }

    /// The proxy answers itself, as the route has it.
    pub(super) async fn reply(&mut self) -> End {
        match self.target.filtered().and_then(Filtered::whole_reply) {
            Some(reply) => self.answer_with(reply.status, reply.text, reply.reason, &reply.fields).await,
            None => End::Close,
        }
    }
}
