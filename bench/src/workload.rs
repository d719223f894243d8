//! When which model is asked for: a file of `t_ms,model` lines.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use protocol::ModelId;

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
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        let failed = |source| WorkloadError::Read {
            path: path.into(),
            source,
        };
        let lines = BufReader::new(File::open(path).map_err(failed)?).lines();
        let mut models = Vec::new();
        let mut arrivals = Vec::new();
        let mut known: HashMap<String, u32> = HashMap::new();
        for (number, line) in (1..).zip(lines) {
            let line = line.map_err(failed)?;
            let wrong = |what| WorkloadError::Line {
                path: path.into(),
                line: number,
                what,
            };
            let line = line.trim();
            if line.is_empty() || (number == 1 && line == "t_ms,model") {
                continue;
            }
            let (time, name) = line.split_once(',').ok_or_else(|| wrong("no comma"))?;
            let millis: f64 = time
                .parse()
                .map_err(|_| wrong("the time is not a number"))?;
            if !(0.0..1e12).contains(&millis) {
                return Err(wrong("the time is not between 0 and 1e12 ms"));
            }
            let model = match known.get(name) {
                Some(model) => *model,
                None => {
                    let index =
                        u32::try_from(models.len()).map_err(|_| wrong("too many models"))?;
                    models.push(model_id(name, index).ok_or_else(|| wrong("no model"))?);
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
        }
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
