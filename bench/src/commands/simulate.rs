//! `bench simulate`: packing policies against each other, in virtual time.

use std::path::PathBuf;

use anyhow::Context as _;
use bench::costs::{CostModel, Regime};
use bench::policy::PolicySpec;
use bench::report::Figures;
use bench::simulation::{Machine, Simulation};
use bench::workload::Workload;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A file of `t_ms,model` lines; may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    workload: Vec<PathBuf>,
    /// NAME or NAME:endpoints=N,models=N,ttl=SECONDS,instances=N; may be given several times.
    #[arg(long, value_name = "POLICY", required = true)]
    policy: Vec<PolicySpec>,
    /// One of the published cost sets.
    #[arg(long, value_enum, default_value = "fast", conflicts_with = "costs")]
    regime: Regime,
    /// A TOML file of costs instead: start, spread, [default] and [model.NAME] with exec, switch.
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Runs of each, with the seeds 1 to N.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Cores that all instances share; without it each has its own.
    #[arg(long)]
    cores: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
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
    let costs = match &args.costs {
        Some(path) => CostModel::read(path)?,
        None => CostModel::regime(args.regime),
    };
    let machine = Machine {
        cores: args.cores,
        ..Machine::default()
    };
    let mut workloads = Vec::new();
    for path in &args.workload {
        let workload = Workload::read(path)?;
        let mut policies = Vec::new();
        for spec in &args.policy {
            let run = |seed| Simulation::run(&workload, &costs, spec, &machine, seed).figures();
            let runs: Vec<_> = (1..=args.seeds).map(run).collect();
            let mean = Figures::mean(&runs).context("no runs")?;
            policies.push(PolicyOutcome {
                policy: spec.text.clone(),
                seeds: args.seeds,
                mean,
                runs,
            });
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
            "policy", "mean ms", "p50", "p95", "p99", "cold %", "warm %", "GB·s", "billed",
            "≤2x %", "errors", "retries",
        ]);
        for policy in &workload.policies {
            let f = &policy.mean;
            table.add_row([
                policy.policy.clone(),
                format!("{:.0}", f.mean_ms),
                format!("{:.0}", f.p50_ms),
                format!("{:.0}", f.p95_ms),
                format!("{:.0}", f.p99_ms),
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
