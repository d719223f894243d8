//! The books around a policy: who waits, who is in flight, and every bound.

use std::collections::HashMap;
use std::time::Duration;

use protocol::ModelId;
use protocol::id::InstanceId;

use super::models::Models;
use super::queue::{Full, Queue, Waiting};
use super::{
    Action, Arrival, Chore, EndpointId, Finished, Fleet, ModelKey, Placement, Policy, Rejection,
    Report, Request, Tenancy, Ticket,
};

mod tenants;

/// The bounds of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests that may wait.
    pub queue: usize,
    /// Requests of one user that may wait.
    pub queue_per_user: usize,
    /// Requests in flight, whatever the policy says: the platform has such a bound too.
    pub in_flight: u32,
    /// Models remembered; more than may wait and be in flight together, or requests are refused.
    pub models: usize,
    /// Requests that one instance serves at once.
    pub capacity: u32,
    /// Models believed to fit into one instance.
    pub models_per_instance: usize,
    /// How long the platform keeps an idle instance.
    pub keep_alive: Duration,
    /// Whether an instance that is let go gives its memory back at once.
    pub frees_memory: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 256,
            queue_per_user: 64,
            in_flight: 128,
            models: 4096,
            capacity: 1,
            models_per_instance: 4,
            keep_alive: Duration::from_secs(600),
            frees_memory: true,
        }
    }
}

/// Shortest and longest wait that a refused caller is told, and the guess before anything is known.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
const RETRY_GUESS: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Flight {
    /// Absent for a start that serves nobody.
    request: Option<Request>,
    endpoint: EndpointId,
    dispatched: Duration,
}

/// One pool's packing: feed it events, carry out the actions that it returns.
///
/// INVARIANT: a ticket is in exactly one of the queue and the flights, from `arrive` until its
/// rejection, withdrawal or finish (test `no_request_is_lost_and_every_bound_holds`).
#[derive(Debug)]
pub struct Packing {
    policy: Box<dyn Policy>,
    fleet: Fleet,
    models: Models,
    queue: Queue,
    flights: HashMap<Ticket, Flight>,
    limits: Limits,
    next_ticket: u64,
    /// When a waiting request's policy wants to be asked again.
    ask_again: Option<Duration>,
    /// When the policy wants to tend its fleet again.
    tend_again: Option<Duration>,
    chores: Vec<Chore>,
}

impl Packing {
    /// A pool of `endpoints` functions under `policy`.
    #[must_use]
    pub fn new(policy: Box<dyn Policy>, endpoints: usize, limits: Limits) -> Self {
        Self {
            policy,
            fleet: Fleet::new(endpoints, &limits),
            models: Models::new(limits.models),
            queue: Queue::new(limits.queue, limits.queue_per_user),
            flights: HashMap::new(),
            limits,
            next_ticket: 0,
            ask_again: None,
            tend_again: None,
            chores: Vec::new(),
        }
    }

    /// A request arrives. It is dispatched or rejected by an action in `out` that bears its
    /// ticket; if there is none, it waits.
    pub fn arrive(&mut self, now: Duration, a: &Arrival<'_>, out: &mut Vec<Action>) -> Ticket {
        self.wake(now, out);
        let ticket = self.ticket();
        let Some(hold) = self.models.hold(a.model, now) else {
            let rejection = Rejection::QueueFull {
                retry_after: self.retry_after(),
            };
            out.push(Action::Reject { ticket, rejection });
            return ticket;
        };
        if hold.taken_from_another {
            self.fleet.forget(hold.key);
            self.policy.forgotten(hold.key);
        }
        let request = Request {
            model: hold.key,
            model_hash: hold.hash,
            user: a.user,
            tenancy: Tenancy::new(hold.key, a.owner, a.company),
            bytes: a.bytes,
            arrived: now,
            deadline: a.deadline,
        };
        let expires = self.expiry(&request);
        if expires.is_some_and(|at| at <= now) {
            self.reject(now, ticket, &request, Rejection::Deadline, out);
            return ticket;
        }
        self.policy.arrived(now, &request);
        match self.ask(now, &request) {
            Placement::Dispatch(endpoint) if self.queue.waiting_for(hold.key) == 0 => {
                self.dispatch(now, ticket, request, endpoint, out);
            }
            Placement::Dispatch(endpoint) => {
                // There is room for one request of this model: for the one that waits longest.
                self.queue.push(
                    ticket,
                    Waiting {
                        request,
                        on: None,
                        expires,
                    },
                );
                if let Some((eldest, waiting)) = self.queue.pop(hold.key) {
                    self.fleet.await_no_more(waiting.on);
                    self.dispatch(now, eldest, waiting.request, endpoint, out);
                }
            }
            Placement::Wait { on, until } => match self.queue.check_room(&request.user) {
                Ok(()) => {
                    self.make_room(&request, out);
                    self.fleet.await_on(on);
                    self.ask_again = earliest(self.ask_again, until);
                    self.queue.push(
                        ticket,
                        Waiting {
                            request,
                            on,
                            expires,
                        },
                    );
                }
                Err(full) => {
                    let retry_after = self.retry_after();
                    let rejection = match full {
                        Full::Queue => Rejection::QueueFull { retry_after },
                        Full::User => Rejection::UserQueueFull { retry_after },
                    };
                    self.reject(now, ticket, &request, rejection, out);
                }
            },
            Placement::Refuse { retry_after } => {
                self.reject(now, ticket, &request, Rejection::Shed { retry_after }, out);
            }
        }
        self.tend(now, out);
        ticket
    }

    /// A dispatched request or start ended. Every dispatch must come to this exactly once; a
    /// ticket that is not in flight changes nothing and answers false.
    pub fn finish(
        &mut self,
        now: Duration,
        ticket: Ticket,
        report: &Report,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(flight) = self.flights.remove(&ticket) else {
            return false;
        };
        let model = flight.request.as_ref().map(|request| request.model);
        self.fleet.release(flight.endpoint, model, report, now);
        self.retire_if_drained(flight.endpoint, out);
        if let Some(request) = &flight.request {
            self.models.release(request.model, now);
            let done = Finished {
                request,
                endpoint: flight.endpoint,
                dispatched: flight.dispatched,
                report,
            };
            self.policy.finished(now, &done, &self.fleet);
        }
        self.wake(now, out);
        self.offer(now, out);
        self.tend(now, out);
        true
    }

    /// The caller of a waiting request is gone. False if the request does not wait.
    pub fn withdraw(&mut self, now: Duration, ticket: Ticket) -> bool {
        let Some(waiting) = self.queue.remove(ticket) else {
            return false;
        };
        self.fleet.await_no_more(waiting.on);
        self.models.release(waiting.request.model, now);
        true
    }

    /// The platform deployed an endpoint, or refuses to.
    pub fn set_ready(
        &mut self,
        now: Duration,
        endpoint: EndpointId,
        ready: bool,
        out: &mut Vec<Action>,
    ) {
        self.fleet.set_ready(endpoint, ready);
        self.wake(now, out);
        self.offer(now, out);
    }

    /// The platform let an instance go.
    pub fn instance_gone(&mut self, endpoint: EndpointId, instance: &InstanceId) {
        self.fleet.instance_gone(endpoint, instance);
    }

    /// Time passed: gives up what expired, asks again what wanted to be asked again.
    pub fn wake(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.fleet.expire(now);
        while let Some((at, ticket)) = self.queue.next_expiry().filter(|(at, _)| *at <= now) {
            let Some(waiting) = self.queue.remove(ticket) else {
                break;
            };
            debug_assert!(at <= now);
            self.fleet.await_no_more(waiting.on);
            self.reject(now, ticket, &waiting.request, Rejection::Deadline, out);
        }
        if self.ask_again.is_some_and(|at| at <= now) {
            self.offer(now, out);
        }
        if self.tend_again.is_some_and(|at| at <= now) {
            self.tend(now, out);
        }
    }

    /// When [`Packing::wake`] should be called at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let expiry = self.queue.next_expiry().map(|(at, _)| at);
        earliest(expiry, earliest(self.ask_again, self.tend_again))
    }

    /// What is known of the endpoints.
    #[must_use]
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The name behind a key.
    #[must_use]
    pub fn model_name(&self, key: ModelKey) -> Option<&ModelId> {
        self.models.name(key)
    }

    /// The policy's name.
    #[must_use]
    pub fn policy_name(&self) -> &'static str {
        self.policy.name()
    }

    /// Whether the request still waits.
    #[must_use]
    pub fn is_waiting(&self, ticket: Ticket) -> bool {
        self.queue.contains(ticket)
    }

    const fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// When waiting becomes useless: not even a hot instance could answer in time after it.
    fn expiry(&self, request: &Request) -> Option<Duration> {
        let floor = self.fleet.costs().floor(request.model);
        request
            .deadline
            .map(|deadline| deadline.saturating_sub(floor))
    }

    fn ask(&mut self, now: Duration, request: &Request) -> Placement {
        if self.fleet.in_flight() >= self.limits.in_flight {
            return Placement::Wait {
                on: None,
                until: None,
            };
        }
        match self.policy.place(now, request, &self.fleet) {
            Placement::Dispatch(at)
                if self.fleet.endpoint(at).is_none_or(|e| !e.takes(request)) =>
            {
                debug_assert!(
                    false,
                    "a policy chose an endpoint that does not take the request"
                );
                Placement::Wait {
                    on: None,
                    until: None,
                }
            }
            placement => placement,
        }
    }

    fn dispatch(
        &mut self,
        now: Duration,
        ticket: Ticket,
        request: Request,
        endpoint: EndpointId,
        out: &mut Vec<Action>,
    ) {
        self.fleet.dispatch(endpoint, Some(&request), now);
        self.policy.dispatched(now, &request, endpoint, &self.fleet);
        let queued = now.saturating_sub(request.arrived);
        self.flights.insert(
            ticket,
            Flight {
                request: Some(request),
                endpoint,
                dispatched: now,
            },
        );
        out.push(Action::Dispatch {
            ticket,
            endpoint,
            queued,
        });
    }

    fn reject(
        &mut self,
        now: Duration,
        ticket: Ticket,
        request: &Request,
        rejection: Rejection,
        out: &mut Vec<Action>,
    ) {
        self.models.release(request.model, now);
        out.push(Action::Reject { ticket, rejection });
    }

    /// Asks the policy again for the oldest waiting request of each model, in order of service.
    fn offer(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.ask_again = None;
        let mut seen = None;
        while let Some((turn, model)) = self.queue.next_head(seen) {
            if self.fleet.in_flight() >= self.limits.in_flight {
                break;
            }
            seen = Some((turn, model));
            let Some(waiting) = self.queue.waiting_mut(turn, model) else {
                break;
            };
            let request = waiting.request;
            self.fleet.await_no_more(waiting.on.take());
            match self.ask(now, &request) {
                Placement::Dispatch(endpoint) => {
                    self.queue.remove(turn.1);
                    self.queue.serve(turn);
                    self.dispatch(now, turn.1, request, endpoint, out);
                }
                Placement::Wait { on, until } => {
                    self.make_room(&request, out);
                    self.fleet.await_on(on);
                    self.ask_again = earliest(self.ask_again, until);
                    if let Some(waiting) = self.queue.waiting_mut(turn, model) {
                        waiting.on = on;
                    }
                }
                Placement::Refuse { retry_after } => {
                    self.queue.remove(turn.1);
                    self.reject(now, turn.1, &request, Rejection::Shed { retry_after }, out);
                }
            }
        }
    }

    fn tend(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.tend_again = None;
        let mut chores = std::mem::take(&mut self.chores);
        self.policy.tend(now, &self.fleet, &mut chores);
        for chore in chores.drain(..) {
            match chore {
                Chore::Start(endpoint) => {
                    let ticket = self.ticket();
                    self.fleet.dispatch(endpoint, None, now);
                    let flight = Flight {
                        request: None,
                        endpoint,
                        dispatched: now,
                    };
                    self.flights.insert(ticket, flight);
                    out.push(Action::Start { ticket, endpoint });
                }
                Chore::Retire(endpoint) if self.fleet.frees_memory() => self.retire(endpoint, out),
                Chore::Retire(_) => {}
                Chore::WakeAt(at) => self.tend_again = earliest(self.tend_again, Some(at)),
            }
        }
        self.chores = chores;
    }

    /// When a refused caller may hope for room: the time to work off what waits.
    fn retry_after(&self) -> Duration {
        let Some(exec) = self.fleet.costs().of_all().exec.mean() else {
            return RETRY_GUESS;
        };
        let ready = self
            .fleet
            .iter()
            .filter(|(_, endpoint)| endpoint.ready)
            .count();
        let slots = u32::try_from(ready)
            .unwrap_or(u32::MAX)
            .saturating_mul(self.fleet.capacity());
        let waiting = u32::try_from(self.queue.len() + 1).unwrap_or(u32::MAX);
        (exec.saturating_mul(waiting) / slots.max(1)).clamp(RETRY_MIN, RETRY_MAX)
    }
}

fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, none) => one.or(none),
    }
}
