//! `bench simulate`: packing policies against each other, in virtual time.

use std::path::PathBuf;

use anyhow::Context as _;
use bench::policy::PolicySpec;
use bench::report::{Figures, Intervals};
use bench::simulation::Simulation;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::pictures::Pictures;
use super::platform::Platform;
use super::workloads::Workloads;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    #[command(flatten)]
    workloads: Workloads,
    /// NAME or NAME:endpoints=N,models=N,ttl=SECONDS,instances=N,price=X; several may be given.
    #[arg(long, value_name = "POLICY", required = true, num_args = 1..)]
    policy: Vec<PolicySpec>,
    #[command(flatten)]
    platform: Platform,
    /// Runs of each, with the seeds 1 to N.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Draw the latencies and what the instances did into this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    workloads: Vec<WorkloadOutcome>,
}

#[derive(Debug, Serialize)]
struct WorkloadOutcome {
    name: String,
    requests: usize,
    models: usize,
    policies: Vec<PolicyOutcome>,
}

#[derive(Debug, Serialize)]
struct PolicyOutcome {
    policy: String,
    seeds: u64,
    mean: Figures,
    /// Half-widths of the 95 % confidence intervals.
    interval: Intervals,
    runs: Vec<Figures>,
}

impl Simulate {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let outcome = simulate(self)?;
        if self.json {
            Ok(serde_json::to_string_pretty(&outcome)?)
        } else {
            Ok(tables(&outcome))
        }
    }
}

fn simulate(args: &Simulate) -> anyhow::Result<Outcome> {
    let costs = args.platform.costs()?;
    let machine = args.platform.machine(&costs);
    let mut workloads = Vec::new();
    for source in &args.workloads.workload {
        let workload = source.workload()?;
        let costs = source.costs(&costs)?;
        let mut policies = Vec::new();
        for spec in &args.policy {
            let run = |seed| Simulation::run(&workload, &costs, spec, &machine, seed).figures();
            let runs: Vec<_> = (1..=args.seeds).map(run).collect();
            let mean = Figures::mean(&runs).context("no runs")?;
            policies.push(PolicyOutcome {
                policy: spec.text.clone(),
                seeds: args.seeds,
                mean,
                interval: Intervals::new(&runs),
                runs,
            });
        }
        if let Some(folder) = &args.plots {
            Pictures::new(folder)?.runs(&workload, &costs, &args.policy, &machine)?;
        }
        workloads.push(WorkloadOutcome {
            name: workload.name.clone(),
            requests: workload.arrivals.len(),
            models: workload.models.len(),
            policies,
        });
    }
    Ok(Outcome { workloads })
}

fn tables(outcome: &Outcome) -> String {
    let mut text = String::new();
    for workload in &outcome.workloads {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "policy", "mean ms", "±", "p50", "p95", "p99", "±", "cold %", "warm %", "GB·s",
            "billed", "≤2x %", "errors", "retries",
        ]);
        for policy in &workload.policies {
            let f = &policy.mean;
            table.add_row([
                policy.policy.clone(),
                format!("{:.1}", f.mean_ms),
                format!("{:.1}", policy.interval.mean_ms),
                format!("{:.1}", f.p50_ms),
                format!("{:.1}", f.p95_ms),
                format!("{:.1}", f.p99_ms),
                format!("{:.1}", policy.interval.p99_ms),
                format!("{:.2}", f.cold * 100.0),
                format!("{:.1}", f.warm * 100.0),
                format!("{:.0}", f.gb_seconds),
                format!("{:.0}", f.billed_gb_seconds),
                format!("{:.1}", f.slo_2x * 100.0),
                format!("{:.0}", f.errors),
                format!("{:.2}", f.retries_per_request),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text.push_str(&format!(
            "{}: {} requests for {} models\n{table}\n",
            workload.name, workload.requests, workload.models
        ));
    }
    text
}
