//! A pool at run time: one packing behind a lock, the callers who wait for its word, its functions.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::SharedClock;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::PoolConfig;
use crate::packing::{
    Action, Arrival, EndpointId, Limits, Outcome, Packing, Rejection, Report, Ticket,
};
use crate::platform::{FunctionRef, FunctionSpec};

/// What a caller is told when its turn comes.
#[derive(Debug)]
pub(crate) enum Turn {
    Go(Lease),
    Rejected(Rejection),
}

/// Background work that a packing asked for.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Start an instance that serves nobody yet.
    Start(Lease),
    /// Let the idle instance of this endpoint go.
    Retire(EndpointId),
}

#[derive(Debug)]
struct State {
    packing: Packing,
    turns: HashMap<Ticket, oneshot::Sender<Turn>>,
    /// When the timer will fire.
    armed: Option<Duration>,
}

/// A function of the pool, and whether it is known to be deployed.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) spec: FunctionSpec,
    deployed: Mutex<Arc<OnceCell<FunctionRef>>>,
    /// What is there, if anything, is from before this process: nobody knows who used it.
    pub(crate) inherited: AtomicBool,
}

impl Function {
    /// Filled by whoever needs the function first; others wait for it.
    pub(crate) fn deployed(&self) -> Arc<OnceCell<FunctionRef>> {
        Arc::clone(&self.deployed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It turned out not to be there any more.
    pub(crate) fn forget(&self) {
        *self.deployed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }
}

/// One pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    pub(crate) functions: Vec<Function>,
    clock: SharedClock,
    state: Mutex<State>,
    wake: Notify,
    errands: tokio::sync::mpsc::UnboundedSender<Errand>,
}

/// The right to use an endpoint once. Dropping it without [`Lease::finish`] releases it as
/// [`Outcome::Abandoned`], so that no path, panics included, keeps an endpoint busy for good.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    ticket: Option<Ticket>,
    pub(crate) endpoint: EndpointId,
    pub(crate) queued: Duration,
}

impl Lease {
    pub(crate) const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The function behind the endpoint.
    pub(crate) fn function(&self) -> &Function {
        &self.pool.functions[self.endpoint.index()]
    }

    /// Releases the endpoint and tells what was learnt.
    pub(crate) fn finish(mut self, report: &Report) {
        if let Some(ticket) = self.ticket.take() {
            self.pool
                .update(|packing, now, out| packing.finish(now, ticket, report, out));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.pool.abandon(vec![ticket]);
        }
    }
}

/// A caller in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pool: Arc<Pool>,
    ticket: Ticket,
    turn: oneshot::Receiver<Turn>,
}

impl Waiting {
    /// The caller's turn, or why it gets none; absent if the pool is gone.
    pub(crate) async fn turn(&mut self) -> Option<Turn> {
        (&mut self.turn).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let now = self.pool.clock.monotonic();
        let mut state = self.pool.lock();
        if state.packing.withdraw(now, self.ticket) {
            state.turns.remove(&self.ticket);
        }
        // If its turn has come already, the lease is in the channel, and is dropped with it.
    }
}

impl Pool {
    /// A pool, and the errands that its policy asks for over time. Their number is bounded: a
    /// policy starts an endpoint at most once at a time.
    pub(crate) fn new(
        config: PoolConfig,
        frees_memory: bool,
        clock: SharedClock,
    ) -> (Arc<Self>, tokio::sync::mpsc::UnboundedReceiver<Errand>) {
        let functions: Vec<_> = config
            .functions()
            .into_iter()
            .map(|spec| Function {
                spec,
                deployed: Mutex::default(),
                inherited: AtomicBool::new(true),
            })
            .collect();
        let packing = Packing::new(
            config.policy.policy(config.rent()),
            functions.len(),
            Limits {
                frees_memory,
                ..config.limits()
            },
        );
        let (errands, to_run) = tokio::sync::mpsc::unbounded_channel();
        let state = State {
            packing,
            turns: HashMap::new(),
            armed: None,
        };
        let wake = Notify::new();
        let pool = Self {
            config,
            functions,
            clock,
            state: Mutex::new(state),
            wake,
            errands,
        };
        (Arc::new(pool), to_run)
    }

    /// A request arrives.
    pub(crate) fn arrive(self: &Arc<Self>, arrival: &Arrival<'_>) -> Waiting {
        let (tell, turn) = oneshot::channel();
        let mut tell = Some(tell);
        let ticket = self.update_state(|state, now, out| {
            let ticket = state.packing.arrive(now, arrival, out);
            if let Some(tell) = tell.take() {
                state.turns.insert(ticket, tell);
            }
            ticket
        });
        Waiting {
            pool: Arc::clone(self),
            ticket,
            turn,
        }
    }

    /// The platform refuses, or accepts again, to deploy an endpoint. The last one that is ready
    /// stays so: then errors tell the callers more than waiting would.
    pub(crate) fn set_ready(self: &Arc<Self>, endpoint: EndpointId, ready: bool) {
        self.update(|packing, now, out| {
            let others = packing
                .fleet()
                .iter()
                .any(|(id, e)| id != endpoint && e.ready);
            if ready || others {
                packing.set_ready(now, endpoint, ready, out);
            }
        });
    }

    /// An endpoint that was to be retired is, or could not be.
    pub(crate) fn retired(self: &Arc<Self>, endpoint: EndpointId, gone: bool) {
        self.update(|packing, now, out| packing.retired(now, endpoint, gone, out));
    }

    /// Wakes the packing when it wants to be woken, until `stop`; then nobody waits any longer.
    pub(crate) async fn keep_time(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.lock().packing.next_wake();
            let pause = next.map(|at| at.saturating_sub(self.clock.monotonic()));
            tokio::select! {
                () = stop.cancelled() => {
                    // Their callers see the other end of the channel gone, and leave the queue.
                    let turns = std::mem::take(&mut self.lock().turns);
                    drop(turns);
                    return;
                }
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    self.update(|packing, now, out| packing.wake(now, out));
                }
            }
        }
    }

    /// Reads the packing.
    pub(crate) fn inspect<R>(&self, read: impl FnOnce(&Packing, Duration) -> R) -> R {
        let now = self.clock.monotonic();
        read(&self.lock().packing, now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a policy poisons the lock; its books may be off by that one request, which
        // is better than to serve nobody from then on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Packing, Duration, &mut Vec<Action>) -> R,
    ) -> R {
        self.update_state(|state, now, out| change(&mut state.packing, now, out))
    }

    fn update_state<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State, Duration, &mut Vec<Action>) -> R,
    ) -> R {
        let (result, lost) = self.change(change);
        self.abandon(lost);
        result
    }

    /// Releases what nobody took. In a loop, not by recursion, since each release may hand an
    /// endpoint to the next caller who is gone.
    fn abandon(self: &Arc<Self>, mut lost: Vec<Ticket>) {
        let report = Report::bare(Outcome::Abandoned);
        while let Some(ticket) = lost.pop() {
            let (_, more) =
                self.change(|state, now, out| state.packing.finish(now, ticket, &report, out));
            lost.extend(more);
        }
    }

    /// Changes the state under the lock, then tells callers without it. Returns the tickets whose
    /// callers were gone.
    fn change<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State, Duration, &mut Vec<Action>) -> R,
    ) -> (R, Vec<Ticket>) {
        let now = self.clock.monotonic();
        let mut actions = Vec::new();
        let mut news = Vec::new();
        let mut state = self.lock();
        let result = change(&mut state, now, &mut actions);
        for action in actions {
            match action {
                Action::Dispatch {
                    ticket,
                    endpoint,
                    queued,
                } => {
                    let lease = self.lease(ticket, endpoint, queued);
                    news.push((state.turns.remove(&ticket), Turn::Go(lease)));
                }
                Action::Reject { ticket, rejection } => {
                    news.push((state.turns.remove(&ticket), Turn::Rejected(rejection)));
                }
                Action::Start { ticket, endpoint } => {
                    let lease = self.lease(ticket, endpoint, Duration::ZERO);
                    self.run(Errand::Start(lease));
                }
                Action::Retire { endpoint } => self.run(Errand::Retire(endpoint)),
            }
        }
        let next = state.packing.next_wake();
        let sooner = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        state.armed = next;
        drop(state);
        if sooner {
            self.wake.notify_one();
        }
        (result, deliver(news))
    }

    fn lease(self: &Arc<Self>, ticket: Ticket, endpoint: EndpointId, queued: Duration) -> Lease {
        Lease {
            pool: Arc::clone(self),
            ticket: Some(ticket),
            endpoint,
            queued,
        }
    }

    fn run(&self, errand: Errand) {
        // After shutdown nobody runs errands. A start must not be released here, under the lock.
        if let Err(unsent) = self.errands.send(errand)
            && let Errand::Start(mut lease) = unsent.0
        {
            lease.ticket = None;
        }
    }
}

fn deliver(news: Vec<(Option<oneshot::Sender<Turn>>, Turn)>) -> Vec<Ticket> {
    let undelivered = news.into_iter().filter_map(|(tell, turn)| match tell {
        Some(tell) => tell.send(turn).err(),
        None => Some(turn),
    });
    let ticket = |turn| match turn {
        Turn::Go(mut lease) => lease.ticket.take(),
        Turn::Rejected(_) => None,
    };
    undelivered.filter_map(ticket).collect()
}
