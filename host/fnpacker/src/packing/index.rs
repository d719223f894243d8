//! Where endpoints with certain properties are, without looking at all of them: what keeps a
//! decision short with thousands of instances.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{EndpointId, ModelKey};

/// What an endpoint is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No instance that is known of.
    Fresh,
    /// An instance, and nothing in flight since then.
    Idle(Duration),
    /// Something in flight or starting.
    Busy,
}

/// Endpoints by stage, and by what they hold.
#[derive(Debug)]
pub struct Index {
    stages: Vec<Stage>,
    fresh: BTreeSet<EndpointId>,
    /// Unused longest first.
    idle: BTreeSet<(Duration, EndpointId)>,
    busy: BTreeSet<EndpointId>,
    holders: Vec<Vec<EndpointId>>,
}

impl Index {
    pub(super) fn new(endpoints: usize) -> Self {
        Self {
            stages: vec![Stage::Fresh; endpoints],
            fresh: (0..).map(EndpointId).take(endpoints).collect(),
            idle: BTreeSet::new(),
            busy: BTreeSet::new(),
            holders: Vec::new(),
        }
    }

    /// Endpoints without an instance that is known of, by number.
    pub fn fresh(&self) -> impl Iterator<Item = EndpointId> {
        self.fresh.iter().copied()
    }

    /// Endpoints with an instance and nothing in flight; those unused longest first.
    pub fn idle(&self) -> impl DoubleEndedIterator<Item = EndpointId> {
        self.idle.iter().map(|(_, at)| *at)
    }

    /// Endpoints with something in flight or starting, by number.
    pub fn busy(&self) -> impl Iterator<Item = EndpointId> {
        self.busy.iter().copied()
    }

    /// How many endpoints have an instance, or one on its way.
    #[must_use]
    pub fn live(&self) -> usize {
        self.idle.len() + self.busy.len()
    }

    /// The endpoints that are believed to have a model resident; one with several instances that
    /// have it comes as often.
    #[must_use]
    pub fn holders(&self, model: ModelKey) -> &[EndpointId] {
        self.holders.get(model.index()).map_or(&[], Vec::as_slice)
    }

    pub(super) fn idle_longest(&self) -> Option<(Duration, EndpointId)> {
        self.idle.first().copied()
    }

    /// Puts an endpoint where it belongs now.
    pub(super) fn file(&mut self, at: EndpointId, stage: Stage) {
        let Some(old) = self.stages.get_mut(at.index()) else {
            return;
        };
        match std::mem::replace(old, stage) {
            old if old == stage => return,
            Stage::Fresh => self.fresh.remove(&at),
            Stage::Idle(since) => self.idle.remove(&(since, at)),
            Stage::Busy => self.busy.remove(&at),
        };
        match stage {
            Stage::Fresh => self.fresh.insert(at),
            Stage::Idle(since) => self.idle.insert((since, at)),
            Stage::Busy => self.busy.insert(at),
        };
    }

    /// One more instance of `at` has the model.
    pub(super) fn holds(&mut self, model: ModelKey, at: EndpointId) {
        if self.holders.len() <= model.index() {
            self.holders.resize_with(model.index() + 1, Vec::new);
        }
        self.holders[model.index()].push(at);
    }

    /// One instance of `at` has these models no more.
    pub(super) fn dropped(&mut self, models: &[ModelKey], at: EndpointId) {
        for model in models {
            if let Some(holders) = self.holders.get_mut(model.index())
                && let Some(known) = holders.iter().position(|holder| *holder == at)
            {
                holders.swap_remove(known);
            }
        }
    }

    /// Nobody has the model any more; who had it?
    pub(super) fn forget(&mut self, model: ModelKey) -> Vec<EndpointId> {
        let holders = self.holders.get_mut(model.index()).map(std::mem::take);
        holders.unwrap_or_default()
    }
}
