//! `leno check`: what a person wants to know after installing Leno, and when something is wrong.
//!
//! [`facts`] asks the cluster, [`rules`] judges what it said at a moment; each finding is one line, with what to do about it.

mod facts;
mod rules;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{Mesh, Where, block_on};

/// Arguments of `leno check`.
#[derive(Args, Debug)]
#[command(after_help = "Each line begins with ✓ (well), ! (works, but look at it) or ✗ (broken).\n\n\
                        Exit code: 0 when nothing is broken; 1 when something is; 2 when the cluster cannot be asked.")]
pub struct Arguments {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line for each finding
    Text,
    /// One JSON array
    Json,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Well,
    /// It works, or cannot be known: look at it.
    Warning,
    /// It does not work.
    Broken,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// The thing.
    what: &'static str,
    /// How it is.
    says: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn well(what: &'static str, says: impl Into<String>) -> Self {
        Self { level: Level::Well, what, says: says.into(), advice: None }
    }

    fn warning(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, what, says: says.into(), advice: Some(advice.into()) }
    }

    fn broken(what: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Broken, what, says: says.into(), advice: Some(advice.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Well => '✓',
            Level::Warning => '!',
            Level::Broken => '✗',
        };
        write!(f, "{mark} {:<20} {}", self.what, self.says)?;
        match &self.advice {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

/// Checks the mesh, and says by the exit code whether anything is broken.
///
/// # Errors
/// When the cluster cannot be asked at all.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let facts = block_on(async { facts::gather(&Mesh::connect(&arguments.place).await?).await })?;
    let findings = rules::findings(&facts, Timestamp::now());
    match arguments.output {
        Format::Text => findings.iter().try_for_each(|finding| writeln!(out, "{finding}"))?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &findings)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(findings.iter().any(|finding| finding.level == Level::Broken))))
}
