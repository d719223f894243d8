//! The folder of a vault: one process at a time, and a vault is made once or not at all.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crypto::SealingKey;
use redb::Database;

use super::{OpenVaultError, OpenedVault, Vault, unreadable};

const VAULT_FILE: &str = "vault.redb";
/// A vault in the making; it gets its name when it is complete.
const NEW_VAULT_FILE: &str = "vault.redb.new";
const LOCK_FILE: &str = "lock";
/// All rows are in memory; the database's cache only serves commits.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("create or open the state folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("another KeyService uses the state folder {}", path.display())]
    InUse { path: PathBuf },
}

/// The state folder, locked for this process, and the key for what is in it.
#[derive(Debug)]
pub struct VaultDirectory {
    path: PathBuf,
    key: Arc<SealingKey>,
    /// Held for its lock.
    _lock: File,
    /// A vault was opened here before, so it must be there again.
    seen: bool,
}

impl VaultDirectory {
    /// Makes the folder if there is none (readable by its owner only), and locks it.
    pub fn lock(path: &Path, key: SealingKey) -> Result<Self, LockError> {
        let folder = |source| LockError::Folder {
            path: path.into(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(folder)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(folder)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::InUse { path: path.into() }),
            Err(TryLockError::Error(source)) => return Err(folder(source)),
        }
        Ok(Self {
            path: path.into(),
            key: Arc::new(key),
            _lock: lock,
            seen: false,
        })
    }

    /// Opens the vault and checks every record; makes an empty one only if there is no file and
    /// never was since the folder was locked.
    pub fn open(&mut self) -> Result<OpenedVault, OpenVaultError> {
        let file = self.path.join(VAULT_FILE);
        let exists = file.try_exists().map_err(OpenVaultError::Create)?;
        if !exists && self.seen {
            return Err(OpenVaultError::Gone);
        }
        if !exists {
            self.create(&file)?;
        }
        let database = builder()
            .open(&file)
            .map_err(|error| unreadable(error.into()))?;
        let opened = Vault::load(database, Arc::clone(&self.key))?;
        self.seen = true;
        Ok(OpenedVault {
            created: !exists,
            ..opened
        })
    }

    /// A vault appears under its name complete or not at all: a process killed here leaves a file
    /// that the next start replaces.
    fn create(&self, file: &Path) -> Result<(), OpenVaultError> {
        let new = self.path.join(NEW_VAULT_FILE);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenVaultError::Create(error));
            }
            _ => {}
        }
        let database: Database = builder()
            .create(&new)
            .map_err(|error| unreadable(error.into()))?;
        Vault::initialise(&database, &self.key)?;
        drop(database);
        std::fs::rename(&new, file)
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(OpenVaultError::Create)
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // The file is the host's: check it in place of trusting it.
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}
