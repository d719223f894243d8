//! Durable state: sealed records in a database file that the host keeps and may attack.
//!
//! Every acknowledged write is on disk before the acknowledgement. Everything in the file is
//! sealed under the TEE's key; record ids are slot numbers, so not even names are readable. The
//! sealed head pins the epoch, the end of the log and a hash over all rows: a host that edits,
//! drops, swaps or rolls back single records is found out when the vault is opened. Rolling the
//! whole file back is not visible here; clients notice it by the epoch that they remember.

mod codec;
mod directory;
mod slot_tree;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crypto::{SealRecordError, SealingKey};
use protocol::keyservice::LogEntry;
use protocol::{Digest, PrincipalId};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use zeroize::Zeroizing;

use crate::broker::{Chain, Entry, Head, Page, Row, RowKey, Write};

pub use codec::DecodeError;
pub use directory::{LockError, VaultDirectory};

use slot_tree::SlotTree;

type Stored = TableDefinition<'static, u64, &'static [u8]>;

/// One record, under [`HEAD_AT`].
const HEAD: Stored = TableDefinition::new("head");
const HEAD_AT: u64 = 0;
/// Slot → row.
const ROWS: Stored = TableDefinition::new("rows");
/// Sequence number → log entry.
const LOG: Stored = TableDefinition::new("log");

/// What the head record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StoredHead {
    head: Head,
    /// Slots in use or free again; the tree over them has this width, rounded up.
    slots: u64,
    root: Digest,
}

impl StoredHead {
    fn empty() -> Self {
        Self {
            head: Head::EMPTY,
            slots: 0,
            root: SlotTree::new().root(),
        }
    }
}

/// Why a vault cannot be used. None of these is ever answered by starting empty.
#[derive(Debug, thiserror::Error)]
pub enum OpenVaultError {
    #[error("the vault file is gone; it was there before")]
    Gone,
    #[error("create the vault file")]
    Create(#[source] std::io::Error),
    #[error("the vault's database cannot be read")]
    Database(#[source] Box<redb::Error>),
    #[error("there is no room left on the vault's disk")]
    Full(#[source] Box<redb::Error>),
    #[error("the vault has no head record: it was not written by KeyService, or was damaged")]
    NoHead,
    #[error(
        "the vault does not open under this TEE's sealing key: it was written on another machine \
         or by another KeyService build, or was tampered with; restore the build and machine that \
         wrote it, or move the file away to start anew"
    )]
    OtherKey,
    #[error("row {slot} of the vault does not open: it was tampered with or damaged")]
    Row { slot: u64 },
    #[error("the vault's rows are not those last committed: some were put back, swapped or lost")]
    RowsChanged,
    #[error("entry {seq} of the vault's log is missing, changed or out of place")]
    Log { seq: u64 },
    #[error("a record of the vault cannot be read")]
    Decode(#[source] DecodeError),
    #[error("seal the first record")]
    Seal(#[source] SealRecordError),
}

/// Why writes are not durable. The vault must be dropped and opened again: whether they reached
/// the disk is not known.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("there is no room left on the vault's disk")]
    Full(#[source] Box<redb::Error>),
    #[error("write the vault's database")]
    Database(#[source] Box<redb::Error>),
    #[error("seal a record")]
    Seal(#[source] SealRecordError),
}

/// Why the log cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    #[error("read the vault's database")]
    Database(#[source] Box<redb::Error>),
    #[error("entry {seq} of the vault's log is missing, changed or out of place")]
    Damaged { seq: u64 },
}

/// An open vault and what was in it.
#[derive(Debug)]
pub struct OpenedVault {
    pub vault: Vault,
    pub head: Head,
    pub rows: Vec<Row>,
    /// The vault was made just now.
    pub created: bool,
}

/// The open database, and where in it each row is.
pub struct Vault {
    database: Database,
    key: Arc<SealingKey>,
    slots: BTreeMap<RowKey, u64>,
    free: Vec<u64>,
    /// Slots ever used.
    width: u64,
    tree: SlotTree,
    /// Who may see which log entries, oldest first.
    visible: BTreeMap<PrincipalId, Vec<u64>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("rows", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Makes `writes` durable, all or none, together with `head`. Blocks until the disk has them.
    // INVARIANT: when this returns Ok, a process killed at any later moment finds these writes
    // (vault/tests.rs: a_crash_at_any_operation, testbed/tests/keyservice_crash.rs).
    pub fn commit(&mut self, head: Head, writes: &[Write]) -> Result<(), CommitError> {
        let mut rows = BTreeMap::new();
        let mut log = BTreeMap::new();
        for write in writes {
            match write {
                Write::Put(row) => {
                    let slot = self.slot_for(row.key());
                    let stored = seal(
                        &self.key,
                        &row_id(slot),
                        head.epoch,
                        &codec::encode_row(row),
                    )
                    .map_err(CommitError::Seal)?;
                    self.tree
                        .set(index(slot), Some(slot_tree::leaf(slot, &stored)));
                    rows.insert(slot, Some(stored));
                }
                Write::Remove(key) => {
                    if let Some(slot) = self.slots.remove(key) {
                        self.free.push(slot);
                        self.tree.set(index(slot), None);
                        rows.insert(slot, None);
                    }
                }
                Write::Append(entry) => {
                    let seq = entry.published.seq;
                    let plain = codec::encode_entry(entry);
                    let stored = seal(&self.key, &log_id(seq), head.epoch, &plain)
                        .map_err(CommitError::Seal)?;
                    log.insert(seq, stored);
                    self.show(entry);
                }
            }
        }
        let stored = StoredHead {
            head,
            slots: self.width,
            root: self.tree.root(),
        };
        let sealed_head = seal_head(&self.key, &stored).map_err(CommitError::Seal)?;
        self.write(&rows, &log, &sealed_head).map_err(|error| {
            if is_full(&error) {
                CommitError::Full(Box::new(error))
            } else {
                CommitError::Database(Box::new(error))
            }
        })
    }

    /// Entries that concern `principal`, oldest first: those after the page's sequence number, or
    /// the newest ones if it names none.
    pub fn read_log(
        &self,
        principal: PrincipalId,
        page: &Page<u64>,
    ) -> Result<Vec<LogEntry>, ReadLogError> {
        let Some(visible) = self.visible.get(&principal) else {
            return Ok(Vec::new());
        };
        let start = match page.after {
            Some(after) => visible.partition_point(|seq| *seq <= after),
            None => visible.len().saturating_sub(page.limit),
        };
        let wanted = visible.iter().skip(start).take(page.limit);
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(LOG)?;
            wanted
                .map(|&seq| Ok((seq, table.get(seq)?)))
                .collect::<Result<Vec<_>, redb::Error>>()
        };
        let found = read().map_err(|error| ReadLogError::Database(Box::new(error)))?;
        found
            .into_iter()
            .map(|(seq, stored)| {
                let entry = stored.and_then(|stored| {
                    let plain = open(&self.key, &log_id(seq), stored.value())?;
                    codec::decode_entry(&plain).ok()
                });
                entry
                    .filter(|entry| entry.published.seq == seq)
                    .map(|entry| entry.published)
                    .ok_or(ReadLogError::Damaged { seq })
            })
            .collect()
    }

    fn write(
        &self,
        rows: &BTreeMap<u64, Option<Vec<u8>>>,
        log: &BTreeMap<u64, Vec<u8>>,
        head: &[u8],
    ) -> Result<(), redb::Error> {
        // redb's default durability: `commit` returns after fsync.
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for (slot, stored) in rows {
                match stored {
                    Some(stored) => table.insert(slot, stored.as_slice())?,
                    None => table.remove(slot)?,
                };
            }
            let mut table = transaction.open_table(LOG)?;
            for (seq, stored) in log {
                table.insert(seq, stored.as_slice())?;
            }
            transaction.open_table(HEAD)?.insert(HEAD_AT, head)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn slot_for(&mut self, key: RowKey) -> u64 {
        if let Some(slot) = self.slots.get(&key) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.width += 1;
            self.width - 1
        });
        self.slots.insert(key, slot);
        slot
    }

    fn show(&mut self, entry: &Entry) {
        for principal in entry.audience() {
            self.visible
                .entry(principal)
                .or_default()
                .push(entry.published.seq);
        }
    }

    /// Writes the head of a vault in which nothing happened yet.
    fn initialise(database: &Database, key: &SealingKey) -> Result<(), OpenVaultError> {
        let head = seal_head(key, &StoredHead::empty()).map_err(OpenVaultError::Seal)?;
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(ROWS)?;
            transaction.open_table(LOG)?;
            transaction
                .open_table(HEAD)?
                .insert(HEAD_AT, head.as_slice())?;
            Ok(transaction.commit()?)
        };
        write().map_err(unreadable)
    }

    /// Opens and checks every record of `database`.
    fn load(database: Database, key: Arc<SealingKey>) -> Result<OpenedVault, OpenVaultError> {
        let stored = load_head(&database, &key)?;
        let mut vault = Self {
            database,
            key,
            slots: BTreeMap::new(),
            free: Vec::new(),
            width: stored.slots,
            tree: SlotTree::new(),
            visible: BTreeMap::new(),
        };
        let rows = vault.load_rows(&stored)?;
        vault.load_log(&stored.head.chain)?;
        Ok(OpenedVault {
            vault,
            head: stored.head,
            rows,
            created: false,
        })
    }

    fn load_rows(&mut self, stored: &StoredHead) -> Result<Vec<Row>, OpenVaultError> {
        let transaction = self
            .database
            .begin_read()
            .map_err(|error| unreadable(error.into()))?;
        let table = transaction
            .open_table(ROWS)
            .map_err(|error| unreadable(error.into()))?;
        let mut rows = Vec::new();
        let mut next = 0;
        for found in table.iter().map_err(|error| unreadable(error.into()))? {
            let (slot, found) = found.map_err(|error| unreadable(error.into()))?;
            let slot = slot.value();
            if slot >= stored.slots {
                return Err(OpenVaultError::RowsChanged);
            }
            let plain = open(&self.key, &row_id(slot), found.value())
                .ok_or(OpenVaultError::Row { slot })?;
            let row = codec::decode_row(&plain).map_err(OpenVaultError::Decode)?;
            self.free.extend(next..slot);
            next = slot + 1;
            self.tree
                .set(index(slot), Some(slot_tree::leaf(slot, found.value())));
            self.slots.insert(row.key(), slot);
            rows.push(row);
        }
        // The width is sealed, so a host cannot make this allocate; it is at most the number of
        // rows that were ever live at once.
        self.free.extend(next..stored.slots);
        self.tree.reserve(index(stored.slots));
        if self.tree.root() != stored.root || self.slots.len() != rows.len() {
            return Err(OpenVaultError::RowsChanged);
        }
        Ok(rows)
    }

    fn load_log(&mut self, end: &Chain) -> Result<(), OpenVaultError> {
        let transaction = self
            .database
            .begin_read()
            .map_err(|error| unreadable(error.into()))?;
        let table = transaction
            .open_table(LOG)
            .map_err(|error| unreadable(error.into()))?;
        let mut chain = Chain::EMPTY;
        for found in table.iter().map_err(|error| unreadable(error.into()))? {
            let (seq, found) = found.map_err(|error| unreadable(error.into()))?;
            let seq = seq.value();
            let entry = open(&self.key, &log_id(seq), found.value())
                .and_then(|plain| codec::decode_entry(&plain).ok())
                .filter(|entry| entry.published.seq == seq)
                .ok_or(OpenVaultError::Log { seq })?;
            chain = chain
                .follow(&entry.published)
                .ok_or(OpenVaultError::Log { seq })?;
            self.show(&entry);
        }
        if chain != *end {
            return Err(OpenVaultError::Log {
                seq: chain.entries + 1,
            });
        }
        Ok(())
    }
}

fn load_head(database: &Database, key: &SealingKey) -> Result<StoredHead, OpenVaultError> {
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let transaction = database.begin_read()?;
        let table = match transaction.open_table(HEAD) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(table.get(HEAD_AT)?.map(|stored| stored.value().to_vec()))
    };
    let stored = read().map_err(unreadable)?.ok_or(OpenVaultError::NoHead)?;
    let plain = open(key, HEAD_ID, &stored).ok_or(OpenVaultError::OtherKey)?;
    codec::decode_head(&plain).map_err(OpenVaultError::Decode)
}

const HEAD_ID: &[u8] = b"head";

fn row_id(slot: u64) -> [u8; 12] {
    id(*b"row/", slot)
}

fn log_id(seq: u64) -> [u8; 12] {
    id(*b"log/", seq)
}

fn id(kind: [u8; 4], number: u64) -> [u8; 12] {
    let mut id = [0; 12];
    id[..4].copy_from_slice(&kind);
    id[4..].copy_from_slice(&number.to_be_bytes());
    id
}

fn seal_head(key: &SealingKey, head: &StoredHead) -> Result<Vec<u8>, SealRecordError> {
    seal(key, HEAD_ID, head.head.epoch, &codec::encode_head(head))
}

/// What the database stores: the epoch (8 bytes, big endian), then the record sealed under id and
/// epoch.
fn seal(key: &SealingKey, id: &[u8], epoch: u64, plain: &[u8]) -> Result<Vec<u8>, SealRecordError> {
    let sealed = crypto::seal_record(key, id, epoch, plain)?;
    Ok([epoch.to_be_bytes().as_slice(), &sealed].concat())
}

/// None if the record is not one that [`seal`] made with this key and id.
fn open(key: &SealingKey, id: &[u8], stored: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (epoch, sealed) = stored.split_first_chunk::<8>()?;
    crypto::open_record(key, id, u64::from_be_bytes(*epoch), sealed).ok()
}

/// Slots are indices into memory.
fn index(slot: u64) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

fn unreadable(error: redb::Error) -> OpenVaultError {
    if is_full(&error) {
        OpenVaultError::Full(Box::new(error))
    } else {
        OpenVaultError::Database(Box::new(error))
    }
}

/// Whether an error of the database means that the disk, a quota or a size limit is exhausted.
fn is_full(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(io)
        if matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

#[cfg(test)]
mod tests;
