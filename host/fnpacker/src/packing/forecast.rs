//! What a policy that steers instances expects of each of them: when it is free, what it will hold.
//!
//! Such a policy keeps no more than [`Fleet::capacity`] requests in flight on an endpoint, so an
//! endpoint is one instance, or none yet.

use std::time::Duration;

use super::{EndpointId, Fleet, ModelKey};

/// Guesses from before anything was seen.
const EXEC_GUESS: Duration = Duration::from_millis(100);
const SWITCH_GUESS: Duration = Duration::from_millis(300);
const START_GUESS: Duration = Duration::from_millis(1000);

/// Time to run a model, hot.
pub(super) fn exec(fleet: &Fleet, model: ModelKey) -> Duration {
    fleet.costs().exec(model).unwrap_or(EXEC_GUESS)
}

/// Time to make a model resident.
pub(super) fn switch(fleet: &Fleet, model: ModelKey) -> Duration {
    fleet.costs().switch(model).unwrap_or(SWITCH_GUESS)
}

/// Time to start an instance.
pub(super) fn start(fleet: &Fleet) -> Duration {
    fleet.costs().start().median().unwrap_or(START_GUESS)
}

#[derive(Debug, Clone, Copy)]
struct Running {
    model: ModelKey,
    dispatched: Duration,
    ends: Duration,
}

/// The requests in flight, with the times when they should end.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    running: Vec<Vec<Running>>,
    /// When a start ahead of need should be through.
    starting: Vec<Duration>,
}

/// One endpoint, as a policy weighs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// An instance is there or on its way.
    pub(super) live: bool,
    /// A request dispatched now begins at once.
    pub(super) free: bool,
    /// Until a request dispatched or queued there now would begin.
    pub(super) wait: Duration,
    /// The models it holds, the most recently used first; those in flight are apart.
    pub(super) resident: &'a [ModelKey],
    running: &'a [Running],
    models_per_instance: usize,
}

impl View<'_> {
    /// Whether the model will be there when a request begins.
    pub(super) fn has(&self, model: ModelKey) -> bool {
        self.resident.contains(&model) || self.running.iter().any(|r| r.model == model)
    }

    /// The model that has to go for one more.
    pub(super) fn victim(&self) -> Option<ModelKey> {
        let coming = self
            .running
            .iter()
            .filter(|r| !self.resident.contains(&r.model))
            .count();
        let full = self.resident.len() + coming >= self.models_per_instance;
        let oldest = self.resident.iter().rev();
        let mut idle = oldest.filter(|m| self.running.iter().all(|r| r.model != **m));
        if full {
            idle.next()
                .or(self.running.first().map(|r| &r.model))
                .copied()
        } else {
            None
        }
    }
}

/// When a request for `model` should end that is dispatched to `at`, which is free, now.
pub(super) fn expected_end(
    forecast: &Forecast,
    at: EndpointId,
    model: ModelKey,
    fleet: &Fleet,
    now: Duration,
) -> Duration {
    // The fleet counts the dispatch already, but this forecast does not.
    let view = forecast.view(at, fleet, now);
    let mut spent = exec(fleet, model);
    if !view.has(model) {
        spent += switch(fleet, model);
    }
    if !view.live {
        spent += start(fleet);
    }
    now + spent
}

impl Forecast {
    /// Before anything runs.
    pub(super) const EMPTY: Self = Self {
        running: Vec::new(),
        starting: Vec::new(),
    };

    /// An endpoint to start ahead of need; none while another one starts.
    pub(super) fn spare(&self, fleet: &Fleet, now: Duration) -> Option<EndpointId> {
        let mut spare = None;
        for (at, endpoint) in fleet.iter() {
            let fresh = endpoint.in_flight > 0 && fleet.instance(at).is_none();
            if endpoint.starting > 0 || fresh {
                return None;
            }
            if spare.is_none() && endpoint.is_open() && !self.view(at, fleet, now).live {
                spare = Some(at);
            }
        }
        spare
    }

    /// How `at` looks now.
    pub(super) fn view<'a>(&'a self, at: EndpointId, fleet: &'a Fleet, now: Duration) -> View<'a> {
        let running = self.running.get(at.index()).map_or(&[][..], |all| &all[..]);
        let instance = fleet.instance(at);
        let resident = instance.map_or(&[][..], |instance| &instance.resident[..]);
        let (starting, awaited) = fleet
            .endpoint(at)
            .map_or((0, 0), |endpoint| (endpoint.starting, endpoint.awaited));
        let capacity = fleet.capacity() as usize;
        let ahead = running.len() + awaited as usize;
        let starts = self
            .starting
            .get(at.index())
            .filter(|_| starting > 0 && instance.is_none());
        let mut wait = starts.map_or(Duration::ZERO, |ready| ready.saturating_sub(now));
        if ahead >= capacity {
            // The requests ahead end in the order of `running`, then one execution after another.
            let turn = ahead - capacity;
            let mean = fleet.costs().of_all().exec.mean().unwrap_or(EXEC_GUESS);
            wait = wait.max(match running.get(turn).or(running.last()) {
                Some(last) => {
                    let more = (turn + 1).saturating_sub(running.len());
                    let more = u32::try_from(more).unwrap_or(u32::MAX);
                    last.ends.saturating_sub(now) + mean.saturating_mul(more) / fleet.capacity()
                }
                None => mean,
            });
        }
        View {
            live: instance.is_some() || !running.is_empty() || starting > 0,
            free: running.len() < capacity && starting == 0,
            wait,
            resident,
            running,
            models_per_instance: fleet.models_per_instance(),
        }
    }

    pub(super) fn dispatched(
        &mut self,
        at: EndpointId,
        r: ModelKey,
        now: Duration,
        ends: Duration,
    ) {
        if self.running.len() <= at.index() {
            self.running.resize_with(at.index() + 1, Vec::new);
        }
        let running = &mut self.running[at.index()];
        let place = running.partition_point(|other| other.ends <= ends);
        running.insert(
            place,
            Running {
                model: r,
                dispatched: now,
                ends,
            },
        );
    }

    pub(super) fn finished(&mut self, at: EndpointId, model: ModelKey, dispatched: Duration) {
        let Some(running) = self.running.get_mut(at.index()) else {
            return;
        };
        let same = |r: &Running| r.model == model && r.dispatched == dispatched;
        if let Some(place) = running.iter().position(same) {
            running.remove(place);
        }
    }

    pub(super) fn started(&mut self, at: EndpointId, ready: Duration) {
        if self.starting.len() <= at.index() {
            self.starting.resize(at.index() + 1, Duration::ZERO);
        }
        self.starting[at.index()] = ready;
    }
}
