//! The instances that exist, and the leases on their slots: carries out what the scheduler decides.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::SharedClock;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::functions::Function;
use crate::meter::Integral;
use crate::sandbox::call::Caller;
use crate::sandbox::{BoxFuture, OutputSink, Sandbox, SandboxFactory, SandboxSpec, StartError};
use crate::scheduler::{Bounds, Decision, Demand, InstanceId, JobId, Scheduler, TooBig};
use crate::verdict::{PROVISION_ERROR, Verdict, platform_fault};

/// Why an invocation got no instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcquireError {
    #[error(transparent)]
    TooBig(#[from] TooBig),
    #[error("the platform is stopping")]
    Stopping,
}

/// How far an instance is.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Starting,
    /// Initialised: this calls its server.
    Ready(Arc<Caller>),
    /// It never got ready; every invocation that was given to it ends like this.
    Failed(Arc<Verdict>),
}

/// One sandbox with a function in it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) function: Arc<Function>,
    pub(crate) log: Arc<dyn InstanceLog>,
    phase: watch::Sender<Phase>,
    sandbox: Mutex<Option<Arc<dyn Sandbox>>>,
}

/// What an instance writes, and to which activation it belongs.
pub(crate) trait InstanceLog: OutputSink {
    /// From now on lines belong to this activation.
    fn begin(&self, activation: &str);
    /// Whether the sandbox must be drained before [`Self::recorded`].
    fn needs_drain(&self) -> bool;
    /// The activation's record exists.
    fn recorded(&self, activation: &str, failed: bool);
    /// Nothing more will come.
    fn ended(&self);
    /// The same object, as the sandbox wants it.
    fn sink(self: Arc<Self>) -> Arc<dyn OutputSink>;
}

impl Instance {
    /// The sandbox, once one was started.
    #[must_use]
    pub(crate) fn sandbox(&self) -> Option<Arc<dyn Sandbox>> {
        self.sandbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until whoever starts it is done.
    pub(crate) async fn settled(&self) -> Phase {
        let mut phase = self.phase.subscribe();
        let settled = phase
            .wait_for(|phase| !matches!(phase, Phase::Starting))
            .await;
        settled.map_or(Phase::Starting, |phase| phase.clone())
    }
}

/// Makes the log of a new instance of a function.
pub(crate) type LogFactory = Box<dyn Fn(&Function) -> Arc<dyn InstanceLog> + Send + Sync>;

/// What the pool is made of.
pub(crate) struct PoolParts {
    pub(crate) bounds: Bounds,
    pub(crate) factory: Arc<dyn SandboxFactory>,
    pub(crate) logs: LogFactory,
    pub(crate) clock: SharedClock,
    pub(crate) tracker: TaskTracker,
}

impl std::fmt::Debug for PoolParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolParts")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// All instances.
#[derive(Debug)]
pub(crate) struct Pool {
    parts: PoolParts,
    state: Mutex<State>,
    /// The next tick may be earlier than it was.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    instances: HashMap<InstanceId, Arc<Instance>>,
    waiters: HashMap<JobId, Waiter>,
    provisioned: Integral,
    busy: Integral,
    started: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Waiter {
    function: Arc<Function>,
    lease: oneshot::Sender<Lease>,
}

/// What the machine holds now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Occupancy {
    pub(crate) instances: usize,
    pub(crate) idle: usize,
    pub(crate) waiting: usize,
    pub(crate) used_mb: u64,
    /// Sandboxes started since the platform runs.
    pub(crate) started: u64,
    /// Memory of all sandboxes over their lives, idle or not.
    pub(crate) provisioned_gb_seconds: f64,
    /// Memory of sandboxes while they had at least one invocation.
    pub(crate) busy_gb_seconds: f64,
}

impl Pool {
    #[must_use]
    pub(crate) fn new(parts: PoolParts) -> Arc<Self> {
        let state = State {
            scheduler: Scheduler::new(parts.bounds),
            instances: HashMap::new(),
            waiters: HashMap::new(),
            provisioned: Integral::default(),
            busy: Integral::default(),
            started: 0,
            stopping: false,
        };
        Arc::new(Self {
            parts,
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    /// Waits for a slot of an instance of this function.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        function: &Arc<Function>,
        prefers: Option<InstanceId>,
    ) -> Result<Lease, AcquireError> {
        let waiting = {
            let mut state = self.lock();
            if state.stopping {
                return Err(AcquireError::Stopping);
            }
            let now = self.now();
            let (job, decisions) = state.scheduler.submit(&demand(function), prefers, now)?;
            self.wait_for(&mut state, job, function, decisions)
        };
        waiting.await
    }

    /// The function was replaced or deleted: its instances end as soon as they can.
    pub(crate) fn retire(self: &Arc<Self>, function: &Function) {
        // First, so that a job that comes after the event knows.
        function.retire();
        self.event(|scheduler, now| scheduler.retire(&function.key, now));
    }

    /// A lease on one more instance, to start it ahead of need; none if memory is not free.
    pub(crate) fn prewarm(self: &Arc<Self>, function: &Arc<Function>) -> Option<Lease> {
        let mut state = self.lock();
        if state.stopping {
            return None;
        }
        let (job, decision) = state.scheduler.prewarm(&demand(function), self.now())?;
        let Decision::Start { instance, .. } = decision else {
            return None;
        };
        let made = self.new_instance(instance, function);
        state.instances.insert(instance, made.clone());
        self.account(&mut state);
        Some(self.lease(made, job, true))
    }

    /// Ends what idles too long, until `stop`.
    pub(crate) async fn expire(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.lock().scheduler.next_tick();
            let pause = next.map(|at| at.saturating_sub(self.now()));
            let sleep = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = sleep => self.event(Scheduler::tick),
            }
        }
    }

    /// Kills every sandbox and waits for their ends. Waiting invocations get no instance.
    pub(crate) async fn stop(&self) {
        let (waiters, instances) = {
            let mut state = self.lock();
            state.stopping = true;
            let waiters = std::mem::take(&mut state.waiters);
            (
                waiters,
                state.instances.values().cloned().collect::<Vec<_>>(),
            )
        };
        drop(waiters);
        let sandboxes: Vec<_> = instances.iter().filter_map(|i| i.sandbox()).collect();
        for sandbox in &sandboxes {
            sandbox.kill();
        }
        for sandbox in &sandboxes {
            sandbox.exited().await;
        }
    }

    #[must_use]
    pub(crate) fn occupancy(&self) -> Occupancy {
        let (state, now) = (self.lock(), self.now());
        Occupancy {
            instances: state.scheduler.instances(),
            idle: state.scheduler.idle(),
            waiting: state.scheduler.waiting(),
            used_mb: state.scheduler.used_mb(),
            started: state.started,
            provisioned_gb_seconds: state.provisioned.gb_seconds(now),
            busy_gb_seconds: state.busy.gb_seconds(now),
        }
    }

    /// Starts a sandbox for an instance that has none, or whose first one lost its port.
    pub(crate) async fn start_sandbox(
        &self,
        instance: &Instance,
        spec: &SandboxSpec,
    ) -> Result<Arc<dyn Sandbox>, StartError> {
        let sink = instance.log.clone().sink();
        let sandbox = self.parts.factory.start(spec, sink).await?;
        {
            let mut state = self.lock();
            state.started += 1;
            if state.stopping {
                return Err(StartError::Stopping);
            }
            let mut place = instance
                .sandbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(before) = place.replace(sandbox.clone()) {
                before.kill();
            }
        }
        Ok(sandbox)
    }

    fn on_exit(self: &Arc<Self>, instance: InstanceId, sandbox: Arc<dyn Sandbox>) {
        let pool = self.clone();
        self.parts.tracker.spawn(async move {
            sandbox.exited().await;
            pool.event(|scheduler, now| scheduler.gone(instance, now));
            let gone = pool.lock().instances.remove(&instance);
            if let Some(gone) = gone {
                gone.log.ended();
            }
        });
    }

    fn event(self: &Arc<Self>, event: impl FnOnce(&mut Scheduler, Duration) -> Vec<Decision>) {
        let undelivered = {
            let mut state = self.lock();
            let decisions = event(&mut state.scheduler, self.now());
            self.carry_out(&mut state, decisions)
        };
        // Dropping a lease gives its slot back, which locks again.
        drop(undelivered);
    }

    /// Registers a waiter before its decisions are carried out.
    fn wait_for(
        self: &Arc<Self>,
        state: &mut State,
        job: JobId,
        function: &Arc<Function>,
        decisions: Vec<Decision>,
    ) -> BoxFuture<'static, Result<Lease, AcquireError>> {
        let (lease, granted) = oneshot::channel();
        state.waiters.insert(
            job,
            Waiter {
                function: function.clone(),
                lease,
            },
        );
        let undelivered = self.carry_out(state, decisions);
        Box::pin(async move {
            drop(undelivered);
            granted.await.map_err(|_| AcquireError::Stopping)
        })
    }

    /// Returns leases that nobody waits for any more; drop them outside the lock.
    fn carry_out(self: &Arc<Self>, state: &mut State, decisions: Vec<Decision>) -> Vec<Lease> {
        let mut todo = VecDeque::from(decisions);
        let mut undelivered = Vec::new();
        while let Some(decision) = todo.pop_front() {
            match decision {
                Decision::Start { instance, job } => {
                    if let Some(waiter) = state.waiters.remove(&job) {
                        let made = self.new_instance(instance, &waiter.function);
                        state.instances.insert(instance, made.clone());
                        undelivered.extend(self.grant(made, job, true, waiter));
                    }
                }
                Decision::Assign { instance, job } => {
                    let made = state.instances.get(&instance).cloned();
                    if let (Some(made), Some(waiter)) = (made, state.waiters.remove(&job)) {
                        undelivered.extend(self.grant(made, job, false, waiter));
                    }
                }
                Decision::Destroy { instance } => {
                    let made = state.instances.get(&instance).cloned();
                    match made.and_then(|made| made.sandbox()) {
                        Some(sandbox) => {
                            sandbox.kill();
                            self.on_exit(instance, sandbox);
                        }
                        None => {
                            state.instances.remove(&instance);
                            todo.extend(state.scheduler.gone(instance, self.now()));
                        }
                    }
                }
            }
        }
        self.account(state);
        undelivered
    }

    fn account(&self, state: &mut State) {
        let now = self.now();
        let (used_mb, busy_mb) = (state.scheduler.used_mb(), state.scheduler.busy_mb());
        state.provisioned.set(now, used_mb);
        state.busy.set(now, busy_mb);
        self.changed.notify_one();
    }

    fn grant(
        self: &Arc<Self>,
        instance: Arc<Instance>,
        job: JobId,
        first: bool,
        waiter: Waiter,
    ) -> Option<Lease> {
        waiter.lease.send(self.lease(instance, job, first)).err()
    }

    fn lease(self: &Arc<Self>, instance: Arc<Instance>, job: JobId, first: bool) -> Lease {
        Lease {
            pool: self.clone(),
            instance,
            job,
            first,
            returned: false,
        }
    }

    fn new_instance(&self, id: InstanceId, function: &Arc<Function>) -> Arc<Instance> {
        Arc::new(Instance {
            id,
            function: function.clone(),
            log: (self.parts.logs)(function),
            phase: watch::channel(Phase::Starting).0,
            sandbox: Mutex::default(),
        })
    }

    fn now(&self) -> Duration {
        self.parts.clock.monotonic()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn demand(function: &Function) -> Demand {
    Demand {
        function: function.key.clone(),
        memory_mb: function.action.limits.memory,
        concurrency: function.action.limits.concurrency,
        retired: function.is_retired(),
    }
}

/// The right to use one slot of one instance. Dropping it without a word counts as a failure: the
/// instance takes no other invocation.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    pub(crate) instance: Arc<Instance>,
    job: JobId,
    /// The holder starts and initialises the instance.
    pub(crate) first: bool,
    returned: bool,
}

impl Lease {
    /// The instance answered its initialisation: others may use it.
    pub(crate) fn ready(&self, caller: Arc<Caller>) {
        let id = self.instance.id;
        self.pool.lock().scheduler.ready(id);
        self.instance.phase.send_replace(Phase::Ready(caller));
        if let Some(sandbox) = self.instance.sandbox() {
            self.pool.on_exit(id, sandbox);
        }
    }

    /// The instance cannot be used; whoever else was given to it ends with this verdict.
    pub(crate) fn fail(mut self, verdict: Arc<Verdict>) {
        // First the scheduler, so that it gives the instance to nobody who would only fail.
        self.give_back(false);
        self.instance.phase.send_replace(Phase::Failed(verdict));
    }

    /// The invocation ended; without `keep` the instance takes no other.
    pub(crate) fn finish(mut self, keep: bool) {
        self.give_back(keep);
    }

    /// The instance shuts down and did not serve: waits for another one.
    pub(crate) async fn hand_back(mut self) -> Result<Self, AcquireError> {
        self.returned = true;
        let (pool, function) = (self.pool.clone(), self.instance.function.clone());
        let waiting = {
            let mut state = pool.lock();
            if state.stopping {
                return Err(AcquireError::Stopping);
            }
            let (id, now) = (self.instance.id, pool.now());
            // The waiter must be there before the scheduler's decision is carried out.
            let decisions = state
                .scheduler
                .handed_back(id, self.job, &demand(&function), now);
            pool.wait_for(&mut state, self.job, &function, decisions)
        };
        waiting.await
    }

    fn give_back(&mut self, keep: bool) {
        if std::mem::replace(&mut self.returned, true) {
            return;
        }
        let (id, job) = (self.instance.id, self.job);
        self.pool
            .event(|scheduler, now| scheduler.finished(id, job, keep, now));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back(false);
        if self.first && matches!(*self.instance.phase.borrow(), Phase::Starting) {
            let verdict = platform_fault(PROVISION_ERROR);
            self.instance
                .phase
                .send_replace(Phase::Failed(Arc::new(verdict)));
        }
    }
}
