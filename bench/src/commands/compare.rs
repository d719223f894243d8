//! `bench compare`: every policy at the memory bill of the published FnPacker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::path::PathBuf;

use anyhow::Context as _;
use bench::compare::{Comparison, Entry, MEAN_GOAL, P99_GOAL, Pace, compare};
use bench::report::{Figures, Intervals};
use bench::workload::Workload;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use fnpacker::config::PolicyName;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::pictures::Pictures;
use super::platform::Platform;
use super::workloads;

#[derive(Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    workloads: workloads::Workloads,
    /// Policies to compare, besides the default one; without it, all.
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = parse)]
    policy: Vec<PolicyName>,
    #[command(flatten)]
    platform: Platform,
    /// Runs to report, with the seeds 2 to N + 1; settings are chosen on seed 1.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Write JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the settings that were tried, the latencies and what the instances did into this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

fn parse(text: &str) -> Result<PolicyName, String> {
    let names = || PolicyName::ALL.map(PolicyName::name).join(", ");
    PolicyName::ALL
        .into_iter()
        .find(|name| name.name() == text)
        .ok_or_else(|| format!("no such policy; there are {}", names()))
}

#[derive(Debug, Serialize)]
struct Report {
    costs: String,
    workloads: Vec<OfWorkload>,
}

#[derive(Debug, Serialize)]
struct OfWorkload {
    name: String,
    requests: usize,
    models: usize,
    published: Row,
    default: Row,
    policies: BTreeMap<&'static str, Row>,
    goals: Vec<Goal>,
}

/// The figures of one policy: means over the seeds, and each seed's run.
#[derive(Debug, Clone, Serialize)]
struct Row {
    settings: String,
    over_budget: bool,
    #[serde(flatten)]
    figures: Figures,
    /// Share of requests that had to switch models in a running instance.
    switch: f64,
    /// Half-widths of the 95 % confidence intervals.
    interval: Intervals,
    runs: Vec<Figures>,
}

impl Row {
    fn new(entry: &Entry) -> Self {
        Self {
            settings: entry.spec.text.clone(),
            over_budget: entry.over_budget,
            figures: entry.mean,
            switch: entry.mean.warm,
            interval: entry.intervals,
            runs: entry.runs.clone(),
        }
    }
}

/// One figure of the default policy, as a share of the published FnPacker's.
#[derive(Debug, Clone, Serialize)]
struct Goal {
    figure: &'static str,
    at_most: f64,
    is: f64,
    reached: bool,
}

impl Compare {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let costs = self.platform.costs()?;
        let machine = self.platform.machine(&costs);
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template(
            "{msg} {wide_bar} {pos}/{len} runs {elapsed}",
        )?);
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut policies = match &self.policy[..] {
            [] => PolicyName::ALL.to_vec(),
            some => some.to_vec(),
        };
        if !policies.contains(&PolicyName::default()) {
            policies.push(PolicyName::default());
        }
        let mut text = format!("costs: {}\n", self.platform.costs_name());
        let mut report = Report {
            costs: self.platform.costs_name(),
            workloads: Vec::new(),
        };
        let mut pictures = match &self.plots {
            Some(folder) => Some(Pictures::new(folder)?),
            None => None,
        };
        for source in &self.workloads.workload {
            let workload = source.workload()?;
            let costs = source.costs(&costs)?;
            bar.set_message(workload.name.clone());
            let pace = Pace {
                threads,
                planned: &|runs| bar.inc_length(runs as u64),
                ran: &|| bar.inc(1),
            };
            let comparison = compare(&workload, &costs, &policies, &machine, self.seeds, &pace);
            let comparison = comparison.context("the workload has no requests")?;
            if let Some(pictures) = &mut pictures {
                let specs: Vec<_> = std::iter::once(&comparison.published)
                    .chain(comparison.entries.iter().filter(|e| is_new(e)))
                    .map(|entry| entry.spec.clone())
                    .collect();
                pictures.runs(&workload, &costs, &specs, &machine)?;
                pictures.tried(&workload, &comparison);
            }
            let of = OfWorkload::new(&workload, &comparison)?;
            text.push_str(&table(&of, &comparison)?);
            report.workloads.push(of);
        }
        bar.finish_and_clear();
        if let Some(pictures) = &pictures {
            pictures.finish()?;
        }
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(text)
    }
}

/// The published FnPacker is drawn as published, not in other sizes.
fn is_new(entry: &Entry) -> bool {
    entry.spec.name != PolicyName::Published
}

impl OfWorkload {
    fn new(workload: &Workload, comparison: &Comparison) -> anyhow::Result<Self> {
        let own = |entry: &&Entry| entry.spec.name == PolicyName::default();
        let default = comparison.entries.iter().find(own);
        let default = default.context("the default policy was not tried")?;
        Ok(Self {
            name: workload.name.clone(),
            requests: workload.arrivals.len(),
            models: workload.models.len(),
            published: Row::new(&comparison.published),
            default: Row::new(default),
            policies: comparison
                .entries
                .iter()
                .map(|entry| (entry.spec.name.name(), Row::new(entry)))
                .collect(),
            goals: goals(&workload.name, &comparison.published, default),
        })
    }
}

/// On the paper's own workload, W1, the published FnPacker has little to lose: it must never be
/// worse there.
fn goals(workload: &str, published: &Entry, default: &Entry) -> Vec<Goal> {
    let [mean, p99] = if workload.starts_with("w1") {
        [1.0, 1.0]
    } else {
        [MEAN_GOAL, P99_GOAL]
    };
    let goal = |figure, at_most, is: f64| Goal {
        figure,
        at_most,
        is,
        reached: is <= at_most,
    };
    let share = |figure: fn(&Figures) -> f64| figure(&default.mean) / figure(&published.mean);
    vec![
        goal("p99", p99, share(|f| f.p99_ms)),
        goal("mean", mean, share(|f| f.mean_ms)),
        goal("GB-seconds", 1.0, share(|f| f.gb_seconds)),
    ]
}

fn change(share: f64) -> String {
    format!("{:+.1}", (share - 1.0) * 100.0)
}

fn table(of: &OfWorkload, comparison: &Comparison) -> anyhow::Result<String> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "policy", "mean ms", "±", "Δ %", "p50", "p99", "±", "Δ %", "cold %", "switch %", "≤2x %",
        "errors", "GB·s", "Δ %",
    ]);
    let base = &comparison.published.mean;
    for entry in std::iter::once(&comparison.published).chain(&comparison.entries) {
        let (f, half) = (&entry.mean, &entry.intervals);
        let over = if entry.over_budget {
            " (over budget)"
        } else {
            ""
        };
        table.add_row([
            format!("{}{over}", entry.spec.text),
            format!("{:.1}", f.mean_ms),
            format!("{:.1}", half.mean_ms),
            change(f.mean_ms / base.mean_ms),
            format!("{:.1}", f.p50_ms),
            format!("{:.1}", f.p99_ms),
            format!("{:.1}", half.p99_ms),
            change(f.p99_ms / base.p99_ms),
            format!("{:.2}", f.cold * 100.0),
            format!("{:.1}", f.warm * 100.0),
            format!("{:.1}", f.slo_2x * 100.0),
            format!("{:.0}", f.errors),
            format!("{:.0}", f.gb_seconds),
            change(f.gb_seconds / base.gb_seconds),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!(
        "{}: {} requests for {} models\n{table}\n",
        of.name, of.requests, of.models
    );
    for goal in &of.goals {
        let (is, at_most) = (change(goal.is), change(goal.at_most));
        let verdict = if goal.reached {
            "reached".to_owned()
        } else {
            format!("missed by {:.1} points", (goal.is - goal.at_most) * 100.0)
        };
        writeln!(
            text,
            "{}, {}: {} {is} %, wanted {at_most} % or less: {verdict}",
            of.name,
            PolicyName::default().name(),
            goal.figure
        )?;
    }
    text.push('\n');
    Ok(text)
}
