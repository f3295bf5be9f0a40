//! Whether the caller may pass at the pods that may take the request: the very function that their proxies ask.

use std::collections::BTreeMap;

use leno_core::authorize::{Authorization, Call, Claims, Guard, Mismatch, Mode, PathRule, Policy, Request, Source, Trace, authorize};
use leno_core::names::{Identity, WorkloadId};
use leno_core::path::normalise;
use leno_translate::Translator;

use super::explanation::{Access, Candidate, Destination};
use super::question::{Question, UNKNOWN};

/// Keeps what is judged, in words.
struct Recorder<'c> {
    call: &'c Call<'c>,
    judged: Vec<String>,
}

impl<'a> Trace<'a> for Recorder<'_> {
    fn judged(&mut self, policy: &'a Policy, index: usize, outcome: Result<(), Mismatch<'a>>) {
        let place = format!("{} rule {} ({:?})", policy.name, index + 1, policy.action);
        self.judged.push(match outcome {
            Ok(()) => format!("holds         {place}"),
            Err(mismatch) => format!("does not hold {place}: {}", why(mismatch, self.call)),
        });
    }
}

/// What the pods behind `destinations` say, equal answers once. Pods that say nothing, as no policy is for them, are left out.
///
/// * `by_request`: whether their proxies see requests; otherwise they see a connection only.
pub(super) fn accesses(translator: &Translator, question: &Question, destinations: &[Destination], by_request: bool) -> Vec<Access> {
    let mut accesses: Vec<Access> = Vec::new();
    for candidate in destinations.iter().filter(|it| it.drawn.unwrap_or(true)).flat_map(|it| &it.endpoints) {
        let Some(mut access) = access(translator, question, candidate, by_request) else { continue };
        let workloads = std::mem::take(&mut access.workloads);
        match accesses.iter_mut().find(|known| Access { workloads: Vec::new(), ..(*known).clone() } == access) {
            Some(known) => known.workloads.extend(workloads),
            None => accesses.push(Access { workloads, ..access }),
        }
    }
    accesses
}

fn access(translator: &Translator, question: &Question, candidate: &Candidate, by_request: bool) -> Option<Access> {
    let id = WorkloadId::new(candidate.namespace.as_str(), candidate.workload.as_str());
    let port = candidate.address.port();
    let workload = translator.workload(&id)?;
    let guard = workload.guard(port);
    if guard.mode == Mode::Permissive && guard.authorization.is_open() {
        return None;
    }
    let has_proxy = translator.has_proxy(&id, Some(port));
    let proven = caller(translator, question).filter(|_| has_proxy && guard.mode != Mode::Disabled);
    let (allowed, words, judged) = match has_proxy {
        true => judge(question, guard, proven.as_ref(), port, by_request),
        false => (true, "not limited: no sidecar takes what comes to this port, so no policy is enforced".to_owned(), Vec::new()),
    };
    let caller = proven.map(|identity| identity.to_string());
    Some(Access { allowed, words, mode: format!("{:?}", guard.mode), caller, judged, workloads: vec![candidate.workload.clone()] })
}

/// Whether the caller may pass, by whom that is decided, and the rules that were judged.
fn judge(question: &Question, guard: &Guard, proven: Option<&Identity>, port: u16, by_request: bool) -> (bool, String, Vec<String>) {
    let rules: &Authorization = &guard.authorization;
    if guard.mode == Mode::Strict && proven.is_none() {
        let words = "closed: the mode is Strict, and a caller without a sidecar proves nothing; --as says who it is";
        return (false, words.to_owned(), Vec::new());
    }
    let normal = (by_request && rules.looks_at_paths()).then(|| normalise(&question.path)).transpose();
    let path = match &normal {
        Ok(normal) => normal.as_ref().map_or(&*question.path, |normal| normal.as_str()),
        Err(error) => return (false, format!("400: {error}, and rules here speak of paths"), Vec::new()),
    };
    // Tokens are looked at only where some SecurityPolicy says whose are taken.
    let has_claims = !question.claims.is_empty() && !rules.issuers.is_empty();
    let tokens: &[Claims] = if has_claims { std::slice::from_ref(&question.claims) } else { &[] };
    let request = by_request.then_some(Request { method: &question.method, path, claims: tokens });
    let call = Call { peer: proven, source: question.source, port, request };
    let mut recorder = Recorder { call: &call, judged: Vec::new() };
    let verdict = authorize(rules, &call, &mut recorder);
    let by = match (verdict.policy, verdict.rule) {
        (Some(policy), Some(rule)) => format!("by {policy}, rule {}", rule + 1),
        (Some(policy), None) => format!("because no rule of {policy} allows it"),
        (None, _) if verdict.allowed => "because no policy refuses it".to_owned(),
        (None, _) if allows(rules) => "because no rule of an Allow policy allows it".to_owned(),
        (None, _) => "because no policy allows it, and the mesh's default is Deny".to_owned(),
    };
    let would = verdict.would_deny.map(|policy| format!("; {policy} would deny it (Audit)")).unwrap_or_default();
    let answer = if by_request { "403" } else { "closed" };
    let words = if verdict.allowed { format!("allowed {by}{would}") } else { format!("{answer}: denied {by}") };
    (verdict.allowed, words, recorder.judged)
}

fn allows(rules: &Authorization) -> bool {
    rules.policies.iter().any(|policy| policy.action == leno_core::authorize::Action::Allow)
}

/// Who the caller proves to be: what `--as` says, else the identity of the workload of `--from`, if it has a sidecar.
fn caller(translator: &Translator, question: &Question) -> Option<Identity> {
    let of_from = || {
        let from = question.from.as_ref().filter(|from| translator.has_proxy(from, None))?;
        translator.identity(from)
    };
    question.identity.clone().or_else(of_from)
}

/// Why a rule does not hold: what it asks for, and what the call has.
fn why(mismatch: Mismatch<'_>, call: &Call<'_>) -> String {
    let request = call.request.as_ref();
    match mismatch {
        Mismatch::From(sources) => {
            let wanted = one_of(sources.iter().map(source_words));
            let who = call.peer.map_or_else(|| "nobody in particular".to_owned(), ToString::to_string);
            let by_address = sources.iter().any(|source| matches!(source, Source::Block(_)));
            let place = match by_address {
                false => String::new(),
                true if call.source == UNKNOWN => ", at an address that --from-ip does not say".to_owned(),
                true => format!(" at {}", call.source),
            };
            format!("the caller must be {wanted}, it is {who}{place}")
        }
        Mismatch::Port(_) => format!("it is for other ports than the app's {}", call.port),
        Mismatch::Method(methods) => {
            format!("the method must be {}, it is {}", one_of(methods), request.map_or("none", |request| request.method))
        }
        Mismatch::Path(paths) => {
            let paths = one_of(paths.iter().map(|path| match path {
                PathRule::Exact(path) => path.to_string(),
                PathRule::Below(path) => format!("{path}/*"),
            }));
            format!("the path must be {paths}, it is {}", request.map_or("none", |request| request.path))
        }
        Mismatch::Claim(name, values) => {
            let has: BTreeMap<_, _> = request.into_iter().flat_map(|request| request.claims).flatten().collect();
            let has = has.get(name).map_or_else(|| "it is missing".to_owned(), |values| format!("it is {}", values.join(", ")));
            format!("the claim {name} must be {}, {has}", one_of(values))
        }
        Mismatch::NoRequest => "it speaks of requests, and this is a connection".to_owned(),
    }
}

fn source_words(source: &Source) -> String {
    match source {
        Source::Block(block) => block.to_string(),
        Source::Peer { trust_domain, namespace: Some(namespace), service_account: Some(account) } => {
            format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
        }
        Source::Peer { trust_domain, namespace: Some(namespace), .. } => format!("spiffe://{trust_domain}/ns/{namespace}/*"),
        Source::Peer { trust_domain, .. } => format!("spiffe://{trust_domain}/*"),
    }
}

/// `a, b or c`.
fn one_of(texts: impl IntoIterator<Item = impl ToString>) -> String {
    let mut texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
    match (texts.pop(), texts.is_empty()) {
        (None, _) => "any".to_owned(),
        (Some(only), true) => only,
        (Some(last), false) => format!("{} or {last}", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use leno_controller::source::folder::parse;
    use leno_translate::{Change, Defaults};

    use super::*;
    use crate::explain::answer::explain;

    const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: payment, namespace: shop}
spec: {selector: {app: payment}, ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: leno.dev/v1alpha1
kind: SecurityPolicy
metadata: {name: orders-only, namespace: shop}
spec: {mtls: {mode: MODE}, authorization: [{from: [{serviceAccount: orders}]}]}
---
apiVersion: leno.dev/v1alpha1
kind: Workload
metadata: {name: payment-1, namespace: shop, labels: {app: payment}, annotations: {PAYMENT}}
spec: {address: 127.0.0.1, ports: [{port: 8080}]}
---
apiVersion: leno.dev/v1alpha1
kind: Workload
metadata: {name: orders-1, namespace: shop, annotations: {ORDERS}}
spec: {address: 127.0.0.2, serviceAccount: orders}
";
    const INJECTED: &str = "leno.dev/injected: '1'";

    /// What payment says to orders, with these annotations on their workloads.
    fn said(mode: &str, payment: &str, orders: &str) -> Access {
        let text = SHOP.replace("MODE", mode).replace("PAYMENT", payment).replace("ORDERS", orders);
        let mut translator = Translator::new(Defaults::new("cluster.local"));
        for manifest in parse(std::path::Path::new("a.yaml"), &text).manifests {
            translator.apply(Change::Apply(manifest.object));
        }
        let question = Question::new("GET", "http://payment.shop/", &[], Some(&WorkloadId::new("shop", "orders-1"))).unwrap();
        let [access] = explain(&translator, &question, None).access.try_into().unwrap();
        access
    }

    #[test]
    fn a_caller_is_who_its_sidecar_proves_it_to_be() {
        let access = said("Permissive", INJECTED, INJECTED);
        assert_eq!((access.allowed, access.caller.as_deref()), (true, Some("spiffe://cluster.local/ns/shop/sa/orders")));
        let access = said("Permissive", INJECTED, "");
        assert_eq!((access.allowed, access.caller), (false, None), "it has no sidecar");
        assert!(access.words.starts_with("403: denied because no rule of shop/orders-only"), "{}", access.words);
        let access = said("Disabled", INJECTED, INJECTED);
        assert_eq!((access.allowed, access.caller), (false, None), "nobody proves anything where mutual TLS is disabled");
    }

    #[test]
    fn nothing_is_enforced_where_no_sidecar_takes_the_port() {
        for payment in ["", "leno.dev/injected: '1', leno.dev/exclude-inbound-ports: '8080'"] {
            let access = said("Strict", payment, INJECTED);
            assert!(access.allowed && access.words.contains("no policy is enforced"), "{}", access.words);
            assert!(access.judged.is_empty() && access.caller.is_none());
        }
        assert!(!said("Strict", INJECTED, "").allowed, "there it is");
    }
}
