//! Wall time for verifiers of evidence, as an argument: nothing here reads a clock by itself.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Tells the time since the UNIX epoch. Verifiers check the validity of endorsements with it.
#[derive(Clone)]
pub struct WallTime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl WallTime {
    /// Time from anywhere.
    #[must_use]
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// This machine's clock. A clock before 1970 reads as 1970, at which nothing is valid yet.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of the client that reads the clock"
    )]
    pub fn system() -> Self {
        Self::new(|| {
            std::time::SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
        })
    }

    /// Time since the UNIX epoch.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}
