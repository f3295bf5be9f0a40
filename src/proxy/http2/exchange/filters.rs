//! What the route's filters do to a request before it is tried.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::Exchange;
use super::attempts::{Arrived, Failure};
use crate::filters::Filtered;

impl Exchange {
    /// What the route's filters leave of it, after a delay where they want one: an answer of the proxy itself, or the request's attempts.
    pub(super) async fn filtered_attempts(&mut self) -> Result<Arrived, Failure> {
        if let Some(delay) = self.target.filtered().and_then(|filtered| filtered.delay) {
            self.hold(delay).await?;
        }
        match self.target.filtered().and_then(Filtered::reply) {
            None => {
                self.mirror();
                self.attempts().await
            }
            Some(_) => Err(Failure::Replied),
        }
    }

    /// Holds the request for as long as its client waits.
    async fn hold(&mut self, delay: Duration) -> Result<(), Failure> {
        let mut sleep = Box::pin(tokio::time::sleep(delay));
        let held = poll_fn(|cx| match (sleep.as_mut().poll(cx), self.respond.poll_reset(cx)) {
            (Poll::Ready(()), _) => Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Ready(_)) => Poll::Ready(Err(Failure::ClientGone)),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        });
        held.await
    }

    /// The proxy answers itself, as the route has it.
    pub(super) fn reply(&mut self) {
        if let Some(reply) = self.target.filtered().and_then(Filtered::whole_reply) {
            self.answer_with((reply.status, reply.grpc_status), reply.text, reply.reason, &reply.fields);
        }
    }
}
