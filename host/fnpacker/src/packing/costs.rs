//! What things cost, learnt from the latest invocations: quantiles, not only means.

use std::time::Duration;

use super::{ModelKey, Spent};

/// Observations kept of each kind: enough for a p95, few enough to follow a change quickly.
const KEPT: usize = 32;

/// The latest observations of one duration, in microseconds.
#[derive(Debug, Clone)]
pub struct Samples {
    /// In order of arrival, a ring.
    ring: [u32; KEPT],
    /// The same values in order of size.
    sorted: [u32; KEPT],
    len: usize,
    next: usize,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            ring: [0; KEPT],
            sorted: [0; KEPT],
            len: 0,
            next: 0,
        }
    }
}

impl Samples {
    /// Adds one observation; the oldest falls out when there is no room. Longest: 71 minutes.
    pub fn add(&mut self, value: Duration) {
        let value = u32::try_from(value.as_micros()).unwrap_or(u32::MAX);
        if self.len == KEPT {
            let old = self.ring[self.next];
            let at = self.sorted.partition_point(|v| *v < old);
            self.sorted.copy_within(at + 1.., at);
        } else {
            self.len += 1;
        }
        let filled = self.len - 1;
        let at = self.sorted[..filled].partition_point(|v| *v < value);
        self.sorted.copy_within(at..filled, at + 1);
        self.sorted[at] = value;
        self.ring[self.next] = value;
        self.next = (self.next + 1) % KEPT;
    }

    /// How many observations there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The smallest observation that at least `percent` of 100 do not exceed.
    #[must_use]
    pub fn quantile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.len * percent.min(100)).div_ceil(100).max(1);
        self.sorted[..self.len]
            .get(rank - 1)
            .map(|us| Duration::from_micros(u64::from(*us)))
    }

    /// The middle observation.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        self.quantile(50)
    }

    /// The arithmetic mean.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let sum: u64 = self.sorted[..self.len]
            .iter()
            .map(|us| u64::from(*us))
            .sum();
        let len = u64::try_from(self.len).ok().filter(|len| *len > 0)?;
        Some(Duration::from_micros(sum / len))
    }
}

/// What one model costs.
#[derive(Debug, Clone, Default)]
pub struct ModelCosts {
    /// Open a request, run, seal.
    pub exec: Samples,
    /// Make it resident on a live instance.
    pub switch: Samples,
}

/// What everything in a pool costs. A model that was never seen costs what models here cost.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    models: Vec<ModelCosts>,
    all: ModelCosts,
    start: Samples,
}

impl Costs {
    pub(super) fn learn(&mut self, model: ModelKey, spent: &Spent) {
        if self.models.len() <= model.index() {
            self.models
                .resize_with(model.index() + 1, ModelCosts::default);
        }
        let own = &mut self.models[model.index()];
        for (value, own, all) in [
            (spent.exec, &mut own.exec, &mut self.all.exec),
            (spent.switch, &mut own.switch, &mut self.all.switch),
        ] {
            if !value.is_zero() {
                own.add(value);
                all.add(value);
            }
        }
        self.learn_start(spent);
    }

    /// What a start without a request tells.
    pub(super) fn learn_start(&mut self, spent: &Spent) {
        if !spent.start.is_zero() {
            self.start.add(spent.start);
        }
    }

    pub(super) fn forget(&mut self, model: ModelKey) {
        if let Some(own) = self.models.get_mut(model.index()) {
            *own = ModelCosts::default();
        }
    }

    /// What was seen of this model itself.
    #[must_use]
    pub fn of(&self, model: ModelKey) -> Option<&ModelCosts> {
        self.models.get(model.index())
    }

    /// What was seen of all models together.
    #[must_use]
    pub const fn of_all(&self) -> &ModelCosts {
        &self.all
    }

    /// Time to run the model once, hot: its median, else that of all models.
    #[must_use]
    pub fn exec(&self, model: ModelKey) -> Option<Duration> {
        let own = self.of(model).and_then(|m| m.exec.median());
        own.or_else(|| self.all.exec.median())
    }

    /// Time to make the model resident: its median, else that of all models.
    #[must_use]
    pub fn switch(&self, model: ModelKey) -> Option<Duration> {
        let own = self.of(model).and_then(|m| m.switch.median());
        own.or_else(|| self.all.switch.median())
    }

    /// Time to start an instance.
    #[must_use]
    pub const fn start(&self) -> &Samples {
        &self.start
    }

    /// No answer from this model was ever faster, as far as is remembered.
    #[must_use]
    pub fn floor(&self, model: ModelKey) -> Duration {
        self.of(model)
            .and_then(|m| m.exec.quantile(0))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn quantiles_of_few() {
        let mut samples = Samples::default();
        assert_eq!(
            (samples.median(), samples.mean(), samples.quantile(0)),
            (None, None, None)
        );
        for value in [30, 10, 20] {
            samples.add(ms(value));
        }
        assert_eq!(samples.quantile(0), Some(ms(10)));
        assert_eq!(samples.median(), Some(ms(20)));
        assert_eq!(samples.quantile(100), Some(ms(30)));
        assert_eq!(samples.mean(), Some(ms(20)));
    }

    #[test]
    fn the_oldest_fall_out() {
        let mut samples = Samples::default();
        let mut all = Vec::new();
        // A fixed scramble, so that insertions and removals hit every place.
        for i in 0..200_u64 {
            all.push((i * 7919) % 101);
            samples.add(ms((i * 7919) % 101));
            let mut last: Vec<_> = all.iter().rev().take(KEPT).copied().collect();
            last.sort_unstable();
            let got: Vec<_> = samples.sorted[..samples.len()]
                .iter()
                .map(|us| u64::from(*us) / 1000)
                .collect();
            assert_eq!(got, last);
        }
    }

    #[test]
    fn an_unseen_model_costs_what_models_cost() {
        let mut costs = Costs::default();
        let (seen, unseen) = (ModelKey(3), ModelKey(9));
        assert_eq!(costs.exec(seen), None);
        costs.learn(
            seen,
            &Spent {
                start: ms(0),
                switch: ms(5),
                exec: ms(2),
            },
        );
        assert_eq!(costs.exec(unseen), Some(ms(2)));
        assert_eq!(costs.switch(unseen), Some(ms(5)));
        assert_eq!(costs.floor(unseen), ms(0));
        assert_eq!(costs.floor(seen), ms(2));
        assert!(costs.start().is_empty());
        costs.forget(seen);
        assert_eq!(costs.floor(seen), ms(0));
    }
}
