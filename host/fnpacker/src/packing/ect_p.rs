//! ECT-P: earliest expected completion, with a price on memory.
//!
//! One exchange rate, the price, says how many seconds of waiting a GB-second of memory is worth.
//! A request goes where it hurts least: its own delay, and what its switch takes from others. An
//! instance is kept, and a spare one started off the critical path, while the waiting that it
//! saves is worth its memory. What will be asked for is a forecast ([`Demand`]).

use std::time::Duration;

use super::demand::Demand;
use super::forecast::{self, Forecast, View};
use super::{Chore, EndpointId, Finished, Fleet, ModelKey, Outcome, Placement, Policy, Request};

/// A delay as long as a usual service hurts this many times its length on top: one long wait is
/// worse than several short ones.
const IMPATIENCE: f64 = 2.0;
/// How far ahead a victim's next request counts, in seconds.
const HORIZON: f64 = 10.0;
/// How often idle instances are weighed.
const WEIGH_EVERY: Duration = Duration::from_secs(2);
/// How long an outlook is good for.
const OUTLOOK_KEEPS: Duration = Duration::from_millis(50);
/// An instance goes when it is worth less than this share of its memory.
const HYSTERESIS: f64 = 0.5;
/// Idle, and busy, instances without the model that are looked at: those unused longest have the
/// victims that are missed least.
const LOOKS: usize = 16;
/// Weight of the newest service time in the mean.
const NEWEST: f64 = 0.05;
/// Service time and models in flight from before anything was seen.
const SERVICE_GUESS: f64 = 0.1;

/// Expected completion time, with a price on memory.
#[derive(Debug)]
pub struct EctP {
    /// Seconds of waiting that one instance's memory is worth, for each second.
    rent: f64,
    demand: Demand,
    forecast: Forecast,
    /// Endpoints where a model is in flight, once for each request.
    at_work: Vec<Vec<EndpointId>>,
    /// Mean seconds from dispatch to answer, without starts.
    service: f64,
    outlook: Outlook,
    /// When idle instances are weighed next.
    weigh_at: Duration,
}

/// What is expected as of a moment.
#[derive(Debug, Clone, Copy, Default)]
struct Outlook {
    until: Duration,
    /// Requests per second.
    rate: f64,
    /// Seconds of waiting per second that room for more models would save.
    room: f64,
}

/// One endpoint, weighed for one request.
#[derive(Debug, Clone, Copy)]
struct Offer {
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
            at_work: Vec::new(),
            service: SERVICE_GUESS,
            outlook: Outlook::default(),
            weigh_at: Duration::ZERO,
        }
    }

    /// How much a delay of so many seconds hurts.
    fn pain(&self, seconds: f64) -> f64 {
        seconds * (1.0 + IMPATIENCE * seconds / self.service.max(1e-6))
    }

    /// What a switch here costs others.
    fn loss(&self, view: &View<'_>, fleet: &Fleet, now: Duration) -> f64 {
        match view.victim() {
            Some(victim) if fleet.index().holders(victim).len() <= 1 => {
                let back = 1.0 - (-HORIZON * self.demand.rate(victim, now)).exp();
                forecast::switch(fleet, victim).as_secs_f64() * back
            }
            _ => 0.0,
        }
    }

    fn weigh(&self, at: EndpointId, model: ModelKey, fleet: &Fleet, now: Duration) -> Offer {
        let view = self.forecast.view(at, fleet, now);
        let mut delay = view.wait;
        let mut loss = 0.0;
        if !view.has(model) {
            delay += forecast::switch(fleet, model);
            loss = self.loss(&view, fleet, now);
        }
        if !view.live {
            delay += forecast::start(fleet);
        }
        Offer {
            cost: self.pain(delay.as_secs_f64()) + loss,
            last_use: fleet.endpoint(at).and_then(|endpoint| endpoint.last_use),
            at,
            free: view.free,
        }
    }

    /// The best endpoint: of those with the model, of some idle and busy ones without it, and of
    /// those not started, which are all alike.
    fn choose(&self, request: &Request, fleet: &Fleet, now: Duration) -> Option<Offer> {
        let index = fleet.index();
        let takes = |at: &EndpointId| fleet.endpoint(*at).is_some_and(|e| e.takes(request));
        let at_work = self.at_work.get(request.model.index());
        let with = index
            .holders(request.model)
            .iter()
            .chain(at_work.into_iter().flatten());
        let idle = index.idle().filter(takes).take(LOOKS);
        // Ties go to the one used last, so that the tail idles out.
        let latest = index.idle().rev().find(takes);
        let busy = index.busy().filter(takes).take(LOOKS);
        let fresh = index.fresh().find(takes);
        with.copied()
            .filter(takes)
            .chain(idle)
            .chain(latest)
            .chain(busy)
            .chain(fresh)
            .map(|at| self.weigh(at, request.model, fleet, now))
            .reduce(|best, offer| {
                let better = offer.cost < best.cost
                    || (offer.cost <= best.cost && offer.last_use > best.last_use);
                if better { offer } else { best }
            })
    }

    fn look_ahead(&mut self, fleet: &Fleet, now: Duration) {
        if now < self.outlook.until {
            return;
        }
        let absent = |model: &&ModelKey| fleet.index().holders(**model).is_empty();
        let worth = |model: &ModelKey| {
            self.demand.rate(*model, now) * forecast::switch(fleet, *model).as_secs_f64()
        };
        let mut room: Vec<f64> = self
            .demand
            .recent()
            .iter()
            .filter(absent)
            .map(worth)
            .collect();
        room.sort_by(|a, b| b.total_cmp(a));
        self.outlook = Outlook {
            until: now + OUTLOOK_KEEPS,
            rate: self.demand.rate_of_all(now),
            room: room.iter().take(fleet.models_per_instance()).sum(),
        };
    }

    /// Seconds of waiting that the `n`-th instance saves per second, by being one more.
    fn worth_of_number(&self, n: usize, fleet: &Fleet) -> f64 {
        let start = forecast::start(fleet).as_secs_f64();
        let Outlook { rate, .. } = self.outlook;
        let others = n.saturating_sub(1) * fleet.capacity() as usize;
        if others == 0 {
            return rate * self.pain(start);
        }
        // It is of use to a request that meets all others busy, for about a turn among them.
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 instances")]
        let turn = self.service / n as f64;
        rate * poisson_tail(rate * self.service, others) * self.pain(turn.min(start))
    }

    /// Seconds of waiting per second that the models held there save, and those that have room.
    fn worth_of_models(&self, at: EndpointId, fleet: &Fleet, now: Duration) -> f64 {
        let resident = fleet
            .instance(at)
            .map_or(&[][..], |instance| &instance.resident[..]);
        let only_here = resident
            .iter()
            .filter(|m| fleet.index().holders(**m).len() <= 1);
        let held: f64 = only_here
            .map(|m| self.demand.rate(*m, now) * forecast::switch(fleet, *m).as_secs_f64())
            .sum();
        // What a spare was started for has not come yet: it is not let go for that.
        let room = if resident.len() < fleet.models_per_instance() {
            self.outlook.room
        } else {
            0.0
        };
        held + room
    }

    /// Lets idle instances go, the least worth first, as long as they are not worth their memory.
    fn let_go(&self, fleet: &Fleet, now: Duration, chores: &mut Vec<Chore>) {
        let mut live = fleet.index().live();
        let idle = fleet.index().idle().filter(|at| {
            fleet
                .endpoint(*at)
                .is_some_and(|e| e.is_idle() && e.is_open())
        });
        let mut idle: Vec<_> = idle
            .map(|at| (self.worth_of_models(at, fleet, now), at))
            .collect();
        idle.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (models, at) in idle {
            if models + self.worth_of_number(live, fleet) >= self.rent * HYSTERESIS {
                break;
            }
            chores.push(Chore::Retire(at));
            live -= 1;
        }
    }
}

/// Chance that a Poisson number with this mean is at least `n`.
fn poisson_tail(mean: f64, n: usize) -> f64 {
    let (mut below, mut term, mut k) = (0.0, (-mean).exp(), 0.0);
    for _ in 0..n {
        below += term;
        k += 1.0;
        term *= mean / k;
    }
    (1.0 - below).max(0.0)
}

impl Policy for EctP {
    fn name(&self) -> &'static str {
        "ect-p"
    }

    fn arrived(&mut self, now: Duration, request: &Request) {
        self.demand.arrived(request.model, now);
    }

    fn place(&mut self, now: Duration, request: &Request, fleet: &Fleet) -> Placement {
        match self.choose(request, fleet, now) {
            Some(Offer { at, free: true, .. }) => Placement::Dispatch(at),
            offer => Placement::Wait {
                on: offer.map(|offer| offer.at),
                until: None,
            },
        }
    }

    fn dispatched(&mut self, now: Duration, request: &Request, at: EndpointId, fleet: &Fleet) {
        let ends = forecast::expected_end(&self.forecast, at, request.model, fleet, now);
        self.forecast.dispatched(at, request.model, now, ends);
        let model = request.model.index();
        if self.at_work.len() <= model {
            self.at_work.resize_with(model + 1, Vec::new);
        }
        self.at_work[model].push(at);
    }

    fn finished(&mut self, _: Duration, done: &Finished<'_>, _: &Fleet) {
        let Finished {
            request,
            endpoint,
            report,
            ..
        } = done;
        self.forecast
            .finished(*endpoint, request.model, done.dispatched);
        if let Some(at_work) = self.at_work.get_mut(request.model.index())
            && let Some(known) = at_work.iter().position(|at| at == endpoint)
        {
            at_work.swap_remove(known);
        }
        if report.outcome == Outcome::Served {
            let service = (report.spent.exec + report.spent.switch).as_secs_f64();
            self.service += NEWEST * (service - self.service);
        }
    }

    fn forgotten(&mut self, model: ModelKey) {
        self.demand.forgotten(model);
    }

    fn tend(&mut self, now: Duration, fleet: &Fleet, chores: &mut Vec<Chore>) {
        let live = fleet.index().live();
        if live == 0 {
            return;
        }
        self.look_ahead(fleet, now);
        if self.worth_of_number(live + 1, fleet) + self.outlook.room > self.rent {
            if let Some(at) = self.forecast.spare(fleet, now) {
                self.forecast.started(at, now + forecast::start(fleet));
                chores.push(Chore::Start(at));
            }
        } else if fleet.frees_memory() && now >= self.weigh_at {
            self.let_go(fleet, now, chores);
        }
        if now >= self.weigh_at {
            self.weigh_at = now + WEIGH_EVERY;
        }
        if fleet.index().idle().next().is_some() {
            chores.push(Chore::WakeAt(self.weigh_at));
        }
    }
}
