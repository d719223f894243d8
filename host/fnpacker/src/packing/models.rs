//! Model names to dense keys and back, in bounded memory.

use std::collections::HashMap;
use std::time::Duration;

use protocol::ModelId;

use super::ModelKey;

#[derive(Debug)]
struct Slot {
    name: ModelId,
    hash: u64,
    last_use: Duration,
    /// Requests waiting or in flight; the key must not be taken away from them.
    held: u32,
}

/// Gives a key to each model in use; when `max` are given out, the one unused longest loses its.
#[derive(Debug)]
pub(super) struct Models {
    by_name: HashMap<ModelId, ModelKey>,
    slots: Vec<Slot>,
    max: usize,
}

/// A key was given; somebody else may have lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) key: ModelKey,
    pub(super) hash: u64,
    pub(super) taken_from_another: bool,
}

impl Models {
    pub(super) fn new(max: usize) -> Self {
        Self {
            by_name: HashMap::new(),
            slots: Vec::new(),
            max,
        }
    }

    /// The key of `name`, held once more; none if every key is held by others.
    pub(super) fn hold(&mut self, name: &ModelId, now: Duration) -> Option<Hold> {
        if let Some(key) = self.by_name.get(name).copied() {
            let slot = &mut self.slots[key.index()];
            slot.held += 1;
            slot.last_use = now;
            return Some(Hold {
                key,
                hash: slot.hash,
                taken_from_another: false,
            });
        }
        let hash = fnv1a(name.as_str());
        let slot = Slot {
            name: name.clone(),
            hash,
            last_use: now,
            held: 1,
        };
        let fresh = u32::try_from(self.slots.len())
            .ok()
            .filter(|_| self.slots.len() < self.max);
        let (key, taken_from_another) = match fresh {
            Some(index) => {
                self.slots.push(slot);
                (ModelKey(index), false)
            }
            None => {
                let idle = (0_u32..)
                    .zip(&self.slots)
                    .filter(|(_, slot)| slot.held == 0);
                let (index, _) = idle.min_by_key(|(_, slot)| slot.last_use)?;
                let key = ModelKey(index);
                let old = std::mem::replace(&mut self.slots[key.index()], slot);
                self.by_name.remove(&old.name);
                (key, true)
            }
        };
        self.by_name.insert(name.clone(), key);
        Some(Hold {
            key,
            hash,
            taken_from_another,
        })
    }

    /// One request less holds the key.
    pub(super) fn release(&mut self, key: ModelKey, now: Duration) {
        if let Some(slot) = self.slots.get_mut(key.index()) {
            slot.held = slot.held.saturating_sub(1);
            slot.last_use = now;
        }
    }

    pub(super) fn name(&self, key: ModelKey) -> Option<&ModelId> {
        self.slots.get(key.index()).map(|slot| &slot.name)
    }
}

/// FNV-1a, 64 bits: spreads names over a ring; nothing depends on it being hard to steer.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cannot_fill_the_table_nor_take_a_key_in_use() {
        let name = |i: u64| format!("m{i}").parse::<ModelId>().unwrap();
        let mut models = Models::new(2);
        let at = Duration::from_secs;
        let a = models.hold(&name(0), at(0)).unwrap();
        let b = models.hold(&name(1), at(1)).unwrap();
        assert_eq!(models.hold(&name(2), at(2)), None, "both keys are held");
        models.release(b.key, at(3));
        let c = models.hold(&name(2), at(4)).unwrap();
        assert_eq!(
            c,
            Hold {
                key: b.key,
                hash: fnv1a("m2"),
                taken_from_another: true
            }
        );
        assert_eq!(models.name(c.key), Some(&name(2)));
        assert_eq!(
            models.hold(&name(0), at(5)).unwrap(),
            a,
            "the same name keeps its key"
        );
        for i in 3..1000 {
            models.release(c.key, at(i));
            assert!(models.hold(&name(i), at(i)).is_some());
        }
        assert_eq!((models.slots.len(), models.by_name.len()), (2, 2));
    }
}
