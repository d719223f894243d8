//! The Azure Functions trace of 2019, in the samples of `InVitro`: calls of each function in each
//! minute of a day, as arrivals.
//!
//! After Ustiugov et al., "In-Vitro" (WORDS 2023), `pkg/generator/specification.go`: a minute with
//! c calls gets exponential gaps that are scaled to 60 s. There are c + 1 of them, so that no call
//! lies on the minute's end: a Poisson process, given its count.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::generated::{gap, micros};
use super::source::{Parameters, ParseSourceError, positive};
use super::{Arrival, Workload, WorkloadError, model_id, read_lines};
use crate::costs::{Cost, CostModel};
use crate::random::Random;

const MINUTES: usize = 1440;
/// `HashFunction,HashApp,HashOwner`, before the minutes.
const NAMES: usize = 3;

/// A part of the trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Azure {
    folder: PathBuf,
    /// Functions of the sample: 50, 200 or 400 in the public ones.
    functions: u32,
    /// First and last minute, from 1.
    minutes: (usize, usize),
    /// Calls for each call of the trace.
    scale: f64,
    /// Each function's minutes begin at a place of their own.
    shift: bool,
    /// Executions as long as the trace's own.
    run: bool,
    seed: u64,
}

impl Azure {
    pub(super) fn parse(text: &str) -> Result<Self, ParseSourceError> {
        let (path, mut given) = Parameters::after_path("azure", "DIR", text)?;
        let (folder, functions) = match path.rsplit_once(':') {
            Some((folder, number)) => (folder.to_owned(), number.to_owned()),
            None => (path, "50".to_owned()),
        };
        let wrong = |_| ParseSourceError::Parameter {
            kind: "azure",
            text: functions.clone(),
            what: "after DIR: is a number of functions",
            known: "DIR:N with a file N_inv.csv".to_owned(),
        };
        let azure = Self {
            folder: folder.into(),
            functions: functions.parse().map_err(wrong)?,
            minutes: given.take_with(
                "minutes",
                (1, MINUTES),
                "1-1440 or a part of it",
                |text| {
                    let (from, to) = text.split_once('-')?;
                    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
                    (1 <= from && from <= to && to <= MINUTES).then_some((from, to))
                },
            )?,
            scale: given.take("scale", 1.0, "above 0", positive)?,
            shift: given.take_with("shift", false, "yes or no", yes)?,
            run: given.take_with("run", false, "yes or no", yes)?,
            seed: given.take("seed", 1, "a number", |_| true)?,
        };
        given.done()?;
        Ok(azure)
    }

    pub(super) fn workload(&self) -> Result<Workload, WorkloadError> {
        let path = self.folder.join(format!("{}_inv.csv", self.functions));
        let mut random = Random::new(self.seed);
        let (mut models, mut arrivals) = (Vec::new(), Vec::new());
        read_lines(&path, |number, line| {
            if number == 1 && line.starts_with("HashFunction") {
                return Ok(());
            }
            let mut fields = line.split(',');
            let index = u32::try_from(models.len()).map_err(|_| "too many functions")?;
            let name = fields.next().unwrap_or_default();
            let shift = if self.shift { random.unit() } else { 0.0 };
            let minutes = fields.skip(NAMES - 1).take(self.minutes.1).enumerate();
            for (minute, count) in minutes.skip(self.minutes.0 - 1) {
                let count: f64 = count.parse().map_err(|_| "a count is not a number")?;
                if !(0.0..1e9).contains(&count) {
                    return Err("a count is below 0 or too high");
                }
                #[expect(clippy::cast_precision_loss, reason = "a minute of a day")]
                let begins = (minute + 1 - self.minutes.0) as f64 * 60.0;
                let calls = self.calls(count, &mut random);
                for second in within_a_minute(calls, shift, &mut random) {
                    arrivals.push(Arrival {
                        at: micros(begins + second),
                        model: index,
                    });
                }
            }
            models.push(model_id(name, index).ok_or("a function has no name")?);
            Ok(())
        })?;
        arrivals.sort_by_key(|arrival| arrival.at);
        Ok(Workload {
            name: self.name(),
            models,
            arrivals,
        })
    }

    /// A share of a call happens with that chance.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1e18, and too many would not fit into memory anyway"
    )]
    fn calls(&self, count: f64, random: &mut Random) -> u64 {
        let scaled = count * self.scale;
        let more = scaled.fract() > 0.0 && random.unit() <= scaled.fract();
        scaled.floor() as u64 + u64::from(more)
    }

    fn name(&self) -> String {
        let mut name = format!("azure-{}", self.functions);
        if self.minutes != (1, MINUTES) {
            name.push_str(&format!("-minutes{}-{}", self.minutes.0, self.minutes.1));
        }
        if (self.scale - 1.0).abs() > 1e-12 {
            name.push_str(&format!("-x{}", self.scale));
        }
        format!("{name}-seed{}", self.seed)
    }

    /// With the median run time of each function, if that is wanted.
    pub(super) fn costs(&self, mut costs: CostModel) -> Result<CostModel, WorkloadError> {
        if !self.run {
            return Ok(costs);
        }
        let mut medians = HashMap::new();
        let path = self.folder.join(format!("{}_run.csv", self.functions));
        let mut column = None;
        read_lines(&path, |number, line| {
            let mut fields = line.split(',');
            if number == 1 {
                column = fields.position(|name| name == "percentile_Average_50");
                return column.map(|_| ()).ok_or("no column percentile_Average_50");
            }
            let name = fields.clone().next().unwrap_or_default().to_owned();
            let median = fields.nth(column.unwrap_or_default());
            let millis: f64 = median
                .and_then(|median| median.parse().ok())
                .filter(|ms| (0.0..1e9).contains(ms))
                .ok_or("the median is not a time")?;
            medians.insert(name, millis);
            Ok(())
        })?;
        for (name, millis) in medians {
            if let Some(model) = model_id(&name, 0) {
                // A run of 0 ms is one below the trace's resolution.
                let exec = Duration::from_secs_f64(millis.max(0.5) / 1000.0);
                costs.set_exec(&model, Cost::Median(exec));
            }
        }
        Ok(costs)
    }
}

fn yes(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Seconds of so many calls in one minute that is cut at `shift` of it.
fn within_a_minute(calls: u64, shift: f64, random: &mut Random) -> Vec<f64> {
    if calls == 0 {
        return Vec::new();
    }
    let mut sum = 0.0;
    let ends: Vec<f64> = (0..=calls)
        .map(|_| {
            sum += gap(1.0, random);
            sum
        })
        .collect();
    let last = ends.len() - 1;
    let second = |end: &f64| (end / sum + shift).fract() * 60.0;
    ends[..last].iter().map(second).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Two functions: 600 calls in minute 1 and 60 in minute 3; one in minute 2.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let row = |name: &str, counts: [u32; 3]| {
            let zeros = ",0".repeat(MINUTES - 3);
            format!(
                "{name},app,owner,{},{},{}{zeros}\n",
                counts[0], counts[1], counts[2]
            )
        };
        let text = format!(
            "HashFunction,HashApp,HashOwner,minute_1\n{}{}",
            row("f0", [600, 0, 60]),
            row("f1", [0, 1, 0])
        );
        std::fs::write(folder.path().join("2_inv.csv"), text).unwrap();
        let run = "HashFunction,Average,percentile_Average_50\nf0,100,40\nf1,9,7\n";
        std::fs::write(folder.path().join("2_run.csv"), run).unwrap();
        folder
    }

    fn workload(folder: &Path, rest: &str) -> Workload {
        Azure::parse(&format!("{}:2{rest}", folder.display()))
            .unwrap()
            .workload()
            .unwrap()
    }

    #[test]
    fn each_minute_has_its_calls_and_they_are_spread_over_it() {
        let folder = folder();
        let all = workload(folder.path(), "");
        let count = |w: &Workload, model, minute: u64| {
            let inside = |a: &&Arrival| a.model == model && a.at / 60_000_000 == minute;
            w.arrivals.iter().filter(inside).count()
        };
        assert_eq!([0, 1, 2].map(|minute| count(&all, 0, minute)), [600, 0, 60]);
        assert_eq!(count(&all, 1, 1), 1);
        let first: Vec<u64> = all.arrivals.iter().map(|a| a.at).take(600).collect();
        let mean = first.iter().sum::<u64>() / 600;
        // Uniform in the minute: mean 30 s, deviation 60 / sqrt(12 n).
        assert!(mean.abs_diff(30_000_000) < 3 * 707_107, "{mean}");
        let part = workload(folder.path(), ",minutes=3-3");
        assert_eq!(part.arrivals.len(), 60);
        assert!(part.arrivals.iter().all(|a| a.at < 60_000_000));
    }

    #[test]
    fn scaled_it_has_so_many_times_the_calls_and_seeds_differ() {
        let folder = folder();
        let twice = workload(folder.path(), ",scale=2.5");
        let got = twice.arrivals.len();
        assert!((1650..=1655).contains(&got), "{got}");
        let (again, other) = (
            workload(folder.path(), ",scale=2.5"),
            workload(folder.path(), ",scale=2.5,seed=2"),
        );
        assert_eq!(twice.arrivals, again.arrivals);
        assert_ne!(twice.arrivals, other.arrivals);
        let shifted = workload(folder.path(), ",shift=yes");
        assert_eq!(shifted.arrivals.len(), 661);
        assert!(shifted.arrivals.is_sorted_by_key(|a| a.at));
    }

    #[test]
    fn run_times_are_the_models_own_when_asked_for() {
        let folder = folder();
        let regime = CostModel::regime(crate::costs::Regime::Fast);
        let exec = |rest: &str| {
            let azure = Azure::parse(&format!("{}:2{rest}", folder.path().display())).unwrap();
            let costs = azure.costs(regime.clone()).unwrap();
            let models = azure.workload().unwrap().models;
            costs.of(&models[0]).exec.median()
        };
        assert_eq!(exec(""), Duration::from_millis(150));
        assert_eq!(exec(",run=yes"), Duration::from_millis(40));
    }

    #[test]
    fn a_file_that_is_not_the_trace_is_refused() {
        let folder = folder();
        std::fs::write(folder.path().join("2_inv.csv"), "f,a,o,1,x\n").unwrap();
        let azure = Azure::parse(&format!("{}:2", folder.path().display())).unwrap();
        let error = azure.workload().unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        let azure = Azure::parse(&format!("{}:3", folder.path().display())).unwrap();
        assert!(
            azure
                .workload()
                .unwrap_err()
                .to_string()
                .contains("3_inv.csv")
        );
    }
}
