//! From one root to the next without a failed request, in steps that can be repeated and taken up again by anybody.
//!
//! 1. `distribute`: a new root is made and trusted beside the old one. Go on when every proxy trusts both.
//! 2. `issue`: the new root signs, so that proxies renew. Go on when every certificate is by the new root.
//! 3. `retire`: only the new root is trusted. Done when every proxy has heard it.
//!
//! Nothing is remembered but what the Secret says ([`Kept`]); whether a step is over is read off what the replicas list
//! ([`Listing`]) and which proxies there should be. [`next`] decides, without I/O; who drives (`leno ca rotate`) reads the Secret,
//! asks the replicas, and replaces the very version of the Secret that it read.
//!
//! Why it is safe: a proxy only ever meets certificates by roots that it has said it trusts, and its own certificate is only ever
//! by a root that every other proxy trusts. A proxy that starts in between is given what its replica knows, and a replica that
//! lags holds up the step.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use leno_core::names::WorkloadId;

use super::authority::{AuthorityError, Domains, fingerprint, fingerprints, make_root};
use super::listing::{Listed, Listing};
use super::secret::{Kept, Step};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// No rotation is under way: [`begin`] begins one.
    Idle,
    /// The step is not over: look again in a while.
    Wait(Waiting),
    /// The step is over: write this, and go on.
    Write(Box<Kept>),
}

/// Why a step is not over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// No replica was heard.
    pub nobody: bool,
    /// Replicas that do not publish what the Secret says yet.
    pub replicas: usize,
    /// Proxies that are connected and not as far.
    pub behind: BTreeSet<String>,
    /// Proxies that should be there and are connected to no replica.
    pub absent: BTreeSet<String>,
}

impl Waiting {
    fn is_over(&self) -> bool {
        !self.nobody && self.replicas == 0 && self.behind.is_empty() && self.absent.is_empty()
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |names: &BTreeSet<String>| {
            let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
            let more = if names.len() > shown.len() { ", …" } else { "" };
            format!("{}{more}", shown.join(", "))
        };
        let mut parts = Vec::new();
        if self.nobody {
            parts.push("no replica of the controller answered".to_owned());
        }
        if self.replicas > 0 {
            parts.push(format!("{} replicas of the controller have not taken it in", self.replicas));
        }
        if !self.behind.is_empty() {
            parts.push(format!("{} proxies are not as far ({})", self.behind.len(), some(&self.behind)));
        }
        if !self.absent.is_empty() {
            parts.push(format!("{} proxies are not connected ({})", self.absent.len(), some(&self.absent)));
        }
        f.write_str(&parts.join("; "))
    }
}

/// The rotation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The Secret is somebody else's.
    #[error(
        "the Secret was not made by Leno: rotate where it comes from. Add the new root to ca.crt, wait until leno ca status says that every proxy trusts it, \
         then replace tls.crt and tls.key, wait again, and take the old root out of ca.crt"
    )]
    NotOwn,
    /// One is under way.
    #[error("a rotation is under way, at the step {0}: leno ca rotate goes on with it")]
    UnderWay(Step),
    /// The Secret does not hold what the step needs.
    #[error("the Secret is at the step {step}, but {what}: put it right by hand (kubectl edit secret leno-ca)")]
    Damaged {
        /// The step that its annotation names.
        step: Step,
        /// What is wrong.
        what: &'static str,
    },
    /// A root cannot be made, or what is there cannot be read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The first step: a new root, trusted beside the old ones. Nothing is signed by it yet.
///
/// # Errors
/// When the Secret is not Leno's, a rotation is under way, or a root cannot be made.
pub fn begin(kept: &Kept, domains: &Domains, now: Timestamp) -> Result<Kept, RotationError> {
    if !kept.own {
        return Err(RotationError::NotOwn);
    }
    if let Some(step) = kept.step {
        return Err(RotationError::UnderWay(step));
    }
    let next = make_root(&domains.own, now)?;
    let roots = joined(&kept.roots, &next.certificate);
    Ok(Kept { roots, next: Some(next), step: Some(Step::Distribute), ..kept.clone() })
}

/// What is to be done, given what the Secret holds, what every replica lists and which proxies there should be.
///
/// * `listings`: one for each replica that there is; a replica that does not answer must be waited for, so leave none out.
/// * `expected`: the pods that run a proxy. One that is connected nowhere is waited for: it would be left behind.
///
/// # Errors
/// When the Secret is not Leno's, or does not hold what its step needs.
pub fn next(kept: &Kept, listings: &[Listing], expected: &BTreeSet<WorkloadId>) -> Result<Action, RotationError> {
    let Some(step) = kept.step else { return Ok(Action::Idle) };
    if !kept.own {
        return Err(RotationError::NotOwn);
    }
    let damaged = |what| RotationError::Damaged { step, what };
    let signer = fingerprint(&kept.signing.certificate).ok_or(damaged("tls.crt holds no certificate"))?;
    let roots = fingerprints(&kept.roots).ok_or(damaged("ca.crt cannot be read"))?;
    let waiting = waiting(step, &signer, &roots, listings, expected);
    if !waiting.is_over() {
        return Ok(Action::Wait(waiting));
    }
    let next = match step {
        Step::Distribute => {
            let next = kept.next.clone().ok_or(damaged("next.crt holds no certificate"))?;
            let fingerprint = fingerprint(&next.certificate).ok_or(damaged("next.crt holds no certificate"))?;
            if !roots.contains(&fingerprint) {
                return Err(damaged("next.crt is not among the roots in ca.crt"));
            }
            Kept { signing: next, next: None, step: Some(Step::Issue), ..kept.clone() }
        }
        Step::Issue => {
            if !roots.contains(&signer) {
                return Err(damaged("tls.crt is not among the roots in ca.crt"));
            }
            Kept { roots: kept.signing.certificate.clone(), next: None, step: Some(Step::Retire), ..kept.clone() }
        }
        Step::Retire => Kept { step: None, ..kept.clone() },
    };
    Ok(Action::Write(Box::new(next)))
}

fn waiting(step: Step, signer: &str, roots: &[String], listings: &[Listing], expected: &BTreeSet<WorkloadId>) -> Waiting {
    let mut waiting = Waiting { nobody: listings.is_empty(), ..Waiting::default() };
    let wanted: BTreeSet<&str> = roots.iter().map(String::as_str).collect();
    let mut connected = BTreeSet::new();
    for listing in listings {
        let told: BTreeSet<&str> = listing.roots.iter().map(String::as_str).collect();
        let is_current = listing.issuer == signer && told == wanted;
        waiting.replicas += usize::from(!is_current);
        for proxy in &listing.proxies {
            connected.insert(proxy.workload.as_str());
            if !is_as_far(step, proxy, listing, signer) {
                waiting.behind.insert(proxy.workload.clone());
            }
        }
    }
    let expected = expected.iter().map(ToString::to_string);
    waiting.absent = expected.filter(|workload| !connected.contains(workload.as_str())).collect();
    waiting
}

/// Whether a proxy trusts what its replica tells and, once the new root signs, holds a certificate by it.
fn is_as_far(step: Step, proxy: &Listed, listing: &Listing, signer: &str) -> bool {
    let trusts = proxy.trust.as_deref() == Some(&listing.trust_version);
    let holds = proxy.issuer.as_deref() == Some(signer);
    match step {
        Step::Distribute => trusts,
        Step::Issue | Step::Retire => trusts && holds,
    }
}

/// Two texts of PEM as one.
fn joined(first: &str, second: &str) -> String {
    let line = if first.is_empty() || first.ends_with('\n') { "" } else { "\n" };
    format!("{first}{line}{second}")
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
