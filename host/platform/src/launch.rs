//! Puts the parts together, serves until told to stop, and leaves no process behind.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use service::{SharedClock, Shutdown};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::activations::Activations;
use crate::config::{CheckError, Config};
use crate::functions::{Functions, LoadError};
use crate::gateway::{Gateway, Tenant, serve};
use crate::ids;
use crate::invocation::Invoker;
use crate::logs::LogCollector;
use crate::metrics::Metrics;
use crate::output::InstanceOutput;
use crate::pool::{LogFactory, Pool, PoolParts};
use crate::record::Recorder;
use crate::sandbox::cgroup::{CgroupError, Cgroups};
use crate::sandbox::process::ProcessFactory;
use crate::scheduler::Bounds;
use crate::throttle::{Allowance, Throttle};

/// The platform did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("check the configuration")]
    Config(#[from] CheckError),
    #[error("listen on {address}")]
    Listen {
        address: String,
        source: std::io::Error,
    },
    #[error("read or make the key file {}", path.display())]
    KeyFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the key file {} holds no uuid:secret", path.display())]
    KeyForm { path: PathBuf },
    #[error("make a fresh key")]
    Random(#[from] ids::RandomError),
    #[error("open the stored actions")]
    Functions(#[from] LoadError),
    #[error("open the folder for what passes")]
    Record(#[source] std::io::Error),
    #[error("use the cgroup folder")]
    Cgroup(#[from] CgroupError),
    #[error("start the thread that starts sandboxes")]
    Spawner(#[source] std::io::Error),
}

/// A platform that serves. It stops when its [`Shutdown`] says so; wait for that one's tracker.
#[derive(Debug)]
pub struct Running {
    /// Where it listens, with the port that it got.
    pub addr: SocketAddr,
}

/// Starts the platform and returns when it accepts calls.
pub async fn run(
    config: Config,
    clock: SharedClock,
    shutdown: Shutdown,
) -> Result<Running, RunError> {
    let config = config.checked()?;
    let fail = |source| RunError::Listen {
        address: config.listen.clone(),
        source,
    };
    let listener = TcpListener::bind(&config.listen).await.map_err(fail)?;
    let addr = listener.local_addr().map_err(fail)?;
    let (grace, connections) = (config.grace, config.connections);
    // Sandboxes are watched until they have ended, which is after the calls have.
    let (calls, watchers) = (TaskTracker::new(), TaskTracker::new());
    let gateway = assemble(config, addr, clock, calls.clone(), watchers.clone())?;
    let pool = gateway.pool.clone();
    let stop = shutdown.token();
    shutdown.tracker().spawn(async move {
        tokio::join!(
            serve(gateway, listener, connections, stop.clone()),
            pool.clone().expire(stop)
        );
        calls.close();
        if tokio::time::timeout(grace, calls.wait()).await.is_err() {
            tracing::info!("invocations still run, ending them");
        }
        pool.stop().await;
        calls.wait().await;
        watchers.close();
        watchers.wait().await;
    });
    tracing::info!(%addr, "platform listens");
    Ok(Running { addr })
}

/// Makes every part and hands each what it needs of the others.
fn assemble(
    config: Config,
    addr: SocketAddr,
    clock: SharedClock,
    calls: TaskTracker,
    watchers: TaskTracker,
) -> Result<Arc<Gateway>, RunError> {
    let mut tenants = Vec::new();
    for (namespace, path) in &config.namespaces {
        let key = read_or_make_key(path)?;
        tenants.push(Tenant {
            namespace: namespace.clone(),
            key,
        });
    }
    let images = config.images.keys().cloned().collect();
    let functions = Functions::open(&config.state_dir, config.limits.clone(), images)?;
    let recorder = Recorder::open(config.record.as_deref()).map_err(RunError::Record)?;
    let recorder = Arc::new(recorder);
    let kept_bytes = usize::try_from(config.activations.memory).unwrap_or(usize::MAX);
    let activations = Arc::new(Activations::new(config.activations.count, kept_bytes));
    let cgroups = config.cgroup.as_deref().map(Cgroups::open).transpose()?;
    let factory = ProcessFactory::new(cgroups, watchers.clone()).map_err(RunError::Spawner)?;
    let pool = Pool::new(PoolParts {
        bounds: Bounds {
            capacity_mb: config.memory >> 20,
            idle_timeout: config.idle_timeout,
            patience: config.patience,
        },
        factory: Arc::new(factory),
        logs: log_factory(&config, &activations, &recorder, &clock),
        clock: clock.clone(),
        tracker: watchers,
    });
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    let allowance = Allowance {
        per_minute: config.limits.invocations_per_minute,
        at_once: config.limits.concurrent_invocations,
    };
    let invoker = Arc::new(Invoker {
        pool: pool.clone(),
        activations: activations.clone(),
        metrics: metrics.clone(),
        recorder: recorder.clone(),
        clock: clock.clone(),
        images: config.images,
        api_host: config.api_host.unwrap_or_else(|| format!("http://{addr}")),
        payload_max: config.limits.payload_max,
    });
    Ok(Arc::new(Gateway {
        tenants,
        functions: Arc::new(functions),
        activations,
        invoker,
        pool,
        throttle: Arc::new(Mutex::new(Throttle::new(allowance))),
        rules: config.limits,
        metrics,
        registry,
        recorder,
        clock,
        tracker: calls,
    }))
}

fn log_factory(
    config: &Config,
    activations: &Arc<Activations>,
    recorder: &Arc<Recorder>,
    clock: &SharedClock,
) -> LogFactory {
    let (activations, recorder, clock) = (activations.clone(), recorder.clone(), clock.clone());
    let images = config.images.clone();
    Box::new(move |function| {
        let action = &function.action;
        let image = action.exec.image.as_ref().and_then(|name| images.get(name));
        let sentinel = image.is_some_and(|image| image.sentinel);
        let limit_bytes = action.limits.logs.saturating_mul(1 << 20);
        let collector = LogCollector::new(sentinel, action.limits.concurrency, limit_bytes);
        Arc::new(InstanceOutput {
            function: function.key.to_string(),
            collector: Mutex::new(collector),
            activations: activations.clone(),
            recorder: recorder.clone(),
            clock: clock.clone(),
        })
    })
}

/// The key in a file; an absent file is made with a fresh one, for its owner only.
fn read_or_make_key(path: &Path) -> Result<String, RunError> {
    let fail = |source| RunError::KeyFile {
        path: path.to_owned(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let key = text.trim();
            let whole = key
                .split_once(':')
                .is_some_and(|(id, key)| !id.is_empty() && !key.is_empty());
            if whole {
                Ok(key.to_owned())
            } else {
                Err(RunError::KeyForm {
                    path: path.to_owned(),
                })
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = ids::auth_key()?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(fail)?;
            }
            let mut options = std::fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(path);
            file.and_then(|mut file| writeln!(file, "{key}"))
                .map_err(fail)?;
            Ok(key)
        }
        Err(error) => Err(fail(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only_and_a_bad_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bad = folder.path().join("bad");
        for text in ["", "no colon", ":x", "x:"] {
            std::fs::write(&bad, text).unwrap();
            assert!(
                matches!(read_or_make_key(&bad), Err(RunError::KeyForm { .. })),
                "{text}"
            );
        }
        let path = folder.path().join("deep/key");
        let key = read_or_make_key(&path).unwrap();
        assert_eq!(read_or_make_key(&path).unwrap(), key);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
