//! A hash tree over the vault's row slots, so that one digest stands for exactly these rows.
//!
//! Each row is sealed on its own, and an old copy of a row still opens. Without this tree a host
//! that edits the file could put a revoked grant back; with it, any set of rows but the last
//! committed one gives another root.

use std::collections::BTreeSet;

use protocol::Digest;

const EMPTY: Digest = Digest::new([0; Digest::LEN]);

/// The hash of the row in `slot`; `stored` is what the database holds.
pub(super) fn leaf(slot: u64, stored: &[u8]) -> Digest {
    let mut hash = crypto::DigestWriter::new();
    hash.update(&[0]);
    hash.update(&slot.to_be_bytes());
    hash.update(stored);
    hash.finish()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hash = crypto::DigestWriter::new();
    hash.update(&[1]);
    hash.update(left.as_bytes());
    hash.update(right.as_bytes());
    hash.finish()
}

/// A binary tree over the smallest power of two of slots; an empty slot is 32 zero bytes.
#[derive(Debug)]
pub(super) struct SlotTree {
    /// Leaves first, root last.
    levels: Vec<Vec<Digest>>,
    /// The node of each level with nothing below it.
    empty: Vec<Digest>,
    /// Leaves that changed since the root was computed.
    dirty: BTreeSet<usize>,
}

impl SlotTree {
    pub(super) fn new() -> Self {
        Self {
            levels: vec![vec![EMPTY]],
            empty: vec![EMPTY],
            dirty: BTreeSet::new(),
        }
    }

    /// Makes room for slots `0..slots`.
    pub(super) fn reserve(&mut self, slots: usize) {
        let capacity = slots.next_power_of_two();
        while self.capacity() < capacity {
            let below = *self.empty.last().unwrap_or(&EMPTY);
            self.empty.push(node(&below, &below));
            self.levels.push(Vec::new());
            let height = self.levels.len() - 1;
            for (level, nodes) in self.levels.iter_mut().enumerate() {
                nodes.resize(1 << (height - level), self.empty[level]);
            }
            // The new root must be computed even if only empty slots were added.
            self.dirty.insert(0);
        }
    }

    /// Puts the hash of a row into its slot, or empties the slot.
    pub(super) fn set(&mut self, slot: usize, leaf: Option<Digest>) {
        self.reserve(slot + 1);
        self.levels[0][slot] = leaf.unwrap_or(EMPTY);
        self.dirty.insert(slot);
    }

    /// The digest of all rows in their slots.
    pub(super) fn root(&mut self) -> Digest {
        let mut dirty = std::mem::take(&mut self.dirty);
        for level in 1..self.levels.len() {
            dirty = dirty.into_iter().map(|index| index / 2).collect();
            for &index in &dirty {
                let below = &self.levels[level - 1];
                self.levels[level][index] = node(&below[2 * index], &below[2 * index + 1]);
            }
        }
        self.levels
            .last()
            .and_then(|top| top.first())
            .copied()
            .unwrap_or(EMPTY)
    }

    fn capacity(&self) -> usize {
        self.levels[0].len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, computed from nothing.
    fn root_of(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => EMPTY,
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(leaves.len() / 2);
                node(&root_of(left), &root_of(right))
            }
        }
    }

    proptest! {
        #[test]
        fn the_root_is_that_of_the_leaves(
            sets in prop::collection::vec((0..40usize, prop::option::of(any::<u8>()), any::<bool>()), 0..60)
        ) {
            let mut tree = SlotTree::new();
            let mut leaves = vec![EMPTY];
            for (slot, content, look) in sets {
                let hash = content.map(|byte| leaf(slot as u64, &[byte]));
                tree.set(slot, hash);
                if slot >= leaves.len() {
                    leaves.resize((slot + 1).next_power_of_two(), EMPTY);
                }
                leaves[slot] = hash.unwrap_or(EMPTY);
                if look {
                    prop_assert_eq!(tree.root(), root_of(&leaves));
                }
            }
            prop_assert_eq!(tree.root(), root_of(&leaves));
        }
    }

    #[test]
    fn rows_in_other_slots_or_with_other_bytes_have_another_root() {
        let root = |rows: &[(usize, &[u8])]| {
            let mut tree = SlotTree::new();
            tree.reserve(4);
            for (slot, bytes) in rows {
                tree.set(*slot, Some(leaf(*slot as u64, bytes)));
            }
            tree.root()
        };
        let honest = root(&[(0, b"a"), (1, b"b")]);
        for other in [
            root(&[]),
            root(&[(0, b"a")]),
            root(&[(0, b"b"), (1, b"a")]),
            root(&[(0, b"a"), (2, b"b")]),
            root(&[(0, b"a"), (1, b"c")]),
            root(&[(0, b"a"), (1, b"b"), (2, b"")]),
        ] {
            assert_ne!(honest, other);
        }
    }
}
