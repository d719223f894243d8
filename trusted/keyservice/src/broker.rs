//! Every decision of KeyService, over state in memory, with no I/O, clock or randomness of its own.
//!
//! A decision either refuses and changes nothing, or changes the state and returns, beside the
//! answer, the [`Write`]s that make the change durable. The caller must not let the answer out
//! before those writes are on disk; if they cannot be written, it must throw this state away and
//! [`Broker::restore`] what is on disk.

mod accounts;
mod caller;
mod grants;
mod log;
mod models;
mod release;
mod request_keys;
mod row;
mod terms;

use std::collections::BTreeMap;

use protocol::keyservice::Status;
use protocol::{EnclaveId, ModelId, PrincipalId};

pub use accounts::{LimitReached, Limits};
pub use caller::{Caller, Instance, Principal};
pub use grants::GrantError;
pub use log::{Chain, Entry, Event, entry_hash};
pub use models::{RegisterModelError, UnknownModel};
pub use release::ReleaseError;
pub use request_keys::RegisterRequestKeyError;
pub use row::{Row, RowKey};
pub use terms::{Terms, TermsError};

use accounts::Accounts;
use models::Model;
use request_keys::HeldRequestKey;

/// One change that must be durable before the answer that came with it is given.
#[derive(Debug)]
pub enum Write {
    /// Insert the row, or replace the row with the same key.
    Put(Row),
    /// Delete the row.
    Remove(RowKey),
    /// Append to the audit log.
    Append(Entry),
}

/// An answer and the writes that it stands on.
#[derive(Debug)]
pub struct Decided<T> {
    pub answer: T,
    /// Empty if the state is already as asked (a repeated call).
    pub writes: Vec<Write>,
}

impl<T> Decided<T> {
    fn unchanged(answer: T) -> Self {
        Self {
            answer,
            writes: Vec::new(),
        }
    }
}

/// Which part of a list is asked for: what comes after `after`, at most `limit` items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    pub after: Option<K>,
    pub limit: usize,
}

impl<K> Page<K> {
    /// Most items in one answer. With the longest items (log entries of 460 bytes of JSON) an
    /// answer stays below the 4 MiB that a client reads.
    pub const LIMIT_MAX: usize = 8192;
}

impl<K> Default for Page<K> {
    fn default() -> Self {
        Self {
            after: None,
            limit: Self::LIMIT_MAX,
        }
    }
}

/// The numbers that the vault keeps beside the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Grows by one with every revocation; starts at 1.
    pub epoch: u64,
    /// Where the audit log ends.
    pub chain: Chain,
}

impl Head {
    /// The head of a vault in which nothing has happened yet.
    pub const EMPTY: Self = Self {
        epoch: 1,
        chain: Chain::EMPTY,
    };
}

/// Durable rows that contradict each other: a defect, or a vault that is not ours.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("two owners are recorded for model {0}")]
    TwoOwners(ModelId),
    #[error("a grant is recorded for model {0}, which has no version")]
    GrantWithoutModel(ModelId),
    #[error("a recorded appraisal policy is none")]
    Terms(#[source] TermsError),
    #[error("a recorded key has the wrong length")]
    KeyLength(#[source] crypto::KeyLengthError),
}

/// What KeyService knows and decides.
#[derive(Debug)]
pub struct Broker {
    lease_ttl_s: u32,
    limits: Limits,
    epoch: u64,
    chain: Chain,
    models: BTreeMap<ModelId, Model>,
    request_keys: BTreeMap<PrincipalId, BTreeMap<(ModelId, EnclaveId), HeldRequestKey>>,
    accounts: Accounts,
}

impl Broker {
    /// Rebuilds the state from durable rows. `lease_ttl_s` is measured configuration: the longest
    /// time, in seconds, for which an instance may use what it was given.
    pub fn restore(
        head: Head,
        rows: impl IntoIterator<Item = Row>,
        lease_ttl_s: u32,
        limits: Limits,
    ) -> Result<Self, RestoreError> {
        let mut broker = Self {
            lease_ttl_s,
            limits,
            epoch: head.epoch,
            chain: head.chain,
            models: BTreeMap::new(),
            request_keys: BTreeMap::new(),
            accounts: Accounts::default(),
        };
        let mut grants = Vec::new();
        for row in rows {
            match row {
                Row::Version { .. } => broker.restore_version(row)?,
                Row::RequestKey { .. } => broker.restore_request_key(row)?,
                // A grant needs its model, whose rows may come later.
                Row::Grant { .. } => grants.push(row),
            }
        }
        for row in grants {
            broker.restore_grant(row)?;
        }
        Ok(broker)
    }

    /// The numbers to keep beside the rows.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            epoch: self.epoch,
            chain: self.chain,
        }
    }

    /// What anyone on the channel may know; `enclave` is this KeyService's E_K.
    #[must_use]
    pub fn status(&self, enclave: EnclaveId) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.epoch,
            enclave,
        }
    }

    /// Number of durable rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.accounts.rows()
    }
}

#[cfg(test)]
mod tests;
