//! `bench simulate`: packing policies against each other, in virtual time. `bench evidence`: what
//! it costs to verify evidence.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use bench::costs::{CostModel, Regime};
use bench::evidence::{self, Cost, Report};
use bench::policy::PolicySpec;
use bench::report::Figures;
use bench::simulation::{Machine, Simulation};
use bench::workload::Workload;
use clap::{Args, Parser, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// Measures packing policies, and the verification of evidence.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays workloads against policies in virtual time, with FnPacker's own policy code.
    Simulate(Simulate),
    /// Verifies evidence of every TEE many times: one process, one core.
    Evidence(Evidence),
}

#[derive(Debug, Args)]
struct Evidence {
    /// Write JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Verifications of each piece.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// The folder of captured evidence; without it, evidence that is made here is all.
    #[arg(long, env = "SESEMI_SHARED", value_name = "FOLDER")]
    shared: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Simulate {
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

fn main() -> anyhow::Result<()> {
    let text = match Cli::parse().command {
        Command::Simulate(args) => {
            let outcome = simulate(&args)?;
            if args.json {
                serde_json::to_string_pretty(&outcome)?
            } else {
                tables(&outcome)
            }
        }
        Command::Evidence(args) => {
            let report = evidence::measure(args.rounds as usize, args.shared.as_deref());
            if let Some(path) = &args.json {
                std::fs::write(path, serde_json::to_string_pretty(&report)?)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            evidence_tables(&report)
        }
    };
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}

fn evidence_tables(report: &Report) -> String {
    let mut singles = Table::new();
    singles
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["one signature", "median ms", "p99"]);
    for single in &report.signatures {
        let Cost { median_ms, p99_ms } = single.cost;
        singles.add_row([
            single.name.to_owned(),
            format!("{median_ms:.3}"),
            format!("{p99_ms:.3}"),
        ]);
    }
    let mut cases = Table::new();
    cases.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "evidence",
        "median ms",
        "p99",
        "goal",
        "floor",
        "ratio",
        "dcap-qvl",
        "p99",
    ]);
    for case in &report.cases {
        let peer = |figure: fn(&Cost) -> f64| {
            let figure = case.peer.as_ref().map(figure);
            figure.map_or("-".to_owned(), |ms| format!("{ms:.3}"))
        };
        let goal = case.cost.median_ms <= report.goal_ms;
        cases.add_row([
            case.name.clone(),
            format!("{:.3}", case.cost.median_ms),
            format!("{:.3}", case.cost.p99_ms),
            format!("{} {}", report.goal_ms, if goal { "met" } else { "MISSED" }),
            format!("{:.3}", case.floor_ms),
            format!("{:.2}", case.ratio),
            peer(|cost| cost.median_ms),
            peer(|cost| cost.p99_ms),
        ]);
    }
    for table in [&mut singles, &mut cases] {
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{singles}\n\n{} rounds\n{cases}", report.rounds)
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
