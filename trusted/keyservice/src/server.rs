//! The process: attested connections in, HTTP/1.1 on them, error codes out.

mod answers;
mod connection;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use attestation::measured::MeasuredConfig;
use attestation::{
    Attester, CollectError, OwnEnclaveError, RatlsError, RatlsIdentity, RelyingParty, VerifierSet,
    own_enclave,
};
use protocol::EnclaveId;
use service::{ErrorChain, SharedClock, Shutdown};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use transport::Acceptor;

use crate::config::Config;
use crate::keeper::{Keeper, KeeperHandle, Settings, StartError};
use crate::memory::{Memory, MemoryError};
use crate::metrics::Metrics;

/// A peer that has not passed TLS and the gate after this long is turned away.
const GATE_TIMEOUT: Duration = Duration::from_secs(15);
/// TLS keys are made anew this often. The evidence in the certificate must stay genuine for as
/// long: Nitro's is for three hours at most.
const IDENTITY_TTL: Duration = Duration::from_secs(3600);
/// When that did not work, as it does not while endorsements cannot be had.
const RENEW_AGAIN: Duration = Duration::from_secs(10 * 60);
/// Pause after the listener failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why KeyService did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("encode the measured configuration")]
    Measured(#[source] attestation::cbor::CborError),
    #[error("ask the TEE for the sealing key")]
    SealingKey(#[source] CollectError),
    #[error("bind the sealing key to the measured configuration")]
    Bind(#[source] crypto::secret::BindError),
    #[error("make a TLS identity")]
    Identity(#[source] RatlsError),
    #[error("find out the own enclave id")]
    OwnEnclave(#[source] OwnEnclaveError),
    #[error("the state cannot be served")]
    State(#[from] StartError),
    #[error("remember the newest endorsements")]
    Memory(#[from] MemoryError),
    #[error("listen on {addr}")]
    Listen {
        addr: SocketAddr,
        source: std::io::Error,
    },
    #[error("a task that talks to the TEE was stopped")]
    Stopped,
}

/// A KeyService that listens. It ends with the [`Shutdown`] it was started with.
#[derive(Debug, Clone)]
pub struct Running {
    /// Where it listens; the port is the one given by the system if port 0 was configured.
    pub addr: SocketAddr,
    /// E_K.
    pub enclave: EnclaveId,
    /// For whoever exports metrics.
    pub metrics: Metrics,
}

/// Opens the vault, listens, and returns; connections are served on `shutdown`'s tracker until it
/// is cancelled.
pub async fn run(
    config: &Config,
    attester: Arc<dyn Attester>,
    verifiers: VerifierSet,
    clock: SharedClock,
    shutdown: &Shutdown,
) -> Result<Running, RunError> {
    let measured =
        MeasuredConfig::keyservice(&config.measured, &config.policy).map_err(RunError::Measured)?;
    let source = IdentitySource {
        attester,
        measured,
        verifiers,
    };
    let (source, prepared) = blocking(move || {
        let prepared = source.prepare();
        (source, prepared)
    })
    .await?;
    let Prepared {
        identity,
        for_vault,
        for_memory,
        enclave,
    } = prepared?;

    let metrics = Metrics::default();
    let settings = Settings {
        lease_ttl_s: config.measured.lease_ttl_s,
        limits: config.limits,
        enclave,
    };
    let (keeper, handle) = Keeper::start(
        &config.state_dir,
        for_vault,
        settings,
        Arc::clone(&clock),
        metrics.clone(),
    )
    .await?;
    let listen = |source| RunError::Listen {
        addr: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    let folder = config.state_dir.clone();
    let memory = blocking(move || Memory::open(&folder, for_memory)).await??;
    let relying = RelyingParty {
        verifiers: source.verifiers.clone().remembering(memory.newest()),
        policy: config.policy.clone(),
    };
    let acceptor = Acceptor::new(Arc::new(identity), Arc::new(relying.clone()), GATE_TIMEOUT)
        .map_err(RunError::Identity)?;
    let server = Server {
        listener,
        acceptor,
        source: Arc::new(source),
        memory: Arc::new(memory),
        relying: Arc::new(relying),
        slots: Arc::new(Semaphore::new(
            config.connections.min(Semaphore::MAX_PERMITS),
        )),
        handle,
        metrics: metrics.clone(),
        clock,
        shutdown: shutdown.clone(),
    };
    shutdown.tracker().spawn(keeper.run());
    shutdown.tracker().spawn(server.accept_all());
    tracing::info!(%addr, enclave = %enclave, "keyservice listens");
    Ok(Running {
        addr,
        enclave,
        metrics,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RunError> {
    spawn_blocking(work).await.map_err(|_| RunError::Stopped)
}

/// What a TLS identity is made from.
#[derive(Debug)]
struct IdentitySource {
    attester: Arc<dyn Attester>,
    measured: MeasuredConfig,
    verifiers: VerifierSet,
}

/// What the TEE gave at the start. One key for each holder: keys cannot be copied.
struct Prepared {
    identity: RatlsIdentity,
    for_vault: crypto::SealingKey,
    for_memory: crypto::SealingKey,
    enclave: EnclaveId,
}

impl IdentitySource {
    fn identity(&self) -> Result<RatlsIdentity, RunError> {
        RatlsIdentity::generate(Arc::clone(&self.attester), self.measured.clone())
            .map_err(RunError::Identity)
    }

    fn prepare(&self) -> Result<Prepared, RunError> {
        // SECURITY: bound to what is measured beside the code. The host writes the configuration
        // file: with a weaker policy in it, this is another KeyService, and the state is not its.
        let measured = self.measured.hash();
        let sealing_key = || {
            let key = self.attester.sealing_key().map_err(RunError::SealingKey)?;
            key.bound_to(measured.as_bytes()).map_err(RunError::Bind)
        };
        let (for_vault, for_memory) = (sealing_key()?, sealing_key()?);
        let identity = self.identity()?;
        let enclave = own_enclave(self.attester.as_ref(), &self.verifiers, &self.measured)
            .map_err(RunError::OwnEnclave)?;
        Ok(Prepared {
            identity,
            for_vault,
            for_memory,
            enclave,
        })
    }
}

/// Accepts connections.
#[derive(Debug)]
struct Server {
    listener: TcpListener,
    acceptor: Acceptor,
    source: Arc<IdentitySource>,
    memory: Arc<Memory>,
    relying: Arc<RelyingParty>,
    slots: Arc<Semaphore>,
    handle: KeeperHandle,
    metrics: Metrics,
    clock: SharedClock,
    shutdown: Shutdown,
}

impl Server {
    async fn accept_all(mut self) {
        let token = self.shutdown.token();
        let stopped = token.clone();
        if stopped
            .run_until_cancelled(self.accept_until_failure())
            .await
            .is_none()
        {
            tracing::info!("keyservice stops listening");
        }
    }

    async fn accept_until_failure(&mut self) {
        let mut renew_at = self.clock.monotonic() + IDENTITY_TTL;
        loop {
            // A slot first: whoever comes when all are taken waits in the kernel's queue.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return;
            };
            let tcp = match self.listener.accept().await {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.clock.monotonic() >= renew_at {
                let renewed = self.renew_identity().await;
                let next = if renewed { IDENTITY_TTL } else { RENEW_AGAIN };
                renew_at = self.clock.monotonic() + next;
            }
            let connection = connection::Connection {
                acceptor: self.acceptor.clone(),
                handle: self.handle.clone(),
                relying: Arc::clone(&self.relying),
                memory: Arc::clone(&self.memory),
                metrics: self.metrics.clone(),
                now: self.clock.now(),
                token: self.shutdown.token(),
            };
            self.shutdown.tracker().spawn(async move {
                connection.serve(tcp).await;
                drop(slot);
            });
        }
    }

    /// Whether it worked; if not, the identity from before goes on.
    async fn renew_identity(&mut self) -> bool {
        let source = Arc::clone(&self.source);
        let renewed = blocking(move || source.identity())
            .await
            .flatten()
            .and_then(|identity| {
                Acceptor::new(Arc::new(identity), Arc::clone(&self.relying), GATE_TIMEOUT)
                    .map_err(RunError::Identity)
            });
        match renewed {
            Ok(acceptor) => {
                self.acceptor = acceptor;
                true
            }
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "the TLS identity is not renewed");
                false
            }
        }
    }
}
