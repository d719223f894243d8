//! The FnPacker process: reads its file, serves until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use service::{Shutdown, SystemClock};

/// How long requests under way may take to end after a signal.
const GRACE: Duration = Duration::from_secs(30);

/// Packs many models onto few functions and routes sealed requests to them. It sees ciphertext
/// only and needs no key.
#[derive(Debug, Parser)]
#[command(name = "sesemi-fnpacker", version)]
struct Args {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "config/fnpacker.toml")]
    config: PathBuf,
    /// What to log, for example `info,fnpacker=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Log as JSON.
    #[arg(long)]
    log_json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    service::init_logging(&args.log, args.log_json);
    match serve(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With its causes, in one line.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let config: fnpacker::Config =
        service::load_config(&args.config).context("cannot start FnPacker")?;
    let shutdown = Shutdown::new();
    fnpacker::run(config, Arc::new(SystemClock::default()), &shutdown)
        .await
        .context("cannot start FnPacker")?;
    shutdown
        .on_signals()
        .await
        .context("cannot wait for signals")?;
    if !shutdown.wait(GRACE).await {
        tracing::warn!("stopped with requests under way");
    }
    Ok(())
}
