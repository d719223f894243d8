//! Every policy at the same memory bill: tuned on one seed within what the published FnPacker
//! pays, reported on others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fnpacker::config::PolicyName;

use crate::costs::CostModel;
use crate::policy::PolicySpec;
use crate::report::Figures;
use crate::simulation::{Machine, Simulation};
use crate::workload::Workload;

/// The seed that settings are chosen on.
const TUNE: u64 = 1;
/// What the default policy is to reach, as shares of the published FnPacker's figures.
pub const MEAN_GOAL: f64 = 0.7;
pub const P99_GOAL: f64 = 0.5;

/// One policy with the settings that were chosen, on the seeds for reporting.
#[derive(Debug, Clone)]
pub struct Entry {
    pub spec: PolicySpec,
    /// None of its settings fits the budget; these are the cheapest.
    pub over_budget: bool,
    pub mean: Figures,
    pub runs: Vec<Figures>,
}

/// All settings tried on the tuning seed, for a plot.
#[derive(Debug, Clone)]
pub struct Tried {
    pub spec: PolicySpec,
    pub figures: Figures,
}

/// One workload's comparison.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub published: Entry,
    pub entries: Vec<Entry>,
    pub tried: Vec<Tried>,
}

/// FnPacker as published: pool 5, keep-alive 60 s.
#[must_use]
pub fn published() -> PolicySpec {
    PolicySpec::new(PolicyName::Published)
}

/// How many runs at once, and who is told about each that ended.
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub struct Pace<'a> {
    pub threads: usize,
    pub ran: &'a (dyn Fn() + Sync),
}

/// Compares `policies` with the published FnPacker.
#[must_use]
pub fn compare(
    workload: &Workload,
    costs: &CostModel,
    policies: &[PolicyName],
    machine: &Machine,
    seeds: u64,
    pace: &Pace<'_>,
) -> Comparison {
    let run = |(spec, seed): &(PolicySpec, u64)| {
        let figures = Simulation::run(workload, costs, spec, machine, *seed).figures();
        (pace.ran)();
        figures
    };
    let report: Vec<u64> = (TUNE + 1..=TUNE + seeds).collect();
    let on_seeds =
        |spec: &PolicySpec| -> Vec<_> { report.iter().map(|seed| (spec.clone(), *seed)).collect() };
    let mut jobs = vec![(published(), TUNE)];
    let grids = policies.iter().flat_map(|name| settings(*name));
    jobs.extend(grids.map(|spec| (spec, TUNE)));
    let mut figures = in_parallel(&jobs, pace.threads, run);
    let budget = figures.remove(0);
    jobs.remove(0);
    let tried: Vec<Tried> = jobs
        .into_iter()
        .zip(figures)
        .map(|((spec, _), figures)| Tried { spec, figures })
        .collect();
    let chosen: Vec<_> = policies
        .iter()
        .filter_map(|name| choose(*name, &tried, &budget))
        .collect();
    let mut jobs = on_seeds(&published());
    jobs.extend(chosen.iter().flat_map(|(tried, _)| on_seeds(&tried.spec)));
    let mut figures = in_parallel(&jobs, pace.threads, run).into_iter();
    let mut entry = |spec: PolicySpec, over_budget| {
        let runs: Vec<_> = figures.by_ref().take(report.len()).collect();
        let mean = Figures::mean(&runs).unwrap_or(budget);
        Entry {
            spec,
            over_budget,
            mean,
            runs,
        }
    };
    let published = entry(published(), false);
    let entries = chosen
        .into_iter()
        .map(|(tried, over)| entry(tried.spec.clone(), over))
        .collect();
    Comparison {
        published,
        entries,
        tried,
    }
}

/// The best settings of a policy within the budget, or the cheapest if none is within.
fn choose<'a>(name: PolicyName, tried: &'a [Tried], budget: &Figures) -> Option<(&'a Tried, bool)> {
    let own = || tried.iter().filter(|tried| tried.spec.name == name);
    let within = own().filter(|tried| tried.figures.gb_seconds <= budget.gb_seconds);
    let best =
        within.min_by(|a, b| score(&a.figures, budget).total_cmp(&score(&b.figures, budget)));
    let cheapest = || own().min_by(|a, b| a.figures.gb_seconds.total_cmp(&b.figures.gb_seconds));
    best.map(|tried| (tried, false))
        .or_else(|| cheapest().map(|tried| (tried, true)))
}

/// The worse of the two goals, as a share of what is allowed; a little of the other to break ties.
fn score(figures: &Figures, published: &Figures) -> f64 {
    let mean = figures.mean_ms / (MEAN_GOAL * published.mean_ms);
    let p99 = figures.p99_ms / (P99_GOAL * published.p99_ms);
    let errors = figures.errors / figures.requests.max(1.0);
    mean.max(p99) + 0.05 * mean.min(p99) + 100.0 * errors
}

/// The settings that are tried for a policy.
fn settings(name: PolicyName) -> Vec<PolicySpec> {
    let (endpoints, models, ttls, prices): (&[usize], &[usize], &[u64], &[f64]) = match name {
        PolicyName::OneToOne | PolicyName::AllInOne => {
            (&[0], &[1], &[10, 30, 60, 300, 600], &[0.0])
        }
        PolicyName::Published | PolicyName::PublishedStrict | PolicyName::Affinity => {
            (&[1, 2, 3, 5, 8, 12], &[1], &[30, 60, 300, 600], &[0.0])
        }
        PolicyName::ChBl | PolicyName::EctG => (
            &[1, 2, 3, 4, 6, 8, 12, 16],
            &[1, 2, 3, 4, 6, 8],
            &[30, 60, 300, 600],
            &[0.0],
        ),
        PolicyName::EctP => (
            &[1, 2, 3, 4, 6, 8, 12, 16],
            &[1, 2, 3, 4, 6, 8],
            &[60],
            &[
                0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.2, 1.6,
                3.2,
            ],
        ),
    };
    let mut specs = Vec::new();
    for &endpoints in endpoints {
        for &models in models {
            for &ttl in ttls {
                for &price in prices {
                    let mut spec = PolicySpec::new(name);
                    if endpoints > 0 {
                        spec.endpoints = endpoints;
                    }
                    spec.models = models;
                    spec.ttl = Duration::from_secs(ttl);
                    spec.price = price;
                    specs.push(spec.named());
                }
            }
        }
    }
    specs
}

/// Runs every job on so many threads; results in the order of the jobs.
fn in_parallel<J: Sync, R: Send>(
    jobs: &[J],
    threads: usize,
    run: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(jobs.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((at, job)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|at| jobs.get(at).map(|job| (at, job)))
                {
                    let result = run(job);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
