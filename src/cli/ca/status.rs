//! `leno ca status`.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use jiff::Timestamp;
use leno_controller::ca::authority::{About, Authority, Domains};
use leno_controller::ca::secret::{Kept, Step};

use super::{Progress, Seen, now};
use crate::cluster::Mesh;
use crate::left::left;

/// Says how the authority is. The exit code is 1 when what the Secret holds cannot be used, or a replica does not answer.
pub(super) async fn run(mesh: &Mesh, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let seen = Seen::look(mesh).await?;
    let status = Status::of(&seen, now());
    write!(out, "{status}")?;
    out.flush()?;
    Ok(ExitCode::from(u8::from(status.material.is_err() || !seen.unheard.is_empty())))
}

/// What there is to say.
struct Status {
    own: bool,
    step: Option<Step>,
    /// What signs and the roots; an error when they cannot be used.
    material: Result<(About, Vec<About>), String>,
    progress: Progress,
    unheard: Vec<String>,
    now: Timestamp,
}

/// The certificate that signs and the roots of `kept`, proven to work at `now`.
pub(crate) fn material(kept: &Kept, trust_domain: &str, now: Timestamp) -> Result<Authority, String> {
    let own = if trust_domain.is_empty() { "cluster.local" } else { trust_domain };
    Authority::load(kept, &Domains { own: own.into(), also: Vec::new() }, now).map_err(|error| error.to_string())
}

impl Status {
    fn of(seen: &Seen, now: Timestamp) -> Self {
        let domain = seen.listings.iter().map(|it| it.trust_domain.as_str()).find(|it| !it.is_empty()).unwrap_or_default();
        let authority = material(&seen.kept, domain, now);
        Self {
            own: seen.kept.own,
            step: seen.kept.step,
            material: authority.map(|it| (it.signer().clone(), it.roots().to_vec())),
            progress: seen.progress(),
            unheard: seen.unheard.clone(),
            now,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = if self.own { "made by Leno" } else { "brought from elsewhere, which renews and rotates it" };
        writeln!(f, "authority     Secret leno-ca, {made}")?;
        match &self.material {
            Err(error) => writeln!(f, "unusable      {error}")?,
            Ok((signer, roots)) => {
                writeln!(f, "signs         {}, ends in {} ({})", signer.subject, left(signer.not_after, self.now), signer.not_after)?;
                for root in roots {
                    writeln!(f, "trusted root  {}, ends in {} ({})", root.subject, left(root.not_after, self.now), root.not_after)?;
                }
            }
        }
        match self.step {
            None => writeln!(f, "rotation      none is under way")?,
            Some(step) => {
                writeln!(f, "rotation      at the step {step}: {}; leno ca rotate goes on with it", super::rotate::meaning(step))?
            }
        }
        let Progress { replicas, current, proxies, trusting, holding } = self.progress;
        writeln!(f, "replicas      {current} of {replicas} tell proxies just this")?;
        writeln!(
            f,
            "proxies       {trusting} of {proxies} trust just these roots, {holding} of {proxies} hold a certificate by what signs"
        )?;
        for replica in &self.unheard {
            writeln!(f, "! a replica did not answer, so its proxies are not counted as done: {replica}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::Secret;
    use leno_controller::ca::authority::{fingerprint, fingerprints, make};
    use leno_controller::ca::listing::{Listed, Listing};
    use leno_controller::ca::rotation;
    use leno_core::names::WorkloadId;

    use super::*;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn seen() -> Seen {
        let domains = Domains { own: "cluster.local".into(), also: Vec::new() };
        let old = make(&domains, start()).unwrap();
        let kept = rotation::begin(&old, &domains, start() + SignedDuration::from_hours(24)).unwrap();
        let (roots, issuer) = (fingerprints(&kept.roots).unwrap(), fingerprint(&kept.signing.certificate).unwrap());
        let proxy = |workload: &str, trust: &str, issuer: Option<&String>| Listed {
            workload: workload.into(),
            trust: Some(trust.into()),
            issuer: issuer.cloned(),
            ..Listed::default()
        };
        let proxies = vec![proxy("shop/a", "2", Some(&issuer)), proxy("shop/b", "1", Some(&issuer)), proxy("shop/c", "2", None)];
        let current = Listing { trust_domain: "cluster.local".into(), roots, issuer, trust_version: "2".into(), proxies };
        let expected = BTreeSet::from(["a", "b", "absent"].map(|name| WorkloadId::new("shop", name)));
        Seen {
            secret: Secret::default(),
            kept,
            listings: vec![current, Listing::default()],
            unheard: vec!["leno-controller-2: gone".into()],
            expected,
        }
    }

    #[test]
    fn it_says_what_signs_who_is_trusted_and_how_far_the_mesh_is() {
        let text = Status::of(&seen(), start() + SignedDuration::from_hours(48)).to_string();
        let wanted = "\
authority     Secret leno-ca, made by Leno
signs         O=Leno, CN=cluster.local root 2026-01-01, ends in 3648d (2035-12-30T00:00:00Z)
trusted root  O=Leno, CN=cluster.local root 2026-01-01, ends in 3648d (2035-12-30T00:00:00Z)
trusted root  O=Leno, CN=cluster.local root 2026-01-02, ends in 3649d (2035-12-31T00:00:00Z)
rotation      at the step distribute: every proxy is to trust the new root beside the old one; leno ca rotate goes on with it
replicas      1 of 2 tell proxies just this
proxies       2 of 4 trust just these roots, 2 of 4 hold a certificate by what signs
! a replica did not answer, so its proxies are not counted as done: leno-controller-2: gone
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn what_cannot_be_used_is_said_and_what_to_do() {
        let mut seen = seen();
        seen.kept.own = false;
        seen.kept.signing.key = String::new();
        let text = Status::of(&seen, start()).to_string();
        assert!(
            text.contains("brought from elsewhere") && text.contains("unusable      tls.key holds no private key (PEM): put one"),
            "{text}"
        );
    }
}
