//! The two ends between which packing lies: a function for each model, and one for all.

use std::time::Duration;

use super::{EndpointId, Finished, Fleet, ModelKey, Placement, Policy, Request};

/// Each model has a function of its own, which the platform scales out. When there are more
/// models than functions, a new model takes over the function that has been idle longest.
#[derive(Debug, Default)]
pub struct OneToOne {
    by_model: Vec<Option<EndpointId>>,
    by_endpoint: Vec<Option<ModelKey>>,
}

impl OneToOne {
    fn assigned(&self, model: ModelKey) -> Option<EndpointId> {
        self.by_model.get(model.index()).copied().flatten()
    }

    fn holder(&self, at: EndpointId) -> Option<ModelKey> {
        self.by_endpoint.get(at.index()).copied().flatten()
    }

    fn release(&mut self, model: ModelKey) {
        if let Some(at) = self.by_model.get_mut(model.index()).and_then(Option::take) {
            self.by_endpoint[at.index()] = None;
        }
    }
}

impl Policy for OneToOne {
    fn name(&self) -> &'static str {
        "one-to-one"
    }

    fn place(&mut self, _: Duration, request: &Request, fleet: &Fleet) -> Placement {
        let own = self.assigned(request.model);
        if let Some(at) = own.filter(|at| fleet.endpoint(*at).is_some_and(|e| e.takes(request))) {
            return Placement::Dispatch(at);
        }
        if let Some(at) = own {
            return Placement::Wait {
                on: Some(at),
                until: None,
            };
        }
        let idle = fleet
            .iter()
            .filter(|(_, endpoint)| endpoint.takes(request) && endpoint.is_idle());
        // Unassigned ones first, by number; then the one unused longest.
        let chosen = idle.min_by_key(|(at, endpoint)| match self.holder(*at) {
            None => (false, None),
            Some(_) => (true, endpoint.last_use),
        });
        match chosen {
            Some((at, _)) => Placement::Dispatch(at),
            None => Placement::Wait {
                on: None,
                until: None,
            },
        }
    }

    fn dispatched(&mut self, _: Duration, request: &Request, at: EndpointId, _: &Fleet) {
        if self.assigned(request.model) == Some(at) {
            return;
        }
        if let Some(former) = self.holder(at) {
            self.release(former);
        }
        self.release(request.model);
        if self.by_model.len() <= request.model.index() {
            self.by_model.resize(request.model.index() + 1, None);
        }
        if self.by_endpoint.len() <= at.index() {
            self.by_endpoint.resize(at.index() + 1, None);
        }
        self.by_model[request.model.index()] = Some(at);
        self.by_endpoint[at.index()] = Some(request.model);
    }

    fn finished(&mut self, _: Duration, _: &Finished<'_>, _: &Fleet) {}

    fn forgotten(&mut self, model: ModelKey) {
        self.release(model);
    }
}

/// One function for every model, which the platform scales out: the first that is ready.
#[derive(Debug, Default)]
pub struct AllInOne;

impl Policy for AllInOne {
    fn name(&self) -> &'static str {
        "all-in-one"
    }

    fn place(&mut self, _: Duration, request: &Request, fleet: &Fleet) -> Placement {
        match fleet.iter().find(|(_, endpoint)| endpoint.takes(request)) {
            Some((at, _)) => Placement::Dispatch(at),
            None => Placement::Wait {
                on: None,
                until: None,
            },
        }
    }

    fn dispatched(&mut self, _: Duration, _: &Request, _: EndpointId, _: &Fleet) {}

    fn finished(&mut self, _: Duration, _: &Finished<'_>, _: &Fleet) {}
}
