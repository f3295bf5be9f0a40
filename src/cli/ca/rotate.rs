//! `leno ca rotate`: reads, asks, writes the next step, until the mesh trusts the new root alone.
//!
//! Nothing is remembered here: the Secret says how far the rotation is, so this may end at any moment and be run again, by anybody.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use kube::api::PostParams;
use leno_controller::ca::authority::Domains;
use leno_controller::ca::rotation::{self, Action};
use leno_controller::ca::secret::{Kept, NAME, Step};

use super::{Progress, Seen, now};
use crate::cluster::{Mesh, Where, refused};

/// How soon the mesh is looked at again.
const PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `leno ca rotate`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when the rotation is done; 1 when it is not within --wait, and can be gone on with; 2 when it cannot go on."
)]
pub(super) struct Arguments {
    /// How long to wait in all, such as 90s or 10m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    wait: Duration,
    #[command(flatten)]
    pub(super) place: Where,
}

fn time(text: &str) -> Result<Duration, String> {
    leno_api::Duration(text.to_owned()).parse().map_err(|error| error.to_string())
}

/// What is to be done now.
#[derive(Debug, PartialEq)]
enum Turn {
    /// Write this; then the step is the one in it.
    Write(Box<Kept>),
    /// Look again in a while.
    Wait(String),
    /// The mesh trusts the new root alone.
    Done,
}

/// What is to be done, given what is `seen`. `begun`: whether a rotation has been under way since this command started.
fn turn(seen: &Seen, begun: bool, now: Timestamp) -> anyhow::Result<Turn> {
    Ok(match rotation::next(&seen.kept, &seen.listings, &seen.expected)? {
        Action::Idle if begun => Turn::Done,
        Action::Idle => {
            let trust_domain = seen.listings.iter().map(|listing| listing.trust_domain.as_str()).find(|domain| !domain.is_empty());
            let trust_domain = trust_domain.context("no replica of the controller has an authority: see leno check")?;
            let domains = Domains { own: trust_domain.into(), also: Vec::new() };
            Turn::Write(Box::new(rotation::begin(&seen.kept, &domains, now)?))
        }
        Action::Write(kept) => Turn::Write(kept),
        Action::Wait(waiting) => Turn::Wait(format!("{}; {waiting}", done(&seen.kept, &seen.progress()))),
    })
}

fn done(kept: &Kept, progress: &Progress) -> String {
    let Progress { proxies, trusting, holding, .. } = progress;
    match kept.step {
        Some(Step::Issue) => format!("{holding} of {proxies} proxies hold a certificate by the new root"),
        Some(Step::Distribute) | None => format!("{trusting} of {proxies} proxies trust both roots"),
        Some(Step::Retire) => format!("{trusting} of {proxies} proxies trust the new root alone"),
    }
}

/// What a step is for.
pub(super) fn meaning(step: Step) -> &'static str {
    match step {
        Step::Distribute => "every proxy is to trust the new root beside the old one",
        Step::Issue => "every proxy is to get a certificate by the new root",
        Step::Retire => "every proxy is to trust the new root alone",
    }
}

/// Rotates until it is done or the time is over.
pub(super) async fn run(mesh: &Mesh, arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + arguments.wait;
    let (mut begun, mut said) = (false, String::new());
    loop {
        let seen = Seen::look(mesh).await?;
        if let (Some(step), false) = (seen.kept.step, begun) {
            writeln!(out, "going on with the rotation that is under way")?;
            writeln!(out, "{step}: {}", meaning(step))?;
            begun = true;
        }
        match turn(&seen, begun, now())? {
            Turn::Done => {
                writeln!(out, "done: the new root alone signs and is trusted")?;
                return Ok(ExitCode::SUCCESS);
            }
            Turn::Write(kept) => {
                if write(mesh, seen, &kept).await? {
                    begun = true;
                    if let Some(step) = kept.step {
                        writeln!(out, "{step}: {}", meaning(step))?;
                    }
                }
                continue;
            }
            Turn::Wait(words) if words != said => {
                writeln!(out, "  {words}")?;
                said = words;
            }
            Turn::Wait(_) => (),
        }
        out.flush()?;
        if Instant::now() >= until {
            writeln!(out, "not done within --wait; nothing is lost by that: run leno ca rotate again, and it goes on from here")?;
            return Ok(ExitCode::from(1));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Replaces the very Secret that was seen. Returns whether it was still there.
async fn write(mesh: &Mesh, seen: Seen, kept: &Kept) -> anyhow::Result<bool> {
    match mesh.secrets().replace(NAME, &PostParams::default(), &kept.written_into(seen.secret)).await {
        Ok(_) => Ok(true),
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(refused(error, &format!("write Secret {}/{NAME}", mesh.namespace))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::Secret;
    use leno_controller::ca::authority::{fingerprint, fingerprints, make};
    use leno_controller::ca::listing::{Listed, Listing};
    use leno_core::names::WorkloadId;

    use super::*;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    /// A mesh of one replica and one proxy that has done all that `kept` says.
    fn obedient(kept: &Kept) -> Seen {
        let (roots, issuer) = (fingerprints(&kept.roots).unwrap(), fingerprint(&kept.signing.certificate).unwrap());
        let (trust, workload) = (Some("7".to_owned()), "shop/web".to_owned());
        let proxies = vec![Listed { workload, issuer: Some(issuer.clone()), trust, ..Listed::default() }];
        let listing = Listing { trust_domain: "cluster.local".into(), roots, issuer, trust_version: "7".into(), proxies };
        let expected = BTreeSet::from([WorkloadId::new("shop", "web")]);
        Seen { secret: Secret::default(), kept: kept.clone(), listings: vec![listing], unheard: Vec::new(), expected }
    }

    fn first() -> Kept {
        make(&Domains { own: "cluster.local".into(), also: Vec::new() }, start()).unwrap()
    }

    fn written(turn: Turn) -> Kept {
        match turn {
            Turn::Write(kept) => *kept,
            other @ (Turn::Wait(_) | Turn::Done) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mesh_that_follows_comes_to_the_new_root_alone_and_stopping_in_between_loses_nothing() {
        let old = first();
        let mut kept = written(turn(&obedient(&old), false, start()).unwrap());
        let mut steps = vec![kept.step];
        while kept.step.is_some() {
            // Each time as if the command were run anew, which has nothing but the Secret.
            kept = written(turn(&obedient(&kept), true, start()).unwrap());
            steps.push(kept.step);
        }
        assert_eq!(steps, [Some(Step::Distribute), Some(Step::Issue), Some(Step::Retire), None]);
        assert_eq!(turn(&obedient(&kept), true, start()).unwrap(), Turn::Done);
        assert!(kept.signing != old.signing && kept.roots == kept.signing.certificate);
    }

    #[test]
    fn a_proxy_that_is_behind_is_waited_for_and_counted() {
        let kept = written(turn(&obedient(&first()), false, start()).unwrap());
        let mut seen = obedient(&kept);
        seen.listings[0].proxies[0].trust = Some("6".into());
        let Turn::Wait(words) = turn(&seen, true, start()).unwrap() else { panic!("it goes on") };
        assert!(words.starts_with("0 of 1 proxies trust both roots") && words.contains("shop/web"), "{words}");
        let mut seen = obedient(&kept);
        seen.listings.push(Listing::default());
        assert!(matches!(turn(&seen, true, start()).unwrap(), Turn::Wait(_)), "a replica that does not answer is waited for");
    }

    #[test]
    fn an_authority_that_was_brought_is_refused_with_how_to_rotate_it_where_it_comes_from() {
        let seen = obedient(&Kept { own: false, ..first() });
        let error = turn(&seen, false, start()).unwrap_err().to_string();
        assert!(error.contains("Add the new root to ca.crt") && error.contains("tls.key"), "{error}");
    }

    #[test]
    fn the_time_to_wait_is_read_or_refused_in_words() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert!(time("soon").unwrap_err().contains("is not a duration"));
    }
}
