//! The whole system on this machine: KeyService, the platform and FnPacker as processes of their own,
//! on free loopback ports; SeMIRT processes are started by the platform.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use attestation::identity::enclave_id;
use attestation::measured::MeasuredConfig;
use attestation::{Allowed, AppraisalPolicy, Tee, Verifier, VerifierSet};
use protocol::EnclaveId;
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};
use protocol::package::EngineName;
use service::Shutdown;

use crate::processes::Part;
use crate::simulated_tee::SimulatedHardware;
use crate::state::StateFolder;
use crate::tap;

/// Image and pool of the SeMIRT build that owners and users allow.
pub const GENUINE: &str = "semirt";
/// Image and pool of another build: the same program with one byte more, and so another measurement.
pub const ALTERED: &str = "semirt-altered";

/// What may differ between two systems.
#[derive(Debug, Clone)]
pub struct Options {
    /// The executable that plays every role: `sesemi-dev`.
    pub exe: PathBuf,
    /// Longest lease that KeyService gives, in seconds.
    pub lease_ttl_s: u32,
    /// Requests that one instance serves at once.
    pub concurrency: u16,
    /// Functions that FnPacker may pack models onto.
    pub endpoints: u32,
    pub packing: Packing,
    /// Ports for KeyService, platform and FnPacker; 0 takes a free one.
    pub ports: [u16; 3],
    /// Keep a record of everything that crosses the host.
    pub record: bool,
}

impl Options {
    #[must_use]
    pub fn new(exe: PathBuf) -> Self {
        Self {
            exe,
            lease_ttl_s: 300,
            concurrency: 4,
            endpoints: 1,
            packing: Packing::default(),
            ports: [0; 3],
            record: false,
        }
    }
}

/// How models are packed, and into how much memory.
#[derive(Debug, Clone, clap::Args)]
pub struct Packing {
    /// How FnPacker packs models onto functions.
    #[arg(long, default_value = "published")]
    pub policy: String,
    /// Models that FnPacker believes to fit into one instance.
    #[arg(long, default_value_t = 4)]
    pub models_per_instance: usize,
    /// Memory for loaded models in one instance, in MiB (part of E_S).
    #[arg(long, default_value_t = 512)]
    pub model_memory_mb: u64,
    /// Memory limit of one instance, in MiB.
    #[arg(long, default_value_t = 512)]
    pub instance_memory_mb: u64,
    /// Memory of all instances together, in MiB.
    #[arg(long, default_value_t = 4096)]
    pub platform_memory_mb: u64,
    /// How long an instance may idle, in milliseconds.
    #[arg(long, default_value_t = 600_000)]
    pub keep_alive_ms: u64,
    /// Requests that may wait in FnPacker, of one user too.
    #[arg(long, default_value_t = 256)]
    pub queue: usize,
    /// Seconds of waiting that a GB-second of memory is worth; default: FnPacker's own.
    #[arg(long)]
    pub memory_price: Option<f64>,
}

impl Default for Packing {
    fn default() -> Self {
        Self {
            policy: "published".into(),
            models_per_instance: 4,
            model_memory_mb: 512,
            instance_memory_mb: 512,
            platform_memory_mb: 4096,
            keep_alive_ms: 600_000,
            queue: 256,
            memory_price: None,
        }
    }
}

/// A running system.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    state: StateFolder,
    keyservice: Part,
    platform: Part,
    fnpacker: Part,
    /// Where clients and instances reach KeyService: itself, or the recorder before it.
    keyservice_addr: SocketAddr,
    identities: Identities,
    hardware: SimulatedHardware,
    shutdown: Shutdown,
}

/// Who is who in this system.
#[derive(Debug, Clone, Copy)]
pub struct Identities {
    /// E_K.
    pub keyservice: EnclaveId,
    /// E_S of the build that is to be allowed.
    pub semirt: EnclaveId,
    /// E_S of the other build.
    pub altered: EnclaveId,
}

impl Cluster {
    /// Starts every part and waits until each listens.
    pub async fn start(
        options: Options,
        state: StateFolder,
        say: impl Fn(&str),
    ) -> anyhow::Result<Self> {
        let hardware = SimulatedHardware::open(&state.hardware())
            .context("make the simulated hardware's root key")?;
        let altered = state.root().join("semirt-altered");
        alter(&options.exe, &altered).context("make the altered build")?;

        let ks_measured = KeyserviceMeasured {
            lease_ttl_s: options.lease_ttl_s,
        };
        let of_instances = AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::Any);
        let ks_config = MeasuredConfig::keyservice(&ks_measured, &of_instances)?.hash();
        let e_k = enclave_id(&hardware.measure(&options.exe)?, &ks_config);
        let measured = SemirtMeasured {
            isolation: Isolation::Shared,
            concurrency: options.concurrency,
            key_ttl_s: options.lease_ttl_s,
            model_memory: options.packing.model_memory_mb << 20,
            engines: vec![EngineName::Rten, EngineName::Conv],
            keyservice: e_k,
        };
        let host = semirt::config::HostSettings::default();
        let of_keyservice = semirt::Config::new(measured.clone(), host)?.policy();
        let config = MeasuredConfig::semirt(&measured, &of_keyservice)?.hash();
        let identities = Identities {
            keyservice: e_k,
            semirt: enclave_id(&hardware.measure(&options.exe)?, &config),
            altered: enclave_id(&hardware.measure(&altered)?, &config),
        };
        write_semirt_config(&state, &measured)?;

        say("KeyService");
        let keyservice = start_keyservice(&options, &state, options.ports[0]).await?;
        let shutdown = Shutdown::new();
        let keyservice_addr = if options.record {
            let folder = state.record().join("keyservice-channel");
            tap::start("channel", keyservice.addr(), folder, &shutdown).await?
        } else {
            keyservice.addr()
        };
        say("platform");
        write_platform_config(&options, &state, &altered)?;
        let platform = start_role(&options, &state, "platform").await?;
        say("FnPacker");
        write_fnpacker_config(
            &options,
            &state,
            platform.addr(),
            keyservice_addr,
            &identities,
        )?;
        let fnpacker = start_role(&options, &state, "fnpacker").await?;
        Ok(Self {
            options,
            state,
            keyservice,
            platform,
            fnpacker,
            keyservice_addr,
            identities,
            hardware,
            shutdown,
        })
    }

    #[must_use]
    pub const fn state(&self) -> &StateFolder {
        &self.state
    }

    #[must_use]
    pub const fn identities(&self) -> &Identities {
        &self.identities
    }

    /// `host:port` of KeyService.
    #[must_use]
    pub fn keyservice(&self) -> String {
        self.keyservice_addr.to_string()
    }

    #[must_use]
    pub fn fnpacker_url(&self) -> String {
        format!("http://{}", self.fnpacker.addr())
    }

    #[must_use]
    pub fn platform_url(&self) -> String {
        format!("http://{}", self.platform.addr())
    }

    #[must_use]
    pub fn store_url(&self) -> String {
        format!("file://{}", self.state.store().display())
    }

    /// The simulated vendor's public key.
    #[must_use]
    pub fn root_file(&self) -> PathBuf {
        self.hardware.root_file()
    }

    /// What clients of this system verify evidence with: the simulated vendor's public key only.
    #[must_use]
    pub fn verifiers(&self) -> VerifierSet {
        let verifier: Arc<dyn Verifier> = Arc::new(self.hardware.verifier());
        VerifierSet::new(vec![verifier])
    }

    /// Accepts KeyServices with one of these ids, on the simulated TEE.
    #[must_use]
    pub fn policy(enclaves: Vec<EnclaveId>) -> AppraisalPolicy {
        AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::These(enclaves))
    }

    /// Kills KeyService without warning and starts it again on the same port and state.
    pub async fn crash_keyservice(&mut self) -> anyhow::Result<()> {
        let port = self.keyservice.addr().port();
        self.keyservice.kill().await;
        self.keyservice = start_keyservice(&self.options, &self.state, port).await?;
        Ok(())
    }

    /// Kills KeyService without warning and leaves it dead.
    pub async fn kill_keyservice(&mut self) {
        self.keyservice.kill().await;
    }

    /// Starts KeyService again after [`Self::kill_keyservice`].
    pub async fn restart_keyservice(&mut self) -> anyhow::Result<()> {
        let port = self.keyservice.addr().port();
        self.keyservice = start_keyservice(&self.options, &self.state, port).await?;
        Ok(())
    }

    /// Waits until some part ends by itself; says which one, and where its log is.
    pub async fn broken(&mut self) -> String {
        let ended = tokio::select! {
            ended = self.keyservice.ended() => ended,
            ended = self.platform.ended() => ended,
            ended = self.fnpacker.ended() => ended,
        };
        format!("{ended}; the logs are in {}", self.state.logs().display())
    }

    /// Stops every part, the youngest first.
    pub async fn stop(self) {
        self.fnpacker.stop().await;
        self.platform.stop().await;
        self.keyservice.stop().await;
        self.shutdown.cancel();
        self.shutdown.wait(std::time::Duration::from_secs(2)).await;
    }
}

/// Copies `exe` and appends one byte: it runs the same, and measures otherwise.
fn alter(exe: &Path, to: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    std::fs::copy(exe, to)?;
    std::fs::OpenOptions::new()
        .append(true)
        .open(to)?
        .write_all(b"\0")
}

async fn start_keyservice(
    options: &Options,
    state: &StateFolder,
    port: u16,
) -> anyhow::Result<Part> {
    let folder = state.root().join("keyservice");
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\nstate_dir = {folder:?}\n\n[measured]\nlease_ttl_s = {}\n\n\
         [policy]\nversion = 1\naccepted = [\"simulated\"]\nenclaves = \"any\"\n",
        options.lease_ttl_s
    );
    std::fs::write(state.config().join("keyservice.toml"), text)?;
    start_role(options, state, "keyservice").await
}

async fn start_role(options: &Options, state: &StateFolder, role: &str) -> anyhow::Result<Part> {
    let config = state.config().join(format!("{role}.toml"));
    let (config, hardware) = (
        config.display().to_string(),
        state.hardware().display().to_string(),
    );
    let args = ["role", role, "--config", &config, "--hardware", &hardware];
    Ok(Part::start(role, &options.exe, &args, &state.logs()).await?)
}

fn write_semirt_config(state: &StateFolder, measured: &SemirtMeasured) -> anyhow::Result<()> {
    #[derive(serde::Serialize)]
    struct File<'a> {
        measured: &'a SemirtMeasured,
    }
    let text = toml::to_string(&File { measured })?;
    Ok(std::fs::write(state.config().join("semirt.toml"), text)?)
}

fn write_platform_config(
    options: &Options,
    state: &StateFolder,
    altered: &Path,
) -> anyhow::Result<()> {
    let mut text = format!(
        "listen = \"127.0.0.1:{}\"\nstate_dir = {:?}\nmemory = \"{}MiB\"\nidle_timeout = \"{}ms\"\n",
        options.ports[1],
        state.root().join("platform"),
        options.packing.platform_memory_mb,
        options.packing.keep_alive_ms,
    );
    if options.record {
        writeln!(text, "record = {:?}", state.record().join("platform"))?;
    }
    writeln!(
        text,
        "\n[namespaces]\nguest = {:?}",
        state.root().join("platform.auth")
    )?;
    let (config, hardware) = (state.config().join("semirt.toml"), state.hardware());
    for (image, exe) in [(GENUINE, options.exe.as_path()), (ALTERED, altered)] {
        writeln!(
            text,
            "\n[images.\"sesemi/{image}\"]\ncommand = [{exe:?}, \"role\", \"semirt\", \"--config\", \
             {config:?}, \"--hardware\", {hardware:?}]\nkeep_alive = true\nsentinel = true"
        )?;
    }
    Ok(std::fs::write(state.config().join("platform.toml"), text)?)
}

fn write_fnpacker_config(
    options: &Options,
    state: &StateFolder,
    platform: SocketAddr,
    keyservice: SocketAddr,
    identities: &Identities,
) -> anyhow::Result<()> {
    let mut text = format!("listen = \"127.0.0.1:{}\"\n", options.ports[2]);
    if options.record {
        writeln!(text, "record = {:?}", state.record().join("fnpacker"))?;
    }
    writeln!(
        text,
        "\n[platform]\nurl = \"http://{platform}\"\nauth_file = {:?}",
        state.root().join("platform.auth")
    )?;
    let packing = &options.packing;
    let queue = packing.queue;
    let pools = [
        (GENUINE, identities.semirt, options.endpoints),
        (ALTERED, identities.altered, 1),
    ];
    let price = packing.memory_price;
    let price = price.map_or_else(String::new, |price| format!("memory_price = {price:?}\n"));
    for (image, enclave, endpoints) in pools {
        writeln!(
            text,
            "\n[[pool]]\nname = \"{image}\"\nenclave = \"{enclave}\"\nimage = \"sesemi/{image}\"\n\
             memory = \"{}MiB\"\nconcurrency = {}\nendpoints = {endpoints}\ntimeout = \"60s\"\n\
             policy = \"{}\"\nmodels_per_instance = {}\nkeep_alive = \"{}ms\"\nqueue = {queue}\n\
             queue_per_user = {queue}\n{price}\n[pool.init]\nSESEMI_KEYSERVICE = \"{keyservice}\"\n\
             SESEMI_STORE = \"file://{}\"",
            packing.instance_memory_mb,
            options.concurrency,
            packing.policy,
            packing.models_per_instance,
            packing.keep_alive_ms,
            state.store().display(),
        )?;
    }
    Ok(std::fs::write(state.config().join("fnpacker.toml"), text)?)
}
