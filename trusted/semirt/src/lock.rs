//! Mutexes that outlive a panic: a panic in one request must not refuse the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere while it was held: every critical section here leaves its
/// state consistent at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
