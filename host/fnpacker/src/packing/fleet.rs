//! What is known of a pool's endpoints: who is in flight, which instance has which model.

use std::time::Duration;

use protocol::id::InstanceId;
use protocol::invoke::StartKind;

use super::index::{Index, Stage};
use super::{Costs, EndpointId, Limits, ModelKey, Outcome, Report, Request, Tenancy};

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
    /// It takes nothing more, since its instance is to go.
    pub retiring: bool,
    /// Whose models may be in its instances; set by the first dispatch, until it is retired.
    pub tenancy: Option<Tenancy>,
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

    /// The request may go there. No policy may choose an endpoint that does not take it.
    #[must_use]
    pub fn takes(&self, request: &Request) -> bool {
        self.is_open()
            && self
                .tenancy
                .is_none_or(|tenancy| tenancy == request.tenancy)
    }

    /// Some request may go there.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.ready && !self.retiring
    }

    fn stage(&self) -> Stage {
        if self.in_flight > 0 || self.starting > 0 {
            Stage::Busy
        } else if self.instances.is_empty() {
            Stage::Fresh
        } else {
            Stage::Idle(self.last_use.unwrap_or_default())
        }
    }
}

/// The pool's endpoints and what things cost there.
#[derive(Debug)]
pub struct Fleet {
    endpoints: Vec<Endpoint>,
    index: Index,
    costs: Costs,
    in_flight: u32,
    capacity: u32,
    models_per_instance: usize,
    keep_alive: Duration,
    frees_memory: bool,
}

impl Fleet {
    pub(super) fn new(endpoints: usize, limits: &Limits) -> Self {
        let endpoint = Endpoint {
            ready: true,
            ..Endpoint::default()
        };
        Self {
            endpoints: vec![endpoint; endpoints],
            index: Index::new(endpoints),
            costs: Costs::default(),
            in_flight: 0,
            capacity: limits.capacity.max(1),
            models_per_instance: limits.models_per_instance.max(1),
            keep_alive: limits.keep_alive,
            frees_memory: limits.frees_memory,
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

    /// The instance behind an endpoint that answered last; not one that the platform must have let
    /// go since.
    #[must_use]
    pub fn instance(&self, at: EndpointId) -> Option<&Instance> {
        self.endpoints.get(at.index())?.instances.first()
    }

    /// Whether letting an instance go frees memory; if not, there is no use in it.
    #[must_use]
    pub const fn frees_memory(&self) -> bool {
        self.frees_memory
    }

    /// Where endpoints with certain properties are, without looking at all of them.
    #[must_use]
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Forgets instances that were idle for so long that the platform has let them go.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((since, at)) = self.index.idle_longest()
            && now.saturating_sub(since) > self.keep_alive
        {
            self.clear(at);
        }
    }

    /// Its instances are gone; with them whatever was resident.
    fn clear(&mut self, at: EndpointId) {
        let Some(endpoint) = self.endpoints.get_mut(at.index()) else {
            return;
        };
        for instance in std::mem::take(&mut endpoint.instances) {
            self.index.dropped(&instance.resident, at);
        }
        self.file(at);
    }

    /// The driver let the endpoint's instances go: nothing of any tenant is left there.
    pub(super) fn retired(&mut self, at: EndpointId) {
        self.clear(at);
        if let Some(endpoint) = self.endpoints.get_mut(at.index()) {
            endpoint.retiring = false;
            endpoint.tenancy = None;
        }
    }

    /// No more for this endpoint, until it is retired or kept.
    pub(super) fn set_retiring(&mut self, at: EndpointId, retiring: bool) {
        if let Some(endpoint) = self.endpoints.get_mut(at.index()) {
            endpoint.retiring = retiring;
        }
    }

    /// Puts an endpoint where it belongs after a change.
    fn file(&mut self, at: EndpointId) {
        let Some(endpoint) = self.endpoints.get(at.index()) else {
            return;
        };
        self.index.file(at, endpoint.stage());
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

    pub(super) fn dispatch(&mut self, id: EndpointId, request: Option<&Request>, now: Duration) {
        if let Some(endpoint) = self.endpoints.get_mut(id.index()) {
            endpoint.last_use = Some(now);
            if let Some(request) = request {
                endpoint.last_model = Some(request.model);
                endpoint.tenancy = Some(request.tenancy);
                endpoint.in_flight += 1;
                self.in_flight += 1;
            } else {
                endpoint.starting += 1;
            }
            self.file(id);
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
            self.costs.learn_start(&report.spent);
        }
        match report.outcome {
            Outcome::Served | Outcome::Refused => {
                let resident = model.filter(|_| report.outcome == Outcome::Served);
                if let Some(instance) = &report.instance {
                    let touched = endpoint.touch(instance, resident, now, self.models_per_instance);
                    self.index.dropped(&touched.gone, id);
                    if let Some(model) = touched.new {
                        self.index.holds(model, id);
                    }
                }
            }
            Outcome::InstanceFailed => match &report.instance {
                Some(gone) => self.instance_gone(id, gone),
                // Which one died is not known: believe none of them until it answers again.
                None => self.clear(id),
            },
            Outcome::Unreached | Outcome::Abandoned => {}
        }
        self.file(id);
    }

    pub(super) fn instance_gone(&mut self, id: EndpointId, gone: &InstanceId) {
        if let Some(endpoint) = self.endpoints.get_mut(id.index()) {
            let known = endpoint.instances.iter().position(|one| one.id == *gone);
            if let Some(instance) = known.map(|known| endpoint.instances.remove(known)) {
                self.index.dropped(&instance.resident, id);
            }
        }
        self.file(id);
    }

    pub(super) fn forget(&mut self, model: ModelKey) {
        self.costs.forget(model);
        for endpoint in &mut self.endpoints {
            endpoint.last_model = endpoint.last_model.filter(|last| *last != model);
            // Its next bearer is another model, and is no company for this one.
            if endpoint.tenancy == Some(Tenancy::Alone(model)) {
                endpoint.tenancy = Some(Tenancy::Alone(ModelKey::NOBODY));
            }
        }
        for at in self.index.forget(model) {
            for instance in &mut self.endpoints[at.index()].instances {
                instance.resident.retain(|resident| *resident != model);
            }
        }
    }
}

/// What an answer changed about who holds what.
struct Touched {
    new: Option<ModelKey>,
    gone: Vec<ModelKey>,
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
    fn touch(
        &mut self,
        id: &InstanceId,
        model: Option<ModelKey>,
        now: Duration,
        models: usize,
    ) -> Touched {
        let mut touched = Touched {
            new: None,
            gone: Vec::new(),
        };
        match self.instances.iter().position(|one| one.id == *id) {
            Some(known) => self.instances[..=known].rotate_right(1),
            None => {
                let fresh = Instance {
                    id: id.clone(),
                    resident: Vec::new(),
                    last_use: now,
                };
                self.instances.insert(0, fresh);
                if self.instances.len() > INSTANCES_MAX
                    && let Some(oldest) = self.instances.pop()
                {
                    touched.gone = oldest.resident;
                }
            }
        }
        let instance = &mut self.instances[0];
        instance.last_use = now;
        let Some(model) = model else { return touched };
        match instance.resident.iter().position(|one| *one == model) {
            Some(known) => instance.resident[..=known].rotate_right(1),
            None => {
                instance.resident.insert(0, model);
                touched.new = Some(model);
                let kept = models.min(instance.resident.len());
                touched.gone.extend(instance.resident.drain(kept..));
            }
        }
        touched
    }
}
