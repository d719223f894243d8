//! Requests by chance, the same for the same seed: Poisson, Poisson at changing rates, sessions.

use std::fmt::Display;

use protocol::ModelId;

use super::source::{Parameters, ParseSourceError, positive};
use super::{Arrival, Workload, model_id};
use crate::random::Random;

/// Most models of a generated workload.
const MODELS_MAX: u32 = 1_000_000;
/// Most requests that are generated without a word about their number.
const REQUESTS_MAX: u64 = 100_000_000;

/// Models with a popularity that falls as a power of their rank.
#[derive(Debug, Clone)]
pub struct Zipf {
    /// The share of this model and all that are more popular.
    up_to: Vec<f64>,
}

impl Zipf {
    /// So many models, with popularity `rank^-exponent`; exponent 0 makes all alike.
    #[must_use]
    pub fn new(models: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (1..=models.max(1))
            .map(|rank| {
                sum += f64::from(rank).powf(-exponent);
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|share| *share /= sum);
        Self { up_to }
    }

    /// One model by its popularity.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let unit = random.unit();
        let model = self.up_to.partition_point(|share| *share < unit);
        u32::try_from(model.min(self.up_to.len() - 1)).unwrap_or(0)
    }
}

/// Names of generated models.
pub(super) fn numbered(models: u32) -> Vec<ModelId> {
    (0..models)
        .filter_map(|model| model_id(&model.to_string(), model))
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive time, below 2^53 microseconds"
)]
pub(super) fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// A gap of a Poisson process, in seconds.
pub(super) fn gap(rate: f64, random: &mut Random) -> f64 {
    -random.unit().ln() / rate
}

/// A Poisson process whose rate changes from one to the next after exponential times (MMPP).
#[derive(Debug, Clone, PartialEq)]
pub struct Poisson {
    /// Requests per second, in turn.
    rates: Vec<f64>,
    /// Mean seconds at one rate.
    dwell: f64,
    models: u32,
    zipf: f64,
    seconds: f64,
    requests: u64,
    seed: u64,
}

impl Poisson {
    pub(super) fn parse(mut given: Parameters) -> Result<Self, ParseSourceError> {
        let rate = given.take("rate", 10.0, "requests per second, above 0", positive)?;
        Self::parse_rest(vec![rate], f64::INFINITY, given)
    }

    pub(super) fn parse_mmpp(mut given: Parameters) -> Result<Self, ParseSourceError> {
        let what = "two or more requests per second, above 0, as 4/10";
        let rates = given.take_with("rates", vec![4.0, 10.0], what, |text| {
            let rates: Option<Vec<f64>> = text.split('/').map(|rate| rate.parse().ok()).collect();
            rates.filter(|rates| rates.len() > 1 && rates.iter().all(positive))
        })?;
        let dwell = given.take("dwell", 60.0, "mean seconds at one rate, above 0", positive)?;
        Self::parse_rest(rates, dwell, given)
    }

    fn parse_rest(
        rates: Vec<f64>,
        dwell: f64,
        mut given: Parameters,
    ) -> Result<Self, ParseSourceError> {
        let models = given.take("models", 20, "1 to 1000000", |n| {
            (1..=MODELS_MAX).contains(n)
        })?;
        let zipf = given.take("zipf", 1.1, "0 to 10", |z| (0.0..=10.0).contains(z))?;
        let seconds = given.take("seconds", 1800.0, "above 0", positive)?;
        let what = "1 to 100000000";
        let requests = given.take("requests", REQUESTS_MAX, what, |n| {
            (1..=REQUESTS_MAX).contains(n)
        })?;
        let seed = given.take("seed", 1, "a number", |_| true)?;
        given.done()?;
        Ok(Self {
            rates,
            dwell,
            models,
            zipf,
            seconds,
            requests,
            seed,
        })
    }

    fn name(&self) -> String {
        match &self.rates[..] {
            [rate] => format!("poisson-{rate}rps-{}-models-seed{}", self.models, self.seed),
            rates => format!(
                "mmpp-{}rps-{}-models-seed{}",
                join(rates),
                self.models,
                self.seed
            ),
        }
    }

    /// Its models, and its requests one after another: any number of them takes no memory.
    pub fn stream(&self) -> (Vec<ModelId>, impl Iterator<Item = Arrival> + use<>) {
        let mut random = Random::new(self.seed);
        let zipf = Zipf::new(self.models, self.zipf);
        let (rates, dwell, end) = (self.rates.clone(), self.dwell, self.seconds);
        let (mut now, mut state) = (0.0, 0);
        let mut change = if rates.len() > 1 {
            gap(1.0 / dwell, &mut random)
        } else {
            f64::INFINITY
        };
        let requests = usize::try_from(self.requests).unwrap_or(usize::MAX);
        let arrivals = std::iter::from_fn(move || {
            loop {
                let next = now + gap(rates[state % rates.len()], &mut random);
                if next < change {
                    now = next;
                    break;
                }
                // An exponential gap begins anew anywhere.
                now = change;
                change += gap(1.0 / dwell, &mut random);
                state += 1;
                if now >= end {
                    return None;
                }
            }
            (now < end).then(|| Arrival {
                at: micros(now),
                model: zipf.draw(&mut random),
            })
        });
        (numbered(self.models), arrivals.take(requests))
    }

    pub(super) fn workload(&self) -> Workload {
        let (models, arrivals) = self.stream();
        Workload {
            name: self.name(),
            models,
            arrivals: arrivals.collect(),
        }
    }
}

fn join(numbers: &[impl Display]) -> String {
    let texts: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    texts.join("-")
}

/// Users who ask several times, mostly the same model, and think in between.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// New sessions per second.
    rate: f64,
    /// Mean turns of a session; their number is geometric.
    turns: f64,
    /// Chance that the next turn is for another model.
    switch: f64,
    /// Median seconds between an arrival and the session's next; log-normal.
    think: f64,
    /// Deviation of the logarithm of the think time.
    spread: f64,
    models: u32,
    zipf: f64,
    seconds: f64,
    seed: u64,
}

impl Sessions {
    pub(super) fn parse(mut given: Parameters) -> Result<Self, ParseSourceError> {
        let share = |value: &f64| (0.0..=1.0).contains(value);
        let sessions = Self {
            rate: given.take("rate", 0.05, "sessions per second, above 0", positive)?,
            turns: given.take("turns", 8.0, "1 or more", |n| (1.0..1e6).contains(n))?,
            switch: given.take("switch", 0.28, "between 0 and 1", share)?,
            think: given.take("think", 20.0, "median seconds, above 0", positive)?,
            spread: given.take("spread", 1.0, "0 to 5", |s| (0.0..=5.0).contains(s))?,
            models: given.take("models", 40, "1 to 1000000", |n| {
                (1..=MODELS_MAX).contains(n)
            })?,
            zipf: given.take("zipf", 1.0, "0 to 10", |z| (0.0..=10.0).contains(z))?,
            seconds: given.take("seconds", 3600.0, "above 0", positive)?,
            seed: given.take("seed", 1, "a number", |_| true)?,
        };
        given.done()?;
        Ok(sessions)
    }

    pub(super) fn workload(&self) -> Workload {
        let mut random = Random::new(self.seed);
        let zipf = Zipf::new(self.models, self.zipf);
        let mut arrivals = Vec::new();
        let mut begins = gap(self.rate, &mut random);
        while begins < self.seconds {
            let mut now = begins;
            let mut model = zipf.draw(&mut random);
            while now < self.seconds {
                arrivals.push(Arrival {
                    at: micros(now),
                    model,
                });
                if random.unit() <= 1.0 / self.turns {
                    break;
                }
                now += self.think * (self.spread * random.normal()).exp();
                if random.unit() <= self.switch {
                    model = self.another(model, &zipf, &mut random);
                }
            }
            begins += gap(self.rate, &mut random);
        }
        arrivals.sort_by_key(|arrival| arrival.at);
        Workload {
            name: format!("sessions-{}-models-seed{}", self.models, self.seed),
            models: numbered(self.models),
            arrivals,
        }
    }

    fn another(&self, model: u32, zipf: &Zipf, random: &mut Random) -> u32 {
        // A very uneven popularity may offer the same one again and again; then the next one is it.
        let drawn = (0..100)
            .map(|_| zipf.draw(random))
            .find(|other| *other != model);
        drawn.unwrap_or((model + 1) % self.models)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Source;

    fn workload(text: &str) -> Workload {
        text.parse::<Source>().unwrap().workload().unwrap()
    }

    /// Mean gap in seconds, and deviation over mean.
    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    fn gaps(workload: &Workload) -> (f64, f64) {
        let times: Vec<f64> = workload
            .arrivals
            .iter()
            .map(|a| a.at as f64 / 1e6)
            .collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt() / mean)
    }

    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    fn shares(workload: &Workload) -> Vec<f64> {
        let mut counts = vec![0_u32; workload.models.len()];
        for arrival in &workload.arrivals {
            counts[arrival.model as usize] += 1;
        }
        let all = workload.arrivals.len() as f64;
        counts
            .into_iter()
            .map(|count| f64::from(count) / all)
            .collect()
    }

    #[test]
    fn poisson_has_its_rate_and_the_variation_of_an_exponential() {
        let workload = workload("poisson:rate=20,models=1,seconds=5000");
        let (mean, variation) = gaps(&workload);
        // 100,000 gaps: a share of 1/316 is one deviation.
        assert!((mean * 20.0 - 1.0).abs() < 0.015, "{mean}");
        assert!((variation - 1.0).abs() < 0.02, "{variation}");
        let last = workload.arrivals.last().unwrap().at;
        assert!(last < 5_000_000_000 && last > 4_998_000_000, "{last}");
    }

    #[test]
    fn popularity_falls_as_the_power_that_was_asked_for() {
        for exponent in [0.0, 0.8, 1.1] {
            let text = format!("poisson:rate=100,models=16,zipf={exponent},seconds=2000");
            let shares = shares(&workload(&text));
            // Between rank 1 and rank 16 on a double logarithmic scale.
            let slope = (shares[0] / shares[15]).ln() / 16_f64.ln();
            assert!((slope - exponent).abs() < 0.03, "{exponent}: {slope}");
        }
    }

    #[test]
    fn mmpp_has_both_rates_and_varies_more_than_poisson() {
        let workload = workload("mmpp:rates=2/20,dwell=30,models=3,seconds=20000,seed=4");
        let (mean, variation) = gaps(&workload);
        // Half of the time each: 11 per second; some 670 dwells leave it at 3 % or so.
        assert!((mean * 11.0 - 1.0).abs() < 0.1, "{mean}");
        assert!(variation > 1.3, "{variation}");
        // Counts in 5 s are near 10 or near 100, and seldom near 50.
        let mut counts = vec![0_u32; 4000];
        for arrival in &workload.arrivals {
            counts[usize::try_from(arrival.at / 5_000_000).unwrap()] += 1;
        }
        let within = |from, to| counts.iter().filter(|n| (from..to).contains(*n)).count();
        assert!(within(0, 25) > 1200 && within(75, 130) > 1200);
        assert!(within(30, 70) < 700, "{}", within(30, 70));
    }

    #[test]
    fn sessions_have_their_turns_and_change_their_models() {
        // Far apart, so that each pause of an hour ends a session.
        let text = "sessions:rate=0.000005,turns=6,switch=0.3,think=10,models=30,seconds=400000000";
        let workload = workload(text);
        let (mut sessions, mut changes, mut turns) = (1.0_f64, 0.0_f64, 0.0_f64);
        let mut thinks = Vec::new();
        for pair in workload.arrivals.windows(2) {
            let pause = pair[1].at - pair[0].at;
            if pause > 2_000_000_000 {
                sessions += 1.0;
            } else {
                turns += 1.0;
                changes += f64::from(u32::from(pair[0].model != pair[1].model));
                thinks.push(pause);
            }
        }
        let mean = turns / sessions + 1.0;
        assert!((mean - 6.0).abs() < 0.5, "{mean}");
        assert!((changes / turns - 0.3).abs() < 0.02, "{}", changes / turns);
        thinks.sort_unstable();
        let median = thinks[thinks.len() / 2];
        assert!(median.abs_diff(10_000_000) < 600_000, "{median}");
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        for text in ["poisson:seconds=100", "mmpp:seconds=100", "sessions:"] {
            assert_eq!(workload(text).arrivals, workload(text).arrivals, "{text}");
            let other = workload(&format!("{text},seed=2"));
            assert_ne!(workload(text).arrivals, other.arrivals, "{text}");
        }
        assert_eq!(workload("poisson:requests=10").arrivals.len(), 10);
        let none = "poisson:rate=0.001,seconds=0.001"
            .parse::<Source>()
            .unwrap();
        assert!(none.workload().is_err());
    }
}
