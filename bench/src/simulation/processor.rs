//! Processor sharing: all running jobs advance alike, together no faster than the cores allow.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Job {
    /// Ends when the common clock of work reaches this, in microseconds.
    target: f64,
    id: u32,
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        self.target
            .total_cmp(&other.target)
            .then(self.id.cmp(&other.id))
    }
}

/// Jobs that run. Instead of the work left of each job, one clock of work done by every job.
#[derive(Debug)]
pub(super) struct Processor {
    cores: Option<f64>,
    work: f64,
    now: f64,
    jobs: BinaryHeap<Reverse<Job>>,
}

impl Processor {
    /// With so many cores; without a number, each job has one of its own.
    pub(super) const fn new(cores: Option<f64>) -> Self {
        Self {
            cores,
            work: 0.0,
            now: 0.0,
            jobs: BinaryHeap::new(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer jobs than 2^53")]
    fn rate(&self) -> f64 {
        let share = |cores: f64| (cores / self.jobs.len().max(1) as f64).min(1.0);
        self.cores.map_or(1.0, share)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "times below 2^53 microseconds: 285 years"
    )]
    fn advance(&mut self, now: u64) {
        let now = now as f64;
        self.work += (now - self.now).max(0.0) * self.rate();
        self.now = now;
    }

    /// Starts a job of so many microseconds of work.
    #[expect(
        clippy::cast_precision_loss,
        reason = "times below 2^53 microseconds: 285 years"
    )]
    pub(super) fn start(&mut self, now: u64, id: u32, work: u64) {
        self.advance(now);
        self.jobs.push(Reverse(Job {
            target: self.work + work as f64,
            id,
        }));
    }

    /// When the next job ends, in whole microseconds, if none starts until then.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time, positive and below 2^53"
    )]
    pub(super) fn next_end(&self) -> Option<u64> {
        let Reverse(job) = self.jobs.peek()?;
        let left = (job.target - self.work).max(0.0) / self.rate();
        Some((self.now + left).ceil() as u64)
    }

    /// Takes out the next job, which ends now.
    pub(super) fn end_next(&mut self, now: u64) -> Option<u32> {
        self.advance(now);
        self.jobs.pop().map(|Reverse(job)| job.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_share_the_cores() {
        let mut processor = Processor::new(Some(1.0));
        processor.start(0, 1, 100);
        processor.start(50, 2, 100);
        // 50 done alone; then each at half speed: the first needs 100 more.
        assert_eq!(processor.next_end(), Some(150));
        assert_eq!(processor.end_next(150), Some(1));
        // The second has 50 left, alone.
        assert_eq!(processor.next_end(), Some(200));
        assert_eq!(processor.end_next(200), Some(2));
        assert_eq!(processor.next_end(), None);
    }

    #[test]
    fn without_a_bound_nobody_waits() {
        let mut processor = Processor::new(None);
        processor.start(0, 1, 100);
        processor.start(10, 2, 10);
        assert_eq!(processor.next_end(), Some(20));
        assert_eq!(processor.end_next(20), Some(2));
        assert_eq!(processor.next_end(), Some(100));
    }
}
