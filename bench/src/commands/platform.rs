//! Arguments about the simulated platform, for every command that simulates.

use std::path::PathBuf;
use std::time::Duration;

use bench::costs::{CostModel, Regime};
use bench::simulation::Machine;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Platform {
    /// One of the published cost sets.
    #[arg(long, value_enum, conflicts_with = "costs")]
    regime: Option<Regime>,
    /// A TOML file of costs: start, spread, [default] and [model.NAME] with exec and switch;
    /// without it and a regime, the costs measured on the real system, compiled in.
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Cores that all instances share; without it each has its own.
    #[arg(long, value_parser = positive)]
    cores: Option<f64>,
    /// Memory for all instances, in MiB, besides each policy's number of instances.
    #[arg(long, value_name = "MIB", value_parser = positive)]
    memory: Option<f64>,
    /// Memory of an instance without a model, in MiB.
    #[arg(long, value_name = "MIB", value_parser = positive)]
    instance_memory: Option<f64>,
    /// Memory of each model that an instance can hold, in MiB.
    #[arg(long, value_name = "MIB", value_parser = positive)]
    model_memory: Option<f64>,
    /// What the platform adds to every invocation, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    overhead: u64,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value| (1e-3..1e12).contains(value))
        .ok_or_else(|| "not a positive number".to_owned())
}

impl Platform {
    pub(crate) fn costs(&self) -> anyhow::Result<CostModel> {
        Ok(match (&self.costs, self.regime) {
            (Some(path), _) => CostModel::read(path)?,
            (None, Some(regime)) => CostModel::regime(regime),
            (None, None) => CostModel::calibrated()?,
        })
    }

    pub(crate) fn costs_name(&self) -> String {
        match (&self.costs, self.regime) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(Regime::Paper)) => "paper regime".to_owned(),
            (None, Some(Regime::Fast)) => "fast regime".to_owned(),
            (None, None) => "calibrated on the real system".to_owned(),
        }
    }

    /// What is not given is as the costs' file has it, or else the usual.
    pub(crate) fn machine(&self, costs: &CostModel) -> Machine {
        let usual = Machine::default();
        let instance_mb = self.instance_memory.or(costs.instance_mb);
        let model_mb = self.model_memory.or(costs.model_mb());
        Machine {
            cores: self.cores.or(costs.cores),
            instance_mb: instance_mb.unwrap_or(usual.instance_mb),
            model_mb: model_mb.unwrap_or(usual.model_mb),
            memory_mb: self.memory,
            overhead: Duration::from_millis(self.overhead),
        }
    }
}
