//! How an endpoint passes from one tenancy to the next: nothing is sent there until its driver says
//! that its instance is gone.

use std::time::Duration;

use super::super::{Action, Endpoint, EndpointId, Request};
use super::Packing;

impl Packing {
    /// An endpoint that was to be retired ([`Action::Retire`]) is, or is not since that failed.
    pub fn retired(
        &mut self,
        now: Duration,
        endpoint: EndpointId,
        gone: bool,
        out: &mut Vec<Action>,
    ) {
        if gone {
            self.fleet.retired(endpoint);
        } else {
            self.fleet.set_retiring(endpoint, false);
        }
        self.wake(now, out);
        self.offer(now, out);
        self.tend(now, out);
    }

    /// If no endpoint takes a request, because other tenants are everywhere, one of them has to
    /// go: the idle one unused longest, else a busy one when it is through.
    pub(super) fn make_room(&mut self, request: &Request, out: &mut Vec<Action>) {
        let takes = |(_, endpoint): (_, &Endpoint)| endpoint.takes(request) || endpoint.retiring;
        if self.fleet.iter().any(takes) {
            return;
        }
        let open = |at: &EndpointId| self.fleet.endpoint(*at).is_some_and(Endpoint::is_open);
        let index = self.fleet.index();
        let chosen = index
            .fresh()
            .chain(index.idle())
            .chain(index.busy())
            .find(open);
        if let Some(at) = chosen {
            self.retire(at, out);
        }
    }

    /// Nothing more goes to the endpoint; when nothing is there any more, its driver is told.
    pub(super) fn retire(&mut self, at: EndpointId, out: &mut Vec<Action>) {
        self.fleet.set_retiring(at, true);
        self.retire_if_drained(at, out);
    }

    pub(super) fn retire_if_drained(&self, endpoint: EndpointId, out: &mut Vec<Action>) {
        let drained = |e: &Endpoint| e.retiring && e.in_flight == 0 && e.starting == 0;
        if self.fleet.endpoint(endpoint).is_some_and(drained) {
            out.push(Action::Retire { endpoint });
        }
    }
}
