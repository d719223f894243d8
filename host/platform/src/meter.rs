//! Memory over time, in GB-seconds: what was provisioned, what was busy, what is billed.

use std::time::Duration;

/// Integrates a level of memory over time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Integral {
    level_mb: u64,
    since: Duration,
    /// MB × nanoseconds.
    sum: u128,
}

impl Integral {
    /// From `now` on the level is `level_mb`. Times never go back.
    pub(crate) fn set(&mut self, now: Duration, level_mb: u64) {
        self.sum = self.at(now);
        self.since = now;
        self.level_mb = level_mb;
    }

    /// GB-seconds until `now`.
    #[must_use]
    pub(crate) fn gb_seconds(&self, now: Duration) -> f64 {
        gb_seconds(self.at(now))
    }

    fn at(&self, now: Duration) -> u128 {
        let passed = now.saturating_sub(self.since).as_nanos();
        self.sum + u128::from(self.level_mb) * passed
    }
}

/// Sum of billed activations: memory limit × duration, rounded up to 100 ms. With several
/// invocations at once in one instance this counts the same memory several times, as OpenWhisk's
/// records do; the busy integral counts it once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bill {
    /// MB × 100 ms.
    sum: u128,
}

impl Bill {
    pub(crate) fn add(&mut self, memory_mb: u64, duration_ms: u64) {
        self.sum += u128::from(memory_mb) * u128::from(duration_ms.div_ceil(100));
    }

    #[must_use]
    pub(crate) fn gb_seconds(&self) -> f64 {
        gb_seconds(self.sum * 100_000_000)
    }
}

fn gb_seconds(mb_nanos: u128) -> f64 {
    // Whole MB-milliseconds are exact in a double for 285 years of 1 TB.
    let mb_ms = u64::try_from(mb_nanos / 1_000_000).unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "a sum for people and plots")]
    let mb_ms = mb_ms as f64;
    mb_ms / 1000.0 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_counted_for_as_long_as_it_holds() {
        let mut it = Integral::default();
        it.set(Duration::from_secs(10), 512);
        it.set(Duration::from_secs(14), 1024);
        it.set(Duration::from_secs(15), 0);
        assert!((it.gb_seconds(Duration::from_secs(99)) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_bill_rounds_up_to_100_ms() {
        let mut bill = Bill::default();
        for ms in [0, 1, 100, 101] {
            bill.add(1024, ms);
        }
        assert!((bill.gb_seconds() - 0.4).abs() < 1e-9);
    }
}
