//! The vault under crashes, full disks and a host that edits the file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proptest::prelude::*;
use protocol::keyservice::{GrantTerms, RegisterModel, RegisterRequestKey, WireKey};
use protocol::{EnclaveId, ModelVersion};
use redb::StorageBackend;

use super::*;
use crate::broker::{Broker, Limits, Principal};

const NOW: Duration = Duration::from_secs(1_700_000_000);
const MODEL: &str = "confidential-name";

fn key(n: u8) -> Arc<SealingKey> {
    Arc::new(SealingKey::from_slice(&[n; 32]).unwrap())
}

fn principal(n: u8) -> PrincipalId {
    PrincipalId::new([n; 32])
}

fn broker(head: Head, rows: Vec<Row>) -> Broker {
    Broker::restore(head, rows, 60, Limits::default()).unwrap()
}

/// The `n`th call of a fixed series with inserts, replacements of slots and deletions.
fn call(broker: &mut Broker, n: u32) -> Vec<Write> {
    let (owner, user) = (
        Principal::for_test(principal(1)),
        Principal::for_test(principal(2)),
    );
    let (model, enclave) = (MODEL.parse().unwrap(), EnclaveId::new([3; 48]));
    let byte = u8::try_from(n % 200).unwrap();
    match n % 5 {
        0 => {
            let body = RegisterModel {
                digest: Digest::new([byte; 32]),
                key: WireKey::new(&[4; 32]),
            };
            let version = ModelVersion(n + 1);
            broker
                .register_model(&owner, &model, version, &body, NOW)
                .unwrap()
                .writes
        }
        1 => {
            let to = PrincipalId::new([byte; 32]);
            broker
                .grant(&owner, &model, to, enclave, &GrantTerms::NONE, NOW)
                .unwrap()
                .writes
        }
        2 => {
            let body = RegisterRequestKey {
                owner: principal(1),
                key: WireKey::new(&[5; 32]),
                policy: None,
            };
            broker
                .register_request_key(&user, &model, enclave, &body, NOW)
                .unwrap()
                .writes
        }
        3 => {
            let from = PrincipalId::new([byte - 2; 32]);
            broker
                .revoke(&owner, &model, from, enclave, NOW)
                .unwrap()
                .writes
        }
        _ => broker.drop_request_key(&user, &model, enclave, NOW).writes,
    }
}

fn digest_of(rows: &[Row]) -> BTreeMap<RowKey, Vec<u8>> {
    rows.iter()
        .map(|row| (row.key(), codec::encode_row(row).to_vec()))
        .collect()
}

/// A disk that keeps unsynced writes apart, fails when told to, and can lose power.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What a reader sees.
    bytes: Vec<u8>,
    /// What survives a power cut for certain.
    synced: Vec<u8>,
    /// What may survive, in order.
    unsynced: Vec<Unsynced>,
    operations: usize,
    /// The operation that fails, and all after it.
    fail_at: Option<usize>,
    /// Bytes that fit.
    capacity: Option<usize>,
}

#[derive(Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl Disk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holding(bytes: Vec<u8>) -> Self {
        let platter = Platter {
            synced: bytes.clone(),
            bytes,
            ..Platter::default()
        };
        Self(Arc::new(Mutex::new(platter)))
    }

    fn fail_at(self, operation: usize) -> Self {
        self.platter().fail_at = Some(operation);
        self
    }

    /// What is on the disk after the power came back: of the unsynced writes, those whose turn in
    /// `kept` is true, each cut short if `torn`.
    fn after_power_cut(&self, kept: &[bool], torn: bool) -> Self {
        let platter = self.platter();
        let mut bytes = platter.synced.clone();
        for (write, _) in platter
            .unsynced
            .iter()
            .zip(kept.iter().cycle())
            .filter(|(_, kept)| **kept)
        {
            match write {
                Unsynced::Write(offset, data) if torn => {
                    Unsynced::Write(*offset, data[..data.len() / 2].to_vec()).apply(&mut bytes);
                }
                other => other.apply(&mut bytes),
            }
        }
        Self::holding(bytes)
    }

    fn database(&self) -> Result<Database, OpenVaultError> {
        let mut builder = Database::builder();
        builder
            .set_cache_size(1 << 20)
            .set_check_integrity_on_open(true);
        builder
            .create_with_backend(self.clone())
            .map_err(|error| unreadable(error.into()))
    }

    /// A vault on this disk, made if the disk is empty.
    fn open(&self) -> Result<OpenedVault, OpenVaultError> {
        let fresh = self.platter().bytes.is_empty();
        let database = self.database()?;
        if fresh {
            Vault::initialise(&database, &key(9))?;
        }
        Vault::load(database, key(9))
    }
}

impl Platter {
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.fail_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    }

    fn change(&mut self, change: Unsynced) -> io::Result<()> {
        self.operation()?;
        let end = match &change {
            Unsynced::Write(offset, data) => offset + data.len(),
            Unsynced::Length(length) => *length,
        };
        if self.capacity.is_some_and(|capacity| end > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change.apply(&mut self.bytes);
        self.unsynced.push(change);
        Ok(())
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let found = platter.bytes.get(at(offset)..at(offset) + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.platter().change(Unsynced::Length(at(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operation()?;
        platter.synced = platter.bytes.clone();
        platter.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.platter()
            .change(Unsynced::Write(at(offset), data.to_vec()))
    }
}

/// What was acknowledged, and what was under way when it ended.
struct Run {
    acknowledged: (Head, BTreeMap<RowKey, Vec<u8>>),
    attempted: Option<(Head, BTreeMap<RowKey, Vec<u8>>)>,
    error: Option<CommitError>,
}

fn applied(rows: &BTreeMap<RowKey, Vec<u8>>, writes: &[Write]) -> BTreeMap<RowKey, Vec<u8>> {
    let mut rows = rows.clone();
    for write in writes {
        match write {
            Write::Put(row) => drop(rows.insert(row.key(), codec::encode_row(row).to_vec())),
            Write::Remove(key) => drop(rows.remove(key)),
            Write::Append(_) => {}
        }
    }
    rows
}

/// Commits calls `from..to` in groups of up to three until one fails.
fn run(opened: OpenedVault, calls: std::ops::Range<u32>) -> Run {
    let OpenedVault {
        mut vault,
        head,
        rows,
        ..
    } = opened;
    let mut acknowledged = (head, digest_of(&rows));
    let mut broker = broker(head, rows);
    let mut calls = calls.peekable();
    for size in [1, 2, 3].into_iter().cycle() {
        if calls.peek().is_none() {
            break;
        }
        let group = calls.by_ref().take(size);
        let writes: Vec<Write> = group.flat_map(|n| call(&mut broker, n)).collect();
        let next = (broker.head(), applied(&acknowledged.1, &writes));
        if let Err(error) = vault.commit(broker.head(), &writes) {
            return Run {
                acknowledged,
                attempted: Some(next),
                error: Some(error),
            };
        }
        acknowledged = next;
    }
    Run {
        acknowledged,
        attempted: None,
        error: None,
    }
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let disk = Disk::default();
    let done = run(disk.open().unwrap(), 0..30);
    let opened = disk.open().unwrap();
    assert_eq!((opened.head, digest_of(&opened.rows)), done.acknowledged);
    assert!(opened.head.epoch > 1);
    // And it goes on from there, in freed slots.
    let slots = opened.vault.width;
    let done = run(opened, 30..60);
    let opened = disk.open().unwrap();
    assert_eq!((opened.head, digest_of(&opened.rows)), done.acknowledged);
    assert!(
        opened.vault.width < slots + 15,
        "freed slots are used again"
    );
}

/// Every point at which the disk can fail, and several outcomes of a power cut at each.
#[test]
fn a_crash_at_any_operation() {
    let patterns: [&[bool]; 5] = [
        &[true],
        &[false],
        &[true, false],
        &[false, true, true],
        &[false, false, true],
    ];
    let base = Disk::default();
    drop(run(base.open().unwrap(), 0..5));
    let image = base.platter().bytes.clone();
    let mut crashes = 0;
    Disk::holding(image.clone()).open().unwrap();
    for fail_at in 1.. {
        let disk = Disk::holding(image.clone()).fail_at(fail_at);
        let Ok(opened) = disk.open() else { continue };
        let ran = run(opened, 5..20);
        if ran.attempted.is_none() {
            break;
        }
        crashes += 1;
        for (n, kept) in patterns.iter().enumerate() {
            let opened = disk
                .after_power_cut(kept, n % 2 == 1)
                .open()
                .unwrap_or_else(|error| panic!("operation {fail_at}, pattern {n}: {error:?}"));
            let found = (opened.head, digest_of(&opened.rows));
            let whole = found == ran.acknowledged || Some(&found) == ran.attempted.as_ref();
            assert!(
                whole,
                "operation {fail_at}, pattern {n}: a write was lost or torn"
            );
        }
    }
    assert!(crashes > 20, "the sweep reached {crashes} points only");
}

#[test]
fn a_full_disk_says_so_and_loses_nothing() {
    let disk = Disk::default();
    let opened = disk.open().unwrap();
    let full = disk.platter().bytes.len();
    disk.platter().capacity = Some(full);
    let ran = run(opened, 0..3000);
    assert!(
        matches!(ran.error, Some(CommitError::Full(_))),
        "{:?}",
        ran.error
    );
    assert!(!ran.acknowledged.1.is_empty());
    // Opening does not need room either; nor is the file taken for another one.
    let opened = disk.open().unwrap();
    assert_eq!((opened.head, digest_of(&opened.rows)), ran.acknowledged);
    drop(opened);
    disk.platter().capacity = None;
    let ran = run(disk.open().unwrap(), 5000..5010);
    assert!(ran.error.is_none());
}

/// Commits a few calls and lets `tamper` edit the file.
fn tampered(tamper: impl FnOnce(&redb::WriteTransaction)) -> OpenVaultError {
    let disk = Disk::default();
    // A grant is made in call 1 and revoked in call 3; a request key comes in call 2.
    drop(run(disk.open().unwrap(), 0..12));
    let database = disk.database().unwrap();
    let transaction = database.begin_write().unwrap();
    tamper(&transaction);
    transaction.commit().unwrap();
    drop(database);
    disk.open().unwrap_err()
}

fn stored(transaction: &redb::WriteTransaction, table: Stored, at: u64) -> Vec<u8> {
    transaction
        .open_table(table)
        .unwrap()
        .get(at)
        .unwrap()
        .unwrap()
        .value()
        .to_vec()
}

fn first_row(transaction: &redb::WriteTransaction) -> u64 {
    transaction
        .open_table(ROWS)
        .unwrap()
        .first()
        .unwrap()
        .unwrap()
        .0
        .value()
}

fn last(transaction: &redb::WriteTransaction, table: Stored) -> u64 {
    transaction
        .open_table(table)
        .unwrap()
        .last()
        .unwrap()
        .unwrap()
        .0
        .value()
}

fn put(transaction: &redb::WriteTransaction, table: Stored, at: u64, value: &[u8]) {
    transaction
        .open_table(table)
        .unwrap()
        .insert(at, value)
        .unwrap();
}

fn remove(transaction: &redb::WriteTransaction, table: Stored, at: u64) {
    assert!(
        transaction
            .open_table(table)
            .unwrap()
            .remove(at)
            .unwrap()
            .is_some()
    );
}

type Edit = fn(&redb::WriteTransaction);
type Expected = fn(&OpenVaultError) -> bool;

const ROW_EDITS: [(&str, Edit, Expected); 6] = [
    (
        "a row is gone",
        |t| remove(t, ROWS, first_row(t)),
        rows_changed,
    ),
    ("two rows swapped", swap_rows, row_refused),
    (
        "a row beyond the end",
        |t| put(t, ROWS, 1 << 40, &stored(t, ROWS, first_row(t))),
        rows_changed,
    ),
    ("a bit of a row", |t| flip_in_row(t, 40), row_refused),
    (
        "another epoch in front of a row",
        |t| flip_in_row(t, 7),
        row_refused,
    ),
    (
        "a row cut to nothing",
        |t| put(t, ROWS, first_row(t), &[]),
        row_refused,
    ),
];

const LOG_EDITS: [(&str, Edit, Expected); 6] = [
    (
        "the last log entry is gone",
        |t| remove(t, LOG, last(t, LOG)),
        log_refused,
    ),
    (
        "a log entry in the middle is gone",
        |t| remove(t, LOG, 2),
        |e| matches!(e, OpenVaultError::Log { seq: 3 }),
    ),
    (
        "a log entry in another place",
        |t| put(t, LOG, 2, &stored(t, LOG, 1)),
        |e| matches!(e, OpenVaultError::Log { seq: 2 }),
    ),
    (
        "a log entry too many",
        |t| put(t, LOG, last(t, LOG) + 1, &stored(t, LOG, 1)),
        log_refused,
    ),
    (
        "the head is gone",
        |t| remove(t, HEAD, HEAD_AT),
        |e| matches!(e, OpenVaultError::NoHead),
    ),
    (
        "a row in place of the head",
        |t| put(t, HEAD, HEAD_AT, &stored(t, ROWS, first_row(t))),
        |e| matches!(e, OpenVaultError::OtherKey),
    ),
];

fn rows_changed(error: &OpenVaultError) -> bool {
    matches!(error, OpenVaultError::RowsChanged)
}

fn row_refused(error: &OpenVaultError) -> bool {
    matches!(error, OpenVaultError::Row { .. })
}

fn log_refused(error: &OpenVaultError) -> bool {
    matches!(error, OpenVaultError::Log { .. })
}

fn swap_rows(transaction: &redb::WriteTransaction) {
    let (a, b) = (first_row(transaction), last(transaction, ROWS));
    let (one, other) = (stored(transaction, ROWS, a), stored(transaction, ROWS, b));
    put(transaction, ROWS, a, &other);
    put(transaction, ROWS, b, &one);
}

fn flip_in_row(transaction: &redb::WriteTransaction, at: usize) {
    let mut row = stored(transaction, ROWS, first_row(transaction));
    row[at] ^= 1;
    put(transaction, ROWS, first_row(transaction), &row);
}

#[test]
fn an_edited_file_is_refused() {
    for (name, edit, expected) in ROW_EDITS.into_iter().chain(LOG_EDITS) {
        let error = tampered(edit);
        assert!(expected(&error), "{name}: {error:?}");
    }
}

#[test]
fn a_revoked_grant_cannot_be_put_back() {
    let disk = Disk::default();
    let OpenedVault {
        mut vault,
        head,
        rows,
        ..
    } = disk.open().unwrap();
    let mut broker = broker(head, rows);
    for n in 0..2 {
        let writes = call(&mut broker, n);
        vault.commit(broker.head(), &writes).unwrap();
    }
    let old = {
        let read = vault.database.begin_read().unwrap();
        let table = read.open_table(ROWS).unwrap();
        let all = table.iter().unwrap().map(|found| {
            let (slot, row) = found.unwrap();
            (slot.value(), row.value().to_vec())
        });
        all.collect::<Vec<_>>()
    };
    for n in 2..4 {
        let writes = call(&mut broker, n);
        vault.commit(broker.head(), &writes).unwrap();
    }
    drop(vault);
    // Every old row still opens under key, id and epoch; only the tree tells.
    let database = disk.database().unwrap();
    let transaction = database.begin_write().unwrap();
    for (slot, row) in &old {
        put(&transaction, ROWS, *slot, row);
    }
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(
        disk.open().unwrap_err(),
        OpenVaultError::RowsChanged
    ));
}

#[test]
fn another_key_is_refused_by_name() {
    let disk = Disk::default();
    drop(run(disk.open().unwrap(), 0..3));
    let error = Vault::load(disk.database().unwrap(), key(8)).unwrap_err();
    assert!(matches!(error, OpenVaultError::OtherKey));
    assert!(error.to_string().contains("sealing key"), "{error}");
    // Refusing changed nothing.
    assert_eq!(disk.open().unwrap().rows.len(), run_rows(3));
}

/// Rows that the first `calls` calls leave.
fn run_rows(calls: u32) -> usize {
    let mut broker = broker(Head::EMPTY, Vec::new());
    for n in 0..calls {
        call(&mut broker, n);
    }
    broker.rows()
}

#[test]
fn nothing_in_the_file_is_readable() {
    let disk = Disk::default();
    drop(run(disk.open().unwrap(), 0..12));
    let bytes = disk.platter().bytes.clone();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    for needle in [
        MODEL.as_bytes(),
        &[4; 32],
        &[5; 32],
        principal(1).as_bytes(),
        b"released",
    ] {
        assert!(!holds(needle), "{needle:?}");
    }
}

#[test]
fn the_log_is_read_back_per_principal_in_pages() {
    let disk = Disk::default();
    drop(run(disk.open().unwrap(), 0..20));
    let vault = disk.open().unwrap().vault;
    let read = |n, after, limit| {
        vault
            .read_log(principal(n), &Page { after, limit })
            .unwrap()
    };
    let all: Vec<u64> = read(2, Some(0), 100)
        .into_iter()
        .map(|entry| {
            assert_eq!(entry.user, Some(principal(2)));
            entry.seq
        })
        .collect();
    assert!(all.len() > 2);
    let mut paged = Vec::new();
    while let Some(entry) = read(2, Some(paged.last().copied().unwrap_or(0)), 1).pop() {
        paged.push(entry.seq);
    }
    assert_eq!(paged, all);
    // Without a place to go on from, the newest.
    let newest: Vec<u64> = read(2, None, 2).iter().map(|entry| entry.seq).collect();
    assert_eq!(newest, all[all.len() - 2..]);
    assert!(read(77, None, 100).is_empty());
}

fn lock(path: &Path) -> Result<VaultDirectory, LockError> {
    VaultDirectory::lock(path, SealingKey::from_slice(&[9; 32]).unwrap())
}

#[test]
fn a_folder_serves_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = lock(folder.path()).unwrap();
    assert!(matches!(lock(folder.path()), Err(LockError::InUse { .. })));
    drop(first);
    lock(folder.path()).unwrap();
}

#[test]
fn a_vault_in_the_making_is_made_again_and_a_made_one_never() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vault.redb.new"), b"half").unwrap();
    let mut directory = lock(folder.path()).unwrap();
    assert!(directory.open().unwrap().created);
    assert!(!directory.open().unwrap().created);
    std::fs::remove_file(folder.path().join("vault.redb")).unwrap();
    assert!(matches!(directory.open(), Err(OpenVaultError::Gone)));
}

#[test]
fn the_folder_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a/state");
    drop(lock(&state).unwrap());
    assert_eq!(
        std::fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever bytes the host puts there: an error or the same content, never an empty vault.
    #[test]
    fn a_damaged_file_is_never_taken_for_an_empty_one(
        at in any::<prop::sample::Index>(), with in 1..=255u8, cut in prop::option::of(any::<prop::sample::Index>())
    ) {
        let disk = Disk::default();
        let done = run(disk.open().unwrap(), 0..6);
        let mut bytes = disk.platter().bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        if let Some(cut) = cut {
            // Zero bytes is a file that was deleted; `Gone` is for that.
            bytes.truncate(1 + cut.index(bytes.len() - 1));
        }
        let opened = std::panic::catch_unwind(|| Disk::holding(bytes).open());
        if let Ok(Ok(opened)) = opened {
            prop_assert_eq!((opened.head, digest_of(&opened.rows)), done.acknowledged);
        }
    }
}
