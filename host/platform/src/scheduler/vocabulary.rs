//! What the pool tells the scheduler, and what the scheduler decides.

use std::sync::Arc;
use std::time::Duration;

/// One invocation that was submitted; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// One sandbox with a function in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

/// A function at one revision: another revision shares no instance with it.
pub type FunctionKey = Arc<str>;

/// What a function needs of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub function: FunctionKey,
    pub memory_mb: u64,
    /// Invocations at once in one instance, at least 1.
    pub concurrency: u32,
    /// It was replaced or deleted before this job came: its instances end when they can.
    pub retired: bool,
}

/// The bounds of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory for all instances together, in MB.
    pub capacity_mb: u64,
    /// How long an instance may idle.
    pub idle_timeout: Duration,
    /// How long a job waits for memory before later jobs must stand behind it.
    pub patience: Duration,
}

/// What the pool has to do now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start an instance; `job` is its first and initialises it.
    Start { instance: InstanceId, job: JobId },
    /// Give the job a slot of an instance that exists or is being started.
    Assign { instance: InstanceId, job: JobId },
    /// End the instance and report [`Scheduler::gone`] when its memory is free.
    Destroy { instance: InstanceId },
}

/// The function can never run here: it needs more memory than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a function of {needed_mb} MB does not fit into {capacity_mb} MB")]
pub struct TooBig {
    pub needed_mb: u64,
    pub capacity_mb: u64,
}

/// How an attempt to place a lane's first job ended.
pub(super) enum Placed {
    Yes,
    /// Nothing but more memory helps.
    NeedsMemory,
    /// Later jobs of other functions must wait as well.
    No,
}
