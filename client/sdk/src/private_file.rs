//! Files that only their owner may read: checked before every use, written with mode 0600.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use protocol::ErrorCode;

use crate::explain::Explain;

/// Largest file of ours that is read as a whole, in bytes.
const SMALL_FILE_MAX: u64 = 1024 * 1024;

/// Why a private file or folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error("{path} does not exist")]
    Missing { path: PathBuf },
    #[error("{path} exists already")]
    Exists { path: PathBuf },
    #[error(
        "{path} can be read or written by others (mode {mode:04o}); a key is accepted only from a file of mode 0600"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} is not a regular file")]
    NotAFile { path: PathBuf },
    #[error("{path} is larger than {SMALL_FILE_MAX} bytes, so it is not what it should be")]
    TooLarge { path: PathBuf },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl PrivateFileError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound if action == "read" => Self::Missing { path: path.into() },
            io::ErrorKind::AlreadyExists => Self::Exists { path: path.into() },
            _ => Self::Io {
                action,
                path: path.into(),
                source,
            },
        }
    }
}

impl Explain for PrivateFileError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Missing { .. } => ErrorCode::NotFound,
            Self::Exists { .. } => ErrorCode::Conflict,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorCode::StorageFull
            }
            _ => ErrorCode::InvalidRequest,
        }
    }

    fn retryable(&self) -> bool {
        false
    }

    fn advice(&self) -> String {
        match self {
            Self::Missing { path } => {
                format!("create it, or name another file than {}", path.display())
            }
            Self::Exists { .. } => {
                "choose another name: a key file is never overwritten".to_owned()
            }
            Self::Exposed { path, .. } => format!(
                "run `chmod 600 {0}`; if others use this machine, treat the key as known to them and make a new one",
                path.display()
            ),
            Self::NotAFile { .. } | Self::TooLarge { .. } => {
                "name the file that the client wrote".to_owned()
            }
            Self::Io { .. } => "check the folder's permissions and free space".to_owned(),
        }
    }
}

/// Refuses a file that anybody but its owner may read or write.
pub fn check_private(path: &Path) -> Result<(), PrivateFileError> {
    let metadata =
        std::fs::metadata(path).map_err(|source| PrivateFileError::io("read", path, source))?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile { path: path.into() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Exposed {
            path: path.into(),
            mode,
        });
    }
    if metadata.len() > SMALL_FILE_MAX {
        return Err(PrivateFileError::TooLarge { path: path.into() });
    }
    Ok(())
}

/// Makes a folder (and what is above it) that only its owner may enter.
pub fn create_private_dir(path: &Path) -> Result<(), PrivateFileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| PrivateFileError::io("create the folder", path, source))
}

/// Reads one of the client's small state files; `None` when there is none yet.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, PrivateFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PrivateFileError::io("read", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| PrivateFileError::io("read", path, source))?;
    if bytes.len() as u64 > SMALL_FILE_MAX {
        return Err(PrivateFileError::TooLarge { path: path.into() });
    }
    Ok(Some(bytes))
}

/// Replaces a state file as a whole: readers see the old content or the new, also after a crash.
pub(crate) fn replace_small(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    let io = |source| PrivateFileError::io("write", path, source);
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    create_private_dir(parent)?;
    let mut staged = tempfile::NamedTempFile::new_in(parent).map_err(io)?;
    staged.write_all(content).map_err(io)?;
    staged.as_file().sync_all().map_err(io)?;
    staged.persist(path).map_err(|error| io(error.error))?;
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(io)
}

/// Holds an exclusive lock on `path`, so that two processes do not lose each other's update.
/// The lock ends when the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, PrivateFileError> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_private_dir(parent)?;
    }
    let io = |source| PrivateFileError::io("lock", path, source);
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
    use std::fs::{Permissions, set_permissions, write};

    use super::*;

    #[test]
    fn only_a_regular_file_of_mode_0600_or_less_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(matches!(
            check_private(&path),
            Err(PrivateFileError::Missing { .. })
        ));
        write(&path, b"x").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o666, 0o677] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = check_private(&path).unwrap_err();
            assert!(
                matches!(error, PrivateFileError::Exposed { .. }),
                "{mode:o}"
            );
            assert!(error.advice().contains("chmod 600"));
        }
        for mode in [0o600, 0o400] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(check_private(&path).is_ok(), "{mode:o}");
        }
        assert!(matches!(
            check_private(dir.path()),
            Err(PrivateFileError::NotAFile { .. })
        ));
    }

    #[test]
    fn replaced_files_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read_small(&path).unwrap(), None);
        replace_small(&path, b"one").unwrap();
        replace_small(&path, b"second").unwrap();
        assert_eq!(read_small(&path).unwrap().unwrap(), b"second");
        check_private(&path).unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no staged file is left"
        );
    }
}
