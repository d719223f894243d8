//! Trying again: how often, and with what pauses.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use attestation::CollectError;
use rustix::io::Errno;

/// Attempts at one piece of evidence.
const ATTEMPTS: u32 = 6;
/// Pause after the first refusal as busy; it doubles. All pauses together stay under 2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Waiting for a device that is busy and cannot tell when it no longer is.
pub trait Pause: Send + Sync + Debug {
    fn pause(&self, length: Duration);
}

/// Blocks the thread. Attesters block anyway, up to minutes inside the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blocking;

impl Pause for Blocking {
    fn pause(&self, length: Duration) {
        #[expect(
            clippy::disallowed_methods,
            reason = "a busy device gives nothing to wait on"
        )]
        std::thread::sleep(length);
    }
}

/// Why one attempt gave no evidence.
#[derive(Debug)]
pub(crate) enum Setback {
    /// Somebody interfered; the next attempt may work at once.
    Raced(CollectError),
    /// The device is at work for somebody else.
    Busy,
    /// No attempt will be better.
    Final(CollectError),
}

impl Setback {
    /// What an error of the kernel means for the next attempt. ETIMEDOUT is final: the kernel
    /// has already waited for 30 s (configfs) or 120 s (NSM).
    pub(crate) fn from_io(what: &'static str, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::BUSY) => Self::Busy,
            Some(Errno::INTR | Errno::AGAIN) => Self::Raced(CollectError::Device { what, source }),
            _ => Self::Final(CollectError::Device { what, source }),
        }
    }

    pub(crate) const fn unexpected(what: &'static str) -> Self {
        Self::Final(CollectError::Unexpected { what })
    }
}

/// Makes a bounded number of attempts.
pub(crate) fn persist<T>(
    pause: &dyn Pause,
    mut attempt: impl FnMut() -> Result<T, Setback>,
) -> Result<T, CollectError> {
    let mut length = FIRST_PAUSE;
    let mut last = CollectError::Busy;
    for remaining in (0..ATTEMPTS).rev() {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Setback::Final(error)) => return Err(error),
            Err(Setback::Raced(error)) => last = error,
            Err(Setback::Busy) => {
                last = CollectError::Busy;
                if remaining > 0 {
                    pause.pause(length);
                    length = length.saturating_mul(2);
                }
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Noted(Mutex<Vec<Duration>>);

    impl Pause for Noted {
        fn pause(&self, length: Duration) {
            self.0.lock().unwrap().push(length);
        }
    }

    #[test]
    fn a_device_that_stays_busy_is_asked_a_bounded_number_of_times() {
        let noted = Noted::default();
        let mut asked = 0;
        let error = persist::<()>(&noted, || {
            asked += 1;
            Err(Setback::Busy)
        });
        assert!(matches!(error, Err(CollectError::Busy)));
        assert_eq!(asked, ATTEMPTS);
        let pauses = noted.0.lock().unwrap();
        assert_eq!(pauses.len(), 5, "none after the last attempt");
        assert!(pauses.iter().sum::<Duration>() < Duration::from_secs(2));
        assert!(pauses.windows(2).all(|two| two[1] == two[0] * 2));
    }

    #[test]
    fn a_final_error_ends_it_and_a_race_does_not_pause() {
        let noted = Noted::default();
        let mut asked = 0;
        let outcome = persist(&noted, || {
            asked += 1;
            if asked < 3 {
                return Err(Setback::Raced(CollectError::Busy));
            }
            Ok(asked)
        });
        assert_eq!(outcome.unwrap(), 3);
        assert!(noted.0.lock().unwrap().is_empty());

        let mut asked = 0;
        let outcome = persist::<()>(&noted, || {
            asked += 1;
            Err(Setback::unexpected("nonsense"))
        });
        assert!(matches!(outcome, Err(CollectError::Unexpected { .. })));
        assert_eq!(asked, 1);
    }

    #[test]
    fn errors_of_the_kernel_are_sorted() {
        let sorted = |errno: Errno| Setback::from_io("x", errno.into());
        assert!(matches!(sorted(Errno::BUSY), Setback::Busy));
        assert!(matches!(sorted(Errno::INTR), Setback::Raced(_)));
        for errno in [
            Errno::TIMEDOUT,
            Errno::IO,
            Errno::NXIO,
            Errno::INVAL,
            Errno::ACCESS,
        ] {
            assert!(matches!(sorted(errno), Setback::Final(_)), "{errno}");
        }
        let not_the_kernels = io::Error::other("x");
        assert!(matches!(
            Setback::from_io("x", not_the_kernels),
            Setback::Final(_)
        ));
    }
}
