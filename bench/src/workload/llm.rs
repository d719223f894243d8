//! The Azure LLM inference traces of 2023: the true times of one service's requests, as the load
//! on one model, beside others that are asked for at a steady rate.

use std::path::PathBuf;

use super::generated::{Zipf, gap, micros, numbered};
use super::source::{Parameters, ParseSourceError, positive};
use super::{Arrival, Workload, WorkloadError, read_lines};
use crate::random::Random;

/// A file of `TIMESTAMP,…` lines; the times are `2023-11-16 18:17:03.9799600`.
#[derive(Debug, Clone, PartialEq)]
pub struct Llm {
    file: PathBuf,
    /// The gaps are divided by it.
    scale: f64,
    /// Requests per second for the other models.
    background: f64,
    /// How many others.
    models: u32,
    zipf: f64,
    seed: u64,
}

impl Llm {
    pub(super) fn parse(text: &str) -> Result<Self, ParseSourceError> {
        let (file, mut given) = Parameters::after_path("llm", "FILE", text)?;
        let llm = Self {
            file: file.into(),
            scale: given.take("scale", 1.0, "above 0", positive)?,
            background: given.take(
                "background",
                0.0,
                "requests per second, 0 or more",
                |rate| (0.0..1e6).contains(rate),
            )?,
            models: given.take("models", 10, "1 to 100000", |n| (1..=100_000).contains(n))?,
            zipf: given.take("zipf", 1.1, "0 to 10", |z| (0.0..=10.0).contains(z))?,
            seed: given.take("seed", 1, "a number", |_| true)?,
        };
        given.done()?;
        Ok(llm)
    }

    pub(super) fn workload(&self) -> Result<Workload, WorkloadError> {
        let mut seconds = Vec::new();
        read_lines(&self.file, |number, line| {
            if number == 1 && line.starts_with("TIMESTAMP") {
                return Ok(());
            }
            let time = line.split(',').next().unwrap_or_default();
            seconds.push(parse_time(time).ok_or("no time like 2023-11-16 18:17:03.9")?);
            Ok(())
        })?;
        seconds.sort_by(f64::total_cmp);
        let first = seconds.first().copied().unwrap_or_default();
        let own = |second: &f64| Arrival {
            at: micros((second - first) / self.scale),
            model: 0,
        };
        let mut arrivals: Vec<_> = seconds.iter().map(own).collect();
        let end = seconds.last().copied().unwrap_or_default() - first;
        let mut models = 1;
        if self.background > 0.0 {
            models += self.models;
            let mut random = Random::new(self.seed);
            let zipf = Zipf::new(self.models, self.zipf);
            let mut now = gap(self.background, &mut random);
            while now < end / self.scale {
                arrivals.push(Arrival {
                    at: micros(now),
                    model: 1 + zipf.draw(&mut random),
                });
                now += gap(self.background, &mut random);
            }
            arrivals.sort_by_key(|arrival| arrival.at);
        }
        let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Workload {
            name: format!("llm-{stem}-{models}-models-seed{}", self.seed),
            models: numbered(models),
            arrivals,
        })
    }
}

/// Seconds since some moment, right within a month: the traces are of an hour.
fn parse_time(text: &str) -> Option<f64> {
    let (date, time) = text.trim().split_once([' ', 'T'])?;
    let mut day = date.split('-').skip(1).map(|part| part.parse::<f64>().ok());
    let (month, day) = (day.next()??, day.next()??);
    let mut sum = month * 31.0 + day;
    let mut parts = 0;
    for (part, limit) in time
        .trim_end_matches('Z')
        .split(':')
        .zip([24.0, 60.0, 61.0])
    {
        let value = part
            .parse::<f64>()
            .ok()
            .filter(|v| (0.0..limit).contains(v))?;
        sum = sum * if limit > 60.0 { 60.0 } else { limit } + value;
        parts += 1;
    }
    (parts == 3 && sum.is_finite()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are() {
        let at = |text| parse_time(text).unwrap();
        let first = at("2023-11-16 18:59:59.9799600");
        assert!((at("2023-11-16 19:00:00.0319600") - first - 0.052).abs() < 1e-6);
        assert!((at("2023-11-17 18:59:59.9799600") - first - 86_400.0).abs() < 1e-6);
        for bad in [
            "",
            "18:00:00",
            "2023-11-16 25:00:00",
            "2023-11-16 18:00",
            "2023-11-16 a:b:c",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_service_keeps_its_gaps_and_others_join_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code.csv");
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00.5,1,1\n\
            2023-11-16 18:00:02.5,1,1\n2023-11-16 18:16:40.5,1,1\n";
        std::fs::write(&path, text).unwrap();
        let of = |rest: &str| {
            let llm = Llm::parse(&format!("{}{rest}", path.display())).unwrap();
            llm.workload().unwrap()
        };
        let alone = of("");
        let times: Vec<_> = alone.arrivals.iter().map(|a| a.at).collect();
        assert_eq!(times, [0, 2_000_000, 1_000_000_000]);
        assert_eq!(alone.models.len(), 1);
        let joined = of(",background=2,models=5,scale=2");
        // 500 s at 2 rps, plus or minus four deviations; and the three.
        let others = joined.arrivals.iter().filter(|a| a.model > 0).count();
        assert!(others.abs_diff(1000) < 4 * 32, "{others}");
        assert_eq!(joined.arrivals.len(), others + 3);
        assert_eq!(joined.models.len(), 6);
    }
}
