//! Key files: `label:base64` in one line, readable by their owner alone, never overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::aead::KEY_LEN;

/// Largest key file, in bytes: the PEM of an identity key and any line of ours fit.
const FILE_MAX: usize = 1024;

/// Why a key file was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("the key file {} exists already, and is not overwritten", path.display())]
    Exists { path: PathBuf },
    #[error("could not write the key file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("could not read the key file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "the key file {} can be read by others (mode {mode:03o}); run chmod 600 on it",
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is not a key file of the form {expected}", path.display())]
    Format {
        path: PathBuf,
        expected: &'static str,
    },
}

/// Writes `content` to a new file of mode 0600 and waits until the disk has it: a key that is lost
/// takes with it everything that it sealed.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), KeyFileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.into() },
        _ => KeyFileError::Write {
            path: path.into(),
            source,
        },
    })?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(|source| {
            // Half a key is worth nothing and would stand in the way of the next attempt. If even the
            // removal fails, the error that matters is still the first.
            drop(fs::remove_file(path));
            KeyFileError::Write {
                path: path.into(),
                source,
            }
        })
}

/// The whole content of a key file.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let failed = |source| KeyFileError::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed {
                path: path.into(),
                mode,
            });
        }
    }
    // One byte beyond the limit, so that a longer file fails to parse and is not silently cut; the
    // capacity is enough that no reallocation leaves a copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(2 * FILE_MAX));
    file.take(FILE_MAX as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    Ok(content)
}

/// `label:base64` and a line feed.
pub(crate) fn encode(label: &str, key: &[u8; KEY_LEN]) -> Zeroizing<Vec<u8>> {
    let mut base64 = Zeroizing::new([0; KEY_LEN.div_ceil(3) * 4]);
    let written = STANDARD.encode_slice(key, &mut *base64).unwrap_or(0);
    debug_assert_eq!(written, base64.len());
    let mut content = Zeroizing::new(Vec::with_capacity(label.len() + base64.len() + 2));
    content.extend_from_slice(label.as_bytes());
    content.push(b':');
    content.extend_from_slice(&*base64);
    content.push(b'\n');
    content
}

/// Reads [`encode`]'s form, and only that, into `key`.
pub(crate) fn decode(label: &str, content: &[u8], key: &mut [u8; KEY_LEN]) -> Option<()> {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    let base64 = line.strip_prefix(label.as_bytes())?.strip_prefix(b":")?;
    // The decoder asks for room for its estimate, which is more than what comes out.
    let mut bytes = Zeroizing::new([0; KEY_LEN + 3]);
    let len = STANDARD.decode_slice(base64, &mut *bytes).ok()?;
    key.copy_from_slice(bytes.get(..len).filter(|b| b.len() == KEY_LEN)?);
    Some(())
}
