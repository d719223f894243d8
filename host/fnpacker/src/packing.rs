//! Which endpoint serves which request: the vocabulary of packing, and the policy trait.
//!
//! Everything here is pure and lives in virtual time: `now` is an argument, a [`Duration`] since
//! some fixed start. The router ([`crate::router`]) and a simulator drive the same [`Packing`].
//!
//! * An **endpoint** is one function on the platform. A policy that never has more requests in
//!   flight on an endpoint than [`Fleet::capacity`] thereby has at most one instance behind it,
//!   and so steers instances on a platform that lets it name functions only.
//! * [`Packing`] keeps the books (who waits, who is in flight, what is resident where, what
//!   things cost) and holds the bounds. A [`Policy`] only decides.

use std::fmt::{self, Debug};
use std::time::Duration;

use protocol::id::InstanceId;
use protocol::invoke::{StartKind, Telemetry};
use protocol::{ModelId, PrincipalId};
use serde::Deserialize;

mod books;
mod ch_bl;
mod costs;
mod demand;
mod ect;
mod ect_p;
mod fleet;
mod forecast;
mod index;
mod models;
mod one_to_one;
mod published;
mod queue;

#[cfg(test)]
mod tests;

pub use books::{Limits, Packing};
pub use ch_bl::ChBl;
pub use costs::{Costs, ModelCosts, Samples};
pub use ect::EctG;
pub use ect_p::EctP;
pub use fleet::{Endpoint, Fleet, Instance, StartCounts};
pub use index::Index;
pub use one_to_one::{AllInOne, OneToOne};
pub use published::{Published, Search, WhenBusy};

/// A model, as a small dense number: policies index tables with it. [`Packing`] gives them out
/// and takes them back ([`Policy::forgotten`]), so that names from strangers fill no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey(u32);

impl ModelKey {
    /// Never given to a model.
    const NOBODY: Self = Self(u32::MAX);

    /// For tables that are indexed by model.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One endpoint of the pool: 0 up to the pool's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u32);

impl EndpointId {
    /// For tables that are indexed by endpoint.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Names one request inside one [`Packing`], from its arrival to its release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// A request, as it arrives.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub model: &'a ModelId,
    /// Who asks. Not authenticated on this side: good for fair queueing, not for access.
    pub user: PrincipalId,
    /// Whose model it is, where the operator has said so.
    pub owner: Option<PrincipalId>,
    /// Which other models may be in one instance with it.
    pub company: Company,
    /// Size of the sealed request in bytes.
    pub bytes: usize,
    /// When the answer is of no use any more, in the time of `now`.
    pub deadline: Option<Duration>,
}

/// Which models an owner lets share an instance with a model of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Company {
    /// None.
    Alone,
    /// The same owner's that say so, too.
    SameOwner,
    /// Anybody's that say so, too.
    #[default]
    Shared,
}

/// Models with the same tenancy, and no others, may be in one instance: a hard bound, which
/// [`Packing`] holds whatever the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tenancy {
    Alone(ModelKey),
    Owner(PrincipalId),
    Shared,
}

impl Tenancy {
    /// Of a model. Whose owner is not known has no company.
    fn new(model: ModelKey, owner: Option<PrincipalId>, company: Company) -> Self {
        match (company, owner) {
            (Company::Shared, _) => Self::Shared,
            (Company::SameOwner, Some(owner)) => Self::Owner(owner),
            (Company::SameOwner, None) | (Company::Alone, _) => Self::Alone(model),
        }
    }
}

/// A request, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub model: ModelKey,
    /// Of the model's name: the same in every process, unlike the key.
    pub model_hash: u64,
    pub user: PrincipalId,
    pub tenancy: Tenancy,
    pub bytes: usize,
    pub arrived: Duration,
    pub deadline: Option<Duration>,
}

/// What a policy wants done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Send it there now.
    Dispatch(EndpointId),
    /// Keep it, and with it every younger request for the same model.
    Wait {
        /// The endpoint that it hopes for; counted in [`Endpoint::awaited`] meanwhile.
        on: Option<EndpointId>,
        /// Ask again at this time, even if nothing happens until then.
        until: Option<Duration>,
    },
    /// Send it away; it may try again after this time.
    Refuse { retry_after: Duration },
}

/// What [`Packing`] tells its driver to do. Every ticket gets exactly one `Dispatch` or `Reject`,
/// unless its caller withdraws it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Invoke the endpoint; report the end with [`Packing::finish`], whatever it is.
    Dispatch {
        ticket: Ticket,
        endpoint: EndpointId,
        queued: Duration,
    },
    /// Answer with an error.
    Reject {
        ticket: Ticket,
        rejection: Rejection,
    },
    /// Start an instance there that serves nobody yet, off the critical path; report its end with
    /// [`Packing::finish`] too.
    Start {
        ticket: Ticket,
        endpoint: EndpointId,
    },
    /// Let its instance go, and say so with [`Packing::retired`] whether it worked: until then
    /// nothing is sent there. Nothing is in flight there now.
    Retire { endpoint: EndpointId },
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// As many requests wait as may wait.
    QueueFull { retry_after: Duration },
    /// As many requests of this user wait as may wait for one user.
    UserQueueFull { retry_after: Duration },
    /// The policy sheds it.
    Shed { retry_after: Duration },
    /// Its deadline has passed, or passes before even a hot instance could answer.
    Deadline,
}

/// How an invocation ended, as far as packing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Served,
    /// With an error of the caller's or of a service behind; the instance lives on.
    Refused,
    /// The instance died or ran out of time; nothing is resident there any more.
    InstanceFailed,
    /// It never reached an instance.
    Unreached,
    /// The driver lost track of it; treated as [`Outcome::Unreached`].
    Abandoned,
}

/// What one invocation cost, by what it was spent on; zero where nothing was to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Start a sandbox, initialise it, attest.
    pub start: Duration,
    /// Get keys, fetch, open and load the model.
    pub switch: Duration,
    /// Open the request, run, seal.
    pub exec: Duration,
}

impl Spent {
    /// From the enclave's account and the platform's start time. Neither is authenticated.
    #[must_use]
    pub fn from_telemetry(telemetry: &Telemetry, platform_start: Duration) -> Self {
        let p = telemetry.phases_us;
        let sum = |parts: &[u64]| {
            Duration::from_micros(
                parts
                    .iter()
                    .fold(0, |all: u64, part| all.saturating_add(*part)),
            )
        };
        // `fetch` and `open` are the artifact's and the request's; on a hot path they can only be
        // the request's.
        let (model, request) = if telemetry.path == StartKind::Hot {
            ([0; 2], [p.fetch, p.open])
        } else {
            ([p.fetch, p.open], [0; 2])
        };
        Self {
            start: platform_start.saturating_add(sum(&[p.attest])),
            switch: sum(&[p.keys, model[0], model[1], p.load]),
            exec: sum(&[request[0], request[1], p.run, p.seal]),
        }
    }
}

/// The end of one invocation.
#[derive(Debug, Clone)]
pub struct Report {
    pub outcome: Outcome,
    /// What the platform billed: initialisation and run, without waiting for a sandbox.
    pub duration: Duration,
    /// Who served it, and how much had to be done first; absent where no instance said so.
    pub instance: Option<InstanceId>,
    pub start: Option<StartKind>,
    pub spent: Spent,
}

impl Report {
    /// The end of an invocation about which nothing else is known.
    #[must_use]
    pub fn bare(outcome: Outcome) -> Self {
        Self {
            outcome,
            duration: Duration::ZERO,
            instance: None,
            start: None,
            spent: Spent::default(),
        }
    }
}

/// Decides where requests go. Pure: no clock, no I/O, no randomness but its own seeded one.
///
/// [`Packing`] calls `place` when a request arrives, and again for waiting requests (the oldest of
/// each model) whenever something was released, became ready, or a time given in
/// [`Placement::Wait`] came. It then carries the answer out and tells by `dispatched`; so `place`
/// must not book anything that assumes the dispatch, and `dispatched` must.
pub trait Policy: Send + Debug {
    /// Stable name for config, metrics and reports.
    fn name(&self) -> &'static str;

    /// A request that may be served arrives; `place` follows.
    fn arrived(&mut self, _now: Duration, _request: &Request) {}

    /// Chooses for one request. An endpoint that does not take it ([`Endpoint::takes`]) must not be
    /// chosen.
    fn place(&mut self, now: Duration, request: &Request, fleet: &Fleet) -> Placement;

    /// `request` is on its way to `endpoint`; the fleet's counters have it already.
    fn dispatched(&mut self, now: Duration, request: &Request, at: EndpointId, fleet: &Fleet);

    /// `request` is back, well or not; the fleet's counters have it already.
    fn finished(&mut self, now: Duration, done: &Finished<'_>, fleet: &Fleet);

    /// The key means nothing from here on and may name another model next. It has no request
    /// waiting or in flight.
    fn forgotten(&mut self, _model: ModelKey) {}

    /// After every event: spares to start, instances to retire.
    fn tend(&mut self, _now: Duration, _fleet: &Fleet, _chores: &mut Vec<Chore>) {}
}

/// What [`Policy::finished`] learns.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    pub request: &'a Request,
    pub endpoint: EndpointId,
    pub dispatched: Duration,
    pub report: &'a Report,
}

/// Background work that a policy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chore {
    Start(EndpointId),
    Retire(EndpointId),
    /// Call [`Policy::tend`] again at this time at the latest.
    WakeAt(Duration),
}
