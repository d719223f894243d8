//! Starts an instance: binds, learns who it is, serves until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use attestation::{Attester, VerifierSet};
use protocol::EnclaveId;
use protocol::id::InstanceId;
use service::{SharedClock, Shutdown};
use tokio::net::TcpListener;

use crate::activation_log::ActivationLog;
use crate::channel_sources::ChannelSources;
use crate::config::Config;
use crate::identity::{self, IdentityError};
use crate::lifecycle::Lifecycle;
use crate::serve::Identity;
use crate::server::Server;
use crate::sources::{OpenSources, OpenSourcesError};

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("listen on {addr}")]
    Listen {
        addr: SocketAddr,
        source: std::io::Error,
    },
    #[error("learn this enclave's identity")]
    Identity(#[from] IdentityError),
    #[error("use the configured addresses")]
    Sources(#[from] OpenSourcesError),
}

/// What an instance proves itself with, and what it checks KeyService with.
#[derive(Debug, Clone)]
pub struct Trust {
    pub attester: Arc<dyn Attester>,
    pub verifiers: VerifierSet,
}

/// Where an instance listens, and what the host calls it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Port 0 chooses a free one.
    pub listen: SocketAddr,
    pub instance: InstanceId,
}

/// An instance that listens.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    enclave: EnclaveId,
    grace: Duration,
    shutdown: Shutdown,
}

impl Running {
    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its E_S.
    #[must_use]
    pub const fn enclave(&self) -> EnclaveId {
        self.enclave
    }

    /// Waits for shutdown, and then until requests in flight are done. False if some were not done
    /// within the configured grace.
    pub async fn finished(self) -> bool {
        self.shutdown.token().cancelled().await;
        let done = self.shutdown.wait(self.grace).await;
        tracing::info!(done, "stopped");
        done
    }
}

/// Starts an instance whose keys come over the attested channel and whose artifacts come from the
/// configured store. Returns when it listens.
///
/// # Errors
/// [`StartError`] when the port is taken, the TEE gives no evidence, or an address is not one.
pub async fn run(
    config: Config,
    trust: Trust,
    place: Place,
    clock: SharedClock,
    shutdown: Shutdown,
) -> Result<Running, StartError> {
    hush_panics();
    let listener = bind(place.listen).await?;
    let known = identity::establish(&config, trust).await?;
    let identity = Identity {
        enclave: known.enclave,
        instance: place.instance,
    };
    let opener = Arc::new(ChannelSources::new(known, Arc::clone(&clock)));
    let log = ActivationLog::standard();
    start(config, identity, opener, listener, clock, shutdown, log)
}

/// SECURITY: what a panic says may quote the input that an engine stumbled over, and the host reads
/// stderr. So only its place is printed.
fn hush_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(place, "panicked; what it said is withheld");
    }));
}

/// Binds, and says so: from now on connections are accepted, if not yet answered.
pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = |source| StartError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    tracing::info!("semirt: listening on {bound}");
    Ok(listener)
}

/// Serves on a bound listener.
pub(crate) fn start(
    config: Config,
    identity: Identity,
    opener: Arc<dyn OpenSources>,
    listener: TcpListener,
    clock: SharedClock,
    shutdown: Shutdown,
    log: ActivationLog,
) -> Result<Running, StartError> {
    let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
    let addr = listener.local_addr().map_err(|source| StartError::Listen {
        addr: unbound,
        source,
    })?;
    let grace = config.host().grace;
    let enclave = identity.enclave;
    let lifecycle = Lifecycle::new(config, identity, opener, clock, shutdown.clone())?;
    let server = Arc::new(Server::new(lifecycle, log, shutdown.clone()));
    shutdown.tracker().spawn(server.accept(listener));
    Ok(Running {
        addr,
        enclave,
        grace,
        shutdown,
    })
}
