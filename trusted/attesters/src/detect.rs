//! Which TEE this process runs in, found by what the machine has.
//!
//! Candidates are tried innermost first (an enclave inside of a confidential machine is what
//! measures this process): Gramine, Occlum, Nitro, configfs-tsm, `/dev/sev-guest`, Azure's vTPM. The first that
//! is there is taken. SECURITY: if it is there and does not answer, that is an error and not a
//! reason to look further, or a host could choose the TEE by making another one fail.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::{Attester, CollectError};
use rustix::io::Errno;

use crate::azure::{AzureAttester, MetadataService, is_azure};
use crate::files::Folder;
use crate::gramine::{self, GramineAttester};
use crate::ioctl::Device;
use crate::nsm::{self, NitroAttester};
use crate::occlum::{self, OcclumAttester, OcclumSgx as _};
use crate::retry::{Blocking, Pause};
use crate::sev_guest::{self, SevGuest, SevGuestAttester};
use crate::tpm::{self, TpmDevice, TpmError};
use crate::tsm::{self, Provider, SnpAttester, TdxAttester};

/// A place that was looked at in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// What would have been there.
    pub what: &'static str,
    pub path: PathBuf,
    pub found: String,
}

/// For messages: one clause for each place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(pub Vec<Looked>);

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, looked) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            let (what, path, found) = (looked.what, looked.path.display(), &looked.found);
            write!(f, "{separator}{what} at {path} ({found})")?;
        }
        Ok(())
    }
}

/// Why there is no attester.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("no trusted execution environment was found; looked for {0}")]
    Nothing(Places),
    #[error("{what} is there at {path}, but does not answer")]
    Silent {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: CollectError,
    },
    #[error("{what} is there at {path}, but cannot be used: {why}")]
    Unusable {
        what: &'static str,
        path: PathBuf,
        why: String,
    },
}

/// The attester of the TEE that this process runs in. It blocks, briefly.
///
/// # Errors
/// [`DetectError`] if there is none, or the one that is there does not work.
pub fn detect() -> Result<Arc<dyn Attester>, DetectError> {
    Machine::new("/").detect()
}

/// What is looked at: a file system from its root.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

/// What a candidate turned out to be.
enum Candidate {
    There(Arc<dyn Attester>),
    Absent(String),
}

type Probe = fn(&Machine, &Path) -> Result<Candidate, Trouble>;

enum Trouble {
    Silent(CollectError),
    Unusable(String),
}

impl From<io::Error> for Trouble {
    fn from(source: io::Error) -> Self {
        Self::Silent(CollectError::Device {
            what: "what tells that it is there",
            source,
        })
    }
}

/// In order of precedence.
const CANDIDATES: [(&str, &str, Probe); 7] = [
    ("Intel SGX (Gramine)", gramine::PATH, Machine::gramine),
    ("Intel SGX (Occlum)", occlum::PATH, Machine::occlum),
    ("AWS Nitro Enclaves", nsm::PATH, Machine::nitro),
    (
        "Intel TDX or AMD SEV-SNP (configfs-tsm)",
        tsm::PATH,
        Machine::tsm,
    ),
    (
        "Intel TDX (without configfs-tsm)",
        "dev/tdx_guest",
        Machine::tdx_device,
    ),
    ("AMD SEV-SNP", sev_guest::PATH, Machine::sev_guest),
    (
        "SEV-SNP or TDX behind Azure's vTPM",
        tpm::PATH,
        Machine::azure,
    ),
];

fn blocking() -> Arc<dyn Pause> {
    Arc::new(Blocking)
}

impl Machine {
    /// The file system below `root`; `/` but for tests.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// See [`detect`].
    ///
    /// # Errors
    /// [`DetectError`].
    pub fn detect(&self) -> Result<Arc<dyn Attester>, DetectError> {
        let mut looked = Vec::new();
        for (what, place, probe) in CANDIDATES {
            let path = self.root.join(place);
            let probed = match path.try_exists() {
                Ok(false) => Ok(Candidate::Absent("not there".into())),
                Ok(true) => probe(self, &path),
                Err(error) => Err(error.into()),
            };
            match probed {
                Ok(Candidate::There(attester)) => {
                    tracing::info!(tee = %attester.tee(), path = %path.display(), "found a TEE");
                    return Ok(attester);
                }
                Ok(Candidate::Absent(found)) => looked.push(Looked { what, path, found }),
                Err(Trouble::Silent(source)) => {
                    return Err(DetectError::Silent { what, path, source });
                }
                Err(Trouble::Unusable(why)) => {
                    return Err(DetectError::Unusable { what, path, why });
                }
            }
        }
        Err(DetectError::Nothing(Places(looked)))
    }

    fn gramine(&self, path: &Path) -> Result<Candidate, Trouble> {
        let tree = Arc::new(Folder::new(path));
        match gramine::attestation_type(tree.as_ref())?.as_str() {
            "dcap" => Ok(Candidate::There(Arc::new(GramineAttester::new(
                tree,
                blocking(),
            )))),
            kind => Err(Trouble::Unusable(format!(
                "its remote attestation is {kind:.16?}; the manifest needs \
                 sgx.remote_attestation = \"dcap\""
            ))),
        }
    }

    fn occlum(&self, path: &Path) -> Result<Candidate, Trouble> {
        if path.is_dir() {
            return Ok(Candidate::Absent("the folder of a host's driver".into()));
        }
        let device = Arc::new(Device::open(path)?);
        device.quote_size()?;
        Ok(Candidate::There(Arc::new(OcclumAttester::new(
            device,
            blocking(),
        ))))
    }

    fn nitro(&self, path: &Path) -> Result<Candidate, Trouble> {
        let attester = NitroAttester::new(Arc::new(Device::open(path)?), blocking());
        attester.describe().map_err(Trouble::Silent)?;
        Ok(Candidate::There(Arc::new(attester)))
    }

    fn tsm(&self, path: &Path) -> Result<Candidate, Trouble> {
        let tree = Arc::new(Folder::new(path));
        match tsm::provider(tree.as_ref()) {
            Ok(Ok(Provider::Tdx)) => Ok(Candidate::There(Arc::new(TdxAttester::new(
                tree,
                blocking(),
            )))),
            Ok(Ok(Provider::Snp)) => {
                let device = Device::open(&self.root.join(sev_guest::PATH));
                let device = device
                    .inspect_err(
                        |error| tracing::warn!(%error, "no sealing key without /dev/sev-guest"),
                    )
                    .ok()
                    .map(|device| Arc::new(device) as Arc<dyn SevGuest>);
                Ok(Candidate::There(Arc::new(SnpAttester::new(
                    tree,
                    device,
                    blocking(),
                ))))
            }
            Ok(Err(other)) => Err(Trouble::Unusable(format!(
                "its provider is {other:.32?}, of which this version knows nothing"
            ))),
            // The module without a TEE below it.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {
                Ok(Candidate::Absent("no provider".into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn tdx_device(&self, _: &Path) -> Result<Candidate, Trouble> {
        Err(Trouble::Unusable(
            "quotes come through configfs-tsm: Linux 6.7 or later, with configfs mounted at \
             /sys/kernel/config"
                .into(),
        ))
    }

    fn sev_guest(&self, path: &Path) -> Result<Candidate, Trouble> {
        let device = Arc::new(Device::open(path)?);
        Ok(Candidate::There(Arc::new(SevGuestAttester::new(
            device,
            blocking(),
        ))))
    }

    fn azure(&self, _: &Path) -> Result<Candidate, Trouble> {
        let tpm = Arc::new(TpmDevice(Folder::new(&self.root)));
        match is_azure(tpm.as_ref()) {
            Ok(true) => {}
            Ok(false) => return Ok(Candidate::Absent("a TPM, but not Azure's".into())),
            // The last candidate, and on most machines an ordinary TPM.
            Err(TpmError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Candidate::Absent("a TPM that may not be opened".into()));
            }
            Err(TpmError::Io(error)) => return Err(error.into()),
            Err(error) => return Err(io::Error::other(error).into()),
        }
        let quotes = Arc::new(MetadataService::default());
        let attester = AzureAttester::new(tpm, quotes, blocking()).map_err(Trouble::Silent)?;
        Ok(Candidate::There(Arc::new(attester)))
    }
}

#[cfg(test)]
mod tests;
