//! `bench compare`: every policy at the memory bill of the published FnPacker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use bench::compare::{Comparison, Entry, Pace, compare};
use bench::costs::{CostModel, Regime};
use bench::simulation::Machine;
use bench::workload::Workload;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use fnpacker::config::PolicyName;
use serde::Serialize;

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// A file of `t_ms,model` lines; several may be given.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    workload: Vec<PathBuf>,
    /// Policies besides the default; several may be given.
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = parse)]
    policy: Vec<PolicyName>,
    /// One of the published cost sets.
    #[arg(long, value_enum, default_value = "fast", conflicts_with = "costs")]
    regime: Regime,
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Runs to report, with the seeds 2 to N + 1; settings are chosen on seed 1.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Write JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn parse(text: &str) -> Result<PolicyName, String> {
    PolicyName::ALL
        .into_iter()
        .find(|name| name.name() == text)
        .ok_or_else(|| "no such policy".to_owned())
}

#[derive(Debug, Serialize)]
struct Report {
    workloads: Vec<OfWorkload>,
}

#[derive(Debug, Serialize)]
struct OfWorkload {
    name: String,
    published: Row,
    default: Row,
    policies: BTreeMap<String, Row>,
}

#[derive(Debug, Clone, Serialize)]
struct Row {
    policy: String,
    over_budget: bool,
    mean_ms: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    gb_seconds: f64,
    cold: f64,
    switch: f64,
}

impl Row {
    fn new(entry: &Entry) -> Self {
        let f = &entry.mean;
        Self {
            policy: entry.spec.text.clone(),
            over_budget: entry.over_budget,
            mean_ms: f.mean_ms,
            p50_ms: f.p50_ms,
            p95_ms: f.p95_ms,
            p99_ms: f.p99_ms,
            gb_seconds: f.gb_seconds,
            cold: f.cold,
            switch: f.warm,
        }
    }
}

impl Compare {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let costs = match &self.costs {
            Some(path) => CostModel::read(path)?,
            None => CostModel::regime(self.regime),
        };
        let machine = Machine::default();
        let mut text = String::new();
        let mut workloads = Vec::new();
        for path in &self.workload {
            let workload = Workload::read(path)?;
            let mut policies = self.policy.clone();
            if policies.is_empty() {
                policies = vec![PolicyName::EctP];
            }
            let comparison = compare(
                &workload,
                &costs,
                &policies,
                &machine,
                self.seeds,
                &Pace {
                    threads: 2,
                    ran: &|| (),
                },
            );
            text.push_str(&table(&workload, &comparison));
            let policies: BTreeMap<_, _> = comparison
                .entries
                .iter()
                .map(|e| (e.spec.name.name().to_owned(), Row::new(e)))
                .collect();
            let default = Row::new(&comparison.entries[0]);
            workloads.push(OfWorkload {
                name: workload.name.clone(),
                published: Row::new(&comparison.published),
                default,
                policies,
            });
        }
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&Report { workloads })?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(text)
    }
}

fn table(workload: &Workload, comparison: &Comparison) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "policy", "mean ms", "Δ %", "p50", "p99", "Δ %", "cold %", "switch %", "GB·s", "Δ %",
    ]);
    let base = &comparison.published.mean;
    for entry in std::iter::once(&comparison.published).chain(&comparison.entries) {
        let f = &entry.mean;
        let change = |a: f64, b: f64| format!("{:+.0}", (a / b - 1.0) * 100.0);
        table.add_row([
            entry.spec.text.clone(),
            format!("{:.0}", f.mean_ms),
            change(f.mean_ms, base.mean_ms),
            format!("{:.0}", f.p50_ms),
            format!("{:.0}", f.p99_ms),
            change(f.p99_ms, base.p99_ms),
            format!("{:.2}", f.cold * 100.0),
            format!("{:.1}", f.warm * 100.0),
            format!("{:.0}", f.gb_seconds),
            change(f.gb_seconds, base.gb_seconds),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{}: {} requests for {} models\n{table}\n",
        workload.name,
        workload.arrivals.len(),
        workload.models.len()
    )
}
