//! Kernel interfaces that look like files: how they are opened, read and written.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Interrupted calls in a row that are made again before the interruption counts as an error.
const INTERRUPTIONS: usize = 16;
const STEP: usize = 4096;

/// What an open file is for. The interfaces here refuse a handle that is used for both
/// (configfs: ETXTBSY), but for a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

/// An open file; dropping it closes it, which is when configfs applies what was written.
pub trait Handle: Send {
    /// One `read(2)`.
    ///
    /// # Errors
    /// The kernel's.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// One `write(2)`: these interfaces take a value in one call or not at all.
    ///
    /// # Errors
    /// The kernel's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// A folder of a pseudo file system; paths are relative to it.
pub trait Tree: Send + Sync + fmt::Debug {
    /// # Errors
    /// The kernel's.
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn Handle>>;

    /// # Errors
    /// The kernel's.
    fn make_folder(&self, path: &str) -> io::Result<()>;

    /// # Errors
    /// The kernel's.
    fn remove_folder(&self, path: &str) -> io::Result<()>;
}

/// The real one.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Handle for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }
}

impl Tree for Folder {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn Handle>> {
        let (read, write) = match access {
            Access::Read => (true, false),
            Access::Write => (false, true),
            Access::ReadWrite => (true, true),
        };
        // Neither created nor truncated: what is not there is a finding.
        let file = OpenOptions::new()
            .read(read)
            .write(write)
            .open(self.0.join(path))?;
        Ok(Box::new(file))
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        std::fs::create_dir(self.0.join(path))
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        std::fs::remove_dir(self.0.join(path))
    }
}

/// Calls again after EINTR, a bounded number of times.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..INTERRUPTIONS {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
    call()
}

/// Reads a file to its end, however short the single reads are; longer than `max` bytes is an
/// error, so nothing is ever cut silently.
pub(crate) fn read_all(tree: &dyn Tree, path: &str, max: usize) -> io::Result<Vec<u8>> {
    let mut file = tree.open(path, Access::Read)?;
    let mut content = Vec::new();
    let mut buffer = [0; STEP];
    loop {
        let n = uninterrupted(|| file.read(&mut buffer))?;
        if n == 0 {
            return Ok(content);
        }
        content.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if content.len() > max {
            return Err(Errno::FBIG.into());
        }
    }
}

/// Writes in one `write(2)` and closes.
pub(crate) fn write_once(tree: &dyn Tree, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = tree.open(path, Access::Write)?;
    match uninterrupted(|| file.write(bytes))? {
        n if n == bytes.len() => Ok(()),
        // A second write would append to the value, or replace it.
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
