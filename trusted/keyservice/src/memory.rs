//! What KeyService remembers of endorsements across restarts: one sealed file beside the vault.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use attestation::Newest;
use attestation::newest::NEWEST_MAX;
use crypto::SealingKey;
use crypto::record::{open_record, seal_record};

const FILE: &str = "newest-endorsements.sealed";
/// Gets the name above when it is complete and on disk.
const NEW_FILE: &str = "newest-endorsements.sealed.new";
const RECORD: &[u8] = b"sesemi/newest-endorsements";
/// What sealing adds is far less than this.
const FILE_MAX: u64 = NEWEST_MAX as u64 + 1024;

/// Why what was seen cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("use {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} was not written by this KeyService, or was altered", path.display())]
    NotOurs { path: PathBuf },
    #[error("seal the record of endorsements")]
    Seal,
}

/// The file, and what is in it.
#[derive(Debug)]
pub(crate) struct Memory {
    folder: PathBuf,
    key: SealingKey,
    kept: Mutex<Newest>,
}

impl Memory {
    /// Reads what was kept; nothing, if nothing ever was. The folder must be there.
    pub(crate) fn open(folder: &Path, key: SealingKey) -> Result<Self, MemoryError> {
        let path = folder.join(FILE);
        let kept = match read(&path) {
            Ok(sealed) => {
                let opened = open_record(&key, RECORD, 0, &sealed);
                let opened = opened.map_err(|_| MemoryError::NotOurs { path: path.clone() })?;
                Newest::from_bytes(&opened).map_err(|_| MemoryError::NotOurs { path })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Newest::default(),
            Err(source) => return Err(MemoryError::File { path, source }),
        };
        Ok(Self {
            folder: folder.into(),
            key,
            kept: Mutex::new(kept),
        })
    }

    pub(crate) fn newest(&self) -> Newest {
        self.kept().clone()
    }

    /// Returns when `newest` is on disk. Blocks, if it is not what was kept already. It is asked for
    /// inside the lock, so that of two connections the later one does not keep the older state.
    pub(crate) fn keep(&self, newest: impl FnOnce() -> Newest) -> Result<(), MemoryError> {
        let mut kept = self.kept();
        let newest = newest();
        if *kept == newest {
            return Ok(());
        }
        let sealed = seal_record(&self.key, RECORD, 0, &newest.to_bytes());
        let sealed = sealed.map_err(|_| MemoryError::Seal)?;
        let path = self.folder.join(NEW_FILE);
        write(&self.folder, &path, &sealed).map_err(|source| MemoryError::File { path, source })?;
        *kept = newest;
        Ok(())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Newest> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut sealed = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut sealed)?;
    Ok(sealed)
}

fn write(folder: &Path, path: &Path, sealed: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(sealed)?;
    file.sync_all()?;
    fs::rename(path, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attestation::facts::DcapFacts;
    use attestation::measurements::SgxMeasurements;
    use attestation::{Claims, Facts, Measurements, Said, TcbStatus};

    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_slice(&[byte; 32]).unwrap()
    }

    /// What a relying party remembers after it accepted such a platform.
    fn seen() -> Newest {
        let measurements = SgxMeasurements {
            mrenclave: [1; 32],
            mrsigner: [2; 32],
            isv_prod_id: 3,
            attributes: 4,
            xfrm: 5,
            misc_select: 6,
        };
        let mut newest = Newest::default();
        newest.admit(&Claims {
            said: Said {
                measurements: Measurements::Sgx(measurements),
                report_data: Vec::new(),
                nonce: None,
            },
            svn: 0,
            tcb: TcbStatus::UpToDate,
            facts: Facts::Dcap(Box::new(DcapFacts {
                tcb_evaluation: 17,
                issued: Duration::from_secs(100),
                ..DcapFacts::default()
            })),
        });
        newest
    }

    #[test]
    fn what_was_seen_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), key(1)).unwrap();
        assert_eq!(memory.newest(), Newest::default());
        memory.keep(seen).unwrap();
        drop(memory);
        let again = Memory::open(folder.path(), key(1)).unwrap();
        assert_eq!(again.newest(), seen());
    }

    #[test]
    fn another_s_file_or_an_altered_one_is_refused_and_not_overlooked() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), key(1)).unwrap();
        memory.keep(seen).unwrap();
        let refused = |key| {
            let opened = Memory::open(folder.path(), key);
            assert!(matches!(opened, Err(MemoryError::NotOurs { .. })));
        };
        refused(key(2));
        let path = folder.path().join(FILE);
        let mut sealed = fs::read(&path).unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        fs::write(&path, &sealed).unwrap();
        refused(key(1));
        fs::write(&path, b"").unwrap();
        refused(key(1));
    }

    #[test]
    fn what_cannot_be_kept_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), key(1)).unwrap();
        fs::create_dir(folder.path().join(NEW_FILE)).unwrap();
        let kept = memory.keep(seen);
        assert!(matches!(kept, Err(MemoryError::File { .. })), "{kept:?}");
        assert_eq!(memory.newest(), Newest::default());
    }
}
