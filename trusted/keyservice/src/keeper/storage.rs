//! The blocking half of the keeper: the vault's folder and, while it works, the open vault.

use std::panic::{AssertUnwindSafe, catch_unwind};

use protocol::PrincipalId;
use protocol::keyservice::LogEntry;

use crate::broker::{Broker, Head, Limits, Page, RestoreError, Write};
use crate::vault::{CommitError, OpenVaultError, OpenedVault, ReadLogError, Vault, VaultDirectory};

/// Why there is no state to serve from.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("open the vault")]
    Open(#[from] OpenVaultError),
    #[error("the vault's rows contradict each other")]
    Restore(#[from] RestoreError),
    #[error("the database library gave up on the vault file: it is damaged")]
    Panicked,
}

/// Why a group of changes is not durable.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("commit to the vault")]
    Commit(#[from] CommitError),
    #[error("the database library gave up in the middle of a commit")]
    Panicked,
    #[error("the vault is not open")]
    NotOpen,
}

impl StoreError {
    pub(super) const fn is_full(&self) -> bool {
        matches!(self, Self::Commit(CommitError::Full(_)))
    }
}

/// Owned by the keeper, lent to one blocking task at a time.
#[derive(Debug)]
pub(super) struct Storage {
    directory: VaultDirectory,
    vault: Option<Vault>,
    lease_ttl_s: u32,
    limits: Limits,
}

impl Storage {
    pub(super) const fn new(directory: VaultDirectory, lease_ttl_s: u32, limits: Limits) -> Self {
        Self {
            directory,
            vault: None,
            lease_ttl_s,
            limits,
        }
    }

    /// Opens the vault, again or for the first time, and rebuilds the state from it.
    pub(super) fn load(&mut self) -> Result<Broker, LoadError> {
        // The file can be open once only.
        self.vault = None;
        // The file is the host's, and the database library asserts what it expects of it.
        let opened = catch_unwind(AssertUnwindSafe(|| self.directory.open()))
            .map_err(|_| LoadError::Panicked)??;
        let OpenedVault {
            vault,
            head,
            rows,
            created,
        } = opened;
        tracing::info!(
            created,
            rows = rows.len(),
            epoch = head.epoch,
            log_entries = head.chain.entries,
            "vault open"
        );
        let broker = Broker::restore(head, rows, self.lease_ttl_s, self.limits)?;
        self.vault = Some(vault);
        Ok(broker)
    }

    /// Makes the writes durable. After an error the vault is closed, because what reached the
    /// disk is not known: [`Self::load`] finds out.
    pub(super) fn commit(&mut self, head: Head, writes: &[Write]) -> Result<(), StoreError> {
        let mut vault = self.vault.take().ok_or(StoreError::NotOpen)?;
        let committed = catch_unwind(AssertUnwindSafe(move || {
            vault.commit(head, writes).map(|()| vault)
        }));
        self.vault = Some(committed.map_err(|_| StoreError::Panicked)??);
        Ok(())
    }

    pub(super) fn read_log(
        &self,
        principal: PrincipalId,
        page: &Page<u64>,
    ) -> Result<Vec<LogEntry>, ReadLogError> {
        self.vault
            .as_ref()
            .map_or(Ok(Vec::new()), |vault| vault.read_log(principal, page))
    }
}
