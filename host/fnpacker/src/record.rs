//! The operator's view, kept: every body that crosses this process, appended raw to two files.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The record cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the record of what crosses this process in {}", path.display())]
pub struct RecordError {
    path: PathBuf,
    source: std::io::Error,
}

/// Appends to files in one folder. Meant for demonstrations: it writes in the caller's thread, so
/// that what was answered is surely recorded.
#[derive(Debug)]
pub struct Recorder {
    requests: Mutex<File>,
    answers: Mutex<File>,
}

impl Recorder {
    /// Opens `fnpacker-requests.bin` and `fnpacker-answers.bin` in `folder`, which it makes.
    pub fn open(folder: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError {
            path: folder.into(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let open = |name| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(folder.join(name))
                .map_err(failed)
        };
        Ok(Self {
            requests: Mutex::new(open("fnpacker-requests.bin")?),
            answers: Mutex::new(open("fnpacker-answers.bin")?),
        })
    }

    pub(crate) fn request(&self, body: &[u8]) {
        append(&self.requests, body);
    }

    pub(crate) fn answer(&self, body: &[u8]) {
        append(&self.answers, body);
    }
}

fn append(file: &Mutex<File>, body: &[u8]) {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = file.write_all(body) {
        tracing::warn!(%error, "the record of what crosses this process has a gap");
    }
}
