//! The production KeyService: one configuration file, and the TEE it runs in.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use attestation::Attester;
use attestation::tee::real_verifiers;
use clap::Parser;
use endorsements::Endorsing;
use endorsements::fetch::OriginError;
use keyservice::{Config, RunError};
use service::{ConfigError, ErrorChain, SharedClock, Shutdown, SystemClock};

/// The attested key broker: releases model and request keys only to attested instances that owner
/// and user allowed.
///
/// Exit codes: 0 stopped in order, 1 wrong usage or configuration, 2 stopped by a failure, 3 no TEE.
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

/// Why KeyService is not running.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("load the configuration")]
    Config(#[from] ConfigError),
    #[error("keyservice runs only where it can attest itself; for development use sesemi-dev")]
    NoTee(#[from] attesters::DetectError),
    #[error("use [endorsements] of the configuration")]
    Endorsements(#[from] OriginError),
    #[error("start keyservice")]
    Run(#[from] RunError),
    #[error("use the operating system")]
    System(#[from] std::io::Error),
}

impl Stopped {
    const fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Endorsements(_) => 1,
            Self::Run(_) | Self::System(_) => 2,
            Self::NoTee(_) => 3,
        }
    }
}

/// How long a stop waits for calls under way.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    service::init_logging(&arguments.log, arguments.log_json);
    if let Err(error) = service::forbid_core_dumps() {
        tracing::warn!(%error, "cannot forbid core dumps: a crash may leave keys on a disk");
    }
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stopped) => {
            tracing::error!(error = %ErrorChain(&stopped), "keyservice does not run");
            ExitCode::from(stopped.code())
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), Stopped> {
    let config: Config = service::load_config(&arguments.config)?;
    // SECURITY: this binary has no simulated TEE to fall back to.
    let attester = attesters::detect()?;
    tracing::info!(tee = %attester.tee(), "found the TEE that this process runs in");
    let clock: SharedClock = Arc::new(SystemClock::default());
    let runtime = tokio::runtime::Runtime::new()?;
    let provider = config.endorsements.open(&clock)?;
    let attester: Arc<dyn Attester> =
        Arc::new(Endorsing::new(attester, provider, runtime.handle().clone()));
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        keyservice::run(&config, attester, real_verifiers(), clock, &shutdown).await?;
        shutdown.on_signals().await?;
        shutdown.wait(GRACE).await;
        Ok(())
    })
}
