//! Whether the caller may pass at the pods that may take the request: the very function that their proxies ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use leno_core::authorize::{Authorization, Call, Claims, Mismatch, Mode, Policy, Request, Trace, authorize};
use leno_core::names::{Identity, WorkloadId};
use leno_core::path::normalise;
use leno_translate::Translator;

use super::explanation::{Access, Destination};
use super::question::{Question, Scheme};

/// Keeps what is judged, in words.
#[derive(Default)]
struct Recorder(Vec<String>);

impl<'a> Trace<'a> for Recorder {
    fn judged(&mut self, policy: &'a Policy, index: usize, outcome: Result<(), Mismatch<'a>>) {
        let place = format!("{} rule {} ({:?})", policy.name, index + 1, policy.action);
        self.0.push(match outcome {
            Ok(()) => format!("holds         {place}"),
            Err(mismatch) => format!("does not hold {place}: {}", why(mismatch)),
        });
    }
}

fn why(mismatch: Mismatch<'_>) -> String {
    match mismatch {
        Mismatch::From(_) => "the caller is none of from".to_owned(),
        Mismatch::Port(ports) => format!("the app's port must be one of {ports:?}"),
        Mismatch::Method(methods) => format!("the method must be one of {}", methods.join(", ")),
        Mismatch::Path(_) => "the path is none of paths".to_owned(),
        Mismatch::Claim(name, values) => format!("the claim {name} must be one of {}", values.join(", ")),
        Mismatch::NoRequest => "it speaks of requests, and this is a connection".to_owned(),
    }
}

/// What the pods behind `destinations` say, equal answers once. Pods for which no policy says anything are left out.
pub(super) fn accesses(
    translator: &Translator,
    question: &Question,
    namespace: &str,
    destinations: &[Destination],
    by_request: bool,
) -> Vec<Access> {
    let mut grouped: BTreeMap<(String, String, Vec<String>, bool), Vec<String>> = BTreeMap::new();
    for candidate in destinations.iter().flat_map(|destination| &destination.endpoints) {
        let id = WorkloadId::new(namespace, candidate.workload.as_str());
        let Some(workload) = translator.workload(&id) else { continue };
        let guard = workload.guard(candidate.address.port());
        if guard.mode == Mode::Permissive && guard.authorization.is_open() {
            continue;
        }
        let (allowed, words, judged) = judge(translator, question, &guard.authorization, guard.mode, candidate.address, by_request);
        grouped.entry((format!("{:?}", guard.mode), words, judged, allowed)).or_default().push(candidate.workload.clone());
    }
    let access = |((mode, words, judged, allowed), workloads)| Access { allowed, words, mode, judged, workloads };
    grouped.into_iter().map(access).collect()
}

fn judge(
    translator: &Translator,
    question: &Question,
    authorization: &Authorization,
    mode: Mode,
    address: SocketAddr,
    by_request: bool,
) -> (bool, String, Vec<String>) {
    let peer = caller(translator, question).filter(|_| mode != Mode::Disabled);
    if mode == Mode::Strict && peer.is_none() {
        return (false, "closed: the mode is Strict and the caller proves no identity; say who it is with --as".to_owned(), Vec::new());
    }
    let normal = normalise(&question.path);
    let path = match (&normal, authorization.looks_at_paths()) {
        (Ok(normal), true) => normal.as_str(),
        (Err(error), true) if by_request => return (false, format!("400: {error}"), Vec::new()),
        (_, _) => &question.path,
    };
    let tokens: &[Claims] = if question.claims.is_empty() { &[] } else { std::slice::from_ref(&question.claims) };
    let request = Request { method: &question.method, path, claims: tokens };
    let request = (by_request && question.scheme == Scheme::Http).then_some(request);
    let call = Call { peer: peer.as_ref(), source: question.source, port: address.port(), request };
    let mut recorder = Recorder::default();
    let verdict = authorize(authorization, &call, &mut recorder);
    let by = match (verdict.policy, verdict.rule) {
        (Some(policy), Some(rule)) => format!("by {policy}, rule {}", rule + 1),
        (Some(policy), None) => format!("because no rule of {policy} allows it"),
        (None, _) if verdict.allowed => "because no policy refuses it".to_owned(),
        (None, _) => "because no rule allows it".to_owned(),
    };
    let would = verdict.would_deny.map(|policy| format!("; {policy} would deny it (Audit)")).unwrap_or_default();
    let words = if verdict.allowed { format!("allowed {by}{would}") } else { format!("403: denied {by}") };
    (verdict.allowed, words, recorder.0)
}

/// Who the caller proves to be: what `--as` says, else the identity of the workload of `--from`.
fn caller(translator: &Translator, question: &Question) -> Option<Identity> {
    question.identity.clone().or_else(|| translator.identity(question.from.as_ref()?))
}
