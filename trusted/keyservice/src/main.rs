//! The production KeyService: one configuration file, and the TEE it runs in.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use keyservice::Config;
use service::ErrorChain;

/// The attested key broker: releases model and request keys only to attested instances that owner
/// and user allowed.
///
/// Exit codes: 0 stopped in order, 1 wrong usage or configuration, 3 no TEE.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML); config/keyservice.toml documents every setting.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log, as in `info,keyservice=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Log in JSON, one object per line.
    #[arg(long)]
    log_json: bool,
}

/// No TEE in which to run.
const NO_TEE: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    service::init_logging(&arguments.log, arguments.log_json);
    if let Err(error) = service::load_config::<Config>(&arguments.config) {
        tracing::error!(error = %ErrorChain(&error), "keyservice does not start");
        return ExitCode::FAILURE;
    }
    // SECURITY: this binary has no simulated TEE to fall back to. It links no attester yet, so on
    // every machine the answer is the same.
    tracing::error!(
        "no trusted execution environment was found: keyservice runs only where it can attest \
         itself and seal its state; for development use sesemi-dev"
    );
    ExitCode::from(NO_TEE)
}
