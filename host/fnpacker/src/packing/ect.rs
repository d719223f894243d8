//! ECT-G: each request goes where it is expected to end earliest, a little altruism included.
//!
//! The cost of an instance is its queue, the switch if the model is not resident there, and a
//! share of the switch that its victim will need when it comes back. A new instance costs its
//! start. Ties go to the instance used last, so that the tail idles out.

use std::time::Duration;

use super::forecast::{self, Forecast, View};
use super::{Chore, EndpointId, Finished, Fleet, ModelKey, Placement, Policy, Request};

/// How far ahead a victim's next request counts.
const HORIZON: Duration = Duration::from_secs(30);
/// Weight of the newest gap in a model's mean gap between requests.
const NEWEST_GAP: f64 = 0.2;

#[derive(Debug, Clone, Copy, Default)]
struct Gaps {
    last: Option<Duration>,
    /// Mean seconds between requests; zero before two were seen.
    mean: f64,
}

/// Expected completion time, greedy.
#[derive(Debug)]
pub struct EctG {
    /// Weight of a victim's expected switch.
    altruism: f64,
    gaps: Vec<Gaps>,
    forecast: Forecast,
    copies: Vec<u32>,
    /// The latest choice was one that a spare instance would have made better.
    wants_spare: bool,
}

impl Default for EctG {
    fn default() -> Self {
        Self::new(1.0)
    }
}

struct Choice {
    cost: Duration,
    last_use: Option<Duration>,
    at: EndpointId,
    free: bool,
    throws_out: bool,
    wait: Duration,
}

impl EctG {
    /// With this weight on what a victim loses; 0 is selfish.
    #[must_use]
    pub const fn new(altruism: f64) -> Self {
        Self {
            altruism,
            gaps: Vec::new(),
            forecast: Forecast::EMPTY,
            copies: Vec::new(),
            wants_spare: false,
        }
    }

    /// Chance that the model is asked for within the horizon, if its requests come at random.
    fn comes_back(&self, model: ModelKey, now: Duration) -> f64 {
        let Some(gaps) = self.gaps.get(model.index()) else {
            return 0.0;
        };
        let Some(last) = gaps.last.filter(|_| gaps.mean > 0.0) else {
            return 0.0;
        };
        let gap = gaps.mean.max(now.saturating_sub(last).as_secs_f64());
        1.0 - (-HORIZON.as_secs_f64() / gap).exp()
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

    /// What a switch here costs others.
    fn loss(&self, view: &View<'_>, fleet: &Fleet, now: Duration) -> Duration {
        let Some(victim) = view.victim() else {
            return Duration::ZERO;
        };
        if self
            .copies
            .get(victim.index())
            .is_some_and(|copies| *copies > 1)
        {
            return Duration::ZERO;
        }
        let share = self.altruism * self.comes_back(victim, now);
        forecast::switch(fleet, victim).mul_f64(share.max(0.0))
    }

    fn choose(&self, request: &Request, fleet: &Fleet, now: Duration) -> Option<Choice> {
        let model = request.model;
        let switch = forecast::switch(fleet, model);
        let start = forecast::start(fleet);
        let mut best: Option<Choice> = None;
        let mut fresh_seen = false;
        for (at, endpoint) in fleet.iter().filter(|(_, endpoint)| endpoint.takes(request)) {
            let view = self.forecast.view(at, fleet, now);
            if !view.live {
                // All that are not started are alike.
                if std::mem::replace(&mut fresh_seen, true) {
                    continue;
                }
            }
            let loss = if view.has(model) {
                None
            } else {
                Some(self.loss(&view, fleet, now))
            };
            let cost = view.wait
                + loss.map_or(Duration::ZERO, |loss| switch + loss)
                + if view.live { Duration::ZERO } else { start };
            let better = best.as_ref().is_none_or(|b| {
                cost < b.cost || (cost == b.cost && endpoint.last_use > b.last_use)
            });
            if better {
                best = Some(Choice {
                    cost,
                    last_use: endpoint.last_use,
                    at,
                    free: view.free,
                    throws_out: loss.is_some_and(|loss| loss > switch / 2),
                    wait: view.wait,
                });
            }
        }
        best
    }
}

impl Policy for EctG {
    fn name(&self) -> &'static str {
        "ect-g"
    }

    fn place(&mut self, now: Duration, request: &Request, fleet: &Fleet) -> Placement {
        self.count_copies(fleet, now);
        let Some(choice) = self.choose(request, fleet, now) else {
            return Placement::Wait {
                on: None,
                until: None,
            };
        };
        let switch = forecast::switch(fleet, request.model);
        self.wants_spare |= choice.throws_out || choice.wait > switch;
        if choice.free {
            Placement::Dispatch(choice.at)
        } else {
            Placement::Wait {
                on: Some(choice.at),
                until: None,
            }
        }
    }

    fn dispatched(&mut self, now: Duration, request: &Request, at: EndpointId, fleet: &Fleet) {
        if self.gaps.len() <= request.model.index() {
            self.gaps.resize(request.model.index() + 1, Gaps::default());
        }
        let gaps = &mut self.gaps[request.model.index()];
        if let Some(last) = gaps.last {
            let gap = request.arrived.saturating_sub(last).as_secs_f64();
            let newest = if gaps.mean > 0.0 { NEWEST_GAP } else { 1.0 };
            gaps.mean += newest * (gap - gaps.mean);
        }
        gaps.last = Some(request.arrived);
        let ends = forecast::expected_end(&self.forecast, at, request.model, fleet, now);
        self.forecast.dispatched(at, request.model, now, ends);
    }

    fn finished(&mut self, _: Duration, done: &Finished<'_>, _: &Fleet) {
        self.forecast
            .finished(done.endpoint, done.request.model, done.dispatched);
    }

    fn forgotten(&mut self, model: ModelKey) {
        if let Some(gaps) = self.gaps.get_mut(model.index()) {
            *gaps = Gaps::default();
        }
    }

    fn tend(&mut self, now: Duration, fleet: &Fleet, chores: &mut Vec<Chore>) {
        if std::mem::take(&mut self.wants_spare)
            && let Some(at) = self.forecast.spare(fleet, now)
        {
            self.forecast.started(at, now + forecast::start(fleet));
            chores.push(Chore::Start(at));
        }
    }
}
