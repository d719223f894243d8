//! What is kept until when: a pure cache with deadlines on the monotonic clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::keys::Pair;

/// Values by (user, model), each with the time from which it must not be used again.
#[derive(Debug)]
pub(crate) struct KeyCache<V> {
    max: usize,
    tick: u64,
    entries: HashMap<Pair, Entry<V>>,
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    not_after: Duration,
    used: u64,
}

impl<V> KeyCache<V> {
    /// A cache of at most `max` values.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            tick: 0,
            entries: HashMap::new(),
        }
    }

    /// The value, unless it has expired; then it is dropped here and now.
    pub(crate) fn find(&mut self, pair: &Pair, now: Duration) -> Option<Arc<V>> {
        self.tick += 1;
        let entry = self.entries.get_mut(pair)?;
        if now >= entry.not_after {
            self.entries.remove(pair);
            return None;
        }
        entry.used = self.tick;
        Some(Arc::clone(&entry.value))
    }

    /// Keeps `value` until `not_after`, in place of an earlier one; not at all if that has passed.
    pub(crate) fn keep(&mut self, pair: Pair, value: Arc<V>, not_after: Duration, now: Duration) {
        self.entries.remove(&pair);
        if now >= not_after {
            return;
        }
        if self.entries.len() >= self.max {
            self.sweep(now);
        }
        if self.entries.len() >= self.max {
            let oldest = self
                .entries
                .iter()
                .min_by_key(|(_, e)| e.used)
                .map(|(k, _)| k.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.tick += 1;
        self.entries.insert(
            pair,
            Entry {
                value,
                not_after,
                used: self.tick,
            },
        );
    }

    /// Drops everything that has expired.
    pub(crate) fn sweep(&mut self, now: Duration) {
        self.entries.retain(|_, entry| now < entry.not_after);
    }
}

#[cfg(test)]
mod tests {
    use protocol::PrincipalId;

    use super::*;

    fn pair(n: u8) -> Pair {
        (PrincipalId::new([n; 32]), "m".parse().unwrap())
    }

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn nothing_is_found_at_or_after_its_end() {
        let mut cache = KeyCache::new(8);
        cache.keep(pair(1), Arc::new(7), s(10), s(0));
        assert_eq!(cache.find(&pair(1), s(9)).as_deref(), Some(&7));
        assert_eq!(cache.find(&pair(2), s(9)), None);
        assert_eq!(cache.find(&pair(1), s(10)), None);
        assert_eq!(cache.find(&pair(1), s(9)), None, "and is gone for good");
    }

    #[test]
    fn what_has_expired_is_dropped_and_not_only_hidden() {
        let mut cache = KeyCache::new(8);
        let value = Arc::new(7);
        cache.keep(pair(1), Arc::clone(&value), s(10), s(0));
        cache.keep(pair(2), Arc::clone(&value), s(20), s(0));
        assert_eq!(Arc::strong_count(&value), 3);
        cache.sweep(s(10));
        assert_eq!(Arc::strong_count(&value), 2);
        assert_eq!(cache.find(&pair(2), s(20)), None);
        assert_eq!(Arc::strong_count(&value), 1);
        cache.keep(pair(3), Arc::clone(&value), s(5), s(5));
        assert_eq!(
            Arc::strong_count(&value),
            1,
            "a lease of no time is not kept"
        );
    }

    #[test]
    fn a_full_cache_drops_the_least_recently_used() {
        let mut cache = KeyCache::new(2);
        cache.keep(pair(1), Arc::new(1), s(10), s(0));
        cache.keep(pair(2), Arc::new(2), s(10), s(0));
        assert!(cache.find(&pair(1), s(1)).is_some());
        cache.keep(pair(3), Arc::new(3), s(10), s(1));
        assert!(cache.find(&pair(1), s(1)).is_some());
        assert!(cache.find(&pair(2), s(1)).is_none());
        assert!(cache.find(&pair(3), s(1)).is_some());
    }
}
