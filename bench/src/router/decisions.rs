//! What a policy's decision costs: FnPacker's own packing, at full size, in virtual time.

use std::time::{Duration, Instant};

use fnpacker::config::PolicyName;
use fnpacker::packing::{Action, Arrival, Limits, Outcome, Packing, Report, Spent};
use hdrhistogram::Histogram;
use protocol::invoke::StartKind;
use protocol::{ModelId, PrincipalId};
use serde::Serialize;

use super::RouterError;
use super::load::histogram;
use crate::random::Random;

/// How many of each there are.
pub const MODELS: usize = 1000;
pub const INSTANCES: usize = 200;
const USERS: u64 = 50;
/// Requests at once in one instance.
const CAPACITY: u32 = 4;
/// Share of all slots that work when the load is steady: half of them.
const BUSY: usize = INSTANCES * CAPACITY as usize / 2;
/// Between two events.
const STEP: Duration = Duration::from_micros(200);
/// Zipf's exponent of the models' popularity.
const SKEW: f64 = 0.9;

/// What the decisions of one policy cost, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Decisions {
    pub policy: &'static str,
    /// An arrival is placed, queued or refused.
    pub arrive: Cost,
    /// An answer frees a slot, and those who wait are asked again.
    pub finish: Cost,
    /// How many waited, on average.
    pub queued: f64,
    /// Arrivals that were refused, of all.
    pub refused: f64,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    pub p50_us: f64,
    pub p99_us: f64,
    pub mean_us: f64,
}

impl Cost {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53 ns")]
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            mean_us: histogram.mean() / 1e3,
        }
    }
}

/// Measures every policy over `events` arrivals.
pub(super) fn measure(events: usize) -> Result<Vec<Decisions>, RouterError> {
    let models = (0..MODELS)
        .map(|number| format!("model-{number}").parse::<ModelId>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| RouterError::Address)?;
    let all = PolicyName::ALL.into_iter();
    all.map(|policy| Play::new(policy, &models)?.run(events))
        .collect()
}

struct Play<'a> {
    policy: PolicyName,
    models: &'a [ModelId],
    /// Running sums of the models' weights.
    popularity: Vec<f64>,
    packing: Packing,
    random: Random,
    now: Duration,
    actions: Vec<Action>,
    flights: Vec<(fnpacker::packing::Ticket, fnpacker::packing::EndpointId)>,
    arrive: Histogram<u64>,
    finish: Histogram<u64>,
    queued: f64,
    refused: f64,
}

impl<'a> Play<'a> {
    fn new(policy: PolicyName, models: &'a [ModelId]) -> Result<Self, RouterError> {
        let limits = Limits {
            capacity: CAPACITY,
            in_flight: 100_000,
            ..Limits::default()
        };
        let weights = (1..=models.len()).scan(0.0, |sum, rank| {
            #[expect(clippy::cast_precision_loss, reason = "a thousand")]
            let weight = (rank as f64).powf(-SKEW);
            *sum += weight;
            Some(*sum)
        });
        Ok(Self {
            policy,
            models,
            popularity: weights.collect(),
            packing: Packing::new(policy.policy(0.025), INSTANCES, limits),
            random: Random::new(7),
            now: Duration::ZERO,
            actions: Vec::new(),
            flights: Vec::new(),
            arrive: histogram()?,
            finish: histogram()?,
            queued: 0.0,
            refused: 0.0,
        })
    }

    fn run(mut self, events: usize) -> Result<Decisions, RouterError> {
        for event in 0..events {
            // The first quarter fills the fleet and the caches, and does not count.
            let counts = event > events / 4;
            self.now += STEP;
            let took = self.arrival()?;
            if counts {
                self.arrive.record(took)?;
            }
            self.act(counts);
            while self.flights.len() > BUSY {
                let took = self.end()?;
                if counts {
                    self.finish.record(took)?;
                }
                self.act(counts);
            }
            #[expect(clippy::cast_precision_loss, reason = "a queue of hundreds")]
            if counts {
                self.queued += self.packing.queued() as f64;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let counted = self.arrive.len() as f64;
        Ok(Decisions {
            policy: self.policy.name(),
            arrive: Cost::of(&self.arrive),
            finish: Cost::of(&self.finish),
            queued: self.queued / counted,
            refused: self.refused / counted,
        })
    }

    fn model(&mut self) -> &'a ModelId {
        let all = self.popularity.last().copied().unwrap_or_default();
        let drawn = self.random.unit() * all;
        let at = self.popularity.partition_point(|sum| *sum < drawn);
        &self.models[at.min(self.models.len() - 1)]
    }

    fn arrival(&mut self) -> Result<u64, RouterError> {
        let mut user = [0; 32];
        user[..8].copy_from_slice(&(self.random.bits() % USERS).to_le_bytes());
        let arrival = Arrival {
            model: self.model(),
            user: PrincipalId::new(user),
            owner: None,
            bytes: 1024,
            deadline: Some(self.now + Duration::from_secs(60)),
        };
        let (packing, now, actions) = (&mut self.packing, self.now, &mut self.actions);
        Ok(timed(|| {
            packing.arrive(now, &arrival, actions);
        }))
    }

    /// Any one of those in flight ends, after 5 to 15 ms of work.
    fn end(&mut self) -> Result<u64, RouterError> {
        let drawn = usize::try_from(self.random.bits() % (1 << 32)).unwrap_or_default();
        let (ticket, endpoint) = self.flights.swap_remove(drawn % self.flights.len());
        let exec = Duration::from_secs_f64(0.005 + 0.01 * self.random.unit());
        let instance = format!("instance-{endpoint}").parse();
        let report = Report {
            outcome: Outcome::Served,
            duration: exec,
            instance: Some(instance.map_err(|_| RouterError::Address)?),
            start: Some(StartKind::Hot),
            spent: Spent {
                exec,
                ..Spent::default()
            },
        };
        let (packing, now, actions) = (&mut self.packing, self.now, &mut self.actions);
        Ok(timed(|| {
            packing.finish(now, ticket, &report, actions);
        }))
    }

    fn act(&mut self, counts: bool) {
        for action in self.actions.drain(..) {
            match action {
                Action::Dispatch {
                    ticket, endpoint, ..
                }
                | Action::Start { ticket, endpoint } => self.flights.push((ticket, endpoint)),
                Action::Reject { .. } if counts => self.refused += 1.0,
                Action::Reject { .. } | Action::Retire { .. } => {}
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn timed(work: impl FnOnce()) -> u64 {
    let began = Instant::now();
    work();
    u64::try_from(began.elapsed().as_nanos())
        .unwrap_or(u64::MAX)
        .max(1)
}
