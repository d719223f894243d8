//! `bench agree`: the same workloads on the real system and in the simulator, side by side.

use std::path::PathBuf;

use anyhow::Context as _;
use bench::costs::CostModel;
use bench::policy::PolicySpec;
use bench::real::outcome::Outcome;
use bench::report::Figures;
use bench::simulation::{Machine, Simulation};
use bench::workload::Workload;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::live::{Desk, Live};
use super::run::remarks;

/// What counts as agreement.
const WITHIN: f64 = 0.15;

#[derive(Debug, Args)]
pub(crate) struct Agree {
    #[command(flatten)]
    live: Live,
    /// What `bench calibrate` has written on this machine.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "bench/costs/calibrated.toml"
    )]
    costs: PathBuf,
    /// Real runs of each, in turn; their median counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Simulated runs of each, with the seeds 1 to N; their mean counts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Cores of the simulated machine, instead of the file's.
    #[arg(long)]
    cores: Option<f64>,
    /// Write JSON to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One figure, from both.
#[derive(Debug, Serialize)]
struct Pair {
    figure: &'static str,
    /// Median of the runs, and the runs.
    real: f64,
    runs: Vec<f64>,
    simulated: f64,
    /// Simulated over real.
    ratio: f64,
    /// Whether the issue demands agreement in it.
    demanded: bool,
}

#[derive(Debug, Serialize)]
struct Comparison {
    workload: String,
    policy: String,
    pairs: Vec<Pair>,
    #[serde(skip)]
    remarks: String,
}

impl Agree {
    pub(crate) fn run(&self) -> anyhow::Result<String> {
        let costs = CostModel::read(&self.costs)?;
        let desk = Desk::new()?;
        let workloads = self.live.workloads()?;
        let mut outcomes: Vec<Vec<Outcome>> = Vec::new();
        for number in 0..self.runs {
            let both = workloads
                .iter()
                .flat_map(|workload| self.live.policy.iter().map(move |spec| (workload, spec)));
            for (at, (workload, spec)) in both.enumerate() {
                desk.say(&format!(
                    "run {} of {}: {} under {}",
                    number + 1,
                    self.runs,
                    workload.name,
                    spec.text
                ));
                let outcome = self.live.play(&desk, workload, spec)?;
                if number == 0 {
                    outcomes.push(Vec::new());
                }
                outcomes[at].push(outcome);
            }
        }
        let mut comparisons = Vec::new();
        let mut outcomes = outcomes.into_iter();
        for workload in &workloads {
            for spec in &self.live.policy {
                let runs = outcomes.next().context("a run is missing")?;
                let simulated = self.simulate(&costs, workload, spec)?;
                comparisons.push(compare(workload, spec, &runs, &simulated));
            }
        }
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&comparisons)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(text(&comparisons))
    }

    fn simulate(
        &self,
        costs: &CostModel,
        workload: &Workload,
        spec: &PolicySpec,
    ) -> anyhow::Result<Figures> {
        let scene = self.live.scene(spec)?;
        let sizes = scene.names(workload.models.len());
        let costs = costs.clone().sized(&workload.models, &sizes);
        let costs = costs.with_context(|| {
            format!(
                "{} does not have every size; run: bench calibrate --sizes {}",
                self.costs.display(),
                scene
                    .sizes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(",")
            )
        })?;
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let machine = Machine {
            cores: self.cores.or(costs.cores),
            // What the platform sets aside here, whatever is resident.
            instance_mb: scene.instance_mb() as f64,
            model_mb: 0.0,
            ..Machine::default()
        };
        let run = |seed| Simulation::run(workload, &costs, spec, &machine, seed).figures();
        let runs: Vec<_> = (1..=self.seeds).map(run).collect();
        Figures::mean(&runs).context("no simulated runs")
    }
}

fn compare(
    workload: &Workload,
    spec: &PolicySpec,
    runs: &[Outcome],
    simulated: &Figures,
) -> Comparison {
    let pair = |figure, demanded, real: fn(&Outcome) -> f64, simulated: f64| {
        let runs: Vec<f64> = runs.iter().map(real).collect();
        let mut sorted = runs.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let real = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        Pair {
            figure,
            real,
            runs,
            simulated,
            ratio: simulated / real,
            demanded,
        }
    };
    let s = simulated;
    Comparison {
        workload: workload.name.clone(),
        policy: spec.text.clone(),
        pairs: vec![
            pair("p50 ms", true, |o| o.p50_ms, s.p50_ms),
            pair("p99 ms", true, |o| o.p99_ms, s.p99_ms),
            pair("GB·s", true, |o| o.gb_seconds, s.gb_seconds),
            pair("mean ms", false, |o| o.mean_ms, s.mean_ms),
            pair("p95 ms", false, |o| o.p95_ms, s.p95_ms),
            pair("cold %", false, |o| o.cold * 100.0, s.cold * 100.0),
            pair("warm %", false, |o| o.warm * 100.0, s.warm * 100.0),
        ],
        remarks: runs.iter().map(|run| remarks(&spec.text, run)).collect(),
    }
}

fn text(comparisons: &[Comparison]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "workload",
        "policy",
        "figure",
        "real",
        "runs",
        "simulated",
        "ratio",
        "",
    ]);
    for comparison in comparisons {
        for (at, pair) in comparison.pairs.iter().enumerate() {
            let first = |text: &str| {
                if at == 0 {
                    text.to_owned()
                } else {
                    String::new()
                }
            };
            let runs: Vec<_> = pair.runs.iter().map(|run| format!("{run:.1}")).collect();
            let verdict = match (pair.demanded, (pair.ratio - 1.0).abs() <= WITHIN) {
                (false, _) => "",
                (true, true) => "agrees",
                (true, false) => "DIFFERS",
            };
            table.add_row([
                first(&comparison.workload),
                first(&comparison.policy),
                pair.figure.to_owned(),
                format!("{:.1}", pair.real),
                runs.join(" "),
                format!("{:.1}", pair.simulated),
                format!("{:.2}", pair.ratio),
                verdict.to_owned(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let remarks: String = comparisons.iter().map(|c| c.remarks.as_str()).collect();
    format!("{table}{remarks}")
}
