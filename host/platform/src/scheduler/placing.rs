//! Which waiting job goes where: rules 1 to 4 of the scheduler.

use std::time::Duration;

use super::vocabulary::Placed;
use super::{Decision, FunctionKey, InstanceId, JobId, Lane, Phase, Scheduler, Waiting};

impl Scheduler {
    /// Places waiting jobs, earliest first, until no more can be placed.
    pub(super) fn place(&mut self, now: Duration) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut from = JobId(0);
        let mut may_start = true;
        while let Some((job, function)) = self.heads.range(from..).next() {
            let (job, function) = (*job, function.clone());
            match self.place_one(job, &function, may_start, now, &mut decisions) {
                Placed::Yes => {}
                Placed::NeedsMemory => {
                    may_start = false;
                    from = JobId(job.0 + 1);
                }
                Placed::No => break,
            }
        }
        decisions
    }

    fn place_one(
        &mut self,
        job: JobId,
        function: &FunctionKey,
        may_start: bool,
        now: Duration,
        decisions: &mut Vec<Decision>,
    ) -> Placed {
        let Some(lane) = self.lanes.get(function) else {
            return Placed::No;
        };
        let waiting = lane.waiting.get(&job);
        let wished = waiting.and_then(|waiting| waiting.prefers);
        if let Some(instance) = self.free_slot(lane, wished) {
            self.give(instance, job, now);
            decisions.push(Decision::Assign { instance, job });
            return Placed::Yes;
        }
        let since = waiting.map_or(now, |Waiting { since, .. }| *since);
        let waited = now.saturating_sub(since);
        let memory_mb = lane.demand.memory_mb;
        let impatient = waited >= self.bounds.patience;
        if may_start && self.make_room(memory_mb, impatient, decisions) {
            let instance = self.create(function, memory_mb, now);
            self.give(instance, job, now);
            decisions.push(Decision::Start { instance, job });
            return Placed::Yes;
        }
        if impatient {
            Placed::No
        } else {
            Placed::NeedsMemory
        }
    }

    /// The lane's best instance that takes one more job: the wished one, if it can.
    fn free_slot(&self, lane: &Lane, wished: Option<InstanceId>) -> Option<InstanceId> {
        let slots = usize::try_from(lane.demand.concurrency).unwrap_or(usize::MAX);
        let candidates = lane.instances.iter().filter_map(|id| {
            let it = self.instances.get(id)?;
            let free = it.phase < Phase::Draining && it.jobs.len() < slots;
            free.then_some((wished == Some(*id), it.phase, it.jobs.len(), it.used, *id))
        });
        candidates.max().map(|(_, _, _, _, id)| id)
    }

    /// True if `memory_mb` are free now. Otherwise tells idle instances to end, if that will do:
    /// longest idle first, and not those whose own function has jobs for them, unless the one
    /// that needs room is `impatient`.
    fn make_room(
        &mut self,
        memory_mb: u64,
        impatient: bool,
        decisions: &mut Vec<Decision>,
    ) -> bool {
        let capacity = self.bounds.capacity_mb;
        if self.used_mb + memory_mb <= capacity {
            return true;
        }
        let wanted = |function| {
            self.lanes
                .get(function)
                .is_some_and(|l| !l.waiting.is_empty())
        };
        let mut free_mb = capacity.saturating_sub(self.used_mb - self.leaving_mb);
        let mut ending = Vec::new();
        for (_, id) in &self.idle {
            if free_mb >= memory_mb {
                break;
            }
            let spare = self
                .instances
                .get(id)
                .filter(|it| impatient || !wanted(&it.function));
            if let Some(it) = spare {
                free_mb += it.memory_mb;
                ending.push(*id);
            }
        }
        if free_mb >= memory_mb {
            decisions.extend(ending.into_iter().map(|id| self.destroy(id)));
        }
        false
    }
}
