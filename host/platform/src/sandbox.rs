//! The isolation box of one instance: what the pool asks of it, whatever it is made of.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

pub(crate) mod call;
pub(crate) mod cgroup;
pub(crate) mod listener;
pub(crate) mod output;
pub(crate) mod process;

/// A future whose type a trait can name.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which stream a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// The name in a log line.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Where a sandbox's output goes. A line has no line end; a very long one comes in pieces.
pub(crate) trait OutputSink: Send + Sync + Debug {
    fn line(&self, stream: Stream, line: &[u8]);
}

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct SandboxSpec {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// The whole environment, but for `PORT`.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) memory_mb: u64,
    /// Names the sandbox among all of this machine's.
    pub(crate) label: String,
}

/// How a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, or killed by somebody.
    Ended,
    /// Ended by the platform for holding more memory than allowed.
    MemoryExhausted,
}

/// The platform could not make a sandbox; not the function's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("find a free port")]
    Port(#[source] std::io::Error),
    #[error("start the program {program}")]
    Spawn {
        program: String,
        source: std::io::Error,
    },
    #[error("take over the program's output")]
    Output(#[source] std::io::Error),
    #[error("the platform is stopping")]
    Stopping,
}

/// What became of the wait for a sandbox's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    /// The sandbox's own server takes connections here.
    At(SocketAddr),
    /// The sandbox ended.
    Ended,
    /// Somebody else took its port: start it again.
    PortTaken,
}

/// A running sandbox. Dropping it kills all that runs in it.
pub(crate) trait Sandbox: Send + Sync + Debug {
    /// Waits until the sandbox's own server listens.
    fn listening(&self) -> BoxFuture<'_, Listening>;
    /// Resolves when everything in it has ended and its memory is free.
    fn exited(&self) -> BoxFuture<'_, Exit>;
    /// Ends all that runs in it, at once.
    fn kill(&self);
    /// Hands everything that it has written by now to the sink.
    fn drain_output(&self);
}

/// Makes sandboxes.
pub(crate) trait SandboxFactory: Send + Sync + Debug {
    fn start<'a>(
        &'a self,
        spec: &'a SandboxSpec,
        sink: Arc<dyn OutputSink>,
    ) -> BoxFuture<'a, Result<Arc<dyn Sandbox>, StartError>>;
}
