//! What a policy's decision costs: FnPacker's own packing, at full size, in virtual time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use fnpacker::config::PolicyName;
use fnpacker::packing::{
    Action, Arrival, Company, EndpointId, Limits, Outcome, Packing, Report, Spent, Ticket,
};
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
/// Models that stay in one instance.
const RESIDENT: usize = 4;
/// A hot request takes this long on average, and as much more if its model has to be loaded.
const EXEC: Duration = Duration::from_millis(10);
/// Between two arrivals: hot requests would keep half of the instances busy.
const STEP: Duration = Duration::from_micros(100);
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
    /// The model of each request that waits or is in flight.
    asked: HashMap<Ticket, usize>,
    /// Those in flight, by their end.
    flights: BTreeMap<(Duration, Ticket), Flight>,
    /// The models in each instance, the last used first.
    resident: Vec<VecDeque<usize>>,
    arrive: Histogram<u64>,
    finish: Histogram<u64>,
    queued: f64,
    refused: f64,
}

struct Flight {
    endpoint: EndpointId,
    spent: Spent,
}

impl<'a> Play<'a> {
    fn new(policy: PolicyName, models: &'a [ModelId]) -> Result<Self, RouterError> {
        let limits = Limits {
            capacity: CAPACITY,
            in_flight: 100_000,
            models_per_instance: RESIDENT,
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
            asked: HashMap::new(),
            flights: BTreeMap::new(),
            resident: vec![VecDeque::new(); INSTANCES],
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
            let arrival = self.now + STEP;
            while let Some(next) = self.flights.first_entry().filter(|it| it.key().0 < arrival) {
                let ((end, ticket), flight) = next.remove_entry();
                self.now = end;
                let took = self.end(ticket, &flight)?;
                if counts {
                    self.finish.record(took)?;
                }
                self.act(counts);
            }
            self.now = arrival;
            let took = self.arrival();
            if counts {
                self.arrive.record(took)?;
            }
            self.act(counts);
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

    fn model(&mut self) -> usize {
        let all = self.popularity.last().copied().unwrap_or_default();
        let drawn = self.random.unit() * all;
        let at = self.popularity.partition_point(|sum| *sum < drawn);
        at.min(self.models.len() - 1)
    }

    fn arrival(&mut self) -> u64 {
        let mut user = [0; 32];
        user[..8].copy_from_slice(&(self.random.bits() % USERS).to_le_bytes());
        let model = self.model();
        let arrival = Arrival {
            model: &self.models[model],
            user: PrincipalId::new(user),
            owner: None,
            company: Company::Shared,
            bytes: 1024,
            deadline: Some(self.now + Duration::from_secs(60)),
        };
        let (packing, now, actions) = (&mut self.packing, self.now, &mut self.actions);
        let (ticket, took) = timed(|| packing.arrive(now, &arrival, actions));
        self.asked.insert(ticket, model);
        took
    }

    fn end(&mut self, ticket: Ticket, flight: &Flight) -> Result<u64, RouterError> {
        let instance = format!("instance-{}", flight.endpoint).parse();
        let hot = flight.spent.switch.is_zero();
        let report = Report {
            outcome: Outcome::Served,
            duration: flight.spent.exec + flight.spent.switch,
            instance: Some(instance.map_err(|_| RouterError::Address)?),
            start: Some(if hot { StartKind::Hot } else { StartKind::Warm }),
            spent: flight.spent,
        };
        let (packing, now, actions) = (&mut self.packing, self.now, &mut self.actions);
        Ok(timed(|| packing.finish(now, ticket, &report, actions)).1)
    }

    fn act(&mut self, counts: bool) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Dispatch {
                    ticket, endpoint, ..
                }
                | Action::Start { ticket, endpoint } => self.begin(ticket, endpoint),
                Action::Reject { ticket, .. } => {
                    self.asked.remove(&ticket);
                    self.refused += f64::from(u8::from(counts));
                }
                Action::Retire { endpoint } => {
                    self.resident[endpoint.index()].clear();
                    self.packing
                        .retired(self.now, endpoint, true, &mut self.actions);
                }
            }
        }
    }

    fn begin(&mut self, ticket: Ticket, endpoint: EndpointId) {
        let mut spent = Spent {
            exec: EXEC.mul_f64(0.5 + self.random.unit()),
            ..Spent::default()
        };
        if let Some(model) = self.asked.remove(&ticket) {
            let resident = &mut self.resident[endpoint.index()];
            match resident.iter().position(|it| *it == model) {
                Some(at) => drop(resident.remove(at)),
                None => spent.switch = EXEC,
            }
            resident.push_front(model);
            resident.truncate(RESIDENT);
        }
        let end = self.now + spent.exec + spent.switch;
        self.flights
            .insert((end, ticket), Flight { endpoint, spent });
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let began = Instant::now();
    let done = work();
    let nanos = u64::try_from(began.elapsed().as_nanos());
    (done, nanos.unwrap_or(u64::MAX).max(1))
}
