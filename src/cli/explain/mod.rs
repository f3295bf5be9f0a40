//! `leno explain`: what happens to one request, step by step, from the very function that routes.
//!
//! [`question`] reads the command line, [`answer`] asks [`leno_core::route::decide`] and keeps its trace as an
//! [`explanation`], [`text`] puts that into words. The objects come from a folder ([`leno_controller::source::folder`]) or from a cluster ([`cluster`]).

mod access;
pub mod answer;
mod balancing;
pub mod cluster;
mod defaults;
pub mod explanation;
mod filters;
mod guards;
pub mod question;
mod similar;
pub mod text;
mod traffic;
mod words;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use leno_controller::source::folder::{self, Folder};
use leno_core::names::{Identity, Name, ServiceId, WorkloadId};
use leno_translate::{Change, Object, Translator};

use crate::up::rewrite::behind_sidecar;
use explanation::Outcome;
use question::Question;

/// The DNS domain of cluster host names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// A caller as `--as` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Account {
    /// A service account of this mesh.
    Own(ServiceId),
    /// An identity, of whichever trust domain.
    Whole(Identity),
}

/// Arguments of `leno explain`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 when an endpoint takes the request; 1 when none does, or when the request is no concern of the \
                        mesh and passes through untouched; 2 when there is no answer, because something cannot be read.\n\n\
                        Example:\n  leno explain GET http://payment.shop/api/v1/process -H x-user-type:premium --from shop/web -f manifests/demo")]
pub struct Arguments {
    /// Method of the request, such as GET
    method: String,
    /// Its URL: http://HOST:PORT/PATH?QUERY (the port may be left out), https://HOST or tcp://HOST:PORT. HOST is a name the caller uses, or an address
    url: String,
    /// A header field of the request, NAME:VALUE; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// The workload that sends it: short host names are of its namespace [default: the namespace `default`]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    from: Option<WorkloadId>,
    /// Who the caller proves to be: a service account as NAMESPACE/ACCOUNT, or spiffe://… [default: that of the workload of --from, if it has a sidecar]
    #[arg(long = "as", value_name = "NAMESPACE/ACCOUNT", value_parser = account)]
    identity: Option<Account>,
    /// Address that its connection comes from, for rules with ipBlock
    #[arg(long, value_name = "ADDRESS")]
    from_ip: Option<IpAddr>,
    /// A claim of its verified token; may be given several times, also for one name
    #[arg(long = "jwt-claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(Name, Name)>,
    /// Explain from the manifests in this folder (or file) instead of the cluster that kubectl talks to; as `leno up` would run it: each Workload has a sidecar
    #[arg(short, long, value_name = "DIR")]
    file: Option<PathBuf>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Show which destination this number draws; the proxy draws a new one for each request
    #[arg(long, value_name = "N")]
    draw: Option<u64>,
    #[command(flatten)]
    assumed: defaults::Assumed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Sentences
    Text,
    /// One JSON object
    Json,
}

fn claim(text: &str) -> Result<(Name, Name), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as scope=read")?;
    Ok((name.into(), value.into()))
}

fn account(text: &str) -> Result<Account, String> {
    if text.starts_with("spiffe://") {
        return text.parse().map(Account::Whole).map_err(|error: leno_core::names::InvalidIdentity| error.to_string());
    }
    let own = text.parse().map(Account::Own);
    own.map_err(|_invalid| "write NAMESPACE/ACCOUNT, such as shop/web, or spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT".to_owned())
}

impl Arguments {
    /// The request that is asked about.
    fn question(&self) -> anyhow::Result<Question> {
        let mut question = Question::new(&self.method, &self.url, &self.headers, self.from.as_ref())?;
        question.source = self.from_ip.unwrap_or(question.source);
        for (name, value) in &self.claims {
            let values = question.claims.entry(name.clone()).or_default();
            // As in a token: RFC 8693 section 4.2.
            match &**name == "scope" {
                true => values.extend(value.split_whitespace().map(Name::from)),
                false => values.push(value.clone()),
            }
        }
        Ok(question)
    }

    /// Who the caller proves to be in a mesh of `trust_domain`.
    fn identity(&self, trust_domain: &Name) -> Option<Identity> {
        self.identity.as_ref().map(|account| match account {
            Account::Whole(identity) => identity.clone(),
            Account::Own(ServiceId { namespace, name }) => {
                Identity { trust_domain: trust_domain.clone(), namespace: namespace.clone(), service_account: name.clone() }
            }
        })
    }
}

/// Explains, and says by the exit code whether an endpoint takes the request.
///
/// # Errors
/// When the arguments, the folder or the cluster cannot be read.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut question = arguments.question()?;
    let (mut translator, trust_domain, notes) = match &arguments.file {
        Some(path) => {
            let defaults = arguments.assumed.alone();
            let trust_domain = defaults.trust_domain.clone();
            let mut translator = Translator::new(defaults);
            read_folder(path, &mut translator)?;
            (translator, trust_domain, Vec::new())
        }
        None => cluster::read(&question, &arguments.assumed)?,
    };
    question.identity = arguments.identity(&trust_domain);
    for uri in translator.key_uris() {
        // Nobody fetches keys here, and none are missed: claims are taken as verified.
        translator.set_keys(&uri, Ok(Name::from("")));
    }
    let mut explanation = answer::explain(&translator, &question, arguments.draw);
    explanation.notes.extend(notes);
    match arguments.output {
        Format::Text => write!(out, "{}", text::Text(&explanation))?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(match explanation.outcome {
        Outcome::Routed => ExitCode::SUCCESS,
        Outcome::PassesThrough | Outcome::Refused => ExitCode::from(1),
    })
}

/// Takes in what the manifests say; a folder with problems is not explained, because the answer might be wrong.
fn read_folder(path: &Path, translator: &mut Translator) -> anyhow::Result<()> {
    let texts =
        folder::read(path).with_context(|| format!("{} cannot be read: give -f a folder of manifests, or one file", path.display()))?;
    anyhow::ensure!(!texts.is_empty(), "{} holds no *.yaml or *.yml file: give -f the folder that holds your manifests", path.display());
    let mut folder = Folder::default();
    for change in folder.update(texts) {
        translator.apply(match change {
            Change::Apply(Object::Workload(workload)) => Change::Apply(Object::Workload(behind_sidecar(workload, BTreeMap::new()))),
            Change::Apply(_) | Change::Delete(_) | Change::Unreadable { .. } => change,
        });
    }
    let problems: Vec<String> = folder.notes().problems.iter().map(ToString::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the manifests have problems, mend these first:\n  {}", problems.join("\n  "));
    Ok(())
}
