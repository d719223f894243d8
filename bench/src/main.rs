//! `bench`: measures SeSeMI, in virtual time and in real time.

use std::io::Write as _;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

mod commands;

use commands::agree::Agree;
use commands::calibrate::Calibrate;
use commands::compare::Compare;
use commands::evidence::Evidence;
use commands::router::Router;
use commands::run::Run;
use commands::scale::Scale;
use commands::simulate::Simulate;

/// Measures packing policies, and the verification of evidence.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays workloads against policies in virtual time, with FnPacker's own policy code.
    Simulate(Simulate),
    /// Compares policies at the memory bill of the published FnPacker.
    Compare(Compare),
    /// Plays millions of requests on thousands of instances: time, events per second, memory.
    Scale(Scale),
    /// Verifies evidence of every TEE many times: one process, one core.
    Evidence(Evidence),
    /// Measures what FnPacker and the platform add to a request, on a system of its own.
    Router(Router),
    /// Plays workloads on the real system: real processes, encrypted requests, an open loop.
    Run(Run),
    /// Learns what things cost on the real system, for the simulator.
    Calibrate(Calibrate),
    /// Plays workloads on the real system and in the simulator, and compares the two.
    Agree(Agree),
}

fn main() -> anyhow::Result<()> {
    let text = match Cli::parse().command {
        Command::Simulate(command) => command.run()?,
        Command::Compare(command) => command.run()?,
        Command::Scale(command) => command.run()?,
        Command::Evidence(command) => command.run()?,
        Command::Router(command) => command.run()?,
        Command::Run(command) => command.run()?,
        Command::Calibrate(command) => command.run()?,
        Command::Agree(command) => command.run()?,
    };
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}
