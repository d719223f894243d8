//! Which invocation runs in which instance, and when: pure decisions in virtual time.
//!
//! The pool tells the scheduler what happened and carries out what it decides. Rules, in order:
//! 1. A job goes to an instance of its own function revision that has a free slot: the one that it
//!    prefers before others, a ready one before one that still starts, a busier one before an idler
//!    one (so that spare ones expire).
//! 2. Otherwise a new instance is started, if memory allows.
//! 3. Otherwise instances that are idle longest make room, if together they make enough.
//! 4. Otherwise the job waits. Jobs of one function start in the order of their arrival.
//!
//! Memory goes to whoever waited first: while an earlier job waits for memory, later ones may use
//! instances that exist, but start none. So a busy function serves what it has before it makes
//! room, and sandboxes are not thrown away for every call. When a job has waited for `patience`,
//! later ones may not do that either: busy functions run dry and cannot starve it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

mod placing;
mod vocabulary;

pub use vocabulary::{Bounds, Decision, Demand, FunctionKey, InstanceId, JobId, TooBig};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Starting,
    Ready,
    /// Takes no new job; destroyed when the last one ends.
    Draining,
    /// Told to end; its memory is not free yet.
    Destroying,
    /// Its memory is free; jobs in it have not noticed yet.
    Gone,
}

#[derive(Debug)]
struct Instance {
    function: FunctionKey,
    memory_mb: u64,
    phase: Phase,
    /// Its jobs, and when each came.
    jobs: BTreeMap<JobId, Duration>,
    /// When its last job ended, if it has none.
    idle_since: Option<Duration>,
    /// When it last got or ended a job.
    used: Duration,
}

/// A job without an instance.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// When it came.
    since: Duration,
    /// Where its caller wishes it to run.
    prefers: Option<InstanceId>,
}

/// Everything about one function revision.
#[derive(Debug)]
struct Lane {
    demand: Demand,
    /// Jobs without an instance.
    waiting: BTreeMap<JobId, Waiting>,
    instances: BTreeSet<InstanceId>,
    /// Replaced or deleted: its instances end as soon as they have nothing to do.
    retired: bool,
}

/// The state of the machine, as far as decisions need it.
#[derive(Debug)]
pub struct Scheduler {
    bounds: Bounds,
    lanes: HashMap<FunctionKey, Lane>,
    instances: HashMap<InstanceId, Instance>,
    /// Idle instances, idle longest first.
    idle: BTreeSet<(Duration, InstanceId)>,
    /// The first waiting job of every lane that has one.
    heads: BTreeMap<JobId, FunctionKey>,
    used_mb: u64,
    /// Memory of the instances that have a job.
    busy_mb: u64,
    /// Memory that instances told to end still hold.
    leaving_mb: u64,
    waiting: usize,
    next: u64,
}

impl Scheduler {
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lanes: HashMap::new(),
            instances: HashMap::new(),
            idle: BTreeSet::new(),
            heads: BTreeMap::new(),
            used_mb: 0,
            busy_mb: 0,
            leaving_mb: 0,
            waiting: 0,
            next: 1,
        }
    }

    /// Memory of all instances that are not gone, in MB.
    #[must_use]
    pub fn used_mb(&self) -> u64 {
        self.used_mb
    }

    /// Memory of those that have at least one job, in MB.
    #[must_use]
    pub fn busy_mb(&self) -> u64 {
        self.busy_mb
    }

    /// Jobs that wait for an instance.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Instances that are not gone.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances
            .values()
            .filter(|i| i.phase != Phase::Gone)
            .count()
    }

    /// Instances without a job.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// A new job. Its decisions follow at once or after a later event. Its wish for an instance
    /// counts if that one is there and free, and else for nothing.
    pub fn submit(
        &mut self,
        demand: &Demand,
        prefers: Option<InstanceId>,
        now: Duration,
    ) -> Result<(JobId, Vec<Decision>), TooBig> {
        let capacity_mb = self.bounds.capacity_mb;
        if demand.memory_mb > capacity_mb {
            return Err(TooBig {
                needed_mb: demand.memory_mb,
                capacity_mb,
            });
        }
        let job = JobId(self.next);
        self.next += 1;
        let since = now;
        self.enqueue(job, demand, Waiting { since, prefers });
        Ok((job, self.place(now)))
    }

    /// A job that starts one more instance ahead of need and then ends; `None` if memory is not
    /// free, since nothing that exists has to make room for what may never be needed.
    pub fn prewarm(&mut self, demand: &Demand, now: Duration) -> Option<(JobId, Decision)> {
        let (memory_mb, job) = (demand.memory_mb, JobId(self.next));
        if self.used_mb + memory_mb > self.bounds.capacity_mb
            || demand.retired
            || !self.heads.is_empty()
        {
            return None;
        }
        self.next += 1;
        self.lane(demand);
        let instance = self.create(&demand.function, memory_mb, now);
        self.give(instance, job, now);
        Some((job, Decision::Start { instance, job }))
    }

    /// The instance answered its initialisation.
    pub fn ready(&mut self, instance: InstanceId) {
        if let Some(it) = self.instances.get_mut(&instance)
            && it.phase == Phase::Starting
        {
            it.phase = Phase::Ready;
        }
    }

    /// A job left its instance; without `keep` the instance takes no other.
    pub fn finished(
        &mut self,
        instance: InstanceId,
        job: JobId,
        keep: bool,
        now: Duration,
    ) -> Vec<Decision> {
        let mut decisions = self.leave(instance, job, keep, now);
        decisions.extend(self.place(now));
        decisions
    }

    /// A job left its instance unserved, because the instance shuts down: it goes to the front of
    /// its lane again, and the instance takes no other.
    pub fn handed_back(
        &mut self,
        instance: InstanceId,
        job: JobId,
        demand: &Demand,
        now: Duration,
    ) -> Vec<Decision> {
        let jobs = self.instances.get(&instance).map(|it| &it.jobs);
        // It keeps its place and its patience: an earlier job has never waited less.
        let since = jobs.and_then(|jobs| jobs.get(&job)).copied().unwrap_or(now);
        let mut decisions = self.leave(instance, job, false, now);
        let prefers = None;
        self.enqueue(job, demand, Waiting { since, prefers });
        decisions.extend(self.place(now));
        decisions
    }

    /// The instance's memory is free: it was destroyed, or ended by itself.
    pub fn gone(&mut self, instance: InstanceId, now: Duration) -> Vec<Decision> {
        let Some(it) = self.instances.get_mut(&instance) else {
            return Vec::new();
        };
        if it.phase == Phase::Gone {
            return Vec::new();
        }
        if it.phase == Phase::Destroying {
            self.leaving_mb -= it.memory_mb;
        }
        if !it.jobs.is_empty() {
            self.busy_mb -= it.memory_mb;
        }
        self.used_mb -= it.memory_mb;
        it.phase = Phase::Gone;
        if let Some(since) = it.idle_since.take() {
            self.idle.remove(&(since, instance));
        }
        self.forget(instance);
        self.place(now)
    }

    /// The function was replaced or deleted: what idles of it ends now, the rest when it can.
    pub fn retire(&mut self, function: &FunctionKey, now: Duration) -> Vec<Decision> {
        let Some(lane) = self.lanes.get_mut(function) else {
            return Vec::new();
        };
        lane.retired = true;
        let idle = self
            .idle
            .iter()
            .map(|(_, id)| *id)
            .filter(|id| lane.instances.contains(id));
        let idle: Vec<_> = idle.collect();
        let mut decisions: Vec<_> = idle.into_iter().map(|id| self.destroy(id)).collect();
        self.drop_empty_lane(function);
        decisions.extend(self.place(now));
        decisions
    }

    /// Ends what idled too long, and looks again at jobs that waited.
    pub fn tick(&mut self, now: Duration) -> Vec<Decision> {
        let mut decisions = Vec::new();
        while let Some((since, instance)) = self.idle.first().copied() {
            if since + self.bounds.idle_timeout > now {
                break;
            }
            decisions.push(self.destroy(instance));
        }
        decisions.extend(self.place(now));
        decisions
    }

    /// When [`Self::tick`] next has something to do, if nothing else happens before.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        self.idle
            .first()
            .map(|(since, _)| *since + self.bounds.idle_timeout)
    }

    fn lane(&mut self, demand: &Demand) -> &mut Lane {
        let lane = self.lanes.entry(demand.function.clone());
        let lane = lane.or_insert_with(|| Lane {
            demand: demand.clone(),
            waiting: BTreeMap::new(),
            instances: BTreeSet::new(),
            retired: false,
        });
        // It may have been retired while it had no lane.
        lane.retired |= demand.retired;
        lane
    }

    fn enqueue(&mut self, job: JobId, demand: &Demand, waiting: Waiting) {
        self.lane(demand);
        let Some(lane) = self.lanes.get_mut(&demand.function) else {
            return;
        };
        if let Some((head, _)) = lane.waiting.first_key_value() {
            self.heads.remove(head);
        }
        lane.waiting.insert(job, waiting);
        self.waiting += 1;
        if let Some((head, _)) = lane.waiting.first_key_value() {
            self.heads.insert(*head, demand.function.clone());
        }
    }

    /// Takes `job` out of `instance` and decides what becomes of the instance.
    fn leave(
        &mut self,
        instance: InstanceId,
        job: JobId,
        keep: bool,
        now: Duration,
    ) -> Vec<Decision> {
        let Some(it) = self.instances.get_mut(&instance) else {
            return Vec::new();
        };
        let left = it.jobs.remove(&job).is_some();
        it.used = now;
        if !keep && it.phase < Phase::Draining {
            it.phase = Phase::Draining;
        }
        if !it.jobs.is_empty() || !left {
            return Vec::new();
        }
        if it.phase != Phase::Gone {
            self.busy_mb -= it.memory_mb;
        }
        let lane = self.lanes.get(&it.function);
        let retired = lane.is_some_and(|lane| lane.retired && lane.waiting.is_empty());
        match it.phase {
            Phase::Draining => vec![self.destroy(instance)],
            Phase::Starting | Phase::Ready if retired => vec![self.destroy(instance)],
            Phase::Starting | Phase::Ready => {
                it.idle_since = Some(now);
                self.idle.insert((now, instance));
                Vec::new()
            }
            Phase::Gone => {
                self.forget(instance);
                Vec::new()
            }
            Phase::Destroying => Vec::new(),
        }
    }

    fn create(&mut self, function: &FunctionKey, memory_mb: u64, now: Duration) -> InstanceId {
        let id = InstanceId(self.next);
        self.next += 1;
        self.used_mb += memory_mb;
        self.instances.insert(
            id,
            Instance {
                function: function.clone(),
                memory_mb,
                phase: Phase::Starting,
                jobs: BTreeMap::new(),
                idle_since: None,
                used: now,
            },
        );
        if let Some(lane) = self.lanes.get_mut(function) {
            lane.instances.insert(id);
        }
        id
    }

    /// Moves a lane's first waiting job into an instance.
    fn give(&mut self, instance: InstanceId, job: JobId, now: Duration) {
        let Some(it) = self.instances.get_mut(&instance) else {
            return;
        };
        self.heads.remove(&job);
        let mut since = None;
        if let Some(lane) = self.lanes.get_mut(&it.function) {
            since = lane.waiting.remove(&job).map(|waiting| waiting.since);
            if let Some((head, _)) = lane.waiting.first_key_value() {
                self.heads.insert(*head, it.function.clone());
            }
        }
        if since.is_some() {
            self.waiting -= 1;
        }
        if it.jobs.is_empty() {
            self.busy_mb += it.memory_mb;
        }
        it.jobs.insert(job, since.unwrap_or(now));
        it.used = now;
        if let Some(idle) = it.idle_since.take() {
            self.idle.remove(&(idle, instance));
        }
    }

    fn destroy(&mut self, instance: InstanceId) -> Decision {
        if let Some(it) = self.instances.get_mut(&instance) {
            if let Some(since) = it.idle_since.take() {
                self.idle.remove(&(since, instance));
            }
            if it.phase < Phase::Destroying {
                it.phase = Phase::Destroying;
                self.leaving_mb += it.memory_mb;
            }
        }
        Decision::Destroy { instance }
    }

    /// Removes an instance that is gone and has no job left.
    fn forget(&mut self, instance: InstanceId) {
        let Some(it) = self.instances.get(&instance) else {
            return;
        };
        if it.phase != Phase::Gone || !it.jobs.is_empty() {
            return;
        }
        let function = it.function.clone();
        self.instances.remove(&instance);
        if let Some(lane) = self.lanes.get_mut(&function) {
            lane.instances.remove(&instance);
        }
        self.drop_empty_lane(&function);
    }

    fn drop_empty_lane(&mut self, function: &FunctionKey) {
        let empty = |lane: &Lane| lane.waiting.is_empty() && lane.instances.is_empty();
        if self.lanes.get(function).is_some_and(empty) {
            self.lanes.remove(function);
        }
    }
}

#[cfg(test)]
mod tests;
