//! ECT-P: earliest expected completion, with a price on memory.
//!
//! One exchange rate, the price, says how many seconds of waiting a GB-second of memory is worth.
//! A request goes where it ends earliest, what its switch takes from others included. An instance
//! is kept, and a spare one started, while the waiting that it saves is worth its memory.

use std::time::Duration;

use super::demand::Demand;
use super::forecast::{self, Forecast, View};
use super::{Chore, EndpointId, Finished, Fleet, ModelKey, Placement, Policy, Request};

/// A delay of one usual service hurts as much as this many times itself on top: long waits are
/// worse than several short ones.
const IMPATIENCE: f64 = 2.0;
/// How far ahead a victim's next request counts, in seconds.
const HORIZON: f64 = 10.0;
/// How often idle instances are weighed again.
const TEND_EVERY: Duration = Duration::from_secs(2);
/// An instance is let go when it is worth this share of what would have it started.
const HYSTERESIS: f64 = 0.5;

/// Expected completion time, with a price on memory.
#[derive(Debug)]
pub struct EctP {
    /// Seconds of waiting that one instance's memory is worth for a second.
    rent: f64,
    demand: Demand,
    forecast: Forecast,
    copies: Vec<u32>,
}

struct Choice {
    cost: f64,
    last_use: Option<Duration>,
    at: EndpointId,
    free: bool,
}

impl EctP {
    /// With instances whose memory for one second is worth `rent` seconds of waiting.
    #[must_use]
    pub fn new(rent: f64) -> Self {
        Self {
            rent,
            demand: Demand::default(),
            forecast: Forecast::EMPTY,
            copies: Vec::new(),
        }
    }

    fn count_copies(&mut self, fleet: &Fleet, now: Duration) {
        self.copies.fill(0);
        for (at, _) in fleet.iter() {
            for model in self.forecast.view(at, fleet, now).resident {
                if self.copies.len() <= model.index() {
                    self.copies.resize(model.index() + 1, 0);
                }
                self.copies[model.index()] += 1;
            }
        }
    }

    fn is_only_copy(&self, model: ModelKey) -> bool {
        self.copies
            .get(model.index())
            .is_none_or(|copies| *copies <= 1)
    }

    /// Seconds that a switch here costs others.
    fn loss(&self, view: &View<'_>, fleet: &Fleet, now: Duration) -> f64 {
        match view.victim() {
            Some(victim) if self.is_only_copy(victim) => {
                let back = 1.0 - (-HORIZON * self.demand.rate(victim, now)).exp();
                forecast::switch(fleet, victim).as_secs_f64() * back
            }
            _ => 0.0,
        }
    }

    fn choose(&self, model: ModelKey, fleet: &Fleet, now: Duration) -> Option<Choice> {
        let switch = forecast::switch(fleet, model).as_secs_f64();
        let start = forecast::start(fleet).as_secs_f64();
        let mut best: Option<Choice> = None;
        let exec = forecast::exec(fleet, model).as_secs_f64();
        let mut fresh_seen = false;
        for (at, endpoint) in fleet.iter().filter(|(_, endpoint)| endpoint.ready) {
            let view = self.forecast.view(at, fleet, now);
            if !view.live && std::mem::replace(&mut fresh_seen, true) {
                continue;
            }
            let mut delay = view.wait.as_secs_f64();
            let mut cost = 0.0;
            if !view.has(model) {
                delay += switch;
                cost += self.loss(&view, fleet, now);
            }
            if !view.live {
                delay += start;
            }
            cost += delay * (1.0 + IMPATIENCE * delay / (exec + switch));
            let better = best.as_ref().is_none_or(|b| {
                cost < b.cost || (cost <= b.cost && endpoint.last_use > b.last_use)
            });
            if better {
                best = Some(Choice {
                    cost,
                    last_use: endpoint.last_use,
                    at,
                    free: view.free,
                });
            }
        }
        best
    }

    /// Seconds of waiting that the `n`-th instance saves per second, by being one more.
    fn worth_of_one_more(&self, n: usize, fleet: &Fleet, now: Duration) -> f64 {
        let start = forecast::start(fleet).as_secs_f64();
        let all = fleet.costs().of_all();
        let exec = all.exec.mean().unwrap_or_default().as_secs_f64();
        let switch = all.switch.mean().unwrap_or_default().as_secs_f64();
        let rate = self.demand.rate_of_all(now);
        let busy = rate * (exec + switch * 0.3);
        let wait = if n <= 1 {
            start
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a handful of instances")]
            let turn = (exec + switch) / n as f64;
            turn.min(start)
        };
        rate * poisson_tail(busy, n.saturating_sub(1))
            * wait
            * (1.0 + wait / (exec + switch * 0.3).max(1e-9))
    }

    /// Seconds of waiting that room for some models more would save per second.
    fn worth_of_room(&self, fleet: &Fleet, now: Duration) -> f64 {
        let mut best: Vec<f64> = self
            .demand
            .recent()
            .iter()
            .filter(|m| self.copies.get(m.index()).is_none_or(|copies| *copies == 0))
            .map(|m| self.demand.rate(*m, now) * forecast::switch(fleet, *m).as_secs_f64())
            .collect();
        best.sort_by(|a, b| b.total_cmp(a));
        best.iter().take(fleet.models_per_instance()).sum()
    }

    /// Seconds of waiting that the models held there save per second.
    fn worth_of_models(&self, view: &View<'_>, fleet: &Fleet, now: Duration) -> f64 {
        let unique = view.resident.iter().filter(|m| self.is_only_copy(**m));
        unique
            .map(|m| self.demand.rate(*m, now) * forecast::switch(fleet, *m).as_secs_f64())
            .sum()
    }
}

/// Chance that a Poisson number with this mean is at least `n`.
fn poisson_tail(mean: f64, n: usize) -> f64 {
    let (mut below, mut term) = (0.0, (-mean).exp());
    for k in 0..n {
        below += term;
        term *= mean / (k as f64 + 1.0);
    }
    (1.0 - below).max(0.0)
}

impl Policy for EctP {
    fn name(&self) -> &'static str {
        "ect-p"
    }

    fn place(&mut self, now: Duration, request: &Request, fleet: &Fleet) -> Placement {
        if request.arrived == now {
            self.demand.arrived(request.model, now);
        }
        self.count_copies(fleet, now);
        match self.choose(request.model, fleet, now) {
            Some(Choice { at, free: true, .. }) => Placement::Dispatch(at),
            choice => Placement::Wait {
                on: choice.map(|choice| choice.at),
                until: None,
            },
        }
    }

    fn dispatched(&mut self, now: Duration, request: &Request, at: EndpointId, fleet: &Fleet) {
        let ends = forecast::expected_end(&self.forecast, at, request.model, fleet, now);
        self.forecast.dispatched(at, request.model, now, ends);
    }

    fn finished(&mut self, _: Duration, done: &Finished<'_>, _: &Fleet) {
        self.forecast
            .finished(done.endpoint, done.request.model, done.dispatched);
    }

    fn forgotten(&mut self, model: ModelKey) {
        self.demand.forgotten(model);
    }

    fn tend(&mut self, now: Duration, fleet: &Fleet, chores: &mut Vec<Chore>) {
        self.count_copies(fleet, now);
        let mut live = 0;
        let mut idle: Option<(f64, EndpointId)> = None;
        for (at, endpoint) in fleet.iter() {
            let view = self.forecast.view(at, fleet, now);
            if !view.live {
                continue;
            }
            live += 1;
            if endpoint.is_idle() {
                let worth = self.worth_of_models(&view, fleet, now);
                if idle.is_none_or(|(least, _)| worth < least) {
                    idle = Some((worth, at));
                }
            }
        }
        let more = self.worth_of_one_more(live + 1, fleet, now) + self.worth_of_room(fleet, now);
        if live > 0 && more > self.rent {
            if let Some(at) = self.forecast.spare(fleet, now) {
                self.forecast.started(at, now + forecast::start(fleet));
                chores.push(Chore::Start(at));
            }
        } else if let Some((models, at)) = idle {
            let worth = models + self.worth_of_one_more(live, fleet, now);
            if worth < self.rent * HYSTERESIS {
                chores.push(Chore::Retire(at));
            }
            chores.push(Chore::WakeAt(now + TEND_EVERY));
        }
    }
}
