//! What one request cost and found: phases, and whether its start was cold, warm or hot.

use std::time::Duration;

use protocol::id::InstanceId;
use protocol::invoke::{Phases, StartKind, Telemetry, micros};
use service::SharedClock;

/// A part of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Attest,
    Keys,
    Fetch,
    Open,
    Load,
    Run,
    Seal,
}

/// Measures one request. What was missing is told to it where it is made, so that the start kind
/// cannot differ from what happened.
#[derive(Debug)]
pub(crate) struct Meter {
    clock: SharedClock,
    instance: InstanceId,
    seq: u64,
    missed: bool,
    phases: Phases,
}

impl Meter {
    /// `seq` counts the instance's requests from 1.
    pub(crate) fn new(clock: SharedClock, instance: InstanceId, seq: u64) -> Self {
        Self {
            clock,
            instance,
            seq,
            missed: false,
            phases: Phases::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Keys, model or session had to be made for this request.
    pub(crate) fn missing(&mut self) {
        self.missed = true;
    }

    /// Adds `time` to a phase.
    pub(crate) fn add(&mut self, phase: Phase, time: Duration) {
        let field = match phase {
            Phase::Attest => &mut self.phases.attest,
            Phase::Keys => &mut self.phases.keys,
            Phase::Fetch => &mut self.phases.fetch,
            Phase::Open => &mut self.phases.open,
            Phase::Load => &mut self.phases.load,
            Phase::Run => &mut self.phases.run,
            Phase::Seal => &mut self.phases.seal,
        };
        *field = field.saturating_add(micros(time));
    }

    /// Adds the time since `start` (from [`Meter::now`]) to a phase.
    pub(crate) fn add_since(&mut self, phase: Phase, start: Duration) {
        self.add(phase, self.now().saturating_sub(start));
    }

    /// Cold is the first request of the instance, warm one that missed something, hot the rest.
    pub(crate) fn start_kind(&self) -> StartKind {
        match (self.seq, self.missed) {
            (1, _) => StartKind::Cold,
            (_, true) => StartKind::Warm,
            (_, false) => StartKind::Hot,
        }
    }

    /// What the host is told.
    pub(crate) fn telemetry(&self) -> Telemetry {
        Telemetry {
            instance: self.instance.clone(),
            seq: self.seq,
            path: self.start_kind(),
            phases_us: self.phases,
        }
    }
}
