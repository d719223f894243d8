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
use crate::metrics::Metrics;

/// A peer that has not passed TLS and the gate after this long is turned away.
const GATE_TIMEOUT: Duration = Duration::from_secs(15);
/// TLS keys are made anew this often; docs promise at least daily.
const IDENTITY_TTL: Duration = Duration::from_secs(12 * 3600);
/// Pause after the listener failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why KeyService did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("encode the measured configuration")]
    Measured(#[source] attestation::cbor::CborError),
    #[error("ask the TEE for the sealing key")]
    SealingKey(#[source] CollectError),
    #[error("make a TLS identity")]
    Identity(#[source] RatlsError),
    #[error("find out the own enclave id")]
    OwnEnclave(#[source] OwnEnclaveError),
    #[error("the state cannot be served")]
    State(#[from] StartError),
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
    let (identity, sealing_key, enclave) = prepared?;

    let metrics = Metrics::default();
    let settings = Settings {
        lease_ttl_s: config.measured.lease_ttl_s,
        limits: config.limits,
        enclave,
    };
    let (keeper, handle) = Keeper::start(
        &config.state_dir,
        sealing_key,
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
    let relying = RelyingParty {
        verifiers: source.verifiers.clone(),
        policy: config.policy.clone(),
    };
    let acceptor = Acceptor::new(Arc::new(identity), Arc::new(relying.clone()), GATE_TIMEOUT)
        .map_err(RunError::Identity)?;
    let server = Server {
        listener,
        acceptor,
        source: Arc::new(source),
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

impl IdentitySource {
    fn identity(&self) -> Result<RatlsIdentity, RunError> {
        RatlsIdentity::generate(Arc::clone(&self.attester), self.measured.clone())
            .map_err(RunError::Identity)
    }

    fn prepare(&self) -> Result<(RatlsIdentity, crypto::SealingKey, EnclaveId), RunError> {
        let sealing_key = self.attester.sealing_key().map_err(RunError::SealingKey)?;
        let identity = self.identity()?;
        let enclave = own_enclave(self.attester.as_ref(), &self.verifiers, &self.measured)
            .map_err(RunError::OwnEnclave)?;
        Ok((identity, sealing_key, enclave))
    }
}

/// Accepts connections.
#[derive(Debug)]
struct Server {
    listener: TcpListener,
    acceptor: Acceptor,
    source: Arc<IdentitySource>,
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
                self.renew_identity().await;
                renew_at = self.clock.monotonic() + IDENTITY_TTL;
            }
            let connection = connection::Connection {
                acceptor: self.acceptor.clone(),
                handle: self.handle.clone(),
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

    async fn renew_identity(&mut self) {
        let source = Arc::clone(&self.source);
        let renewed = blocking(move || source.identity())
            .await
            .flatten()
            .and_then(|identity| {
                Acceptor::new(Arc::new(identity), Arc::clone(&self.relying), GATE_TIMEOUT)
                    .map_err(RunError::Identity)
            });
        match renewed {
            Ok(acceptor) => self.acceptor = acceptor,
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "the TLS identity is not renewed");
            }
        }
    }
}
