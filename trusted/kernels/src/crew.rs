//! Who does the work: the calling thread alone, or with a team that waits for it.

#![expect(
    unsafe_code,
    reason = "workers use what the caller borrowed; the caller waits until they are done"
)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Does tasks side by side.
pub trait Crew: Sync {
    /// Most workers that [`Crew::each`] uses: their numbers are below it.
    fn workers(&self) -> usize;

    /// Calls `work(worker, task)` for every task below `tasks`, in any order; no two calls at a time
    /// have the same worker. Returns when all are done.
    fn each(&self, tasks: usize, work: &(dyn Fn(usize, usize) + Sync));
}

/// The calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Crew for Alone {
    fn workers(&self) -> usize {
        1
    }

    fn each(&self, tasks: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        (0..tasks).for_each(|task| work(0, task));
    }
}

/// Rounds that a worker looks for work before it sleeps, and a caller for the end before it gives
/// its core away: about the time between two layers of a model.
const SPINS: u32 = 20_000;

/// One call of [`Crew::each`].
#[derive(Clone, Copy)]
struct Job {
    /// Of the caller's `work`; valid until the caller's `each` returns.
    work: *const (dyn Fn(usize, usize) + Sync),
    tasks: usize,
}

// SAFETY: what it points to is `Sync`, and the caller of `each` keeps it alive.
unsafe impl Send for Job {}

#[derive(Default)]
struct Board {
    job: Option<Job>,
    stop: bool,
}

struct Shared {
    board: Mutex<Board>,
    /// Wakes workers that sleep.
    call: Condvar,
    /// Counts jobs, so that a worker sees a new one without the lock.
    round: AtomicUsize,
    /// The next task of the job.
    next: AtomicUsize,
    /// Workers that have not finished the job.
    busy: AtomicUsize,
    panicked: AtomicBool,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that a panic could leave half-done is behind these locks.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that wait for work, used by one caller at a time.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    lease: Mutex<()>,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Team({} threads)", self.threads.len() + 1)
    }
}

impl Team {
    /// As many workers as `threads`, the calling thread being one; fewer when the system gives no more.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            board: Mutex::default(),
            call: Condvar::new(),
            round: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let spawn = |worker| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("kernels-{worker}"))
                .spawn(move || shared.serve(worker))
        };
        let threads = (1..threads.max(1)).map_while(|w| spawn(w).ok()).collect();
        Self {
            shared,
            threads,
            lease: Mutex::default(),
        }
    }

    /// Workers, the caller of [`Team::lease`] being one.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// The team for one caller, or `None` while another one has it: they are better off alone than
    /// waiting.
    #[must_use]
    pub fn lease(&self) -> Option<Lease<'_>> {
        let guard = match self.lease.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        Some(Lease {
            team: self,
            _guard: guard,
        })
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        held(&self.shared.board).stop = true;
        self.shared.round.fetch_add(1, Ordering::Release);
        self.shared.call.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches panics of its work, so there is no other way for it to end.
            drop(thread.join());
        }
    }
}

/// A team that nobody else uses meanwhile.
pub struct Lease<'a> {
    team: &'a Team,
    _guard: MutexGuard<'a, ()>,
}

impl fmt::Debug for Lease<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.team)
    }
}

impl Crew for Lease<'_> {
    fn workers(&self) -> usize {
        self.team.workers()
    }

    fn each(&self, tasks: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let shared = &*self.team.shared;
        if tasks <= 1 || self.team.threads.is_empty() {
            return Alone.each(tasks, work);
        }
        // SAFETY: only the lifetime changes. No worker touches `work` after `busy` reached 0, and
        // this function does not return or unwind before that.
        let work: &'static (dyn Fn(usize, usize) + Sync) = unsafe { std::mem::transmute(work) };
        let job = Job { work, tasks };
        shared.next.store(0, Ordering::Relaxed);
        shared
            .busy
            .store(self.team.threads.len(), Ordering::Relaxed);
        {
            // Under the lock: a worker that is about to sleep either sees the new round, or sleeps
            // before it is called.
            let mut board = held(&shared.board);
            board.job = Some(job);
            shared.round.fetch_add(1, Ordering::Release);
        }
        shared.call.notify_all();
        let own = catch_unwind(AssertUnwindSafe(|| shared.take(0, job)));
        let mut spins = 0;
        while shared.busy.load(Ordering::Acquire) > 0 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        held(&shared.board).job = None;
        let theirs = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!theirs, "a worker panicked");
    }
}

impl Shared {
    /// Does tasks of the job until there are none left.
    fn take(&self, worker: usize, job: Job) {
        // SAFETY: the caller of `each` has not returned: this worker still counts as busy.
        let work = unsafe { &*job.work };
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= job.tasks {
                return;
            }
            work(worker, task);
        }
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.round.load(Ordering::Acquire) == seen && spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            }
            let mut board = held(&self.board);
            while self.round.load(Ordering::Acquire) == seen && !board.stop {
                board = self
                    .call
                    .wait(board)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if board.stop {
                return;
            }
            seen = self.round.load(Ordering::Acquire);
            let job = board.job;
            drop(board);
            if let Some(job) = job {
                if catch_unwind(AssertUnwindSafe(|| self.take(worker, job))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.busy.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_and_workers_are_told_apart() {
        let team = Team::new(3);
        let lease = team.lease().unwrap();
        assert!(team.lease().is_none());
        for tasks in [0, 1, 2, 3, 50] {
            let done: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            let inside: Vec<_> = (0..3).map(|_| AtomicUsize::new(0)).collect();
            lease.each(tasks, &|worker, task| {
                assert_eq!(inside[worker].fetch_add(1, Ordering::SeqCst), 0);
                done[task].fetch_add(1, Ordering::SeqCst);
                inside[worker].fetch_sub(1, Ordering::SeqCst);
            });
            assert!(done.iter().all(|d| d.load(Ordering::SeqCst) == 1));
        }
    }

    #[test]
    fn a_panic_of_any_worker_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(2);
        let lease = team.lease().unwrap();
        for _ in 0..20 {
            let run = || lease.each(8, &|_, task| assert_ne!(task, 5, "on purpose"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            lease.each(8, &|_, _| {});
        }
    }

    #[test]
    fn a_team_that_slept_wakes_up() {
        let team = Team::new(2);
        for _ in 0..200 {
            let sum = AtomicUsize::new(0);
            let lease = team.lease().unwrap();
            lease.each(4, &|_, task| {
                sum.fetch_add(task, Ordering::SeqCst);
                std::thread::yield_now();
            });
            assert_eq!(sum.into_inner(), 6);
        }
    }
}
