//! What is known of a pool's endpoints: who is in flight, which instance has which model.

use std::time::Duration;

use protocol::id::InstanceId;
use protocol::invoke::StartKind;

use super::{Costs, EndpointId, ModelKey, Outcome, Report};

/// Instances remembered of one endpoint. Their names come from outside, so there is a bound.
const INSTANCES_MAX: usize = 64;

/// How many invocations of each kind ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartCounts {
    pub cold: u64,
    pub warm: u64,
    pub hot: u64,
    /// Answered with an error, by a live instance.
    pub refused: u64,
    /// No answer: the instance failed, or was never reached.
    pub failed: u64,
}

/// A sandbox behind an endpoint, as far as its answers told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    /// Models believed resident, the most recently used first.
    pub resident: Vec<ModelKey>,
    pub last_use: Duration,
}

/// One function of the pool.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    /// It can be invoked; false while the platform refuses to deploy it.
    pub ready: bool,
    /// Requests dispatched and not yet back.
    pub in_flight: u32,
    /// Waiting requests that their policy hopes to send here.
    pub awaited: u32,
    /// Starts without a request under way ([`super::Action::Start`]).
    pub starting: u32,
    /// The model of the latest dispatch.
    pub last_model: Option<ModelKey>,
    /// The latest dispatch or end.
    pub last_use: Option<Duration>,
    /// The most recently used first.
    pub instances: Vec<Instance>,
    pub counts: StartCounts,
}

impl Endpoint {
    /// Nothing runs, starts or hopes to run here.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.starting == 0 && self.awaited == 0
    }
}

/// The pool's endpoints and what things cost there.
#[derive(Debug)]
pub struct Fleet {
    endpoints: Vec<Endpoint>,
    costs: Costs,
    in_flight: u32,
    capacity: u32,
    models_per_instance: usize,
    keep_alive: Duration,
}

impl Fleet {
    pub(super) fn new(
        endpoints: usize,
        capacity: u32,
        models_per_instance: usize,
        keep_alive: Duration,
    ) -> Self {
        let endpoint = Endpoint {
            ready: true,
            ..Endpoint::default()
        };
        Self {
            endpoints: vec![endpoint; endpoints],
            costs: Costs::default(),
            in_flight: 0,
            capacity: capacity.max(1),
            models_per_instance: models_per_instance.max(1),
            keep_alive,
        }
    }

    /// Every endpoint, by number.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        (0..).map(EndpointId).zip(&self.endpoints)
    }

    /// One endpoint, if the pool has it.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id.index())
    }

    /// How many endpoints there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.endpoints.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Requests that one instance serves at once.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Requests in flight on all endpoints together.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How long the platform keeps an idle instance.
    #[must_use]
    pub const fn keep_alive(&self) -> Duration {
        self.keep_alive
    }

    /// Models that are believed to fit into one instance.
    #[must_use]
    pub const fn models_per_instance(&self) -> usize {
        self.models_per_instance
    }

    /// What invocations cost so far.
    #[must_use]
    pub const fn costs(&self) -> &Costs {
        &self.costs
    }

    /// The instances of an endpoint that the platform has not yet let go for idleness, the most
    /// recently used first.
    pub fn live(&self, id: EndpointId, now: Duration) -> impl Iterator<Item = &Instance> {
        let endpoint = self.endpoints.get(id.index());
        let busy = endpoint.is_some_and(|e| e.in_flight > 0);
        let instances = endpoint.map_or(&[][..], |e| &e.instances[..]);
        instances
            .iter()
            .enumerate()
            .filter(move |(at, instance)| {
                (busy && *at == 0) || now.saturating_sub(instance.last_use) <= self.keep_alive
            })
            .map(|(_, instance)| instance)
    }

    pub(super) fn set_ready(&mut self, id: EndpointId, ready: bool) {
        if let Some(endpoint) = self.endpoints.get_mut(id.index()) {
            endpoint.ready = ready;
        }
    }

    pub(super) fn await_on(&mut self, on: Option<EndpointId>) {
        if let Some(endpoint) = on.and_then(|id| self.endpoints.get_mut(id.index())) {
            endpoint.awaited += 1;
        }
    }

    pub(super) fn await_no_more(&mut self, on: Option<EndpointId>) {
        if let Some(endpoint) = on.and_then(|id| self.endpoints.get_mut(id.index())) {
            endpoint.awaited = endpoint.awaited.saturating_sub(1);
        }
    }

    pub(super) fn dispatch(&mut self, id: EndpointId, model: Option<ModelKey>, now: Duration) {
        if let Some(endpoint) = self.endpoints.get_mut(id.index()) {
            endpoint.last_use = Some(now);
            if model.is_some() {
                endpoint.last_model = model;
                endpoint.in_flight += 1;
                self.in_flight += 1;
            } else {
                endpoint.starting += 1;
            }
        }
    }

    pub(super) fn release(
        &mut self,
        id: EndpointId,
        model: Option<ModelKey>,
        report: &Report,
        now: Duration,
    ) {
        let Some(endpoint) = self.endpoints.get_mut(id.index()) else {
            return;
        };
        endpoint.last_use = Some(now);
        if let Some(model) = model {
            endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
            self.in_flight = self.in_flight.saturating_sub(1);
            endpoint.count(report);
            if report.outcome == Outcome::Served {
                self.costs.learn(model, &report.spent);
            }
        } else {
            endpoint.starting = endpoint.starting.saturating_sub(1);
        }
        match report.outcome {
            Outcome::Served | Outcome::Refused => {
                let resident = model.filter(|_| report.outcome == Outcome::Served);
                if let Some(instance) = &report.instance {
                    endpoint.touch(instance, resident, now, self.models_per_instance);
                }
            }
            Outcome::InstanceFailed => match &report.instance {
                Some(gone) => endpoint.instances.retain(|instance| instance.id != *gone),
                // Which one died is not known: believe none of them until it answers again.
                None => endpoint.instances.clear(),
            },
            Outcome::Unreached | Outcome::Abandoned => {}
        }
    }

    pub(super) fn instance_gone(&mut self, id: EndpointId, gone: &InstanceId) {
        if let Some(endpoint) = self.endpoints.get_mut(id.index()) {
            endpoint.instances.retain(|instance| instance.id != *gone);
        }
    }

    pub(super) fn forget(&mut self, model: ModelKey) {
        self.costs.forget(model);
        for endpoint in &mut self.endpoints {
            endpoint.last_model = endpoint.last_model.filter(|last| *last != model);
            for instance in &mut endpoint.instances {
                instance.resident.retain(|resident| *resident != model);
            }
        }
    }
}

impl Endpoint {
    fn count(&mut self, report: &Report) {
        let counter = match (report.outcome, report.start) {
            (Outcome::Served, Some(StartKind::Cold)) => &mut self.counts.cold,
            (Outcome::Served, Some(StartKind::Warm)) => &mut self.counts.warm,
            (Outcome::Served, _) => &mut self.counts.hot,
            (Outcome::Refused, _) => &mut self.counts.refused,
            _ => &mut self.counts.failed,
        };
        *counter += 1;
    }

    /// The instance answered, and has the model resident now.
    fn touch(&mut self, id: &InstanceId, model: Option<ModelKey>, now: Duration, models: usize) {
        let known = self
            .instances
            .iter()
            .position(|instance| instance.id == *id);
        let mut instance = if let Some(at) = known {
            self.instances.remove(at)
        } else {
            self.instances.truncate(INSTANCES_MAX - 1);
            Instance {
                id: id.clone(),
                resident: Vec::new(),
                last_use: now,
            }
        };
        instance.last_use = now;
        if let Some(model) = model {
            instance.resident.retain(|resident| *resident != model);
            instance.resident.insert(0, model);
            instance.resident.truncate(models);
        }
        self.instances.insert(0, instance);
    }
}
