//! What a run on the real system comes to: the simulator's figures, from real clocks and meters.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use protocol::invoke::StartKind;
use serde::Serialize;

use super::driver::Sent;

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 600_000_000;
/// A driver that was later than this share of the median latency has measured itself.
const LATE_SHARE: f64 = 0.1;

/// Latencies, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// The histogram that is wanted cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("no histogram of these bounds")]
pub struct NoHistogram(#[from] hdrhistogram::CreationError);

impl Latencies {
    /// None yet.
    pub fn new() -> Result<Self, NoHistogram> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_US, 3)?))
    }

    /// One more; what is longer than the longest counts as that.
    pub fn add(&mut self, latency: Duration) {
        self.0
            .saturating_record(protocol::invoke::micros(latency).max(1));
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1000.0
    }

    /// In milliseconds; 0 of none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        self.0.value_at_quantile(share) as f64 / 1000.0
    }
}

/// What the platform's meter counted in the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Metered {
    pub gb_seconds: f64,
    pub billed_gb_seconds: f64,
    pub sandboxes: u64,
}

/// A run in figures; those that the simulator has too go by the same names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    pub requests: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Shares of the served requests.
    pub cold: f64,
    pub warm: f64,
    pub hot: f64,
    pub errors: u64,
    pub retries_per_request: f64,
    pub gb_seconds: f64,
    pub billed_gb_seconds: f64,
    /// Share answered within twice and five times the median hot latency of the model's size.
    pub slo_2x: f64,
    pub slo_5x: f64,
    pub sandboxes: u64,
    /// By kind of start, from the intended time.
    pub kinds: BTreeMap<&'static str, Kind>,
    /// Time inside instances of hot requests, by size.
    pub hot_inside_ms: BTreeMap<String, f64>,
    pub driver: Lateness,
    /// What went wrong, and how often.
    pub failures: BTreeMap<String, u64>,
}

/// Latencies of one kind of start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Kind {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// How late the driver itself sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lateness {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Its p99 is below a tenth of the median latency.
    pub usable: bool,
}

const fn name(kind: StartKind) -> &'static str {
    match kind {
        StartKind::Cold => "cold",
        StartKind::Warm => "warm",
        StartKind::Hot => "hot",
    }
}

impl Outcome {
    /// Sums up a run. `sizes` says how large each model of the workload is.
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn of(sent: &[Sent], sizes: &[String], metered: Metered) -> Result<Self, NoHistogram> {
        let (mut all, mut lateness) = (Latencies::new()?, Latencies::new()?);
        let mut kinds: BTreeMap<&'static str, Latencies> = BTreeMap::new();
        let (mut hot, mut inside) = (BTreeMap::new(), BTreeMap::new());
        let mut failures = BTreeMap::new();
        let mut retries = 0;
        for request in sent {
            lateness.add(request.lateness());
            let served = match &request.outcome {
                Ok(served) => served,
                Err(why) => {
                    *failures.entry(why.clone()).or_insert(0) += 1;
                    continue;
                }
            };
            retries += u64::from(served.retries);
            all.add(request.latency());
            let kind = kinds.entry(name(served.start));
            add(kind, request.latency())?;
            if served.start == StartKind::Hot {
                let size = size_of(sizes, request.model);
                add(hot.entry(size), request.latency())?;
                add(inside.entry(size), served.inside)?;
            }
        }
        let n = all.count().max(1) as f64;
        let share = |kind| kinds.get(kind).map_or(0.0, |k| k.count() as f64 / n);
        let within = |factor: f64| {
            let good = sent.iter().filter(|request| {
                let size = size_of(sizes, request.model);
                let bound = hot.get(size).map_or(0.0, |hot| hot.quantile_ms(0.5)) * factor;
                request.outcome.is_ok() && request.latency().as_secs_f64() * 1000.0 <= bound
            });
            good.count() as f64 / n
        };
        let p50_ms = all.quantile_ms(0.5);
        Ok(Self {
            requests: sent.len() as u64,
            mean_ms: all.mean_ms(),
            p50_ms,
            p95_ms: all.quantile_ms(0.95),
            p99_ms: all.quantile_ms(0.99),
            max_ms: all.quantile_ms(1.0),
            cold: share("cold"),
            warm: share("warm"),
            hot: share("hot"),
            errors: failures.values().sum(),
            retries_per_request: retries as f64 / n,
            gb_seconds: metered.gb_seconds,
            billed_gb_seconds: metered.billed_gb_seconds,
            slo_2x: within(2.0),
            slo_5x: within(5.0),
            sandboxes: metered.sandboxes,
            kinds: kinds
                .iter()
                .map(|(kind, seen)| (*kind, Kind::of(seen)))
                .collect(),
            hot_inside_ms: inside
                .iter()
                .map(|(size, seen): (&&str, &Latencies)| {
                    ((*size).to_owned(), seen.quantile_ms(0.5))
                })
                .collect(),
            driver: Lateness {
                p50_ms: lateness.quantile_ms(0.5),
                p99_ms: lateness.quantile_ms(0.99),
                max_ms: lateness.quantile_ms(1.0),
                usable: lateness.quantile_ms(0.99) <= LATE_SHARE * p50_ms,
            },
            failures,
        })
    }
}

impl Kind {
    fn of(seen: &Latencies) -> Self {
        Self {
            count: seen.count(),
            p50_ms: seen.quantile_ms(0.5),
            p99_ms: seen.quantile_ms(0.99),
        }
    }
}

fn size_of(sizes: &[String], model: u32) -> &str {
    sizes.get(model as usize).map_or("", String::as_str)
}

fn add<K: Ord>(
    entry: std::collections::btree_map::Entry<'_, K, Latencies>,
    latency: Duration,
) -> Result<(), NoHistogram> {
    use std::collections::btree_map::Entry;
    let seen = match entry {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Latencies::new()?),
    };
    seen.add(latency);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::driver::Served;

    fn sent(model: u32, late: u64, latency: u64, start: Option<StartKind>) -> Sent {
        let ms = Duration::from_millis;
        Sent {
            model,
            intended: ms(100),
            sent: ms(100 + late),
            ended: ms(100 + latency),
            outcome: start.ok_or_else(|| "no".to_owned()).map(|start| Served {
                start,
                retries: 1,
                inside: ms(1),
                queued: ms(0),
            }),
        }
    }

    fn outcome(sent: &[Sent]) -> Outcome {
        let sizes = ["tiny".to_owned(), "18MB".to_owned()];
        Outcome::of(sent, &sizes, Metered::default()).unwrap()
    }

    #[test]
    fn a_late_driver_makes_a_run_unusable() {
        use StartKind::Hot;
        assert!(!outcome(&[sent(0, 5, 10, Some(Hot))]).driver.usable);
        assert!(outcome(&[sent(0, 1, 10, Some(Hot))]).driver.usable);
    }

    #[test]
    fn failures_are_counted_but_have_no_latency() {
        use StartKind::{Cold, Hot, Warm};
        let mut runs: Vec<_> = (0..8).map(|_| sent(0, 0, 10, Some(Hot))).collect();
        runs.push(sent(0, 0, 1000, Some(Cold)));
        runs.push(sent(1, 0, 200, Some(Warm)));
        runs.push(sent(1, 0, 5000, None));
        let got = outcome(&runs);
        assert_eq!((got.requests, got.errors), (11, 1));
        assert_eq!((got.cold, got.warm, got.hot), (0.1, 0.1, 0.8));
        assert!((got.p50_ms - 10.0).abs() < 0.1, "{}", got.p50_ms);
        assert!((got.max_ms - 1000.0).abs() < 1.0, "{}", got.max_ms);
        assert!((got.slo_2x - 0.8).abs() < 1e-9, "{}", got.slo_2x);
        assert_eq!(got.failures["no"], 1);
    }

    #[test]
    fn of_nothing_there_is_nothing() {
        let got = outcome(&[]);
        assert_eq!((got.requests, got.errors), (0, 0));
        assert!(got.p99_ms.abs() < 1e-9 && got.slo_2x.abs() < 1e-9);
    }
}
