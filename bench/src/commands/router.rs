//! `bench router`: what FnPacker and the embedded platform add.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bench::router::{self, Plan, Report};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

#[derive(Debug, Args)]
pub(crate) struct Router {
    /// Write JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The executable that is the whole system; by default the one beside this.
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
    /// The folder of the small model.
    #[arg(long, value_name = "FOLDER", default_value = "models/breast-cancer")]
    model: PathBuf,
    /// Requests in flight.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,
    /// Turns of each way.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a turn in milliseconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    turn_ms: u64,
    /// Arrivals for each policy's decisions.
    #[arg(long, default_value_t = 100_000)]
    decisions: usize,
}

impl Router {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let dev = match &self.dev {
            Some(dev) => dev.clone(),
            None => std::env::current_exe()
                .context("find this executable")?
                .with_file_name("sesemi-dev"),
        };
        let report = router::measure(&Plan {
            dev,
            model: self.model.clone(),
            at_once: self.at_once,
            rounds: self.rounds,
            turn: Duration::from_millis(self.turn_ms),
            decisions: self.decisions,
        })?;
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(tables(&report))
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(header);
    table
}

fn tables(report: &Report) -> String {
    let mut ways = table(["way", "p50 ms", "p99 ms", "1/s", "best"]);
    for way in &report.ways {
        ways.add_row([
            way.way.name().to_owned(),
            format!("{:.3}", way.p50_ms),
            format!("{:.3}", way.p99_ms),
            format!("{:.0}", way.per_second),
            format!("{:.0}", way.per_second_best),
        ]);
    }
    let mut policies = table([
        "policy",
        "arrive p50 us",
        "p99",
        "finish p50 us",
        "p99",
        "queued",
        "refused",
    ]);
    for policy in &report.decisions {
        policies.add_row([
            policy.policy.to_owned(),
            format!("{:.2}", policy.arrive.p50_us),
            format!("{:.2}", policy.arrive.p99_us),
            format!("{:.2}", policy.finish.p50_us),
            format!("{:.2}", policy.finish.p99_us),
            format!("{:.0}", policy.queued),
            format!("{:.1} %", policy.refused * 100.0),
        ]);
    }
    let mut goals = table(["goal", "", "got", "unit", "floor", ""]);
    for goal in &report.goals {
        goals.add_row([
            goal.name.clone(),
            format!("{}", goal.goal),
            format!("{:.3}", goal.got),
            goal.unit.to_owned(),
            goal.floor.map_or("-".to_owned(), |it| format!("{it:.3}")),
            if goal.reached { "reached" } else { "MISSED" }.to_owned(),
        ]);
    }
    for table in [&mut ways, &mut policies, &mut goals] {
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let processor: Vec<_> = report
        .processor_us
        .iter()
        .map(|(part, us)| format!("{part} {us:.0}"))
        .collect();
    format!(
        "{} cores, {} in flight, {} rounds; latencies at {:.0} requests/s\n{ways}\n\
         processor time of a request on the whole way, us: {}\n\n\
         decisions with {} models and {} instances\n{policies}\n\n{goals}",
        report.cores,
        report.at_once,
        report.rounds,
        report.rate,
        processor.join(", "),
        router::decisions::MODELS,
        router::decisions::INSTANCES,
    )
}
