//! Runs a batch of independent jobs on a few threads and waits for all of them.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Runs `work` on every job, on at most `threads` threads of which the caller's is one. Jobs start
/// in order, so the longest should come first.
pub(crate) fn run<J: Send>(threads: usize, jobs: Vec<J>, work: impl Fn(J) + Sync) {
    let extra = threads.min(jobs.len()).saturating_sub(1);
    if extra == 0 {
        jobs.into_iter().for_each(work);
        return;
    }
    let queue = Mutex::new(jobs.into_iter());
    let drain = || {
        while let Some(job) = next(&queue) {
            work(job);
        }
    };
    thread::scope(|scope| {
        for _ in 0..extra {
            // A machine that has no thread to spare makes this slower, not wrong: the caller's
            // own thread drains what nobody else takes.
            drop(thread::Builder::new().spawn_scoped(scope, drain));
        }
        drain();
    });
}

fn next<J>(queue: &Mutex<std::vec::IntoIter<J>>) -> Option<J> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).next()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_runs_once_whatever_the_number_of_threads() {
        for threads in [0, 1, 2, 3, 64] {
            let ran: Vec<_> = (0..17).map(|_| AtomicUsize::new(0)).collect();
            run(threads, ran.iter().collect(), |job| {
                job.fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                ran.iter().all(|n| n.load(Ordering::Relaxed) == 1),
                "{threads}"
            );
        }
    }
}
