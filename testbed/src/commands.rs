//! The commands of `sesemi-dev`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use attestation::{Tee, VerifierSet};
use clap::{Parser, Subcommand};

use crate::roles::Role;
use crate::simulated_tee::SimulatedVerifier;

mod demo;
mod up;

/// A whole SeSeMI on this machine, on a simulated TEE: for trying and for developing, never for
/// data that matters.
#[derive(Debug, Parser)]
#[command(name = "sesemi-dev", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything, show what it answers, what it refuses and what the operator saw.
    Demo(demo::DemoArgs),
    /// Start everything and keep it running, with a profile for the command line.
    Up(up::UpArgs),
    /// Run the `sesemi` command line with the simulated TEE's verifier.
    #[command(disable_help_flag = true)]
    Cli {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// One part of the system, as `demo` and `up` start it.
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
}

/// Where a system keeps its state when no folder is named.
fn default_state() -> PathBuf {
    PathBuf::from(".state")
}

/// Runs one command line.
#[must_use]
pub fn main(mut args: Vec<OsString>) -> ExitCode {
    // `cargo demo -- --json FILE` arrives as `demo -- --json FILE`.
    if args.get(1).is_some_and(|a| a == "demo") && args.get(2).is_some_and(|a| a == "--") {
        args.remove(2);
    }
    let arguments = Arguments::parse_from(args);
    let done = match arguments.command {
        Command::Cli { args } => return cli_command(args),
        Command::Role { role } => crate::roles::run(role),
        Command::Demo(args) => demo::run(&args),
        Command::Up(args) => up::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn complain(error: &anyhow::Error) {
    eprintln!("sesemi-dev: {error:#}");
}

/// `sesemi`, as its owner and user run it, but for the TEE.
fn cli_command(args: Vec<OsString>) -> ExitCode {
    let verifiers = |profile: &cli::Profile| {
        let Some(path) = profile.root(Tee::Simulated) else {
            return Ok(VerifierSet::default());
        };
        let verifier = SimulatedVerifier::from_root_file(&path).map_err(Box::new)?;
        Ok(VerifierSet::new(vec![Arc::new(verifier)]))
    };
    let args = std::iter::once(OsString::from("sesemi")).chain(args);
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli::run(args, &verifiers))),
        Err(error) => {
            complain(&error.into());
            ExitCode::FAILURE
        }
    }
}
