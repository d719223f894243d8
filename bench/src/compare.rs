//! Every policy at the same memory bill: tuned on one seed within what the published FnPacker
//! pays, reported on others.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fnpacker::config::PolicyName;

use crate::costs::CostModel;
use crate::policy::PolicySpec;
use crate::report::{Figures, Intervals};
use crate::simulation::{Machine, Simulation};
use crate::workload::Workload;

mod tuning;

#[cfg(test)]
mod tests;

use tuning::{Candidate, Search};

/// The seed that settings are chosen on.
pub const TUNE: u64 = 1;
/// What the default policy is to reach, as shares of the published FnPacker's figures.
pub const MEAN_GOAL: f64 = 0.7;
pub const P99_GOAL: f64 = 0.5;
/// Settings must stay this share below the budget: other seeds cost a little more or less.
const BUDGET: f64 = 0.97;
/// Workloads with more requests are searched on a part of so many.
const PART: usize = 20_000;
/// Settings that go from the part to the whole, of the default policy and of each other one.
const FINALISTS: [usize; 2] = [21, 7];

/// One policy with the settings that were chosen, on the seeds for reporting.
#[derive(Debug, Clone)]
pub struct Entry {
    pub spec: PolicySpec,
    /// None of its settings fits the budget; these are the cheapest.
    pub over_budget: bool,
    pub mean: Figures,
    pub intervals: Intervals,
    pub runs: Vec<Figures>,
}

/// Settings tried on the tuning seed, for a plot.
#[derive(Debug, Clone)]
pub struct Tried {
    pub spec: PolicySpec,
    pub figures: Figures,
}

/// One workload's comparison.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub published: Entry,
    /// In the order of the policies that were asked for.
    pub entries: Vec<Entry>,
    /// All settings that were tried, with the published FnPacker on the same requests.
    pub tried: Vec<Tried>,
    pub published_tried: Figures,
    /// How many requests those were played on.
    pub tried_on: usize,
}

/// FnPacker as published: pool 5, keep-alive 60 s.
#[must_use]
pub fn published() -> PolicySpec {
    PolicySpec::new(PolicyName::Published)
}

/// How many runs at once, and who is told about those planned and each that ended.
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub struct Pace<'a> {
    pub threads: usize,
    pub planned: &'a (dyn Fn(usize) + Sync),
    pub ran: &'a (dyn Fn() + Sync),
}

/// What runs are made with.
struct Bench<'a> {
    costs: &'a CostModel,
    machine: &'a Machine,
    pace: &'a Pace<'a>,
}

impl Bench<'_> {
    fn run(&self, workload: &Workload, jobs: &[(PolicySpec, u64)]) -> Vec<Figures> {
        (self.pace.planned)(jobs.len());
        in_parallel(jobs, self.pace.threads, |(spec, seed)| {
            let tally = Simulation::run(workload, self.costs, spec, self.machine, *seed);
            (self.pace.ran)();
            tally.figures()
        })
    }

    fn published(&self, workload: &Workload) -> Option<Figures> {
        self.run(workload, &[(published(), TUNE)]).pop()
    }

    /// Tries the candidates of each search, and tells it.
    fn try_out(&self, workload: &Workload, searches: &mut [Search], all: &[Vec<Candidate>]) {
        let flat = || {
            all.iter()
                .enumerate()
                .flat_map(|(at, c)| c.iter().map(move |c| (at, c)))
        };
        let jobs: Vec<_> = flat().map(|(_, c)| (c.spec.clone(), TUNE)).collect();
        for ((at, candidate), figures) in flat().zip(self.run(workload, &jobs)) {
            searches[at].learn(candidate, figures);
        }
    }

    /// The grid, then neighbours of the best until there is nothing better.
    fn search(&self, workload: &Workload, searches: &mut [Search], budget: &Figures) {
        let grids: Vec<_> = searches.iter().map(Search::grid).collect();
        self.try_out(workload, searches, &grids);
        for _ in 0..tuning::ROUNDS {
            let next: Vec<_> = searches.iter_mut().map(|s| s.neighbours(budget)).collect();
            if next.iter().all(Vec::is_empty) {
                break;
            }
            self.try_out(workload, searches, &next);
        }
    }

    /// Again on all requests, with the best of the settings that were searched on a part.
    fn decide(&self, workload: &Workload, searches: &mut [Search], part: &Figures, all: &Figures) {
        let count = |s: &Search| FINALISTS[usize::from(s.name() != PolicyName::default())];
        let finalists: Vec<_> = searches
            .iter()
            .map(|s| s.finalists(part, count(s)))
            .collect();
        searches.iter_mut().for_each(Search::restart);
        self.try_out(workload, searches, &finalists);
        // One step more for the policy that matters most.
        let next: Vec<_> = searches
            .iter_mut()
            .map(|s| match s.name() == PolicyName::default() {
                true => s.neighbours(all),
                false => Vec::new(),
            })
            .collect();
        self.try_out(workload, searches, &next);
    }
}

/// Compares `policies` with the published FnPacker.
///
/// `None` if the workload is empty.
#[must_use]
pub fn compare(
    workload: &Workload,
    costs: &CostModel,
    policies: &[PolicyName],
    machine: &Machine,
    seeds: u64,
    pace: &Pace<'_>,
) -> Option<Comparison> {
    let bench = Bench {
        costs,
        machine,
        pace,
    };
    let service = workload.service(costs);
    let mut searches: Vec<_> = policies
        .iter()
        .map(|name| Search::new(*name, service))
        .collect();
    let part = (workload.arrivals.len() > PART).then(|| workload.part(PART));
    let first = part.as_ref().unwrap_or(workload);
    let published_tried = bench.published(first)?;
    let first_budget = with_margin(&published_tried);
    bench.search(first, &mut searches, &first_budget);
    let tried: Vec<_> = searches.iter().flat_map(Search::results).collect();
    let mut budget = first_budget;
    if part.is_some() {
        budget = with_margin(&bench.published(workload)?);
        bench.decide(workload, &mut searches, &first_budget, &budget);
    }
    let mut chosen = vec![(published(), false)];
    chosen.extend(searches.iter().filter_map(|search| search.choice(&budget)));
    let report = TUNE + 1..=TUNE + seeds;
    let with_seeds = |(spec, _): &(PolicySpec, bool)| -> Vec<_> {
        report.clone().map(|seed| (spec.clone(), seed)).collect()
    };
    let jobs: Vec<_> = chosen.iter().flat_map(with_seeds).collect();
    let mut figures = bench.run(workload, &jobs).into_iter();
    let each = usize::try_from(seeds).ok()?;
    let mut entries = chosen.into_iter().map(|(spec, over_budget)| {
        let runs: Vec<_> = figures.by_ref().take(each).collect();
        Some(Entry {
            spec,
            over_budget,
            mean: Figures::mean(&runs)?,
            intervals: Intervals::new(&runs),
            runs,
        })
    });
    Some(Comparison {
        published: entries.next()??,
        entries: entries.collect::<Option<_>>()?,
        tried,
        published_tried,
        tried_on: first.arrivals.len(),
    })
}

fn with_margin(published: &Figures) -> Figures {
    Figures {
        gb_seconds: published.gb_seconds * BUDGET,
        ..*published
    }
}

/// The worse of the two goals, as a share of what is allowed; a little of the other to break ties.
fn score(figures: &Figures, published: &Figures) -> f64 {
    let mean = figures.mean_ms / (MEAN_GOAL * published.mean_ms);
    let p99 = figures.p99_ms / (P99_GOAL * published.p99_ms);
    let errors = figures.errors / figures.requests.max(1.0);
    mean.max(p99) + 0.05 * mean.min(p99) + 100.0 * errors
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
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
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
