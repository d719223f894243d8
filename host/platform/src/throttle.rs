//! How many invocations a namespace may make in a minute, and at once: a count, no I/O.

use std::collections::HashMap;
use std::time::Duration;

/// Allowances of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) per_minute: u64,
    pub(crate) at_once: u64,
}

/// Why an invocation is refused with 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Throttled {
    #[error("Too many requests in the last minute (count: {count}, allowed: {allowed}).")]
    Rate { count: u64, allowed: u64 },
    #[error("Too many concurrent requests in flight (count: {count}, allowed: {allowed}).")]
    AtOnce { count: u64, allowed: u64 },
}

/// Counts per namespace. A minute is a fixed window, as in OpenWhisk.
#[derive(Debug)]
pub(crate) struct Throttle {
    allowance: Allowance,
    counts: HashMap<String, Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    window: u64,
    in_window: u64,
    in_flight: u64,
}

impl Throttle {
    #[must_use]
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            counts: HashMap::new(),
        }
    }

    /// Admits one invocation; every admitted one must [`Self::leave`].
    pub(crate) fn enter(&mut self, namespace: &str, now: Duration) -> Result<(), Throttled> {
        if !self.counts.contains_key(namespace) {
            self.counts.insert(namespace.to_owned(), Counts::default());
        }
        let Some(counts) = self.counts.get_mut(namespace) else {
            return Ok(());
        };
        let window = now.as_secs() / 60;
        if counts.window != window {
            counts.window = window;
            counts.in_window = 0;
        }
        counts.in_window += 1;
        if counts.in_window > self.allowance.per_minute {
            let (count, allowed) = (counts.in_window, self.allowance.per_minute);
            return Err(Throttled::Rate { count, allowed });
        }
        if counts.in_flight >= self.allowance.at_once {
            let (count, allowed) = (counts.in_flight + 1, self.allowance.at_once);
            return Err(Throttled::AtOnce { count, allowed });
        }
        counts.in_flight += 1;
        Ok(())
    }

    /// One admitted invocation ended.
    pub(crate) fn leave(&mut self, namespace: &str) {
        if let Some(counts) = self.counts.get_mut(namespace) {
            counts.in_flight = counts.in_flight.saturating_sub(1);
        }
    }

    /// Seconds until the rate window ends.
    #[must_use]
    pub(crate) fn retry_after(now: Duration) -> u64 {
        60 - now.as_secs() % 60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(60_000);

    #[test]
    fn the_rate_is_refused_above_the_allowance_until_the_minute_ends() {
        let mut throttle = Throttle::new(Allowance {
            per_minute: 2,
            at_once: 9,
        });
        for _ in 0..2 {
            throttle.enter("a", NOW).unwrap();
        }
        let refused = throttle.enter("a", NOW).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Too many requests in the last minute (count: 3, allowed: 2)."
        );
        throttle.enter("b", NOW).unwrap();
        throttle.enter("a", NOW + Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn in_flight_is_bounded_per_namespace_and_freed_by_leaving() {
        let mut throttle = Throttle::new(Allowance {
            per_minute: 99,
            at_once: 1,
        });
        throttle.enter("a", NOW).unwrap();
        let refused = throttle.enter("a", NOW).unwrap_err();
        assert_eq!(
            refused,
            Throttled::AtOnce {
                count: 2,
                allowed: 1
            }
        );
        throttle.enter("b", NOW).unwrap();
        throttle.leave("a");
        throttle.enter("a", NOW).unwrap();
    }
}
