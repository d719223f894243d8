//! What a simulated invocation costs: a regime of medians with a spread, or a file of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use protocol::ModelId;
use serde::Deserialize;
use service::ConfigError;

use crate::random::Random;

/// The cost sets of the published comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Regime {
    /// Execution 150 ms, switch 300 ms, cold start 1,300 ms.
    Fast,
    /// Execution 900 ms, switch 1,000 ms, cold start 2,500 ms.
    Paper,
}

/// Medians of one model.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCost {
    #[serde(with = "service::units::duration")]
    pub exec: Duration,
    #[serde(with = "service::units::duration")]
    pub switch: Duration,
}

/// What everything costs. A cold invocation pays start, switch and execution.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    #[serde(with = "service::units::duration")]
    start: Duration,
    /// Deviation of the logarithm of every cost (0.1 is about ten per cent).
    spread: f64,
    default: ModelCost,
    #[serde(default)]
    model: BTreeMap<String, ModelCost>,
}

impl CostModel {
    /// One of the two published sets, with three per cent of spread.
    #[must_use]
    pub const fn regime(regime: Regime) -> Self {
        let (exec, switch, start) = match regime {
            Regime::Fast => (150, 300, 1300),
            Regime::Paper => (900, 1000, 2500),
        };
        Self {
            start: Duration::from_millis(start),
            spread: 0.03,
            default: ModelCost {
                exec: Duration::from_millis(exec),
                switch: Duration::from_millis(switch),
            },
            model: BTreeMap::new(),
        }
    }

    /// From a TOML file: `start`, `spread`, `[default]` and any `[model.NAME]` with `exec` and
    /// `switch`, medians as `"150ms"`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        service::load_config(path)
    }

    /// The medians of a model, by the name it has in the workload's file.
    #[must_use]
    pub fn of(&self, model: &ModelId) -> ModelCost {
        let name = model
            .as_str()
            .split_once('-')
            .map_or(model.as_str(), |(_, name)| name);
        self.model.get(name).copied().unwrap_or(self.default)
    }

    /// Median time to start an instance.
    #[must_use]
    pub const fn start(&self) -> Duration {
        self.start
    }

    /// One draw around a median, in microseconds.
    pub fn draw(&self, median: Duration, random: &mut Random) -> u64 {
        let factor = (self.spread * random.normal()).exp();
        u64::try_from(median.mul_f64(factor).as_micros()).unwrap_or(u64::MAX)
    }
}
