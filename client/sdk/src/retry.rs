//! When to try again: a pure schedule of growing delays under one overall deadline.

use std::time::Duration;

use crate::explain::Explain;

/// How long and how often to try what may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Time for the whole operation, attempts and pauses together.
    pub deadline: Duration,
    /// Pause after the first failure; it doubles with each further one.
    pub first_delay: Duration,
    /// Longest pause that the client chooses by itself; the service may ask for a longer one.
    pub longest_delay: Duration,
}

impl Default for RetryPolicy {
    /// One minute in all (a cold start of a large model fits), pauses from 100 ms to 5 s.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// The default with another overall deadline.
    #[must_use]
    pub fn with_deadline(deadline: Duration) -> Self {
        Self {
            deadline,
            ..Self::default()
        }
    }

    /// How long to pause before another attempt, or `None` to give up.
    ///
    /// `failures` counts those so far (1 after the first); `elapsed` is the time since the
    /// operation began. Gives up when the error is final, or when the pause would end at or after
    /// the deadline: an attempt without time to run would only hide the real cause.
    #[must_use]
    pub fn pause(
        &self,
        failures: u32,
        elapsed: Duration,
        error: &(impl Explain + ?Sized),
    ) -> Option<Duration> {
        if !error.retryable() {
            return None;
        }
        let doubled = 2_u32
            .checked_pow(failures.saturating_sub(1))
            .map_or(self.longest_delay, |factor| {
                self.first_delay.saturating_mul(factor)
            });
        let chosen = doubled.min(self.longest_delay);
        let asked = error
            .retry_after_ms()
            .map_or(Duration::ZERO, Duration::from_millis);
        let pause = chosen.max(asked);
        (elapsed.saturating_add(pause) < self.deadline).then_some(pause)
    }

    /// Time that is left of the deadline.
    #[must_use]
    pub fn remaining(&self, elapsed: Duration) -> Duration {
        self.deadline.saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ErrorCode;

    #[derive(Debug, thiserror::Error)]
    #[error("failed")]
    struct Failed(ErrorCode, Option<u64>);

    impl Explain for Failed {
        fn code(&self) -> ErrorCode {
            self.0
        }
        fn retry_after_ms(&self) -> Option<u64> {
            self.1
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_final_error_is_never_retried() {
        for code in ErrorCode::ALL.iter().filter(|c| !c.retryable()) {
            let error = Failed(*code, Some(0));
            assert_eq!(
                RetryPolicy::default().pause(1, ms(0), &error),
                None,
                "{code}"
            );
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_never_overflow() {
        let policy = RetryPolicy::with_deadline(Duration::from_secs(3600));
        let busy = Failed(ErrorCode::Busy, None);
        let pauses: Vec<_> = (1..=8)
            .map(|n| policy.pause(n, ms(0), &busy).unwrap())
            .collect();
        assert_eq!(pauses[..4], [ms(100), ms(200), ms(400), ms(800)]);
        assert_eq!(pauses[7], ms(5000));
        assert_eq!(policy.pause(u32::MAX, ms(0), &busy), Some(ms(5000)));
    }

    #[test]
    fn the_service_may_ask_for_a_longer_pause_but_not_a_shorter_one() {
        let policy = RetryPolicy::default();
        assert_eq!(
            policy.pause(1, ms(0), &Failed(ErrorCode::Busy, Some(9000))),
            Some(ms(9000))
        );
        assert_eq!(
            policy.pause(1, ms(0), &Failed(ErrorCode::Busy, Some(1))),
            Some(ms(100))
        );
        assert_eq!(
            policy.pause(1, ms(0), &Failed(ErrorCode::Busy, Some(u64::MAX))),
            None
        );
    }

    #[test]
    fn nothing_starts_at_or_after_the_deadline() {
        let policy = RetryPolicy::with_deadline(ms(1000));
        let busy = Failed(ErrorCode::Busy, None);
        assert_eq!(policy.pause(1, ms(899), &busy), Some(ms(100)));
        assert_eq!(policy.pause(1, ms(900), &busy), None);
        assert_eq!(policy.remaining(ms(2000)), Duration::ZERO);
    }
}
