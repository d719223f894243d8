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
