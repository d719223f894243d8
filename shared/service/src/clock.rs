//! Time as an argument: the real clock for processes, a manual one for tests.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a component reads the time. Inside a TEE both readings come from the host, so wall time
/// is advisory: freshness rests on nonces, and only leases and logs look at a clock.
pub trait Clock: Send + Sync + Debug {
    /// Wall time since 1970-01-01 UTC.
    fn now(&self) -> Duration;
    /// Time since a fixed start that never goes back.
    fn monotonic(&self) -> Duration;
}

/// The clock that a process hands to its parts.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock. Its monotonic reading follows tokio's paused time in tests.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the wall clock"
        )]
        let now = SystemTime::now();
        // A host clock before 1970 reads as 1970; nothing is decided on it alone.
        now.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves when told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Duration, Duration)>);

impl ManualClock {
    /// Starts at `now` since 1970 with a monotonic reading of zero.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self(Mutex::new((now, Duration::ZERO)))
    }

    /// Moves both readings.
    pub fn advance(&self, by: Duration) {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readings.0 += by;
        readings.1 += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Duration::from_secs(7));
        assert_eq!(
            (clock.now(), clock.monotonic()),
            (Duration::from_secs(7), Duration::ZERO)
        );
        clock.advance(Duration::from_secs(3));
        assert_eq!(
            (clock.now(), clock.monotonic()),
            (Duration::from_secs(10), Duration::from_secs(3))
        );
    }
}
