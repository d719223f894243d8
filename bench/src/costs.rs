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

/// How long something takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cost {
    /// Its median; the spread is that of the whole file.
    Median(Duration),
    /// As it was measured.
    Measured(Quantiles),
}

/// Quantiles at [`Quantiles::RANKS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles([Duration; 7]);

impl Quantiles {
    /// Shares of what was measured that are not above each quantile.
    pub const RANKS: [f64; 7] = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

    /// Of these samples; none have none.
    #[must_use]
    pub fn of(samples: &mut [Duration]) -> Option<Self> {
        samples.sort_unstable();
        let last = samples.len().checked_sub(1)?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index, positive and below 2^53"
        )]
        let at = |rank: f64| samples[(rank * last as f64).round() as usize];
        Some(Self(Self::RANKS.map(at)))
    }

    fn from_millis(millis: [f64; 7]) -> Result<Self, String> {
        let wrong = || format!("{millis:?} are not seven quantiles in milliseconds");
        let mut values = [Duration::ZERO; 7];
        for (value, millis) in values.iter_mut().zip(millis) {
            *value = Duration::try_from_secs_f64(millis / 1000.0).map_err(|_| wrong())?;
        }
        if values.is_sorted() {
            Ok(Self(values))
        } else {
            Err(wrong())
        }
    }

    /// In milliseconds, as a file has them.
    #[must_use]
    pub fn millis(&self) -> [f64; 7] {
        self.0.map(|value| value.as_secs_f64() * 1000.0)
    }

    /// The median.
    #[must_use]
    pub const fn median(&self) -> Duration {
        self.0[3]
    }

    /// The value below which a share `u` lies, straight between two quantiles; the last hundredth
    /// is like the 99th.
    fn at(&self, u: f64) -> Duration {
        let above = Self::RANKS.iter().position(|rank| *rank > u);
        let Some(above) = above.filter(|above| *above > 0) else {
            return self.0[6];
        };
        let (low, high) = (Self::RANKS[above - 1], Self::RANKS[above]);
        let share = (u - low) / (high - low);
        let step = self.0[above].saturating_sub(self.0[above - 1]);
        self.0[above - 1] + step.mul_f64(share)
    }
}

impl Cost {
    /// The median.
    #[must_use]
    pub const fn median(&self) -> Duration {
        match self {
            Self::Median(median) => *median,
            Self::Measured(quantiles) => quantiles.median(),
        }
    }
}

impl From<Duration> for Cost {
    fn from(median: Duration) -> Self {
        Self::Median(median)
    }
}

impl<'de> Deserialize<'de> for Cost {
    /// `"15ms"`, or seven numbers: the quantiles in milliseconds.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Quantiles([f64; 7]),
        }
        match Form::deserialize(deserializer)? {
            Form::Text(text) => service::units::duration::parse(&text).map(Self::Median),
            Form::Quantiles(millis) => Quantiles::from_millis(millis).map(Self::Measured),
        }
        .map_err(serde::de::Error::custom)
    }
}

/// What one model costs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCost {
    /// A hot request, from the client to the client.
    pub exec: Cost,
    /// What it takes longer when the instance has another model.
    pub switch: Cost,
    /// What it takes yet longer when there is no instance; by default as for every model.
    #[serde(default)]
    pub start: Option<Cost>,
    /// What it adds to an instance's memory.
    #[serde(default)]
    pub memory_mb: Option<f64>,
}

/// What everything costs. A cold invocation pays start, switch and execution.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    start: Cost,
    /// Deviation of the logarithm of every cost that is only a median (0.1 is about ten per cent).
    spread: f64,
    /// How many jobs the measured machine does at once without slowing any down.
    #[serde(default)]
    pub cores: Option<f64>,
    /// Share of a start that is work for a core; the rest is waiting. Absent: all of it.
    #[serde(default)]
    pub start_work: Option<f64>,
    /// Memory of an instance without a model.
    #[serde(default)]
    pub instance_mb: Option<f64>,
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
            start: Cost::Median(Duration::from_millis(start)),
            spread: 0.03,
            cores: None,
            start_work: None,
            instance_mb: None,
            default: ModelCost {
                exec: Cost::Median(Duration::from_millis(exec)),
                switch: Cost::Median(Duration::from_millis(switch)),
                start: None,
                memory_mb: None,
            },
            model: BTreeMap::new(),
        }
    }

    /// What `bench calibrate` measured on the real system, from `bench/costs/calibrated.toml`.
    ///
    /// # Errors
    /// The file that was compiled in is not such a file.
    pub fn calibrated() -> Result<Self, toml::de::Error> {
        toml::from_str(include_str!("../costs/calibrated.toml"))
    }

    /// From a TOML file: `start`, `spread`, `[default]` and any `[model.NAME]` with `exec` and
    /// `switch`: medians as `"150ms"`, or seven quantiles in milliseconds, at [`Quantiles::RANKS`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        service::load_config(path)
    }

    /// The costs of a model, by the name it has in the workload's file.
    #[must_use]
    pub fn of(&self, model: &ModelId) -> ModelCost {
        self.model
            .get(name_of(model))
            .copied()
            .unwrap_or(self.default)
    }

    /// This model's requests run so long; everything else stays as it is.
    pub fn set_exec(&mut self, model: &ModelId, exec: Cost) {
        let cost = ModelCost {
            exec,
            ..self.of(model)
        };
        self.model.insert(name_of(model).to_owned(), cost);
    }

    /// With these models costing what the file says of these sizes; `None` if it does not know one.
    #[must_use]
    pub fn sized(mut self, models: &[ModelId], sizes: &[String]) -> Option<Self> {
        for (model, size) in models.iter().zip(sizes) {
            let cost = *self.model.get(size)?;
            self.model.insert(name_of(model).to_owned(), cost);
        }
        Some(self)
    }

    /// Median execution of a model of which the file says nothing.
    #[must_use]
    pub const fn usual_exec(&self) -> Duration {
        self.default.exec.median()
    }

    /// MiB that a model of which the file says nothing adds to an instance.
    #[must_use]
    pub const fn model_mb(&self) -> Option<f64> {
        self.default.memory_mb
    }

    /// What it takes to start an instance.
    #[must_use]
    pub const fn start(&self) -> Cost {
        self.start
    }

    /// One draw, in microseconds.
    pub fn draw(&self, cost: Cost, random: &mut Random) -> u64 {
        let drawn = match cost {
            Cost::Median(median) => median.mul_f64((self.spread * random.normal()).exp()),
            Cost::Measured(quantiles) => quantiles.at(1.0 - random.unit()),
        };
        u64::try_from(drawn.as_micros()).unwrap_or(u64::MAX)
    }
}

/// What the workload's file calls it.
fn name_of(model: &ModelId) -> &str {
    let name = model.as_str().split_once('-').map(|(_, name)| name);
    name.unwrap_or(model.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CostModel, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        CostModel::read(file.path()).map_err(|error| service::ErrorChain(&error).to_string())
    }

    #[test]
    fn what_is_compiled_in_can_be_read() {
        let costs = CostModel::calibrated().unwrap();
        assert!(costs.usual_exec() > Duration::ZERO);
    }

    #[test]
    fn quantiles_that_fall_or_are_not_seven_are_refused() {
        let file = |exec: &str| {
            format!("start = '1s'\nspread = 0.1\n[default]\nexec = {exec}\nswitch = '2ms'\n")
        };
        for bad in [
            "[1, 2, 3]",
            "[1, 2, 3, 4, 5, 7, 6]",
            "[-1, 2, 3, 4, 5, 6, 7]",
            "'3'",
        ] {
            assert!(read(&file(bad)).is_err(), "{bad}");
        }
        let costs = read(&file("[1.5, 2, 3, 4, 5, 6, 7]")).unwrap();
        assert_eq!(costs.default.exec.median(), Duration::from_millis(4));
        let unknown = costs.sized(&["m0-a".parse().unwrap()], &["18MB".to_owned()]);
        assert!(unknown.is_none());
    }

    #[test]
    fn draws_have_the_quantiles_that_were_measured() {
        let ms = Duration::from_millis;
        let mut samples: Vec<_> = (0..=1000).map(ms).collect();
        let quantiles = Quantiles::of(&mut samples).unwrap();
        assert_eq!(
            quantiles.millis(),
            [0.0, 50.0, 250.0, 500.0, 750.0, 950.0, 990.0]
        );
        let costs = CostModel::regime(Regime::Fast);
        let mut random = Random::new(1);
        let mut drawn: Vec<_> = (0..10_000)
            .map(|_| Duration::from_micros(costs.draw(Cost::Measured(quantiles), &mut random)))
            .collect();
        let got = Quantiles::of(&mut drawn).unwrap().millis();
        for (got, wanted) in got.iter().zip(quantiles.millis()) {
            assert!((got - wanted).abs() < 15.0, "{got} for {wanted}");
        }
        assert!(Quantiles::of(&mut []).is_none());
    }
}
