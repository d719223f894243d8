//! FnPacker: packs many models onto few functions and routes invocations; sees ciphertext only.
//!
//! [`run`] serves; [`packing`] decides, and can be driven in virtual time without the rest.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use service::{SharedClock, Shutdown};
use tokio::net::TcpListener;

mod answer;
pub mod config;
pub mod metrics;
pub mod packing;
pub mod platform;
mod pools;
pub mod record;
mod router;
mod server;
mod status;

pub use config::Config;
pub use protocol::invoke::TIMEOUT_HEADER;

use config::PlatformConfig;
use metrics::Metrics;
use platform::{ApiUrlError, AuthError, Knative, OpenWhisk, OpenWhiskAuth, Platform};
use record::{RecordError, Recorder};
use router::Router;

/// Why FnPacker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("start the platform's client")]
    Url(#[from] ApiUrlError),
    #[error("start the platform's client")]
    Auth(#[from] AuthError),
    #[error("start recording")]
    Record(#[from] RecordError),
    #[error("listen on {address}; is another process there?")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
}

/// An FnPacker that serves, until the [`Shutdown`] that it was given says stop.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; with port 0 in the configuration, the port that it got.
    pub addr: SocketAddr,
}

/// Starts FnPacker. It serves when this returns; the platform need not be there yet. All of its
/// tasks are tracked by `shutdown`.
pub async fn run(
    config: Config,
    clock: SharedClock,
    shutdown: &Shutdown,
) -> Result<Running, StartError> {
    let platform: Arc<dyn Platform> = match &config.platform {
        PlatformConfig::OpenWhisk(at) => {
            let auth = OpenWhiskAuth::read(&at.auth_file)?;
            Arc::new(OpenWhisk::new(&at.url, auth)?)
        }
        PlatformConfig::Knative(at) => Arc::new(Knative::new(at.clone())?),
    };
    let recorder = config.record.as_deref().map(Recorder::open).transpose()?;
    let listen = |source| StartError::Listen {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let router = Router::start(&config, platform, &clock, metrics, shutdown);
    let serve = server::serve(
        listener,
        router,
        recorder,
        registry,
        config.connections,
        shutdown.clone(),
    );
    shutdown.tracker().spawn(serve);
    tracing::info!(%addr, pools = config.pools.len(), "fnpacker listens");
    Ok(Running { addr })
}
