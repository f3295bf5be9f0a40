//! `leno ca`: the mesh's certificate authority, and from one root to the next.
//!
//! [`status`] says what signs and who trusts it, [`rotate`] drives [`leno_controller::ca::rotation`], which decides.

mod rotate;
pub(crate) mod status;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use leno_controller::ca::listing::Listing;
use leno_controller::ca::secret::{Kept, NAME};
use leno_core::names::WorkloadId;

use crate::cluster::{Mesh, Where, block_on};

/// Arguments of `leno ca`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what signs the mesh's certificates, who is trusted, and how far a rotation is
    Status(Where),
    /// Replace the root, step by step, with no request lost; interrupted and run again it goes on where it was
    Rotate(rotate::Arguments),
}

/// Does what the subcommand says.
///
/// # Errors
/// When the cluster cannot be read or written.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    block_on(async {
        match &arguments.command {
            Command::Status(place) => status::run(&Mesh::connect(place).await?, out).await,
            Command::Rotate(arguments) => rotate::run(&Mesh::connect(&arguments.place).await?, arguments, out).await,
        }
    })
}

/// What is known at one moment.
struct Seen {
    /// The Secret as it was read.
    secret: Secret,
    /// What it holds.
    kept: Kept,
    /// What each replica lists; nothing of one that did not answer, which therefore is not as far.
    listings: Vec<Listing>,
    /// Replicas that did not answer, and why.
    unheard: Vec<String>,
    /// The pods whose sidecar runs.
    expected: BTreeSet<WorkloadId>,
}

impl Seen {
    async fn look(mesh: &Mesh) -> anyhow::Result<Self> {
        let secret = mesh.secret(NAME).await?.with_context(|| {
            format!("Secret {}/{NAME} is not there: the controller makes it when it starts, see leno check", mesh.namespace)
        })?;
        let kept = Kept::of(&secret).with_context(|| format!("Secret {}/{NAME}", mesh.namespace))?;
        let (mut listings, mut unheard) = (Vec::new(), Vec::new());
        for replica in mesh.listings().await? {
            match replica.listing {
                Ok(listing) => listings.push(listing),
                Err(error) => {
                    listings.push(Listing::default());
                    unheard.push(format!("{}: {error}", replica.pod));
                }
            }
        }
        Ok(Self { secret, kept, listings, unheard, expected: mesh.sidecars().await? })
    }

    fn progress(&self) -> Progress {
        Progress::of(&self.kept, &self.listings, &self.expected)
    }
}

/// How far the mesh is with what the Secret says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    replicas: usize,
    /// Those that tell proxies what the Secret says.
    current: usize,
    /// Proxies that there are.
    proxies: usize,
    /// Those that trust the Secret's roots and no others.
    trusting: usize,
    /// Those that hold a certificate by what signs now.
    holding: usize,
}

impl Progress {
    fn of(kept: &Kept, listings: &[Listing], expected: &BTreeSet<WorkloadId>) -> Self {
        use leno_controller::ca::authority::{fingerprint, fingerprints};
        let signer = fingerprint(&kept.signing.certificate).unwrap_or_default();
        let roots: BTreeSet<String> = fingerprints(&kept.roots).into_iter().flatten().collect();
        let mut progress = Self { replicas: listings.len(), ..Self::default() };
        let (mut all, mut trusting, mut holding) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        all.extend(expected.iter().map(ToString::to_string));
        for listing in listings {
            let told: BTreeSet<String> = listing.roots.iter().cloned().collect();
            let is_current = listing.issuer == signer && (told == roots || roots.is_empty());
            progress.current += usize::from(is_current);
            for proxy in &listing.proxies {
                all.insert(proxy.workload.clone());
                if is_current && proxy.trust.as_deref() == Some(&listing.trust_version) {
                    trusting.insert(&proxy.workload);
                }
                if proxy.issuer.as_deref() == Some(&signer) {
                    holding.insert(&proxy.workload);
                }
            }
        }
        Self { proxies: all.len(), trusting: trusting.len(), holding: holding.len(), ..progress }
    }
}

/// Now, as certificates count.
fn now() -> Timestamp {
    Timestamp::now()
}
