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
    Action, Arrival, Company, EndpointId, Outcome, Packing, Rejection, Report, Spent, Ticket,
};
use protocol::PrincipalId;
use protocol::id::InstanceId;
use protocol::invoke::{StartKind, micros};

use crate::costs::{CostModel, ModelCost};
use crate::policy::PolicySpec;
use crate::random::Random;
use crate::report::Tally;
use crate::workload::Workload;

mod processor;

use processor::Processor;

/// What is simulated besides workload, costs and policy.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Cores that all instances share; absent: each has its own.
    pub cores: Option<f64>,
    /// Memory of an instance without a model, and of each model that it can hold, in MiB.
    pub instance_mb: f64,
    pub model_mb: f64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cores: None,
            instance_mb: 96.0,
            model_mb: 64.0,
        }
    }
}

#[derive(Debug)]
struct Instance {
    id: InstanceId,
    endpoint: EndpointId,
    born: u64,
    busy: u32,
    last_use: u64,
    /// Counts its uses, so that an expiry knows whether it is stale.
    uses: u64,
    /// The most recently used first.
    resident: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    ticket: Ticket,
    /// Index of the request; absent for a start that serves nobody.
    request: Option<u32>,
    instance: usize,
    start: StartKind,
    spent: Spent,
    began: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The instance may have been idle for the keep-alive time.
    Expire { instance: usize, uses: u64 },
    /// A refused caller tries again.
    Retry { request: u32 },
    /// A job has waited for what needs no core, and begins its work in microseconds.
    Work { job: u32, micros: u64 },
}

/// One run.
#[derive(Debug)]
pub struct Simulation<'a> {
    workload: &'a Workload,
    costs: &'a CostModel,
    /// Of each model of the workload.
    medians: Vec<ModelCost>,
    spec: &'a PolicySpec,
    random: Random,
    packing: Packing,
    processor: Processor,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    event_number: u64,
    instances: Vec<Option<Instance>>,
    free_slots: Vec<usize>,
    by_endpoint: Vec<Vec<usize>>,
    live: usize,
    born: u64,
    requests: HashMap<Ticket, u32>,
    jobs: Vec<Job>,
    free_jobs: Vec<u32>,
    buffered: VecDeque<(Ticket, EndpointId)>,
    actions: Vec<Action>,
    tally: Tally,
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
        #[expect(clippy::cast_precision_loss, reason = "a handful of models")]
        let gb = (machine.instance_mb + machine.model_mb * spec.models as f64) / 1024.0;
        let medians: Vec<_> = workload
            .models
            .iter()
            .map(|model| costs.of(model))
            .collect();
        let hot = medians.iter().map(|median| median.exec.median()).collect();
        let mut simulation = Simulation {
            workload,
            costs,
            medians,
            spec,
            random: Random::new(seed),
            packing: Packing::new(spec.policy(spec.price * gb), spec.endpoints, spec.limits()),
            processor: Processor::new(machine.cores),
            events: BinaryHeap::new(),
            event_number: 0,
            instances: Vec::new(),
            free_slots: Vec::new(),
            by_endpoint: vec![Vec::new(); spec.endpoints],
            live: 0,
            born: 0,
            requests: HashMap::new(),
            jobs: Vec::new(),
            free_jobs: Vec::new(),
            buffered: VecDeque::new(),
            actions: Vec::new(),
            tally: Tally::new(hot),
            gb,
        };
        simulation.play();
        simulation.tally
    }

    fn play(&mut self) {
        let mut next = 0;
        loop {
            let arrival = self.workload.arrivals.get(next).map(|arrival| arrival.at);
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            let end = self.processor.next_end();
            let wake = self
                .packing
                .next_wake()
                .map(|at| u64::try_from(at.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX));
            // At one instant: ends first, then what they free, then who comes.
            let times = [end, event, wake, arrival];
            let Some(now) = times.iter().flatten().min().copied() else {
                break;
            };
            if end == Some(now) {
                self.end_job(now);
            } else if event == Some(now) {
                if let Some(Reverse((_, _, event))) = self.events.pop() {
                    self.happen(now, event);
                }
            } else if wake == Some(now) {
                self.packing.wake(time(now), &mut self.actions);
            } else {
                self.arrive(now, u32::try_from(next).unwrap_or(u32::MAX));
                next += 1;
            }
            self.act(now);
        }
        debug_assert_eq!(self.live, 0, "every instance expires");
    }

    fn arrive(&mut self, now: u64, request: u32) {
        let asked = self.workload.arrivals[request as usize];
        let arrival = Arrival {
            model: &self.workload.models[asked.model as usize],
            user: PrincipalId::new([0; 32]),
            owner: None,
            company: Company::Shared,
            bytes: 1024,
            deadline: None,
        };
        let ticket = self.packing.arrive(time(now), &arrival, &mut self.actions);
        self.requests.insert(ticket, request);
    }

    /// Carries out what the packing said.
    fn act(&mut self, now: u64) {
        let mut todo = VecDeque::from(std::mem::take(&mut self.actions));
        while let Some(action) = todo.pop_front() {
            match action {
                Action::Dispatch {
                    ticket, endpoint, ..
                } => self.buffered.push_back((ticket, endpoint)),
                Action::Start { ticket, endpoint } => self.buffered.push_back((ticket, endpoint)),
                Action::Reject { ticket, rejection } => self.refuse(now, ticket, rejection),
                Action::Retire { endpoint } => {
                    self.retire(now, endpoint);
                    todo.extend(self.actions.drain(..));
                }
            }
        }
        while let Some((ticket, endpoint)) = self.buffered.front().copied() {
            if !self.place(now, ticket, endpoint) {
                break;
            }
            self.buffered.pop_front();
        }
    }

    fn refuse(&mut self, now: u64, ticket: Ticket, rejection: Rejection) {
        let Some(request) = self.requests.remove(&ticket) else {
            return;
        };
        if let Rejection::Shed { retry_after } = rejection {
            self.tally.retries += 1;
            let after = u64::try_from(retry_after.as_micros()).unwrap_or(u64::MAX);
            self.schedule(now + after, Event::Retry { request });
        } else {
            self.tally.errors += 1;
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.event_number += 1;
        self.events.push(Reverse((at, self.event_number, event)));
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Expire { instance, uses } => {
                let stale = self.instances[instance]
                    .as_ref()
                    .is_none_or(|i| i.uses != uses || i.busy > 0);
                if !stale {
                    self.remove(now, instance);
                }
            }
            Event::Retry { request } => self.arrive(now, request),
            Event::Work { job, micros } => self.processor.start(now, job, micros),
        }
    }

    fn retire(&mut self, now: u64, endpoint: EndpointId) {
        let here = &self.by_endpoint[endpoint.index()];
        let idle: Vec<_> = here
            .iter()
            .copied()
            .filter(|at| self.busy(*at) == 0)
            .collect();
        for instance in idle {
            self.remove(now, instance);
        }
        let mut actions = std::mem::take(&mut self.actions);
        self.packing
            .retired(time(now), endpoint, true, &mut actions);
        self.actions = actions;
    }

    fn busy(&self, instance: usize) -> u32 {
        self.instances[instance].as_ref().map_or(0, |i| i.busy)
    }

    /// Begins a request on an instance; false if there is none and no room for one.
    fn place(&mut self, now: u64, ticket: Ticket, endpoint: EndpointId) -> bool {
        let here = self.by_endpoint[endpoint.index()].iter().copied();
        let free = here.filter(|at| self.busy(*at) == 0);
        let warm = free.max_by_key(|at| self.instances[*at].as_ref().map(|i| (i.last_use, i.uses)));
        let (at, fresh) = match warm {
            Some(at) => (at, false),
            None => {
                if self.live >= self.spec.instances && !self.evict(now) {
                    return false;
                }
                (self.create(now, endpoint), true)
            }
        };
        self.begin(now, ticket, at, fresh);
        true
    }

    /// Lets the instance go that is idle longest, anywhere.
    fn evict(&mut self, now: u64) -> bool {
        let all = self.instances.iter().enumerate();
        let idle =
            all.filter_map(|(at, i)| i.as_ref().filter(|i| i.busy == 0).map(|i| (i.last_use, at)));
        match idle.min() {
            Some((_, at)) => {
                self.remove(now, at);
                true
            }
            None => false,
        }
    }

    fn create(&mut self, now: u64, endpoint: EndpointId) -> usize {
        let at = self.free_slots.pop().unwrap_or_else(|| {
            self.instances.push(None);
            self.instances.len() - 1
        });
        self.born += 1;
        // "i" and digits are an id always; the fallback is never taken.
        let Ok(id) = format!("i{}", self.born).parse() else {
            return at;
        };
        self.instances[at] = Some(Instance {
            id,
            endpoint,
            born: now,
            busy: 0,
            last_use: now,
            uses: 0,
            resident: Vec::new(),
        });
        self.by_endpoint[endpoint.index()].push(at);
        self.live += 1;
        self.tally.peak_instances = self.tally.peak_instances.max(self.live);
        at
    }

    #[expect(clippy::cast_precision_loss, reason = "a life below 2^53 microseconds")]
    fn remove(&mut self, now: u64, at: usize) {
        let Some(instance) = self.instances[at].take() else {
            return;
        };
        self.by_endpoint[instance.endpoint.index()].retain(|other| *other != at);
        self.free_slots.push(at);
        self.live -= 1;
        self.tally.gb_seconds += (now - instance.born) as f64 / 1e6 * self.gb;
        self.packing.instance_gone(instance.endpoint, &instance.id);
    }

    fn begin(&mut self, now: u64, ticket: Ticket, at: usize, fresh: bool) {
        let request = self.requests.get(&ticket).copied();
        let Some(instance) = &mut self.instances[at] else {
            return;
        };
        instance.busy += 1;
        instance.uses += 1;
        instance.last_use = now;
        let mut draw = |median| time(self.costs.draw(median, &mut self.random));
        let mut spent = Spent::default();
        let mut start = StartKind::Hot;
        if let Some(request) = request {
            let model = self.workload.arrivals[request as usize].model;
            let median = self.medians[model as usize];
            spent.exec = draw(median.exec);
            if let Some(place) = instance.resident.iter().position(|other| *other == model) {
                instance.resident.remove(place);
            } else {
                start = StartKind::Warm;
                spent.switch = draw(median.switch);
            }
            instance.resident.insert(0, model);
            instance.resident.truncate(self.spec.models);
        }
        if fresh {
            start = StartKind::Cold;
            let own = request.and_then(|request| {
                let model = self.workload.arrivals[request as usize].model;
                self.medians[model as usize].start
            });
            spent.start = draw(own.unwrap_or(self.costs.start()));
        }
        let waits = spent
            .start
            .mul_f64(1.0 - self.costs.start_work.unwrap_or(1.0).clamp(0.0, 1.0));
        let work = spent.start - waits + spent.switch + spent.exec;
        let job = Job {
            ticket,
            request,
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
        let (waits, micros) = (micros(waits), micros(work));
        if waits == 0 {
            self.processor.start(now, id, micros);
        } else {
            self.schedule(now + waits, Event::Work { job: id, micros });
        }
    }

    fn end_job(&mut self, now: u64) {
        let Some(id) = self.processor.end_next(now) else {
            return;
        };
        let job = self.jobs[id as usize];
        self.free_jobs.push(id);
        let duration = now - job.began;
        self.tally.bill(duration, self.gb);
        if let Some(request) = job.request {
            self.requests.remove(&job.ticket);
            let asked = self.workload.arrivals[request as usize];
            self.tally.served(asked.model, now - asked.at, job.start);
        }
        let Some(instance) = &mut self.instances[job.instance] else {
            return;
        };
        instance.busy -= 1;
        instance.last_use = now;
        let (uses, name, idle) = (instance.uses, instance.id.clone(), instance.busy == 0);
        if idle {
            let expire = Event::Expire {
                instance: job.instance,
                uses,
            };
            let ttl = u64::try_from(self.spec.ttl.as_micros()).unwrap_or(u64::MAX);
            self.schedule(now.saturating_add(ttl), expire);
        }
        let report = Report {
            outcome: if job.request.is_some() {
                Outcome::Served
            } else {
                Outcome::Refused
            },
            duration: time(duration),
            instance: Some(name),
            start: Some(job.start),
            spent: job.spent,
        };
        self.packing
            .finish(time(now), job.ticket, &report, &mut self.actions);
    }
}
