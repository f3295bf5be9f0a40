//! What else happens to a request on its way: who gets copies of it, and what is tried again.

use leno_core::mirror::Mirror;
use leno_core::retry::{self, Reason};
use leno_core::route::{Backend, Rule};

use super::answer::Answer;
use super::explanation::{Destination, Retry};

impl Answer<'_> {
    /// Who gets copies of requests, each with its share of them.
    pub(super) fn mirrors(&self, mirrors: &[Mirror]) -> Vec<Destination> {
        let explained = mirrors.iter().map(|mirror| {
            let backend = mirror.target.backend(&self.service.id, self.port());
            let why = if matches!(backend, Backend::Missing(_)) { "it does not exist" } else { "it has no endpoint that is ready" };
            let percent = f64::from(mirror.percentage.millionths()) / 10_000.0;
            let mut to = self.destination(backend, self.target_words(&mirror.target), percent, None);
            if to.answer.is_some() {
                to.answer = Some(format!("no copy is sent: {why}"));
            }
            to
        });
        explained.collect()
    }

    /// What of it is tried again.
    pub(super) fn retry(&self, retry: &retry::Retry, rule: Option<&Rule>) -> Retry {
        let method = &self.question.method;
        let is_grpc = self
            .question
            .headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("content-type") && value.starts_with("application/grpc"));
        let may_repeat = |reason: &Reason| *reason == Reason::ConnectFailure || retry.allows(method) || (is_grpc && reason.is_grpc());
        let named: Vec<Reason> = retry.on.iter().filter(|reason| is_grpc || !reason.is_grpc()).collect();
        let left_out = named.iter().any(|reason| !may_repeat(reason));
        let note = left_out.then(|| {
            format!("not on what else the policy names: an app could get a {method} twice, and its list of methods does not allow that")
        });
        let mut on: Vec<Reason> = named.iter().copied().filter(may_repeat).collect();
        let has_status = named.iter().any(|reason| matches!(reason, Reason::ServerError | Reason::GatewayError));
        if has_status && !on.contains(&Reason::ConnectFailure) {
            on.insert(0, Reason::ConnectFailure);
        }
        Retry {
            attempts: retry.attempts,
            per_try_timeout: retry.per_try_timeout.map(|limit| format!("{limit:?}")),
            on: on.into_iter().map(Reason::as_str).collect(),
            note,
            backoff: [retry.backoff.base, retry.backoff.max].map(|time| format!("{time:?}")),
            set_by: self.set_by(rule.filter(|rule| rule.retry.is_some())),
        }
    }
}
