//! Which models stay in memory: a pure account of bytes, pins and ages. No models, no locks.

use std::collections::HashMap;
use std::hash::Hash;

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// It is larger than the whole budget.
    Never,
    /// Only models in use could make room.
    Later,
}

/// Tells one stay of a key on the shelf from a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay(u64);

/// The account.
///
/// INVARIANT: the bytes held never exceed the budget, and what is pinned or still being loaded is
/// never chosen for eviction (test `never_over_budget_and_never_evicts_what_is_in_use`).
#[derive(Debug)]
pub(crate) struct Shelf<K> {
    budget: u64,
    held: u64,
    tick: u64,
    places: HashMap<K, Place>,
}

#[derive(Debug)]
struct Place {
    stay: Stay,
    bytes: u64,
    pins: usize,
    loaded: bool,
    used: u64,
}

impl<K: Clone + Eq + Hash> Shelf<K> {
    /// An empty shelf for `budget` bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            held: 0,
            tick: 0,
            places: HashMap::new(),
        }
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// Pins `key`, putting it on the shelf with no bytes if it is not there.
    pub(crate) fn pin(&mut self, key: &K) -> Stay {
        let tick = self.next_tick();
        let place = self.places.entry(key.clone()).or_insert(Place {
            stay: Stay(tick),
            bytes: 0,
            pins: 0,
            loaded: false,
            used: tick,
        });
        place.pins += 1;
        place.used = tick;
        place.stay
    }

    /// Undoes one [`Shelf::pin`] of the same stay. True when that made it idle.
    pub(crate) fn unpin(&mut self, key: &K, stay: Stay) -> bool {
        let tick = self.next_tick();
        match self.places.get_mut(key).filter(|p| p.stay == stay) {
            Some(place) => {
                place.pins = place.pins.saturating_sub(1);
                place.used = tick;
                place.pins == 0
            }
            None => false,
        }
    }

    /// Sets what `key` takes to `bytes`, and takes idle models off the shelf, the least recently
    /// used first, until that fits. Returns those; they must be dropped now.
    pub(crate) fn reserve(&mut self, key: &K, bytes: u64) -> Result<Vec<K>, NoRoom> {
        if bytes > self.budget {
            return Err(NoRoom::Never);
        }
        let Some(place) = self.places.get(key) else {
            return Err(NoRoom::Later);
        };
        let wanted = (self.held - place.bytes).saturating_add(bytes);
        let mut surplus = wanted.saturating_sub(self.budget);
        let mut idle: Vec<_> = self
            .places
            .iter()
            .filter(|(k, p)| *k != key && p.loaded && p.pins == 0)
            .map(|(k, p)| (p.used, p.bytes, k.clone()))
            .collect();
        idle.sort_by_key(|(used, ..)| *used);
        let mut evicted = Vec::new();
        for (_, freed, other) in idle {
            if surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(freed);
            evicted.push(other);
        }
        if surplus > 0 {
            return Err(NoRoom::Later);
        }
        for other in &evicted {
            self.remove(other);
        }
        if let Some(place) = self.places.get_mut(key) {
            self.held = self.held - place.bytes + bytes;
            place.bytes = bytes;
        }
        Ok(evicted)
    }

    /// `key` is loaded and takes `bytes`; from now on it can be evicted while idle.
    pub(crate) fn settle(&mut self, key: &K, bytes: u64) -> Result<Vec<K>, NoRoom> {
        let evicted = self.reserve(key, bytes)?;
        if let Some(place) = self.places.get_mut(key) {
            place.loaded = true;
        }
        Ok(evicted)
    }

    /// Takes `key` off the shelf.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(place) = self.places.remove(key) {
            self.held -= place.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
