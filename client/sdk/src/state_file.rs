//! The client's own small files: private, replaced as a whole, locked against another process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::ErrorCode;

use crate::explain::Explain;

/// Largest file of ours that is read as a whole, in bytes.
const SMALL_FILE_MAX: u64 = 1024 * 1024;

/// Why a file or folder of the client's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("{path} is larger than {SMALL_FILE_MAX} bytes, so it is not what it should be")]
    TooLarge { path: PathBuf },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl StateFileError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source,
        }
    }
}

impl Explain for StateFileError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Io { source, .. } => code_of_io(source),
            Self::TooLarge { .. } => ErrorCode::InvalidRequest,
        }
    }

    fn retryable(&self) -> bool {
        false
    }

    fn advice(&self) -> String {
        match self {
            Self::TooLarge { .. } => "name the file that the client wrote".to_owned(),
            Self::Io { source, .. } => advice_on_io(source).to_owned(),
        }
    }
}

/// The code of a failure on the caller's own disk.
pub(crate) fn code_of_io(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::AlreadyExists => ErrorCode::Conflict,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::StorageFull,
        _ => ErrorCode::InvalidRequest,
    }
}

/// What to do about a failure on the caller's own disk.
pub(crate) fn advice_on_io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the file's name",
        io::ErrorKind::PermissionDenied => "check the permissions of the file and of its folder",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on this machine's disk, then try again"
        }
        _ => "check the file, its folder and the disk",
    }
}

/// Makes a folder (and what is above it) that only its owner may enter.
pub fn create_private_dir(path: &Path) -> Result<(), StateFileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateFileError::io("create the folder", path, source))
}

/// Reads one of the client's small state files; `None` when there is none yet.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, StateFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateFileError::io("read", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| StateFileError::io("read", path, source))?;
    if bytes.len() as u64 > SMALL_FILE_MAX {
        return Err(StateFileError::TooLarge { path: path.into() });
    }
    Ok(Some(bytes))
}

/// Replaces a state file as a whole: readers see the old content or the new, also after a crash.
pub(crate) fn replace_small(path: &Path, content: &[u8]) -> Result<(), StateFileError> {
    let io = |source| StateFileError::io("write", path, source);
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    create_private_dir(parent)?;
    let mut staged = tempfile::NamedTempFile::new_in(parent).map_err(io)?;
    staged.write_all(content).map_err(io)?;
    staged.as_file().sync_all().map_err(io)?;
    staged.persist(path).map_err(|error| io(error.error))?;
    sync_folder(parent)
}

/// Waits until the disk has the folder's entries, so that a rename or a new file outlives a crash.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StateFileError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StateFileError::io("write", folder, source))
}

/// Holds an exclusive lock on `path`, so that two processes do not lose each other's update.
/// The lock ends when the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, StateFileError> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_private_dir(parent)?;
    }
    let io = |source| StateFileError::io("lock", path, source);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    file.lock().map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn replaced_files_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read_small(&path).unwrap(), None);
        replace_small(&path, b"one").unwrap();
        replace_small(&path, b"second").unwrap();
        assert_eq!(read_small(&path).unwrap().unwrap(), b"second");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no staged file is left"
        );
    }
}
