//! `bench run`: workloads on the real system, with encrypted requests.

use std::path::PathBuf;

use anyhow::Context as _;
use bench::real::outcome::Outcome;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::live::{Desk, Live};

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    live: Live,
    /// Runs of each, in turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Write JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<OneRun>,
}

#[derive(Debug, Serialize)]
struct OneRun {
    workload: String,
    models: usize,
    policy: String,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Run {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let desk = Desk::new()?;
        let mut runs = Vec::new();
        for number in 0..self.runs {
            for workload in &self.live.workloads()? {
                for spec in &self.live.policy {
                    desk.say(&format!(
                        "run {} of {}: {} under {}",
                        number + 1,
                        self.runs,
                        workload.name,
                        spec.text
                    ));
                    runs.push(OneRun {
                        workload: workload.name.clone(),
                        models: workload.models.len(),
                        policy: spec.text.clone(),
                        outcome: self.live.play(&desk, workload, spec)?,
                    });
                }
            }
        }
        let report = Report { runs };
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(text(&report))
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "workload", "policy", "requests", "mean ms", "p50", "p95", "p99", "cold %", "warm %",
        "GB·s", "billed", "≤2x %", "errors", "late p99", "max",
    ]);
    for run in &report.runs {
        let o = &run.outcome;
        table.add_row([
            run.workload.clone(),
            run.policy.clone(),
            o.requests.to_string(),
            format!("{:.1}", o.mean_ms),
            format!("{:.1}", o.p50_ms),
            format!("{:.1}", o.p95_ms),
            format!("{:.1}", o.p99_ms),
            format!("{:.2}", o.cold * 100.0),
            format!("{:.1}", o.warm * 100.0),
            format!("{:.1}", o.gb_seconds),
            format!("{:.1}", o.billed_gb_seconds),
            format!("{:.1}", o.slo_2x * 100.0),
            o.errors.to_string(),
            format!("{:.2}", o.driver.p99_ms),
            format!("{:.1}", o.driver.max_ms),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.to_string();
    for run in &report.runs {
        text.push_str(&remarks(&run.policy, &run.outcome));
    }
    text
}

/// What makes a run doubtful.
pub(crate) fn remarks(policy: &str, outcome: &Outcome) -> String {
    let mut text = String::new();
    if !outcome.driver.usable {
        text.push_str(&format!(
            "\n{policy}: NOT USABLE: the driver itself sent late (p99 {:.2} ms)",
            outcome.driver.p99_ms
        ));
    }
    for (why, count) in &outcome.failures {
        text.push_str(&format!("\n{policy}: {count} errors: {why}"));
    }
    text
}
