//! What each principal holds, so that nobody can fill the vault alone.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{ModelId, PrincipalId};

/// Bounds on durable rows (versions, grants and request keys).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of everybody together; identities are free, so a bound per principal is not enough.
    pub rows: usize,
    /// Rows that one principal caused.
    pub rows_per_principal: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // What one principal holds fits in one answer (`Page::LIMIT_MAX`).
        Self {
            rows: 1_000_000,
            rows_per_principal: 8192,
        }
    }
}

/// A bound on rows was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    #[error("this KeyService holds its configured maximum of {0} rows")]
    Total(usize),
    #[error("the caller holds the maximum of {0} rows; revoke or drop some first")]
    Principal(usize),
}

#[derive(Debug, Default)]
struct Account {
    rows: usize,
    models: BTreeSet<ModelId>,
}

/// Rows and models by principal.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    rows: usize,
    by_principal: BTreeMap<PrincipalId, Account>,
}

impl Accounts {
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Refuses if one more row of `principal` would pass a bound.
    pub(super) fn check_room(
        &self,
        principal: PrincipalId,
        limits: &Limits,
    ) -> Result<(), LimitReached> {
        if self.rows >= limits.rows {
            return Err(LimitReached::Total(limits.rows));
        }
        let held = self
            .by_principal
            .get(&principal)
            .map_or(0, |account| account.rows);
        if held >= limits.rows_per_principal {
            return Err(LimitReached::Principal(limits.rows_per_principal));
        }
        Ok(())
    }

    pub(super) fn add_row(&mut self, principal: PrincipalId) {
        self.rows += 1;
        self.by_principal.entry(principal).or_default().rows += 1;
    }

    pub(super) fn remove_row(&mut self, principal: PrincipalId) {
        self.rows = self.rows.saturating_sub(1);
        if let Some(account) = self.by_principal.get_mut(&principal) {
            account.rows = account.rows.saturating_sub(1);
            if account.rows == 0 {
                self.by_principal.remove(&principal);
            }
        }
    }

    pub(super) fn add_model(&mut self, owner: PrincipalId, model: ModelId) {
        self.by_principal
            .entry(owner)
            .or_default()
            .models
            .insert(model);
    }

    /// The models of `owner`, in order, from `from` on.
    pub(super) fn models_from(
        &self,
        owner: PrincipalId,
        from: Option<&ModelId>,
    ) -> impl Iterator<Item = &ModelId> {
        let start = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        self.by_principal
            .get(&owner)
            .into_iter()
            .flat_map(move |account| account.models.range((start, std::ops::Bound::Unbounded)))
    }
}
