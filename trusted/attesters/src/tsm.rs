//! configfs-tsm: TDX quotes and SEV-SNP reports on Linux 6.7 and later.
//!
//! A requester makes a folder, writes `inblob` and reads `outblob`. What is written is applied
//! when the file is closed, and an error then is lost; so `generation`, which counts accepted
//! writes, is what tells that the blob that was read is about what was written.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use attestation::{Attester, Binder, CollectError, Endorsements, Evidence, Tee};
use crypto::secret::SealingKey;
use rustix::io::Errno;

use crate::certificates::{self, TABLE_MAX};
use crate::files::{Tree, read_all, write_once};
use crate::layout::{quote_about, snp_report_about};
use crate::retry::{Pause, Setback, persist};
use crate::sealing::{self, NoSealingKey};
use crate::sev_guest::SevGuest;

/// Where configfs-tsm is, from the root of the file system.
pub const PATH: &str = "sys/kernel/config/tsm/report";

/// Largest `outblob`: kernels since 6.17 allow 8 pages more than the 32 KiB before.
const OUTBLOB_MAX: usize = 64 * 1024;
const SMALL_MAX: usize = 256;
/// Names tried before giving up; each has 64 random bits.
const NAMES: usize = 4;

const INBLOB: &str = "the configfs attribute inblob";
const OUTBLOB: &str = "the configfs attribute outblob";
const GENERATION: &str = "the configfs attribute generation";
const PROVIDER: &str = "the configfs attribute provider";
const PRIVLEVEL: &str = "the configfs attribute privlevel";

/// What the kernel says it gets evidence from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    Tdx,
    Snp,
}

impl Provider {
    const fn name(self) -> &'static str {
        match self {
            Self::Tdx => "tdx_guest",
            Self::Snp => "sev_guest",
        }
    }
}

/// A folder of our own below `report`; removed when dropped.
struct Entry<'a> {
    tree: &'a dyn Tree,
    name: String,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.tree.remove_folder(&self.name) {
            tracing::warn!(%error, name = self.name, "configfs-tsm keeps a folder");
        }
    }
}

impl<'a> Entry<'a> {
    fn make(tree: &'a dyn Tree) -> io::Result<Self> {
        let mut last = Errno::EXIST.into();
        for _ in 0..NAMES {
            let mut random = [0; 8];
            aws_lc_rs::rand::fill(&mut random)
                .map_err(|_| io::Error::other("no random numbers"))?;
            let name = format!("sesemi-{}", hex::encode(random));
            match tree.make_folder(&name) {
                Ok(()) => return Ok(Self { tree, name }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn path(&self, attribute: &str) -> String {
        format!("{}/{attribute}", self.name)
    }

    fn read(&self, attribute: &str, max: usize) -> io::Result<Vec<u8>> {
        read_all(self.tree, &self.path(attribute), max)
    }

    fn text(&self, attribute: &str) -> io::Result<String> {
        let text = String::from_utf8(self.read(attribute, SMALL_MAX)?)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn generation(&self) -> Result<u64, Setback> {
        let text = self
            .text("generation")
            .map_err(|e| Setback::from_io(GENERATION, e))?;
        text.parse().map_err(|_| Setback::unexpected(GENERATION))
    }
}

/// What is behind configfs-tsm here: TDX, SNP, or something that this version cannot use.
pub(crate) fn provider(tree: &dyn Tree) -> io::Result<Result<Provider, String>> {
    let name = Entry::make(tree)?.text("provider")?;
    Ok([Provider::Tdx, Provider::Snp]
        .into_iter()
        .find(|provider| provider.name() == name)
        .ok_or(name))
}

#[derive(Debug)]
struct Report {
    tree: Arc<dyn Tree>,
    pause: Arc<dyn Pause>,
    provider: Provider,
}

/// One answer of the kernel: evidence, and the certificates that the host put beside it.
struct Blobs {
    out: Vec<u8>,
    aux: Vec<u8>,
}

impl Report {
    fn collect(&self, report_data: &[u8; 64]) -> Result<Blobs, CollectError> {
        persist(self.pause.as_ref(), || self.attempt(report_data))
    }

    fn attempt(&self, report_data: &[u8; 64]) -> Result<Blobs, Setback> {
        let entry = Entry::make(self.tree.as_ref())
            .map_err(|e| Setback::from_io("a folder of configfs-tsm", e))?;
        let provider = entry
            .text("provider")
            .map_err(|e| Setback::from_io(PROVIDER, e))?;
        if provider != self.provider.name() {
            return Err(Setback::unexpected("another provider of evidence"));
        }
        let before = entry.generation()?;
        let raised = self.raise_privlevel(&entry)?;
        write_once(entry.tree, &entry.path("inblob"), report_data)
            .map_err(|e| Setback::from_io(INBLOB, e))?;
        let ours = before.checked_add(1).and_then(|n| n.checked_add(raised));
        let raced = |what| Err(Setback::Raced(CollectError::Unexpected { what }));
        if Some(entry.generation()?) != ours {
            return raced("a generation that was not written here");
        }
        let out = entry
            .read("outblob", OUTBLOB_MAX)
            .map_err(|e| Setback::from_io(OUTBLOB, e))?;
        let aux = match self.provider {
            Provider::Snp => certificate_table(&entry),
            Provider::Tdx => Vec::new(),
        };
        if Some(entry.generation()?) != ours {
            return raced("a blob of another generation");
        }
        let about = match self.provider {
            Provider::Tdx => quote_about(&out, true, report_data),
            Provider::Snp => snp_report_about(&out, report_data),
        };
        match about.map(<[u8]>::to_vec) {
            Some(out) => Ok(Blobs { out, aux }),
            // Wrong although the generation is ours; a fresh folder has no past to be stale from.
            None => raced("evidence about something else, or none"),
        }
    }

    /// Where a guest does not run at VMPL 0, the lowest level it may ask for has to be said.
    /// Gives the number of writes. The evidence states the level; whether it is accepted is the
    /// verifier's decision.
    fn raise_privlevel(&self, entry: &Entry<'_>) -> Result<u64, Setback> {
        if self.provider != Provider::Snp {
            return Ok(0);
        }
        let floor = match entry.text("privlevel_floor") {
            Ok(floor) => floor,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(Setback::from_io(PRIVLEVEL, error)),
        };
        match floor.parse::<u8>() {
            Ok(0) => Ok(0),
            Ok(1..=3) => {
                write_once(entry.tree, &entry.path("privlevel"), floor.as_bytes())
                    .map_err(|e| Setback::from_io(PRIVLEVEL, e))?;
                Ok(1)
            }
            _ => Err(Setback::unexpected(PRIVLEVEL)),
        }
    }
}

/// Certificates are a courtesy of the host: without them evidence is as good as with them.
fn certificate_table(entry: &Entry<'_>) -> Vec<u8> {
    entry.read("auxblob", TABLE_MAX).unwrap_or_else(|error| {
        tracing::debug!(%error, "no certificates from the host");
        Vec::new()
    })
}

/// Intel TDX through configfs-tsm.
#[derive(Debug)]
pub struct TdxAttester(Report);

impl TdxAttester {
    /// `report` is the folder `report` of configfs-tsm.
    #[must_use]
    pub fn new(report: Arc<dyn Tree>, pause: Arc<dyn Pause>) -> Self {
        Self(Report {
            tree: report,
            pause,
            provider: Provider::Tdx,
        })
    }
}

impl Attester for TdxAttester {
    fn tee(&self) -> Tee {
        Tee::Tdx
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        let blobs = self.0.collect(&binder.report_data())?;
        Ok(Evidence {
            tee: Tee::Tdx,
            body: blobs.out,
        })
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        Err(NoSealingKey::Tdx.into())
    }
}

/// AMD SEV-SNP through configfs-tsm; its sealing key comes from `/dev/sev-guest`, as configfs
/// has none.
#[derive(Debug)]
pub struct SnpAttester {
    report: Report,
    device: Option<Arc<dyn SevGuest>>,
    certificates: Mutex<Endorsements>,
}

impl SnpAttester {
    /// `report` is the folder `report` of configfs-tsm.
    #[must_use]
    pub fn new(
        report: Arc<dyn Tree>,
        device: Option<Arc<dyn SevGuest>>,
        pause: Arc<dyn Pause>,
    ) -> Self {
        Self {
            report: Report {
                tree: report,
                pause,
                provider: Provider::Snp,
            },
            device,
            certificates: Mutex::default(),
        }
    }
}

impl Attester for SnpAttester {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        let blobs = self.report.collect(&binder.report_data())?;
        let certificates = certificates::beside(&blobs.out, &blobs.aux);
        *self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = certificates;
        Ok(Evidence {
            tee: Tee::Snp,
            body: blobs.out,
        })
    }

    fn host_endorsements(&self) -> Endorsements {
        self.certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        let device = self.device.as_ref().ok_or(NoSealingKey::SnpWithoutDevice)?;
        sealing::snp(device.as_ref())
    }
}

#[cfg(test)]
mod tests;
