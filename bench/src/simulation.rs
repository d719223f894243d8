//! A discrete-event simulation of a platform under FnPacker's packing, deterministic by seed.
//!
//! The packing is [`fnpacker::packing::Packing`], the same that the router drives in real time.
//! The platform is OpenWhisk's, simplified: an endpoint's request takes a free instance of that
//! endpoint (the most recently used), else a new one if memory allows, else the one idle longest
//! anywhere makes room, else it is buffered, first in first out. An instance that is idle for the
//! keep-alive time goes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use fnpacker::packing::{
    Action, Arrival as Asking, Company, EndpointId, Outcome, Packing, Rejection, Report, Spent,
    Ticket,
};
use protocol::invoke::{StartKind, micros};
use protocol::{ModelId, PrincipalId};

use crate::costs::{CostModel, ModelCost};
use crate::policy::PolicySpec;
use crate::random::Random;
use crate::report::Tally;
use crate::workload::{Arrival, Workload};

mod instances;
mod processor;
pub mod timeline;

use instances::Instances;
use processor::Processor;
use timeline::{Span, Timeline};

/// The least memory, in MiB, that Apache OpenWhisk and the embedded platform set aside for an
/// instance (`limits.memory` of their defaults).
const SMALLEST_MB: f64 = 128.0;

/// What is simulated besides workload, costs and policy.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Cores that all instances share; absent: each has its own.
    pub cores: Option<f64>,
    /// Memory of an instance without a model, and of each model that it can hold, in MiB.
    pub instance_mb: f64,
    pub model_mb: f64,
    /// Memory for all instances, in MiB; absent: the policy's number of instances bounds them.
    pub memory_mb: Option<f64>,
    /// What the platform adds to every invocation; waited for, not billed.
    pub overhead: Duration,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cores: None,
            instance_mb: 96.0,
            model_mb: 64.0,
            memory_mb: None,
            overhead: Duration::ZERO,
        }
    }
}

impl Machine {
    /// MiB that are set aside for one instance that can hold so many models.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a handful of models")]
    pub fn mb(&self, models: usize) -> f64 {
        (self.instance_mb + self.model_mb * models as f64).max(SMALLEST_MB)
    }

    /// How many instances of this policy the memory holds; at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and saturating is right"
    )]
    fn instances(&self, spec: &PolicySpec) -> usize {
        let room = |all: f64| (all / self.mb(spec.models)).floor().max(1.0) as usize;
        self.memory_mb
            .map_or(spec.instances, |all| spec.instances.min(room(all)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    /// A refused caller tries again.
    Retry(Arrival),
    /// A job has waited for what needs no core, and begins its work in microseconds.
    Work { job: u32, micros: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Job {
    ticket: Ticket,
    /// Absent for a start that serves nobody.
    asked: Option<Arrival>,
    instance: u32,
    start: StartKind,
    spent: Spent,
    began: u64,
}

/// One run.
#[derive(Debug)]
pub struct Simulation<'a> {
    models: &'a [ModelId],
    costs: &'a CostModel,
    /// Of each model of the workload.
    prices: Vec<ModelCost>,
    spec: &'a PolicySpec,
    room: usize,
    /// Microseconds of every invocation that need no core, and are not billed.
    overhead: u64,
    /// Share of a start that needs a core.
    start_work: f64,
    random: Random,
    packing: Packing,
    processor: Processor,
    instances: Instances,
    /// What happens at a time that is known already; at one time, in the order of planning.
    later: BinaryHeap<Reverse<(u64, u64, Later)>>,
    planned: u64,
    /// Who is between arrival and dispatch.
    requests: HashMap<Ticket, Arrival>,
    jobs: Vec<Job>,
    free_jobs: Vec<u32>,
    buffered: VecDeque<(Ticket, EndpointId)>,
    actions: Vec<Action>,
    tally: Tally,
    timeline: Option<Timeline>,
    gb: f64,
}

fn time(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl<'a> Simulation<'a> {
    /// Runs `workload` under `spec`, and counts.
    #[must_use]
    pub fn run(
        workload: &'a Workload,
        costs: &'a CostModel,
        spec: &'a PolicySpec,
        machine: &Machine,
        seed: u64,
    ) -> Tally {
        let mut simulation = Self::new(&workload.models, costs, spec, machine, seed);
        simulation.play(workload.arrivals.iter().copied());
        simulation.tally
    }

    /// Runs requests that are not all known beforehand: `arrivals` in the order of their times.
    #[must_use]
    pub fn stream(
        models: &'a [ModelId],
        arrivals: impl Iterator<Item = Arrival>,
        costs: &'a CostModel,
        spec: &'a PolicySpec,
        machine: &Machine,
        seed: u64,
    ) -> Tally {
        let mut simulation = Self::new(models, costs, spec, machine, seed);
        simulation.play(arrivals);
        simulation.tally
    }

    /// Runs `workload`, and writes down what every instance did.
    #[must_use]
    pub fn traced(
        workload: &'a Workload,
        costs: &'a CostModel,
        spec: &'a PolicySpec,
        machine: &Machine,
        seed: u64,
    ) -> (Tally, Timeline) {
        let mut simulation = Self::new(&workload.models, costs, spec, machine, seed);
        simulation.timeline = Some(Timeline::default());
        simulation.play(workload.arrivals.iter().copied());
        (simulation.tally, simulation.timeline.unwrap_or_default())
    }

    fn new(
        models: &'a [ModelId],
        costs: &'a CostModel,
        spec: &'a PolicySpec,
        machine: &Machine,
        seed: u64,
    ) -> Self {
        let gb = machine.mb(spec.models) / 1024.0;
        let prices: Vec<_> = models.iter().map(|model| costs.of(model)).collect();
        let hot = prices.iter().map(|cost| cost.exec.median()).collect();
        Simulation {
            models,
            costs,
            prices,
            spec,
            room: machine.instances(spec),
            overhead: micros(machine.overhead),
            start_work: costs.start_work.unwrap_or(1.0).clamp(0.0, 1.0),
            random: Random::new(seed),
            packing: Packing::new(spec.policy(spec.price * gb), spec.endpoints, spec.limits()),
            processor: Processor::new(machine.cores),
            instances: Instances::new(spec.endpoints),
            later: BinaryHeap::new(),
            planned: 0,
            requests: HashMap::new(),
            jobs: Vec::new(),
            free_jobs: Vec::new(),
            buffered: VecDeque::new(),
            actions: Vec::new(),
            tally: Tally::new(hot),
            timeline: None,
            gb,
        }
    }

    fn play(&mut self, arrivals: impl Iterator<Item = Arrival>) {
        let mut arrivals = arrivals.peekable();
        let ttl = micros(self.spec.ttl);
        loop {
            let end = self.processor.next_end();
            let expiry = self
                .instances
                .oldest_idle()
                .map(|(_, since)| since.saturating_add(ttl));
            let later = self.later.peek().map(|Reverse((at, ..))| *at);
            let wake = self
                .packing
                .next_wake()
                .map(|at| u64::try_from(at.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX));
            let arrival = arrivals.peek().map(|arrival| arrival.at);
            // At one instant: ends first, then what they free, then who comes.
            let times = [end, expiry, later, wake, arrival];
            let Some(now) = times.iter().flatten().min().copied() else {
                break;
            };
            self.tally.events += 1;
            if end == Some(now) {
                self.end_job(now);
            } else if expiry == Some(now) {
                self.let_oldest_go(now);
            } else if later == Some(now) {
                match self.later.pop() {
                    Some(Reverse((_, _, Later::Retry(asked)))) => self.arrive(now, asked),
                    Some(Reverse((_, _, Later::Work { job, micros }))) => {
                        self.processor.start(now, job, micros);
                    }
                    None => {}
                }
            } else if wake == Some(now) {
                self.packing.wake(time(now), &mut self.actions);
            } else if let Some(asked) = arrivals.next() {
                self.arrive(now, asked);
            }
            self.act(now);
        }
        debug_assert_eq!(self.instances.live(), 0, "every instance expires");
    }

    fn arrive(&mut self, now: u64, asked: Arrival) {
        let arrival = Asking {
            model: &self.models[asked.model as usize],
            user: PrincipalId::new([0; 32]),
            owner: None,
            company: Company::Shared,
            bytes: 1024,
            deadline: None,
        };
        let ticket = self.packing.arrive(time(now), &arrival, &mut self.actions);
        self.requests.insert(ticket, asked);
    }

    /// Carries out what the packing said.
    fn act(&mut self, now: u64) {
        let mut actions = std::mem::take(&mut self.actions);
        while !actions.is_empty() {
            for action in actions.drain(..) {
                self.carry_out(now, &action);
            }
            // What is let go may bring new actions, to be carried out after these.
            std::mem::swap(&mut actions, &mut self.actions);
        }
        self.actions = actions;
        while let Some((ticket, endpoint)) = self.buffered.front().copied() {
            if !self.place(now, ticket, endpoint) {
                break;
            }
            self.buffered.pop_front();
        }
    }

    fn carry_out(&mut self, now: u64, action: &Action) {
        match *action {
            Action::Dispatch {
                ticket, endpoint, ..
            }
            | Action::Start { ticket, endpoint } => self.buffered.push_back((ticket, endpoint)),
            Action::Reject { ticket, rejection } => self.refuse(now, ticket, rejection),
            Action::Retire { endpoint } => {
                while let Some(at) = self.instances.engage(endpoint) {
                    self.instances.rest(now, at);
                    self.remove(now, at);
                }
                self.packing
                    .retired(time(now), endpoint, true, &mut self.actions);
            }
        }
    }

    fn refuse(&mut self, now: u64, ticket: Ticket, rejection: Rejection) {
        let Some(asked) = self.requests.remove(&ticket) else {
            return;
        };
        if let Rejection::Shed { retry_after } = rejection {
            self.tally.retries += 1;
            self.plan(now.saturating_add(micros(retry_after)), Later::Retry(asked));
        } else {
            self.tally.errors += 1;
        }
    }

    fn plan(&mut self, at: u64, what: Later) {
        self.planned += 1;
        self.later.push(Reverse((at, self.planned, what)));
    }

    /// Begins a request on an instance; false if there is none and no room for one.
    fn place(&mut self, now: u64, ticket: Ticket, endpoint: EndpointId) -> bool {
        if let Some(at) = self.instances.engage(endpoint) {
            self.begin(now, ticket, at, false);
            return true;
        }
        if self.instances.live() >= self.room && !self.let_oldest_go(now) {
            return false;
        }
        let Some(at) = self.instances.create(now, endpoint) else {
            return false;
        };
        self.tally.peak_instances = self.tally.peak_instances.max(self.instances.live());
        self.begin(now, ticket, at, true);
        true
    }

    /// The instance that is idle longest, anywhere, goes; false if none is idle.
    fn let_oldest_go(&mut self, now: u64) -> bool {
        let oldest = self.instances.oldest_idle();
        oldest.is_some_and(|(at, _)| self.remove(now, at))
    }

    #[expect(clippy::cast_precision_loss, reason = "a life below 2^53 microseconds")]
    fn remove(&mut self, now: u64, at: u32) -> bool {
        let Some(instance) = self.instances.remove_idle(at) else {
            return false;
        };
        self.tally.gb_seconds += (now - instance.born) as f64 / 1e6 * self.gb;
        if let Some(timeline) = &mut self.timeline {
            timeline.lived(instance.number, instance.born, now);
        }
        self.packing.instance_gone(instance.endpoint, &instance.id);
        true
    }

    fn begin(&mut self, now: u64, ticket: Ticket, at: u32, fresh: bool) {
        let asked = self.requests.remove(&ticket);
        let Some(instance) = self.instances.of(at) else {
            return;
        };
        let mut draw = |cost| time(self.costs.draw(cost, &mut self.random));
        let mut spent = Spent::default();
        let mut start = StartKind::Hot;
        if let Some(Arrival { model, .. }) = asked {
            let cost = self.prices[model as usize];
            spent.exec = draw(cost.exec);
            if let Some(place) = instance.resident.iter().position(|other| *other == model) {
                instance.resident[..=place].rotate_right(1);
            } else {
                start = StartKind::Warm;
                spent.switch = draw(cost.switch);
                instance.resident.truncate(self.spec.models - 1);
                instance.resident.insert(0, model);
            }
        }
        if fresh {
            start = StartKind::Cold;
            let own = asked.and_then(|asked| self.prices[asked.model as usize].start);
            spent.start = draw(own.unwrap_or(self.costs.start()));
        }
        let job = Job {
            ticket,
            asked,
            instance: at,
            start,
            spent,
            began: now,
        };
        let id = match self.free_jobs.pop() {
            Some(id) => {
                self.jobs[id as usize] = job;
                id
            }
            None => {
                self.jobs.push(job);
                u32::try_from(self.jobs.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let waits = spent.start.mul_f64(1.0 - self.start_work);
        let work = micros(spent.start - waits + spent.switch + spent.exec);
        match micros(waits) + self.overhead {
            0 => self.processor.start(now, id, work),
            waits => self.plan(
                now + waits,
                Later::Work {
                    job: id,
                    micros: work,
                },
            ),
        }
    }

    fn end_job(&mut self, now: u64) {
        let Some(id) = self.processor.end_next(now) else {
            return;
        };
        let job = self.jobs[id as usize];
        self.free_jobs.push(id);
        let duration = (now - job.began).saturating_sub(self.overhead);
        self.tally.bill(duration, self.gb);
        if let Some(asked) = job.asked {
            self.tally.served(asked.model, now - asked.at, job.start);
        }
        self.instances.rest(now, job.instance);
        let Some(instance) = self.instances.of(job.instance) else {
            return;
        };
        if let Some(timeline) = &mut self.timeline {
            timeline.spans.push(Span {
                instance: instance.number,
                model: job.asked.map(|asked| asked.model),
                from: job.began,
                to: now,
                start: job.start,
            });
        }
        let report = Report {
            outcome: if job.asked.is_some() {
                Outcome::Served
            } else {
                Outcome::Refused
            },
            duration: time(duration),
            instance: Some(instance.id.clone()),
            start: Some(job.start),
            spent: job.spent,
        };
        self.packing
            .finish(time(now), job.ticket, &report, &mut self.actions);
    }
}
