//! The operator's view: every body that crosses the platform, appended raw to files.
//!
//! For demonstrations and audits ("what could the host see?"), not for production: each write
//! blocks its caller for a moment.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Where a body was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    GatewayRequest,
    GatewayResponse,
    SandboxRequest,
    SandboxResponse,
    /// Lines that a sandbox wrote.
    SandboxOutput,
}

/// File names, in the order of [`Place`].
const NAMES: [&str; 5] = [
    "gateway-requests",
    "gateway-responses",
    "sandbox-requests",
    "sandbox-responses",
    "sandbox-output",
];

/// Appends what passes, if the operator asked for it.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    files: Option<[Mutex<File>; 5]>,
}

impl Recorder {
    /// Without a folder nothing is recorded.
    pub(crate) fn open(folder: Option<&Path>) -> std::io::Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self::default());
        };
        std::fs::create_dir_all(folder)?;
        let open = |name| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(folder.join(name))
                .map(Mutex::new)
        };
        let [a, b, c, d, e] = NAMES.map(open);
        Ok(Self {
            files: Some([a?, b?, c?, d?, e?]),
        })
    }

    /// Appends `body` and a line end.
    pub(crate) fn append(&self, place: Place, body: &[u8]) {
        let Some(files) = &self.files else {
            return;
        };
        let mut file = files[place as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(body).and_then(|()| file.write_all(b"\n")) {
            tracing::warn!(%error, "cannot record what passes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_appended_raw_to_the_file_of_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(Some(folder.path())).unwrap();
        recorder.append(Place::SandboxRequest, b"\x00\xff");
        recorder.append(Place::SandboxRequest, b"two");
        let seen = std::fs::read(folder.path().join("sandbox-requests")).unwrap();
        assert_eq!(seen, b"\x00\xff\ntwo\n");
        assert_eq!(
            std::fs::read(folder.path().join("gateway-requests")).unwrap(),
            b""
        );
        Recorder::open(None)
            .unwrap()
            .append(Place::SandboxOutput, b"nothing");
    }
}
