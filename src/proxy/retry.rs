//! Tries: what was tried for one request, and what follows. HTTP/1 and HTTP/2 share it.
//!
//! [`leno_core::retry::decide`] says whether there is another try; this file remembers what it needs to know, and writes down
//! for metrics and the access log what became of each.
//!
//! Reading order: [`Tries::follow`], [`Ended`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use leno_core::resilience;
use leno_core::retry::{self, Attempt, Made, Outcome, Reason, Retry, Verdict};

use crate::target::{Refusal, Route};
use crate::telemetry::{Retried, Tried, Went};
use crate::worker::Context;

/// What was tried for one request.
#[derive(Default)]
pub(crate) struct Tries {
    made: Made,
    /// Tries that have begun.
    count: u32,
    /// Whether one has begun of which nothing is known yet.
    is_under_way: bool,
    /// Whether an app may have seen the request.
    is_seen: bool,
    /// Who is not to be tried again while there are others.
    avoid: Vec<SocketAddr>,
    /// Why the last endpoint that could not be reached could not be.
    unreached: Option<Refusal>,
    /// Why the next try follows the present one.
    next: Option<Reason>,
    /// Why the present try follows another one.
    present: Option<Reason>,
    retried: Vec<Retried>,
}

/// One try that has ended, and what is known of its request.
pub(crate) struct Ended<'a> {
    /// How.
    pub(crate) outcome: Outcome,
    /// Where it went.
    pub(crate) address: SocketAddr,
    /// The request's method.
    pub(crate) method: &'a str,
    /// Whether the request is gRPC's.
    pub(crate) is_grpc: bool,
    /// Whether everything that was sent can be sent once more.
    pub(crate) can_replay: bool,
    /// Whether nothing at all was sent.
    pub(crate) is_unsent: bool,
    /// When the request's own time is over.
    pub(crate) deadline: Option<Instant>,
}

impl Tries {
    /// Who is not to be tried again while there are others.
    pub(crate) fn avoided(&self) -> &[SocketAddr] {
        &self.avoid
    }

    /// Another one begins.
    pub(crate) fn begin(&mut self) {
        self.count += 1;
        self.is_under_way = true;
        self.present = self.next.take();
    }

    /// Nothing was sent of the present one.
    pub(crate) fn unsent(&mut self) {
        self.is_under_way = false;
    }

    /// Whether a resting connection may still be used: not once one was closed under the request.
    pub(crate) fn may_reuse(&self) -> bool {
        self.made.stale == 0
    }

    /// An endpoint could not be reached.
    pub(crate) fn unreached(&mut self, refusal: Refusal) {
        self.unreached = Some(refusal);
    }

    /// There is nobody left but those that were tried. `Ok`: they may be tried once more.
    pub(crate) fn nobody_left(&mut self, has_policy: bool) -> Result<(), Refusal> {
        if self.avoid.is_empty() {
            return Err(Refusal::NoEndpoint);
        }
        match self.unreached {
            Some(refusal) if !has_policy => Err(refusal),
            Some(_) | None => {
                self.avoid.clear();
                Ok(())
            }
        }
    }

    /// After how long there is another try; `None`: what came of this one is the answer.
    pub(crate) fn follow(&mut self, ended: &Ended<'_>, route: Option<&Route>, context: &Context) -> Option<Duration> {
        let policy = route.and_then(Route::retry);
        self.is_under_way = false;
        self.is_seen |= !ended.outcome.is_unseen();
        let attempt = Attempt {
            outcome: ended.outcome,
            made: self.made,
            method: ended.method,
            is_grpc: ended.is_grpc,
            can_replay: ended.can_replay,
            is_unsent: ended.is_unsent,
            has_others: route.is_some(),
            left: ended.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
        };
        let take = || route.is_none_or(|route| route.may_retry(context) && route.budget().borrow_mut().take(Instant::now()));
        let verdict = retry::decide(policy, &attempt, take, context.draw());
        let went = if ended.outcome.reason().is_none() { Went::Succeeded } else { Went::Failed };
        self.present_went(went);
        match verdict {
            Verdict::Settled => None,
            Verdict::Stopped { reason, by } => {
                self.retried.push(Retried { reason, went: Went::Stopped(by) });
                None
            }
            Verdict::Again { after, reason, is_free } => {
                self.made.count(ended.outcome, is_free);
                self.next = Some(reason);
                if !(is_free && ended.outcome == Outcome::Stale) {
                    self.avoid.push(ended.address);
                }
                Some(after)
            }
        }
    }

    /// The request is over, whatever was under way.
    pub(crate) fn end(&mut self) {
        self.present_went(Went::Failed);
    }

    /// For the record of a request of this method, on this route.
    pub(crate) fn tried(&self, method: &str, route: Option<&Route>) -> Tried<'_> {
        let is_unseen = !self.is_seen && !self.is_under_way;
        Tried { tries: self.count, retried: &self.retried, retry_safe: retry::is_safe(route.and_then(Route::retry), method, is_unseen) }
    }

    fn present_went(&mut self, went: Went) {
        if let Some(reason) = self.present.take() {
            self.retried.push(Retried { reason, went });
        }
    }
}

/// What a try that is followed by another one says of its endpoint; `None`: nothing.
pub(crate) fn report_of(outcome: Outcome) -> Option<resilience::Outcome> {
    match outcome {
        Outcome::Stale | Outcome::Unprocessed => None,
        Outcome::Unreached => Some(resilience::Outcome::Connect),
        Outcome::Reset => Some(resilience::Outcome::Reset),
        Outcome::TimedOut => Some(resilience::Outcome::Timeout),
        Outcome::Answered { status, grpc_status, .. } => Some(resilience::Outcome::of(status, grpc_status)),
    }
}

/// The time of one try that the policy of `route` gives.
pub(crate) fn per_try(route: Option<&Route>) -> Option<Duration> {
    route.and_then(Route::retry).and_then(|retry: &Retry| retry.per_try_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_were_tried_are_tried_again_only_where_a_policy_says_so_or_nothing_was_wrong_with_them() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut tries = Tries::default();
        assert_eq!(tries.nobody_left(true), Err(Refusal::NoEndpoint), "there never was anybody");
        tries.avoid.push(address);
        tries.unreached(Refusal::TlsFailed);
        assert_eq!(tries.nobody_left(false), Err(Refusal::TlsFailed));
        assert_eq!((tries.nobody_left(true), tries.avoided()), (Ok(()), &[][..]));
        let mut refused = Tries { avoid: vec![address], ..Tries::default() };
        assert_eq!(refused.nobody_left(false), Ok(()));
    }
}
