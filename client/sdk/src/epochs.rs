//! The highest epoch seen of every KeyService: a client that remembers notices an older state put back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::{EnclaveId, ErrorCode};

use crate::explain::Explain;
use crate::state_file::{StateFileError, lock, read_small, replace_small};

/// Why an epoch is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    #[error(
        "KeyService {} is at epoch {offered}, but was at {remembered} before: its state was rolled back",
        .enclave.short()
    )]
    RolledBack {
        enclave: EnclaveId,
        remembered: u64,
        offered: u64,
    },
    #[error("{path} is not a record of KeyService epochs")]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("cannot use the record of KeyService epochs")]
    File(#[from] StateFileError),
}

impl Explain for EpochError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::RolledBack { .. } => ErrorCode::NotAttested,
            Self::Malformed { .. } => ErrorCode::InvalidRequest,
            Self::File(error) => error.code(),
        }
    }

    fn retryable(&self) -> bool {
        false
    }

    fn advice(&self) -> String {
        match self {
            Self::RolledBack { .. } => {
                "do not use it: revocations may have been undone; ask the operator which backup it was restored from, and start over with a fresh KeyService".to_owned()
            }
            Self::Malformed { path, .. } => format!(
                "restore {} from a copy; deleting it forgets the protection against rollback",
                path.display()
            ),
            Self::File(error) => error.advice(),
        }
    }
}

/// Remembers in one small file (JSON object: E_K → epoch), shared by all processes of a person.
#[derive(Debug, Clone)]
pub struct EpochMemory {
    path: PathBuf,
}

impl EpochMemory {
    /// Keeps the record at `path`; the file appears with the first epoch.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the record lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<BTreeMap<EnclaveId, u64>, EpochError> {
        let Some(bytes) = read_small(&self.path)? else {
            return Ok(BTreeMap::new());
        };
        serde_json::from_slice(&bytes).map_err(|source| EpochError::Malformed {
            path: self.path.clone(),
            source,
        })
    }

    /// The highest epoch seen of `enclave`, 0 if none.
    pub fn highest(&self, enclave: &EnclaveId) -> Result<u64, EpochError> {
        Ok(self.read()?.get(enclave).copied().unwrap_or(0))
    }

    /// Accepts `epoch` if it is not below what was seen, and remembers it durably before it
    /// returns. Different KeyServices (E_K) are remembered apart.
    pub fn admit(&self, enclave: &EnclaveId, epoch: u64) -> Result<(), EpochError> {
        let remembered = self.raise(enclave, epoch)?;
        if epoch < remembered {
            return Err(EpochError::RolledBack {
                enclave: *enclave,
                remembered,
                offered: epoch,
            });
        }
        Ok(())
    }

    /// Remembers `epoch` if it is higher than what was seen; a lower one says nothing, since
    /// answers also tell epochs of the past.
    pub fn learn(&self, enclave: &EnclaveId, epoch: u64) -> Result<(), EpochError> {
        self.raise(enclave, epoch).map(drop)
    }

    /// The highest epoch before, and now durably the higher of both.
    fn raise(&self, enclave: &EnclaveId, epoch: u64) -> Result<u64, EpochError> {
        let _guard = lock(&self.path.with_added_extension("lock"))?;
        let mut seen = self.read()?;
        let remembered = seen.get(enclave).copied().unwrap_or(0);
        if epoch > remembered {
            seen.insert(*enclave, epoch);
            let json =
                serde_json::to_vec_pretty(&seen).map_err(|source| EpochError::Malformed {
                    path: self.path.clone(),
                    source,
                })?;
            replace_small(&self.path, &json)?;
        }
        Ok(remembered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EnclaveId = EnclaveId::new([1; 48]);
    const B: EnclaveId = EnclaveId::new([2; 48]);

    #[test]
    fn an_epoch_never_goes_back_also_not_for_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/epochs.json");
        let memory = EpochMemory::new(&path);
        assert_eq!(memory.highest(&A).unwrap(), 0);
        memory.admit(&A, 3).unwrap();
        memory.admit(&A, 3).unwrap();
        let other_process = EpochMemory::new(&path);
        for lower in [0, 1, 2] {
            let error = other_process.admit(&A, lower).unwrap_err();
            assert!(
                matches!(error, EpochError::RolledBack { remembered: 3, offered, .. } if offered == lower)
            );
            assert_eq!(error.fault(), protocol::Fault::Denied);
        }
        other_process.admit(&B, 1).unwrap();
        assert_eq!(memory.highest(&A).unwrap(), 3, "a refusal changes nothing");
        assert_eq!(memory.highest(&B).unwrap(), 1);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epochs.json");
        for bad in ["", "{", "[]", r#"{"zz": 1}"#, r#"{"x": -1}"#] {
            std::fs::write(&path, bad).unwrap();
            assert!(EpochMemory::new(&path).admit(&A, 9).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_writers_end_at_the_highest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epochs.json");
        std::thread::scope(|scope| {
            for epoch in 1..=16 {
                let memory = EpochMemory::new(&path);
                scope.spawn(move || {
                    // A lower epoch may arrive after a higher one and is then refused.
                    let _refused = memory.admit(&A, epoch).is_err();
                });
            }
        });
        assert_eq!(EpochMemory::new(&path).highest(&A).unwrap(), 16);
    }
}
