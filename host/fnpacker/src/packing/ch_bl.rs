//! CH-BL: consistent hashing with bounded loads, over instances.
//!
//! A model has a home on a ring of endpoints. It goes there, or to the next live one whose queue
//! is within 1.25 times the mean and half a cold start. When all are over, the pool grows. It
//! needs no state but the ring and the queues, so several routers agree without talking.

use std::time::Duration;

use super::forecast::{self, Forecast};
use super::{Chore, EndpointId, Finished, Fleet, Placement, Policy, Request};

/// Points on the ring for each endpoint: the share of each varies by about a tenth.
const POINTS: u64 = 64;

/// Consistent hashing with bounded loads.
#[derive(Debug, Default)]
pub struct ChBl {
    /// Sorted by position.
    ring: Vec<(u64, EndpointId)>,
    endpoints: usize,
    /// Wait and freedom of each live endpoint; kept for its allocation only.
    waits: Vec<Option<(Duration, bool)>>,
    forecast: Forecast,
    wants_spare: bool,
}

/// `SplitMix64`'s finaliser: spreads consecutive numbers over all of 64 bits.
const fn spread(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl ChBl {
    fn build(&mut self, endpoints: usize) {
        if self.endpoints == endpoints {
            return;
        }
        self.endpoints = endpoints;
        self.ring.clear();
        for at in (0..).map(EndpointId).take(endpoints) {
            let points = (0..POINTS).map(|point| spread(u64::from(at.0) * POINTS + point));
            self.ring.extend(points.map(|position| (position, at)));
        }
        self.ring.sort_unstable();
    }

    /// The endpoints in the order in which a model tries them; some come more than once.
    fn walk(&self, model_hash: u64) -> impl Iterator<Item = EndpointId> {
        let position = spread(!model_hash);
        let first = self.ring.partition_point(|(at, _)| *at < position);
        self.ring[first..]
            .iter()
            .chain(&self.ring[..first])
            .map(|(_, at)| *at)
    }
}

impl Policy for ChBl {
    fn name(&self) -> &'static str {
        "ch-bl"
    }

    fn place(&mut self, now: Duration, request: &Request, fleet: &Fleet) -> Placement {
        self.build(fleet.len());
        let (mut live, mut total) = (0_u32, Duration::ZERO);
        let mut shortest: Option<(Duration, EndpointId)> = None;
        self.waits.clear();
        self.waits.resize(fleet.len(), None);
        for (at, _) in fleet.iter().filter(|(_, endpoint)| endpoint.takes(request)) {
            let view = self.forecast.view(at, fleet, now);
            if view.live {
                live += 1;
                total += view.wait;
                shortest = shortest
                    .min(Some((view.wait, at)))
                    .or(Some((view.wait, at)));
                self.waits[at.index()] = Some((view.wait, view.free));
            }
        }
        let ready = |at: &EndpointId| fleet.endpoint(*at).is_some_and(|e| e.takes(request));
        let Some((_, least)) = shortest else {
            return match self.walk(request.model_hash).find(ready) {
                Some(at) => Placement::Dispatch(at),
                None => Placement::Wait {
                    on: None,
                    until: None,
                },
            };
        };
        let exec = forecast::exec(fleet, request.model);
        let mean = (total + exec).mul_f64(1.25) / live;
        let bound = mean.min(forecast::start(fleet) / 2);
        let waits = &self.waits;
        let mut within = self
            .walk(request.model_hash)
            .filter_map(|at| Some((at, waits[at.index()]?)));
        let chosen = within.find(|(_, (wait, _))| wait.is_zero() || *wait <= bound);
        drop(within);
        self.wants_spare |= chosen.is_none();
        let (at, free) = match chosen {
            Some((at, (_, free))) => (at, free),
            None => (
                least,
                self.waits[least.index()].is_some_and(|(_, free)| free),
            ),
        };
        if free {
            Placement::Dispatch(at)
        } else {
            Placement::Wait {
                on: Some(at),
                until: None,
            }
        }
    }

    fn dispatched(&mut self, now: Duration, request: &Request, at: EndpointId, fleet: &Fleet) {
        let ends = forecast::expected_end(&self.forecast, at, request.model, fleet, now);
        self.forecast.dispatched(at, request.model, now, ends);
    }

    fn finished(&mut self, _: Duration, done: &Finished<'_>, _: &Fleet) {
        self.forecast
            .finished(done.endpoint, done.request.model, done.dispatched);
    }

    fn tend(&mut self, now: Duration, fleet: &Fleet, chores: &mut Vec<Chore>) {
        if std::mem::take(&mut self.wants_spare)
            && let Some(at) = self.forecast.spare(fleet, now)
        {
            self.forecast.started(at, now + forecast::start(fleet));
            chores.push(Chore::Start(at));
        }
    }
}
