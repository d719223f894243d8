//! When which model is asked for: a file of `t_ms,model` lines, or what a [`Source`] generates.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use protocol::ModelId;

use crate::costs::CostModel;

mod azure;
mod generated;
mod llm;
mod source;

pub use azure::Azure;
pub use generated::{Poisson, Sessions, Zipf};
pub use llm::Llm;
pub use source::{ParseSourceError, Source};

/// Why a workload cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    #[error("cannot read workload {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("workload {}, line {line}: {what}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        what: &'static str,
    },
    #[error("workload {} has no requests", path.display())]
    Empty { path: PathBuf },
    #[error("there are no requests in {0}")]
    Nothing(String),
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Microseconds since the start.
    pub at: u64,
    /// Index into [`Workload::models`].
    pub model: u32,
}

/// Requests in the order of their times.
#[derive(Debug, Clone)]
pub struct Workload {
    pub name: String,
    pub models: Vec<ModelId>,
    pub arrivals: Vec<Arrival>,
}

impl Workload {
    /// Reads a file with the header `t_ms,model`. A model may have any name; it becomes a
    /// [`ModelId`] by lower case and `-` for what an id cannot have, and stays distinct.
    pub fn read(path: &Path) -> Result<Self, WorkloadError> {
        let mut models = Vec::new();
        let mut arrivals = Vec::new();
        let mut known: HashMap<String, u32> = HashMap::new();
        read_lines(path, |number, line| {
            if number == 1 && line == "t_ms,model" {
                return Ok(());
            }
            let (time, name) = line.split_once(',').ok_or("no comma")?;
            let millis: f64 = time.parse().map_err(|_| "the time is not a number")?;
            if !(0.0..1e12).contains(&millis) {
                return Err("the time is not between 0 and 1e12 ms");
            }
            let model = match known.get(name) {
                Some(model) => *model,
                None => {
                    let index = u32::try_from(models.len()).map_err(|_| "too many models")?;
                    models.push(model_id(name, index).ok_or("no model")?);
                    known.insert(name.to_owned(), index);
                    index
                }
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be between 0 and 1e15 microseconds"
            )]
            arrivals.push(Arrival {
                at: (millis * 1000.0) as u64,
                model,
            });
            Ok(())
        })?;
        if arrivals.is_empty() {
            return Err(WorkloadError::Empty { path: path.into() });
        }
        arrivals.sort_by_key(|arrival| arrival.at);
        let name = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into());
        Ok(Self {
            name,
            models,
            arrivals,
        })
    }
}

impl Workload {
    /// Seconds that a request costs an instance, the model switched to each time: the measure of
    /// what waiting means here.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "fewer requests than 2^53")]
    pub fn service(&self, costs: &CostModel) -> f64 {
        let each: Vec<f64> = self
            .models
            .iter()
            .map(|model| {
                let cost = costs.of(model);
                (cost.exec.median() + cost.switch.median()).as_secs_f64()
            })
            .collect();
        let all: f64 = self.arrivals.iter().map(|a| each[a.model as usize]).sum();
        all / self.arrivals.len().max(1) as f64
    }

    /// About so many requests: windows from all over the workload, put together.
    #[must_use]
    pub fn part(&self, requests: usize) -> Self {
        const WINDOWS: usize = 4;
        let each = requests / WINDOWS;
        let (all, mut now) = (self.arrivals.len(), 0);
        let mut arrivals = Vec::with_capacity(requests);
        for window in 0..WINDOWS {
            let from = (all * (2 * window + 1) / (2 * WINDOWS)).saturating_sub(each / 2);
            let window = &self.arrivals[from..(from + each).min(all)];
            let began = window.first().map_or(0, |arrival| arrival.at);
            let shift = |arrival: &Arrival| Arrival {
                at: arrival.at - began + now,
                ..*arrival
            };
            arrivals.extend(window.iter().map(shift));
            now = arrivals.last().map_or(0, |arrival| arrival.at);
        }
        Self {
            name: self.name.clone(),
            models: self.models.clone(),
            arrivals,
        }
    }
}

/// Tells each line that is not empty, with its number from 1; what it finds wrong becomes an error
/// with the line's place.
fn read_lines(
    path: &Path,
    mut line: impl FnMut(usize, &str) -> Result<(), &'static str>,
) -> Result<(), WorkloadError> {
    let failed = |source| WorkloadError::Read {
        path: path.into(),
        source,
    };
    let lines = BufReader::new(File::open(path).map_err(failed)?).lines();
    for (number, text) in (1..).zip(lines) {
        let text = text.map_err(failed)?;
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        line(number, text).map_err(|what| WorkloadError::Line {
            path: path.into(),
            line: number,
            what,
        })?;
    }
    Ok(())
}

fn model_id(name: &str, index: u32) -> Option<ModelId> {
    let plain: String = name
        .chars()
        .take(40)
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    if plain.is_empty() {
        None
    } else {
        format!("m{index}-{plain}").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Workload, WorkloadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Workload::read(file.path())
    }

    #[test]
    fn arrivals_come_in_order_and_models_stay_apart() {
        let workload = read("t_ms,model\n20.5,A b\n10,a b\n30,A b\n").unwrap();
        let got: Vec<_> = workload.arrivals.iter().map(|a| (a.at, a.model)).collect();
        assert_eq!(got, [(10_000, 1), (20_500, 0), (30_000, 0)]);
        assert_eq!(workload.models.len(), 2);
        assert_ne!(workload.models[0], workload.models[1]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in [
            "t_ms,model\n1,m\nx,m",
            "1,m\n-1,m",
            "1,m\n2",
            "1,m\n1e300,m",
            "1,m\nNaN,m",
        ] {
            let error = read(bad).unwrap_err();
            assert!(
                matches!(error, WorkloadError::Line { .. }),
                "{bad}: {error}"
            );
        }
        assert!(matches!(
            read("t_ms,model\n"),
            Err(WorkloadError::Empty { .. })
        ));
    }
}
