//! Where requests come from: a file, a generator, or a public trace; as one argument.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use super::azure::Azure;
use super::generated::{Poisson, Sessions};
use super::llm::Llm;
use super::{Workload, WorkloadError};
use crate::costs::CostModel;

/// Why a text names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSourceError {
    #[error("there is no source '{0}'; there are files, {KINDS}")]
    Kind(String),
    #[error("'{text}' is wrong for {kind}: {what}; it takes {known}")]
    Parameter {
        kind: &'static str,
        text: String,
        what: &'static str,
        known: String,
    },
    #[error("{kind} needs {what} first, as in {kind}:{what},seed=1")]
    Nothing {
        kind: &'static str,
        what: &'static str,
    },
}

const KINDS: &str = "poisson:, mmpp:, sessions:, azure:DIR and llm:FILE";

/// A workload that can be had.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A file of `t_ms,model` lines.
    File(PathBuf),
    Poisson(Poisson),
    Sessions(Sessions),
    Azure(Azure),
    Llm(Llm),
}

impl Source {
    /// Reads or generates it; the same each time.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be, or there are no requests.
    pub fn workload(&self) -> Result<Workload, WorkloadError> {
        let workload = match self {
            Self::File(path) => return Workload::read(path),
            Self::Poisson(poisson) => poisson.workload(),
            Self::Sessions(sessions) => sessions.workload(),
            Self::Azure(azure) => azure.workload()?,
            Self::Llm(llm) => llm.workload()?,
        };
        if workload.arrivals.is_empty() {
            return Err(WorkloadError::Nothing(workload.name));
        }
        Ok(workload)
    }

    /// The costs, with what the source itself says of its models' run times.
    ///
    /// # Errors
    /// The file of run times cannot be read.
    pub fn costs(&self, costs: &CostModel) -> Result<CostModel, WorkloadError> {
        match self {
            Self::Azure(azure) => azure.costs(costs.clone()),
            _ => Ok(costs.clone()),
        }
    }
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Ok(Self::File(text.into()));
        };
        match kind {
            "poisson" => Poisson::parse(Parameters::new("poisson", rest)?).map(Self::Poisson),
            "mmpp" => Poisson::parse_mmpp(Parameters::new("mmpp", rest)?).map(Self::Poisson),
            "sessions" => Sessions::parse(Parameters::new("sessions", rest)?).map(Self::Sessions),
            "azure" => Azure::parse(rest).map(Self::Azure),
            "llm" => Llm::parse(rest).map(Self::Llm),
            _ if kind.len() > 1 && kind.bytes().all(|c| c.is_ascii_lowercase()) => {
                Err(ParseSourceError::Kind(kind.to_owned()))
            }
            _ => Ok(Self::File(text.into())),
        }
    }
}

/// `key=value` pairs by commas; each is asked for once, and what is left is wrong.
#[derive(Debug)]
pub(super) struct Parameters {
    kind: &'static str,
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Parameters {
    pub(super) fn new(kind: &'static str, text: &str) -> Result<Self, ParseSourceError> {
        let mut given = Vec::new();
        for parameter in text.split(',').filter(|parameter| !parameter.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            given.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self {
            kind,
            given,
            known: Vec::new(),
        })
    }

    /// The text before the first comma, as a path; then parameters.
    pub(super) fn after_path(
        kind: &'static str,
        what: &'static str,
        text: &str,
    ) -> Result<(String, Self), ParseSourceError> {
        let (path, rest) = text.split_once(',').unwrap_or((text, ""));
        if path.is_empty() {
            return Err(ParseSourceError::Nothing { kind, what });
        }
        Ok((path.to_owned(), Self::new(kind, rest)?))
    }

    /// The value of `key`, or the usual one; an error when it is not `valid`.
    pub(super) fn take<T: FromStr>(
        &mut self,
        key: &'static str,
        usual: T,
        what: &'static str,
        valid: impl Fn(&T) -> bool,
    ) -> Result<T, ParseSourceError> {
        self.take_with(key, usual, what, |text| text.parse().ok().filter(&valid))
    }

    pub(super) fn take_with<T>(
        &mut self,
        key: &'static str,
        usual: T,
        what: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ParseSourceError> {
        self.known.push(key);
        let Some(at) = self.given.iter().position(|(given, _)| given == key) else {
            return Ok(usual);
        };
        let (key, value) = self.given.remove(at);
        parse(&value).ok_or_else(|| self.wrong(format!("{key}={value}"), what))
    }

    /// Whether anything was given that nobody asked for.
    pub(super) fn done(&self) -> Result<(), ParseSourceError> {
        match self.given.first() {
            Some((key, value)) => {
                Err(self.wrong(format!("{key}={value}"), "there is no such parameter"))
            }
            None => Ok(()),
        }
    }

    fn wrong(&self, text: impl Display, what: &'static str) -> ParseSourceError {
        ParseSourceError::Parameter {
            kind: self.kind,
            text: text.to_string(),
            what,
            known: self.known.join(", "),
        }
    }
}

/// For [`Parameters::take`].
pub(super) fn positive(value: &f64) -> bool {
    *value > 0.0 && *value < 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (bad, named) in [
            ("possion:rate=1", "there are files, poisson:"),
            ("poisson:rte=1", "'rte=1' is wrong for poisson"),
            ("poisson:rte=1", "rate, models, zipf, seconds"),
            ("poisson:rate=-1", "above 0"),
            ("poisson:rate=NaN", "above 0"),
            ("poisson:models=0", "models=0"),
            ("poisson:rate", "'rate='"),
            ("mmpp:rates=4/x", "rates=4/x"),
            ("sessions:switch=1.5", "between 0 and 1"),
            ("azure:", "azure needs DIR"),
            ("azure:d,minutes=5-3", "minutes=5-3"),
            ("azure:d,minutes=0-3", "minutes=0-3"),
            ("azure:d:fifty", "fifty"),
            ("llm:", "llm needs FILE"),
        ] {
            let error = bad.parse::<Source>().unwrap_err().to_string();
            assert!(error.contains(named), "{bad}: {error}");
        }
        for file in ["a.csv", "./poisson", "C:\\a.csv"] {
            assert_eq!(file.parse(), Ok(Source::File(file.into())));
        }
    }

    #[test]
    fn a_duplicate_is_not_overlooked() {
        assert!("poisson:rate=1,rate=2".parse::<Source>().is_err());
    }
}
