//! What the facts mean: pure, at a moment that is an argument.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use leno_controller::ca::authority::About;
use leno_controller::ca::expiry::due_at;
use leno_controller::ca::secret::Kept;
use leno_controller::certificates::{Policy, first_validity};

use super::Finding;
use super::facts::{Facts, KindState, PodFacts};
use crate::ca::status::material;
use crate::identity::Identities;
use crate::left::left;

/// Names in one line; the rest is counted.
const NAMES_MAX: usize = 3;

/// Everything found, in the order in which a person mends it.
pub(super) fn findings(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let mut found = vec![Finding::well("Kubernetes API", format!("{} answers", facts.server))];
    found.push(kinds(facts));
    found.push(controller(facts));
    found.push(webhook(facts));
    found.push(serving(facts, now));
    found.extend(authority(facts, now));
    found.extend(proxies(facts, now));
    found.push(sidecars(facts));
    found.extend(versions(facts));
    found
}

/// What a fact that is not known is: no proof that something is broken.
fn unknown(what: &'static str, error: &str) -> Finding {
    Finding::warning(what, "cannot be told", error)
}

fn kinds(facts: &Facts) -> Finding {
    const WHAT: &str = "kinds";
    let of = |state| facts.kinds.iter().filter(move |(_, it)| *it == Ok(state)).map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    if let Some(error) = facts.kinds.iter().find_map(|(_, it)| it.as_ref().err()) {
        return unknown(WHAT, error);
    }
    let (missing, other) = (of(KindState::Missing), of(KindState::Other));
    if !missing.is_empty() {
        let says = format!("the cluster does not know {}", missing.join(", "));
        return Finding::broken(
            WHAT,
            says,
            "install Leno (helm install), or its definitions (leno crds | kubectl apply --server-side -f -)",
        );
    }
    if !other.is_empty() {
        let says = format!("{} {} of another version than this program", other.join(", "), if other.len() == 1 { "is" } else { "are" });
        return Finding::warning(WHAT, says, "upgrade the older of the two (helm upgrade), or use the leno of the cluster's version");
    }
    Finding::well(WHAT, format!("{} are there, as this program knows them", of(KindState::Same).join(", ")))
}

fn controller(facts: &Facts) -> Finding {
    const WHAT: &str = "controller";
    let namespace = &facts.namespace;
    let logs = format!("see kubectl -n {namespace} get pods, and kubectl -n {namespace} logs deployment/leno-controller");
    match &facts.controller {
        Err(error) => unknown(WHAT, error),
        Ok(None) => Finding::broken(
            WHAT,
            format!("there is no Deployment {namespace}/leno-controller"),
            "install Leno (helm install), or name its namespace with --controller-namespace",
        ),
        Ok(Some(it)) if it.ready == 0 => Finding::broken(WHAT, format!("none of {} replicas is ready", it.wanted), logs),
        Ok(Some(it)) if it.ready < it.wanted => Finding::warning(WHAT, format!("{} of {} replicas are ready", it.ready, it.wanted), logs),
        Ok(Some(it)) if it.version != env!("CARGO_PKG_VERSION") && !it.version.is_empty() => Finding::warning(
            WHAT,
            format!("it is version {}, this program is {}", it.version, env!("CARGO_PKG_VERSION")),
            "use the leno of the cluster's version, so that it knows what the cluster knows",
        ),
        Ok(Some(it)) => Finding::well(WHAT, format!("{} of {} replicas are ready, version {}", it.ready, it.wanted, it.version)),
    }
}

fn webhook(facts: &Facts) -> Finding {
    const WHAT: &str = "webhook";
    let webhook = match &facts.webhook {
        Err(error) => return unknown(WHAT, error),
        Ok(None) => {
            return Finding::broken(
                WHAT,
                "there is no MutatingWebhookConfiguration leno-injector, so no pod gets a sidecar",
                "helm upgrade",
            );
        }
        Ok(Some(webhook)) => webhook,
    };
    let pods_wait = "pods that ask for a sidecar cannot be created";
    if webhook.bundles.is_empty() || webhook.bundles.iter().any(String::is_empty) {
        return Finding::broken(
            WHAT,
            format!("the API server has no certificate to trust the controller by, so {pods_wait}"),
            "a running controller puts it there: see its log",
        );
    }
    if let Ok(Some(serving)) = &facts.serving
        && webhook.bundles.iter().any(|bundle| bundle.trim() != serving.bundle.trim())
    {
        return Finding::broken(
            WHAT,
            format!("the API server trusts another certificate than the controller's, so {pods_wait}"),
            "a running controller mends it within seconds: see its log",
        );
    }
    match &facts.endpoints {
        Err(error) => unknown(WHAT, error),
        Ok(0) => Finding::broken(WHAT, format!("its Service leads to no ready endpoint, so {pods_wait}"), "mend the controller first"),
        Ok(ready) => Finding::well(WHAT, format!("the API server trusts it and reaches it at {ready} endpoints")),
    }
}

fn serving(facts: &Facts, now: Timestamp) -> Finding {
    const WHAT: &str = "serving certificate";
    let anew = "kubectl delete secret leno-controller-tls, and the controller makes it anew";
    let serving = match &facts.serving {
        Err(error) => return unknown(WHAT, error),
        Ok(None) => return Finding::broken(WHAT, "there is no Secret leno-controller-tls", "a running controller makes it: see its log"),
        Ok(Some(serving)) => serving,
    };
    let (Some((_, end)), Some((_, ca_end))) = (first_validity(&serving.certificate), first_validity(&serving.bundle)) else {
        return Finding::broken(WHAT, "the Secret leno-controller-tls holds no certificate that can be read", anew);
    };
    let policy = Policy::new(Vec::new());
    if now >= end || now >= ca_end {
        let says = format!("it {}; its CA: {}", left(end, now), left(ca_end, now));
        return Finding::broken(WHAT, says, "a running controller renews it: see its log");
    }
    let due = (end - policy.serving_life / 3).min(ca_end - policy.ca_renew_before);
    let says = format!("ends in {}, its CA in {}", left(end, now), left(ca_end, now));
    if now >= due + jiff::SignedDuration::from_hours(1) {
        return Finding::warning(WHAT, says, "the controller should have renewed it: see its log");
    }
    Finding::well(WHAT, says)
}

fn authority(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    const WHAT: &str = "authority";
    let kept = match &facts.authority {
        Err(error) => return vec![unknown(WHAT, error)],
        Ok(None) => return vec![Finding::broken(WHAT, "there is no Secret leno-ca", "a running controller makes it: see its log")],
        Ok(Some(kept)) => kept,
    };
    let trust_domain = facts.identities.as_ref().map(|it| it.trust_domain.as_str()).unwrap_or_default();
    let authority = match material(kept, trust_domain, now) {
        Err(error) => return vec![Finding::broken(WHAT, "what the Secret leno-ca holds cannot be used", error)],
        Ok(authority) => authority,
    };
    let mut found = vec![lasting(WHAT, authority.signer(), kept, now)];
    let roots = authority.roots().iter().filter(|root| root.fingerprint != authority.signer().fingerprint);
    found.extend(roots.map(|root| lasting("trusted root", root, kept, now)));
    if let Some(step) = kept.step {
        found.push(Finding::warning("rotation", format!("one is under way, at the step {step}"), "leno ca rotate goes on with it"));
    }
    found
}

fn lasting(what: &'static str, about: &About, kept: &Kept, now: Timestamp) -> Finding {
    let says = format!("{} ends in {}", about.subject, left(about.not_after, now));
    if now < due_at(about) {
        return Finding::well(what, says);
    }
    let advice = if kept.own { "leno ca rotate" } else { "replace it where it comes from: leno ca rotate says how" };
    Finding::warning(what, says, advice)
}

fn proxies(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    const WHAT: &str = "identities";
    let identities = match &facts.identities {
        Err(error) => return vec![unknown(WHAT, error)],
        Ok(identities) => identities,
    };
    let mut found: Vec<Finding> = identities
        .unheard
        .iter()
        .map(|replica| Finding::warning("replica", format!("one does not answer ({replica})"), "its proxies are not counted below"))
        .collect();
    let doubts = doubts(facts, identities, now);
    let doubtful: BTreeSet<&str> = doubts.values().flatten().map(String::as_str).collect();
    let well = identities.proxies.iter().filter(|proxy| !doubtful.contains(proxy.pod.as_str()));
    let ends: Vec<Timestamp> = well.filter_map(|proxy| proxy.not_after).collect();
    let says = match ends.iter().min() {
        Some(first) => format!("{} proxies hold a certificate, the first ends in {}", ends.len(), left(*first, now)),
        None => "no proxy is connected with a certificate".to_owned(),
    };
    found.push(Finding::well(WHAT, says));
    found.extend(doubts.into_iter().map(|(doubt, pods)| doubt.finding(&pods)));
    found
}

/// What may be wrong with a proxy's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    Absent,
    None,
    Expired,
    Late,
}

impl Doubt {
    fn finding(self, pods: &BTreeSet<String>) -> Finding {
        const WHAT: &str = "identities";
        let who = named(pods);
        let log = "see the log of the container leno-proxy in such a pod";
        match self {
            Self::Absent => Finding::warning(WHAT, format!("connected to no replica of the controller: {who}"), log),
            Self::None => Finding::broken(WHAT, format!("without a certificate: {who}"), log),
            Self::Expired => Finding::broken(WHAT, format!("with a certificate that has ended: {who}"), log),
            Self::Late => Finding::warning(WHAT, format!("with a certificate that should have been renewed: {who}"), log),
        }
    }
}

fn doubts(facts: &Facts, identities: &Identities, now: Timestamp) -> BTreeMap<Doubt, BTreeSet<String>> {
    let life = facts.controller.as_ref().ok().and_then(Option::as_ref).map(|controller| controller.life);
    let mut doubts: BTreeMap<Doubt, BTreeSet<String>> = BTreeMap::new();
    for proxy in &identities.proxies {
        let doubt = match proxy.not_after {
            None => Doubt::None,
            Some(end) if now >= end => Doubt::Expired,
            // Proxies renew at about two thirds of the life.
            Some(end) if life.is_some_and(|life| end.duration_since(now) < life / 8) => Doubt::Late,
            Some(_) => continue,
        };
        doubts.entry(doubt).or_default().insert(proxy.pod.clone());
    }
    let heard: BTreeSet<&str> = identities.proxies.iter().map(|proxy| proxy.pod.as_str()).collect();
    if identities.unheard.is_empty() {
        let running = facts.pods.iter().flatten().filter(|pod| pod.runs && !heard.contains(pod.name.as_str()));
        for pod in running {
            doubts.entry(Doubt::Absent).or_default().insert(pod.name.clone());
        }
    }
    doubts
}

fn sidecars(facts: &Facts) -> Finding {
    const WHAT: &str = "sidecars";
    let pods = match &facts.pods {
        Err(error) => return unknown(WHAT, error),
        Ok(pods) => pods,
    };
    let excluded = |pod: &PodFacts| match &facts.webhook {
        Ok(Some(webhook)) => webhook.excluded.contains(&pod.namespace),
        Ok(None) | Err(_) => pod.namespace == facts.namespace,
    };
    let without: Vec<&PodFacts> = pods.iter().filter(|pod| pod.asks && pod.sidecar.is_none() && !excluded(pod)).collect();
    if without.is_empty() {
        let with = pods.iter().filter(|pod| pod.sidecar.is_some()).count();
        return Finding::well(WHAT, format!("{with} pods have one, and none asks for one in vain"));
    }
    let names: BTreeSet<String> = without.iter().map(|pod| pod.name.clone()).collect();
    let namespace = &without[0].namespace;
    let advice = format!("they were there before they asked, restart them (kubectl -n {namespace} rollout restart deployment)");
    Finding::warning(WHAT, format!("asked for and not there: {}", named(&names)), advice)
}

fn versions(facts: &Facts) -> Option<Finding> {
    let controller = facts.controller.as_ref().ok()?.as_ref()?;
    let others = facts.pods.as_ref().ok()?.iter().filter(|pod| pod.sidecar.as_ref().is_some_and(|it| *it != controller.version));
    let names: BTreeSet<String> = others.map(|pod| pod.name.clone()).collect();
    let says = format!("of another version than the controller: {}", named(&names));
    (!names.is_empty()).then(|| Finding::warning("sidecars", says, "restart those pods when it suits you"))
}

/// How many, and the first of them by name.
fn named(pods: &BTreeSet<String>) -> String {
    let first: Vec<&str> = pods.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = if pods.len() > NAMES_MAX { ", …" } else { "" };
    let noun = if pods.len() == 1 { "pod" } else { "pods" };
    format!("{} {noun} ({}{more})", pods.len(), first.join(", "))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
