//! FnPacker as published, in rules and in consequences; its errors became waiting.
//!
//! The rules: the first request of a model takes the first function that is neither busy nor
//! claimed by another model; further ones stick to that function (the platform scales it out),
//! and the second one claims it. A claim lapses when its model has been silent for twice its last
//! execution time. What is different from the published code: where it answers "All Busy" the
//! request waits, a failure releases as a success does, and the pool has the size that is
//! configured.

use std::time::Duration;

use super::{Endpoint, EndpointId, Finished, Fleet, ModelKey, Outcome, Placement, Policy, Request};

/// Which function a model's first request looks at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Always from function 0, whatever is resident there: as published.
    FirstFit,
    /// The model's latest function, then the one unused longest.
    Affinity,
}

/// What happens when every function is busy or claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    Wait,
    /// As published: an error at once. For comparisons.
    Refuse,
}

/// How long a caller is told to wait by [`WhenBusy::Refuse`]; the published client's retry.
const REFUSED_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, Default)]
struct ModelState {
    map: Option<EndpointId>,
    in_use: u32,
    last_end: Option<Duration>,
    last_exec: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Function {
    owner: Option<ModelKey>,
    busy: bool,
}

/// The published policy, and its variant with affinity.
#[derive(Debug)]
pub struct Published {
    search: Search,
    when_busy: WhenBusy,
    models: Vec<ModelState>,
    functions: Vec<Function>,
}

/// Whether a function may be taken over by another model.
enum Claim {
    Free,
    Busy,
    /// Free at that time, if its owner stays silent.
    Until(Duration),
}

impl Published {
    #[must_use]
    pub const fn new(search: Search, when_busy: WhenBusy) -> Self {
        Self {
            search,
            when_busy,
            models: Vec::new(),
            functions: Vec::new(),
        }
    }

    fn model(&self, model: ModelKey) -> ModelState {
        self.models.get(model.index()).copied().unwrap_or_default()
    }

    fn model_mut(&mut self, model: ModelKey) -> &mut ModelState {
        if self.models.len() <= model.index() {
            self.models.resize(model.index() + 1, ModelState::default());
        }
        &mut self.models[model.index()]
    }

    fn function(&self, at: EndpointId) -> Function {
        self.functions.get(at.index()).copied().unwrap_or_default()
    }

    fn function_mut(&mut self, at: EndpointId) -> &mut Function {
        if self.functions.len() <= at.index() {
            self.functions.resize(at.index() + 1, Function::default());
        }
        &mut self.functions[at.index()]
    }

    fn claim(
        &self,
        at: EndpointId,
        endpoint: &Endpoint,
        request: &Request,
        now: Duration,
    ) -> Claim {
        let function = self.function(at);
        if function.busy || !endpoint.takes(request) {
            return Claim::Busy;
        }
        let Some(owner) = function.owner.filter(|owner| *owner != request.model) else {
            return Claim::Free;
        };
        let owner = self.model(owner);
        match owner.last_end {
            Some(end) if now.saturating_sub(end) < owner.last_exec * 2 => {
                Claim::Until(end + owner.last_exec * 2)
            }
            _ => Claim::Free,
        }
    }

    /// The function that a model's first request takes, or when it makes sense to look again.
    fn find(
        &self,
        request: &Request,
        fleet: &Fleet,
        now: Duration,
    ) -> Result<EndpointId, Option<Duration>> {
        let mut until: Option<Duration> = None;
        let mut free = Vec::new();
        for (at, endpoint) in fleet.iter() {
            match self.claim(at, endpoint, request, now) {
                Claim::Free if self.search == Search::FirstFit => return Ok(at),
                Claim::Free => free.push((at, endpoint.last_use)),
                Claim::Busy => {}
                Claim::Until(lapse) => {
                    until = Some(until.map_or(lapse, |until| until.min(lapse)));
                }
            }
        }
        let home = self.model(request.model).map;
        let home = free.iter().find(|(at, _)| Some(*at) == home);
        let chosen = home.or_else(|| free.iter().min_by_key(|(_, last_use)| *last_use));
        chosen.map(|(at, _)| *at).ok_or(until)
    }
}

impl Policy for Published {
    fn name(&self) -> &'static str {
        match (self.search, self.when_busy) {
            (Search::FirstFit, WhenBusy::Wait) => "published",
            (Search::FirstFit, WhenBusy::Refuse) => "published-strict",
            (Search::Affinity, _) => "affinity",
        }
    }

    fn place(&mut self, now: Duration, request: &Request, fleet: &Fleet) -> Placement {
        let model = self.model(request.model);
        if let Some(at) = model.map.filter(|_| model.in_use > 0) {
            return if fleet
                .endpoint(at)
                .is_some_and(|endpoint| endpoint.takes(request))
            {
                Placement::Dispatch(at)
            } else {
                Placement::Wait {
                    on: Some(at),
                    until: None,
                }
            };
        }
        match (self.find(request, fleet, now), self.when_busy) {
            (Ok(at), _) => Placement::Dispatch(at),
            (Err(until), WhenBusy::Wait) => Placement::Wait { on: None, until },
            (Err(_), WhenBusy::Refuse) => Placement::Refuse {
                retry_after: REFUSED_RETRY,
            },
        }
    }

    fn dispatched(&mut self, _: Duration, request: &Request, at: EndpointId, _: &Fleet) {
        let model = self.model_mut(request.model);
        model.in_use += 1;
        model.map = Some(at);
        match model.in_use {
            1 => {
                *self.function_mut(at) = Function {
                    owner: None,
                    busy: true,
                }
            }
            2 => self.function_mut(at).owner = Some(request.model),
            _ => {}
        }
    }

    fn finished(&mut self, now: Duration, done: &Finished<'_>, _: &Fleet) {
        let model = self.model_mut(done.request.model);
        model.in_use = model.in_use.saturating_sub(1);
        if matches!(done.report.outcome, Outcome::Served | Outcome::Refused) {
            let start = now.saturating_sub(done.report.duration);
            model.last_exec = done.report.duration;
            if model.last_end.is_none_or(|last_end| start > last_end) {
                model.last_end = Some(now);
            }
        }
        if model.in_use == 0 {
            self.function_mut(done.endpoint).busy = false;
        }
    }

    fn forgotten(&mut self, model: ModelKey) {
        *self.model_mut(model) = ModelState::default();
        for function in &mut self.functions {
            function.owner = function.owner.filter(|owner| *owner != model);
        }
    }
}
