//! Orderly end of a process: a token that says stop, a tracker that knows who still works.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handed to every part of a process; clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process should stop taking work.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Spawn through this, so that the end waits for the task.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Says stop.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Resolves at SIGINT or SIGTERM, or when somebody else says stop, and then says stop.
    pub async fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("interrupted, stopping"),
            _ = terminate.recv() => tracing::info!("terminated, stopping"),
            () = self.token.cancelled() => {}
        }
        self.token.cancel();
        Ok(())
    }

    /// Waits until every tracked task ended, for at most `grace`. False if some did not.
    pub async fn wait(&self, grace: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_tasks_but_not_for_ever() {
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        shutdown
            .tracker()
            .spawn(async move { token.cancelled().await });
        assert!(!shutdown.wait(Duration::from_secs(1)).await);
        shutdown.cancel();
        assert!(shutdown.wait(Duration::from_secs(1)).await);
    }
}
