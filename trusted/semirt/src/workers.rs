//! How much an instance takes on: a bound on requests and their bytes, and the workers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::lock;

/// The instance has taken on all that it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the instance serves and queues as many requests as it may")]
pub(crate) struct Full;

/// No worker became free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no worker became free in time")]
pub(crate) struct TooLong;

/// Counts requests, from before their body is read until they are answered.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Door>);

#[derive(Debug)]
struct Door {
    requests_max: usize,
    bytes_max: u64,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    requests: usize,
    bytes: u64,
}

/// The right to be served; dropped with the answer.
#[derive(Debug)]
pub(crate) struct Ticket {
    door: Arc<Door>,
    bytes: u64,
}

impl Admission {
    /// At most `requests_max` requests with bodies of `bytes_max` bytes in all.
    pub(crate) fn new(requests_max: usize, bytes_max: u64) -> Self {
        Self(Arc::new(Door {
            requests_max,
            bytes_max,
            inside: Mutex::default(),
        }))
    }

    /// Lets one request in whose body takes up to `bytes`, or refuses at once.
    pub(crate) fn enter(&self, bytes: u64) -> Result<Ticket, Full> {
        let mut inside = lock(&self.0.inside);
        let sum = inside.bytes.saturating_add(bytes);
        if inside.requests >= self.0.requests_max || sum > self.0.bytes_max {
            return Err(Full);
        }
        inside.requests += 1;
        inside.bytes = sum;
        Ok(Ticket {
            door: Arc::clone(&self.0),
            bytes,
        })
    }
}

impl Ticket {
    /// Asks for room for `bytes` more, which are about to be fetched.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Full> {
        let mut inside = lock(&self.door.inside);
        let sum = inside.bytes.saturating_add(bytes);
        if sum > self.door.bytes_max {
            return Err(Full);
        }
        inside.bytes = sum;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = lock(&self.door.inside);
        inside.requests -= 1;
        inside.bytes -= self.bytes;
    }
}

/// The workers: as many runs at once as the measured configuration says. Who comes first is served
/// first.
#[derive(Debug)]
pub(crate) struct Workers {
    free: Arc<Semaphore>,
    wait: Duration,
}

/// One worker, held until the run has really ended, even when nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Worker {
    _permit: OwnedSemaphorePermit,
}

impl Workers {
    /// `count` workers; a request waits for one for at most `wait`.
    pub(crate) fn new(count: usize, wait: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            wait,
        }
    }

    pub(crate) async fn worker(&self) -> Result<Worker, TooLong> {
        let free = Arc::clone(&self.free);
        match tokio::time::timeout(self.wait, free.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Worker { _permit: permit }),
            // The semaphore is never closed, so this is the time limit.
            Ok(Err(_)) | Err(_) => Err(TooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_bytes_are_bounded_and_come_back() {
        let admission = Admission::new(2, 100);
        let a = admission.enter(60).unwrap();
        assert_eq!(admission.enter(41).unwrap_err(), Full);
        let b = admission.enter(40).unwrap();
        assert_eq!(admission.enter(0).unwrap_err(), Full);
        drop(a);
        let c = admission.enter(60).unwrap();
        assert_eq!(admission.enter(u64::MAX).unwrap_err(), Full);
        drop((b, c));
        let mut small = admission.enter(1).unwrap();
        assert_eq!(small.grow(100).unwrap_err(), Full);
        assert_eq!(small.grow(u64::MAX).unwrap_err(), Full);
        small.grow(99).unwrap();
        assert_eq!(admission.enter(1).unwrap_err(), Full);
        drop(small);
        assert!(admission.enter(100).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_worker_but_not_for_ever() {
        let workers = Workers::new(1, Duration::from_secs(3));
        let first = workers.worker().await.unwrap();
        let start = tokio::time::Instant::now();
        assert_eq!(workers.worker().await.unwrap_err(), TooLong);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        drop(first);
        assert!(workers.worker().await.is_ok());
    }
}
