//! Replay window: remembers the ids of opened requests, so that each is served once.
//!
//! The host can send a ciphertext again. Its answer would again be readable by its user only, but
//! it would cost work and let the host measure one input many times. The window is bounded and
//! lives in one instance: a replay to another instance, or one older than the window, is not seen.

use std::collections::{HashMap, HashSet, VecDeque};

use protocol::{ModelId, PrincipalId, RequestId};

/// Ids that one instance remembers (about 8 MiB when full).
pub(crate) const REMEMBERED_MAX: usize = 128 * 1024;

/// The request was served before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request id was served before")]
pub(crate) struct Replayed;

/// That an id was new: the next step of a request asks for it.
#[derive(Debug)]
pub(crate) struct FirstUse(());

/// The ids seen per request key, that is per (user, model).
#[derive(Debug)]
pub(crate) struct ReplayWindow {
    max: usize,
    len: usize,
    seen: HashMap<(PrincipalId, ModelId), Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<RequestId>,
    order: VecDeque<RequestId>,
}

impl ReplayWindow {
    /// A window of `max` ids in all.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            len: 0,
            seen: HashMap::new(),
        }
    }

    /// Remembers `id`. Call it only for a request that opened: anything else would let the host
    /// fill the window.
    pub(crate) fn record(
        &mut self,
        user: &PrincipalId,
        model: &ModelId,
        id: &RequestId,
    ) -> Result<FirstUse, Replayed> {
        let key = (*user, model.clone());
        if self
            .seen
            .get(&key)
            .is_some_and(|seen| seen.ids.contains(id))
        {
            return Err(Replayed);
        }
        if self.len >= self.max {
            self.forget();
        }
        let seen = self.seen.entry(key).or_default();
        seen.ids.insert(*id);
        seen.order.push_back(*id);
        self.len += 1;
        Ok(FirstUse(()))
    }

    /// Forgets the oldest quarter of the largest share: who sends the most loses first, so that
    /// one user's flood cannot push out what protects another.
    fn forget(&mut self) {
        let Some(key) = self
            .seen
            .iter()
            .max_by_key(|(_, s)| s.order.len())
            .map(|(k, _)| k.clone())
        else {
            return;
        };
        let Some(seen) = self.seen.get_mut(&key) else {
            return;
        };
        let oldest = seen.order.len().div_ceil(4);
        for id in seen.order.drain(..oldest) {
            seen.ids.remove(&id);
        }
        self.len -= oldest;
        if seen.order.is_empty() {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u8) -> PrincipalId {
        PrincipalId::new([n; 32])
    }

    fn id(n: u32) -> RequestId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        RequestId::new(bytes)
    }

    #[test]
    fn the_same_id_is_refused_and_only_under_the_same_key() {
        let mut window = ReplayWindow::new(100);
        let (a, b): (ModelId, ModelId) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(window.record(&user(1), &a, &id(1)).is_ok());
        assert_eq!(window.record(&user(1), &a, &id(1)).unwrap_err(), Replayed);
        assert!(window.record(&user(1), &a, &id(2)).is_ok());
        assert!(window.record(&user(2), &a, &id(1)).is_ok());
        assert!(window.record(&user(1), &b, &id(1)).is_ok());
    }

    #[test]
    fn a_flood_of_one_user_pushes_out_its_own_ids_only() {
        let mut window = ReplayWindow::new(64);
        let model: ModelId = "m".parse().unwrap();
        for n in 0..8 {
            assert!(window.record(&user(2), &model, &id(n)).is_ok());
        }
        for n in 0..10_000 {
            assert!(window.record(&user(1), &model, &id(n)).is_ok());
            assert!(window.len <= 64);
        }
        for n in 0..8 {
            assert_eq!(
                window.record(&user(2), &model, &id(n)).unwrap_err(),
                Replayed
            );
        }
        let held: usize = window.seen.values().map(|s| s.ids.len()).sum();
        assert_eq!(held, window.len);
    }
}
