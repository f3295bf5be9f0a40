//! `leno explain`: what happens to one request, step by step, from the very function that routes.
//!
//! [`question`] reads the command line, [`answer`] asks [`leno_core::route::decide`] and keeps its trace as an
//! [`explanation`], [`text`] puts that into words. The objects come from a folder ([`leno_controller::source::folder`]) or from a cluster ([`cluster`]).

mod access;
pub mod answer;
pub mod cluster;
pub mod explanation;
pub mod question;
mod similar;
pub mod text;
mod words;

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use leno_controller::source::folder::{self, Folder};
use leno_core::names::{Identity, Name, ServiceId, WorkloadId};
use leno_translate::{Defaults, Translator};

use explanation::Outcome;
use question::Question;

/// The DNS domain of cluster host names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

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
    /// Who the caller proves to be, as a service account [default: that of the workload of --from, if it is known]
    #[arg(long = "as", value_name = "NAMESPACE/ACCOUNT")]
    identity: Option<ServiceId>,
    /// Address that its connection comes from, for rules with ipBlock
    #[arg(long, value_name = "ADDRESS")]
    from_ip: Option<IpAddr>,
    /// A claim of its verified token; may be given several times, also for one name
    #[arg(long = "jwt-claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(Name, Name)>,
    /// Explain from the manifests in this folder (or file) instead of the cluster that kubectl talks to
    #[arg(short, long, value_name = "DIR")]
    file: Option<PathBuf>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Show which destination this number draws; the proxy draws a new one for each request
    #[arg(long, value_name = "N")]
    draw: Option<u64>,
    /// Domain of cluster host names
    #[arg(long, value_name = "DOMAIN", default_value = CLUSTER_DOMAIN)]
    cluster_domain: String,
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

/// Explains, and says by the exit code whether an endpoint takes the request.
///
/// # Errors
/// When the arguments, the folder or the cluster cannot be read.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut question = Question::new(&arguments.method, &arguments.url, &arguments.headers, arguments.from.as_ref())?;
    let defaults = Defaults::new(&arguments.cluster_domain);
    question.identity = arguments.identity.as_ref().map(|account| Identity {
        trust_domain: defaults.trust_domain.clone(),
        namespace: account.namespace.clone(),
        service_account: account.name.clone(),
    });
    question.source = arguments.from_ip.unwrap_or(question.source);
    for (name, value) in &arguments.claims {
        question.claims.entry(name.clone()).or_default().push(value.clone());
    }
    let mut translator = Translator::new(defaults);
    match &arguments.file {
        Some(path) => read_folder(path, &mut translator)?,
        None => cluster::read(&question, &mut translator)?,
    }
    let explanation = answer::explain(&translator, &question, arguments.draw);
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
        translator.apply(change);
    }
    let problems: Vec<String> = folder.notes().problems.iter().map(ToString::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the manifests have problems, mend these first:\n  {}", problems.join("\n  "));
    Ok(())
}
