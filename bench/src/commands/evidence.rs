//! `bench evidence`: what it costs to verify evidence.

use std::path::PathBuf;

use anyhow::Context as _;
use bench::evidence::{self, Cost, Report};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

#[derive(Debug, Args)]
pub(crate) struct Evidence {
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

impl Evidence {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let report = evidence::measure(self.rounds as usize, self.shared.as_deref());
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(tables(&report))
    }
}

fn tables(report: &Report) -> String {
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
