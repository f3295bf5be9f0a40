//! Commands for people: `leno up`, `leno explain`, `leno identity`, `leno ca`, `leno check`,
//! `leno crds`.
//!
//! Each command is a module: its arguments, a pure middle that tests call directly, and a thin shell that reads and prints.

pub mod ca;
pub mod check;
mod cluster;
pub mod crds;
pub mod demo;
pub mod explain;
pub mod identity;
mod left;
pub mod up;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Leno, a service mesh: on this machine from a folder of manifests, or on a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "leno", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the mesh on this machine, from a folder of manifests
    Up(up::Arguments),
    /// Say what happens to one request, step by step, and why
    Explain(explain::Arguments),
    /// Check that the mesh is well, and say what to do where it is not
    Check(check::Arguments),
    /// Look at the mesh's certificate authority, or replace its root
    Ca(ca::Arguments),
    /// List who holds which certificate until when
    Identity(identity::Arguments),
    /// Print the definitions of MeshService, TrafficPolicy and SecurityPolicy, for kubectl apply
    Crds,
    /// A little service for demos
    #[command(hide = true)]
    DemoApp(demo::app::Arguments),
    /// A little traffic for demos
    #[command(hide = true)]
    DemoTraffic(demo::traffic::Arguments),
}

/// Exit code of a command that could not do its work.
const FAILED: u8 = 2;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Up(arguments) => up::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments, &mut io::stdout().lock()),
        Command::Check(arguments) => check::run(&arguments, &mut io::stdout().lock()),
        Command::Ca(arguments) => ca::run(&arguments, &mut io::stdout().lock()),
        Command::Identity(arguments) => identity::run(&arguments, &mut io::stdout().lock()),
        Command::Crds => crds::run(&mut io::stdout().lock()).map(|()| ExitCode::SUCCESS),
        Command::DemoApp(arguments) => demo::app::run(arguments).map(|()| ExitCode::SUCCESS),
        Command::DemoTraffic(arguments) => demo::traffic::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        report(&error);
        ExitCode::from(FAILED)
    })
}

/// Prints an error and what caused it. A reader that has gone (`leno crds | head`) is none.
fn report(error: &anyhow::Error) {
    let broken_pipe = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if !broken_pipe {
        #[expect(clippy::print_stderr, reason = "a command speaks to people")]
        {
            eprintln!("leno: {error:#}");
        }
    }
}
