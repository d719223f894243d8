//! Draws what a command found into a folder.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bench::compare::{Comparison, TUNE};
use bench::costs::CostModel;
use bench::plots::{Axis, Cloud, Curve, Strip, cdf, pareto, timeline};
use bench::policy::PolicySpec;
use bench::simulation::{Machine, Simulation};
use bench::workload::Workload;

/// Seconds of a run that a timeline shows.
const STRIP_SECONDS: f64 = 240.0;

/// The folder, and what goes into one picture of all workloads.
#[derive(Debug)]
pub(crate) struct Pictures {
    folder: PathBuf,
    clouds: Vec<Cloud>,
}

impl Pictures {
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            clouds: Vec::new(),
        })
    }

    fn write(&self, name: &str, picture: &str) -> anyhow::Result<()> {
        let path = self.folder.join(format!("{name}.svg"));
        std::fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Latencies of every policy, and what the instances of each did.
    pub(crate) fn runs(
        &self,
        workload: &Workload,
        costs: &CostModel,
        specs: &[PolicySpec],
        machine: &Machine,
    ) -> anyhow::Result<()> {
        let mut curves: Vec<Curve> = Vec::new();
        for spec in specs {
            let (tally, lived) = Simulation::traced(workload, costs, spec, machine, TUNE + 1);
            let strip = Strip::busiest(&lived, STRIP_SECONDS);
            let title = format!("{}: {}", workload.name, spec.text);
            let name = format!("timeline-{}-{}", workload.name, spec.name.name());
            self.write(&name, &timeline(&title, &lived, strip)?)?;
            curves.push(Curve {
                policy: spec.name,
                latencies: tally.latencies(),
            });
        }
        let title = format!("{}: latencies", workload.name);
        let name = format!("latency-{}", workload.name);
        self.write(&name, &cdf(&title, &curves)?)
    }

    /// The settings that were tried; drawn together by [`Pictures::finish`].
    pub(crate) fn tried(&mut self, workload: &Workload, comparison: &Comparison) {
        self.clouds.push(Cloud {
            workload: workload.name.clone(),
            published: comparison.published_tried,
            tried: comparison.tried.clone(),
        });
    }

    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        self.write("pareto-p99", &pareto(&self.clouds, Axis::P99)?)?;
        self.write("pareto-mean", &pareto(&self.clouds, Axis::Mean)?)
    }
}
