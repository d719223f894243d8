//! The embedded platform as a process: reads its configuration, serves, stops on a signal.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use service::{ErrorChain, Shutdown, SystemClock, init_logging, load_config};

/// The embedded serverless platform: OpenWhisk's REST API over local processes.
#[derive(Debug, Parser)]
#[command(name = "sesemi-platform", version)]
struct Flags {
    /// The configuration file (TOML); see config/platform.toml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Listen here instead of where the configuration says; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// What to log, for example "info" or "info,platform=debug".
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    init_logging(&flags.log, flags.log_json);
    match serve(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", ErrorChain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let mut config: platform::Config = load_config(&flags.config)?;
    if let Some(listen) = flags.listen {
        config.listen = listen;
    }
    let grace = config.grace + Duration::from_secs(5);
    let shutdown = Shutdown::new();
    let running = platform::run(config, Arc::new(SystemClock::default()), shutdown.clone()).await?;
    writeln!(std::io::stdout(), "listening on http://{}", running.addr)?;
    shutdown.on_signals().await?;
    if !shutdown.wait(grace).await {
        tracing::warn!("not everything ended in time");
    }
    Ok(())
}
