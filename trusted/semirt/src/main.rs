//! The production SeMIRT: finds the TEE that it runs in, and refuses to run without one.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use attestation::tee::real_verifiers;
use clap::Parser as _;
use endorsements::Endorsing;
use endorsements::fetch::OriginError;
use protocol::id::{InstanceId, ParseIdError};
use semirt::args::ArgsError;
use semirt::{Args, Config, Place, StartError, Trust};
use service::{ErrorChain, SharedClock, Shutdown, SystemClock};

/// Why an instance is not running.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("read the configuration")]
    Config(#[from] ArgsError),
    #[error("to try SeSeMI without a TEE, use `sesemi-dev`")]
    NoTee(#[from] attesters::DetectError),
    #[error("use [endorsements] of the configuration")]
    Endorsements(#[from] OriginError),
    #[error("start")]
    Start(#[from] StartError),
    #[error("use the operating system")]
    System(#[from] io::Error),
    #[error("name this instance")]
    Instance(#[from] ParseIdError),
    #[error("requests were still running when the grace period ended")]
    Unfinished,
}

impl Stopped {
    const fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Endorsements(_) => 1,
            Self::Start(_) | Self::System(_) | Self::Instance(_) | Self::Unfinished => 2,
            Self::NoTee(_) => 3,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = service::forbid_core_dumps() {
        writeln!(io::stderr(), "semirt: cannot forbid core dumps: {error}").ok();
    }
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stopped) => {
            // When stderr is closed there is nobody to tell; the exit code still does.
            writeln!(io::stderr(), "semirt: {}", ErrorChain(&stopped)).ok();
            ExitCode::from(stopped.code())
        }
    }
}

fn serve(args: &Args) -> Result<(), Stopped> {
    let config = args.configuration()?;
    // SECURITY: there is no fallback. Outside of a TEE this process would only pretend.
    let attester = attesters::detect()?;
    service::init_logging(&args.log, false);
    let clock: SharedClock = Arc::new(SystemClock::default());
    let runtime = tokio::runtime::Runtime::new()?;
    let provider = config.endorsements().open(&clock)?;
    let attester = Endorsing::new(attester, provider, runtime.handle().clone());
    let trust = Trust {
        attester: Arc::new(attester),
        verifiers: real_verifiers(),
    };
    runtime.block_on(run(config, trust, args.port, clock))
}

async fn run(config: Config, trust: Trust, port: u16, clock: SharedClock) -> Result<(), Stopped> {
    // Unauthenticated, for routing only; unique among the sandboxes of one start is enough.
    let instance: InstanceId =
        format!("semirt-{}-{}", clock.now().as_millis(), std::process::id()).parse()?;
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let shutdown = Shutdown::new();
    let place = Place { listen, instance };
    let running = semirt::run(config, trust, place, clock, shutdown.clone()).await?;
    shutdown.on_signals().await?;
    if running.finished().await {
        Ok(())
    } else {
        Err(Stopped::Unfinished)
    }
}
