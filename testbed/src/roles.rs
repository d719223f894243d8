//! One part of the system as a process of its own: the part's library, on the simulated TEE.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use attestation::{Attester, Verifier, VerifierSet};
use clap::{Args, Subcommand};
use protocol::id::InstanceId;
use service::{SharedClock, Shutdown, SystemClock};

use crate::processes::{die_with_parent, say_ready};
use crate::simulated_tee::SimulatedHardware;

/// How long a stopping part waits for what it is doing.
const GRACE: Duration = Duration::from_secs(4);

/// What every part is started with.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// Configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Folder of the simulated hardware.
    #[arg(long)]
    hardware: PathBuf,
}

/// The parts.
#[derive(Debug, Subcommand)]
pub enum Role {
    Keyservice(RoleArgs),
    Platform(RoleArgs),
    Fnpacker(RoleArgs),
    Semirt {
        #[command(flatten)]
        semirt: semirt::Args,
        /// Folder of the simulated hardware.
        #[arg(long)]
        hardware: PathBuf,
    },
}

/// Runs one part until it is told to stop.
pub fn run(role: Role) -> anyhow::Result<ExitCode> {
    die_with_parent().context("ask to be killed with the parent")?;
    service::forbid_core_dumps().context("forbid core dumps")?;
    let clock: SharedClock = Arc::new(SystemClock::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        match role {
            Role::Semirt { semirt, hardware } => return semirt_role(semirt, hardware, clock).await,
            Role::Keyservice(args) => keyservice_role(args, clock, &shutdown).await,
            Role::Platform(args) => platform_role(args, clock, &shutdown).await,
            Role::Fnpacker(args) => fnpacker_role(args, clock, &shutdown).await,
        }
        .map(say_ready)?;
        shutdown.on_signals().await?;
        shutdown.wait(GRACE).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// This process's TEE, and what it verifies others with.
fn trust(hardware: &std::path::Path) -> anyhow::Result<(Arc<dyn Attester>, VerifierSet)> {
    let hardware = SimulatedHardware::open(hardware).context("open the simulated hardware")?;
    let verifier: Arc<dyn Verifier> = Arc::new(hardware.verifier());
    Ok((
        Arc::new(hardware.attester()?),
        VerifierSet::new(vec![verifier]),
    ))
}

async fn keyservice_role(
    args: RoleArgs,
    clock: SharedClock,
    shutdown: &Shutdown,
) -> anyhow::Result<SocketAddr> {
    service::init_logging("info", false);
    let config: keyservice::Config = service::load_config(&args.config)?;
    let (attester, verifiers) = trust(&args.hardware)?;
    let running = keyservice::run(&config, attester, verifiers, clock, shutdown).await?;
    Ok(running.addr)
}

async fn platform_role(
    args: RoleArgs,
    clock: SharedClock,
    shutdown: &Shutdown,
) -> anyhow::Result<SocketAddr> {
    service::init_logging("info", false);
    let config: platform::Config = service::load_config(&args.config)?;
    Ok(platform::run(config, clock, shutdown.clone()).await?.addr)
}

async fn fnpacker_role(
    args: RoleArgs,
    clock: SharedClock,
    shutdown: &Shutdown,
) -> anyhow::Result<SocketAddr> {
    service::init_logging("info", false);
    let config: fnpacker::Config = service::load_config(&args.config)?;
    Ok(fnpacker::run(config, clock, shutdown).await?.addr)
}

async fn semirt_role(
    args: semirt::Args,
    hardware: PathBuf,
    clock: SharedClock,
) -> anyhow::Result<ExitCode> {
    service::init_logging(&args.log, false);
    let (attester, verifiers) = trust(&hardware)?;
    let instance: InstanceId = format!("semirt-{}", std::process::id()).parse()?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let shutdown = Shutdown::new();
    let running = semirt::run(
        args.configuration()?,
        semirt::Trust {
            attester,
            verifiers,
        },
        semirt::Place { listen, instance },
        clock,
        shutdown.clone(),
    )
    .await?;
    shutdown.on_signals().await?;
    Ok(if running.finished().await {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
