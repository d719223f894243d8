//! What a simulated run comes to: latencies, start kinds, memory.

use std::time::Duration;

use protocol::invoke::StartKind;
use serde::Serialize;

/// The counts of one run.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// From the time of arrival to the end, in microseconds.
    latencies: Vec<u32>,
    /// Hot execution of each model, for the objectives.
    hot: Vec<Duration>,
    within_2x: u64,
    within_5x: u64,
    cold: u64,
    warm: u64,
    hot_starts: u64,
    pub errors: u64,
    pub retries: u64,
    pub gb_seconds: f64,
    billed_gb_seconds: f64,
    pub peak_instances: usize,
    /// Arrivals, ends, expiries and wakes that were played.
    pub events: u64,
}

/// A run, or the mean of several, in figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    pub requests: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    /// Shares of the served requests.
    pub cold: f64,
    pub warm: f64,
    pub hot: f64,
    pub errors: f64,
    pub retries_per_request: f64,
    /// Memory of instances over their lives, idle time included.
    pub gb_seconds: f64,
    /// Memory over execution times, in steps of 100 ms.
    pub billed_gb_seconds: f64,
    /// Share answered within twice and five times the model's hot execution.
    pub slo_2x: f64,
    pub slo_5x: f64,
    pub peak_instances: f64,
}

impl Tally {
    pub(crate) fn new(hot: Vec<Duration>) -> Self {
        Self {
            hot,
            ..Self::default()
        }
    }

    pub(crate) fn served(&mut self, model: u32, latency: u64, start: StartKind) {
        self.latencies
            .push(u32::try_from(latency).unwrap_or(u32::MAX));
        let hot = self.hot.get(model as usize).copied().unwrap_or_default();
        let latency = Duration::from_micros(latency);
        self.within_2x += u64::from(latency <= hot * 2);
        self.within_5x += u64::from(latency <= hot * 5);
        match start {
            StartKind::Cold => self.cold += 1,
            StartKind::Warm => self.warm += 1,
            StartKind::Hot => self.hot_starts += 1,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of steps, below 2^53")]
    pub(crate) fn bill(&mut self, micros: u64, gb: f64) {
        self.billed_gb_seconds += micros.div_ceil(100_000) as f64 * 0.1 * gb;
    }

    /// Milliseconds from the intended time of sending to the end, in ascending order.
    #[must_use]
    pub fn latencies(&self) -> Vec<f64> {
        let mut all = self.latencies.clone();
        all.sort_unstable();
        all.into_iter().map(|us| f64::from(us) / 1000.0).collect()
    }

    /// Sums it up.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn figures(mut self) -> Figures {
        self.latencies.sort_unstable();
        let served = self.latencies.len();
        let n = served.max(1) as f64;
        let quantile = |percent: usize| {
            let rank = (served * percent).div_ceil(100).max(1);
            self.latencies
                .get(rank - 1)
                .map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        let sum: u64 = self.latencies.iter().map(|us| u64::from(*us)).sum();
        Figures {
            requests: (served as u64 + self.errors) as f64,
            mean_ms: sum as f64 / n / 1000.0,
            p50_ms: quantile(50),
            p95_ms: quantile(95),
            p99_ms: quantile(99),
            cold: self.cold as f64 / n,
            warm: self.warm as f64 / n,
            hot: self.hot_starts as f64 / n,
            errors: self.errors as f64,
            retries_per_request: self.retries as f64 / n,
            gb_seconds: self.gb_seconds,
            billed_gb_seconds: self.billed_gb_seconds,
            slo_2x: self.within_2x as f64 / n,
            slo_5x: self.within_5x as f64 / n,
            peak_instances: self.peak_instances as f64,
        }
    }
}

/// Half-widths of 95 % confidence intervals of the means over runs, by Student's t; zero for one
/// run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Intervals {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub gb_seconds: f64,
}

/// The 97.5th percentile of Student's t for 1 to 9 degrees of freedom; then the normal's is near.
const STUDENT: [f64; 9] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262,
];

impl Intervals {
    /// Over the seeds of one setting.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
    pub fn new(runs: &[Figures]) -> Self {
        let count = runs.len() as f64;
        let half = |figure: fn(&Figures) -> f64| {
            let Some(freedom) = runs.len().checked_sub(2) else {
                return 0.0;
            };
            let mean = runs.iter().map(figure).sum::<f64>() / count;
            let square = |run| (figure(run) - mean).powi(2);
            let variance = runs.iter().map(square).sum::<f64>() / (count - 1.0);
            STUDENT.get(freedom).unwrap_or(&2.0) * (variance / count).sqrt()
        };
        Self {
            mean_ms: half(|f| f.mean_ms),
            p50_ms: half(|f| f.p50_ms),
            p95_ms: half(|f| f.p95_ms),
            p99_ms: half(|f| f.p99_ms),
            gb_seconds: half(|f| f.gb_seconds),
        }
    }
}

impl Figures {
    /// The mean of each figure over several runs; of none, nothing.
    #[must_use]
    pub fn mean(runs: &[Self]) -> Option<Self> {
        let count = f64::from(u32::try_from(runs.len()).ok().filter(|n| *n > 0)?);
        let mean = |figure: fn(&Self) -> f64| runs.iter().map(figure).sum::<f64>() / count;
        Some(Self {
            requests: mean(|f| f.requests),
            mean_ms: mean(|f| f.mean_ms),
            p50_ms: mean(|f| f.p50_ms),
            p95_ms: mean(|f| f.p95_ms),
            p99_ms: mean(|f| f.p99_ms),
            cold: mean(|f| f.cold),
            warm: mean(|f| f.warm),
            hot: mean(|f| f.hot),
            errors: mean(|f| f.errors),
            retries_per_request: mean(|f| f.retries_per_request),
            gb_seconds: mean(|f| f.gb_seconds),
            billed_gb_seconds: mean(|f| f.billed_gb_seconds),
            slo_2x: mean(|f| f.slo_2x),
            slo_5x: mean(|f| f.slo_5x),
            peak_instances: mean(|f| f.peak_instances),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_textbook() {
        let run = |mean_ms| {
            let mut figures = Tally::new(Vec::new()).figures();
            figures.mean_ms = mean_ms;
            figures
        };
        // Deviation 1 over three runs: 4.303 / sqrt(3).
        let three = Intervals::new(&[run(1.0), run(2.0), run(3.0)]);
        assert!((three.mean_ms - 2.4843).abs() < 1e-3, "{three:?}");
        assert!(three.p99_ms.abs() < 1e-9);
        assert!(Intervals::new(&[run(1.0)]).mean_ms.abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let mut tally = Tally::new(vec![Duration::from_millis(10)]);
        for ms in (1..=100).rev() {
            tally.served(0, ms * 1000, StartKind::Hot);
        }
        let figures = tally.figures();
        let got = [
            figures.p50_ms,
            figures.p95_ms,
            figures.p99_ms,
            figures.slo_2x,
            figures.slo_5x,
        ];
        for (got, expected) in got.into_iter().zip([50.0, 95.0, 99.0, 0.2, 0.5]) {
            assert!((got - expected).abs() < 1e-9, "{figures:?}");
        }
    }
}
