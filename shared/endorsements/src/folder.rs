//! Endorsements in files, for machines without a network.
//!
//! ```text
//! intel/{sgx|tdx}-{fmspc}-{processor|platform}.json    collateral, as `QuoteCollateralV3`
//! amd/{product}-vcek-{chip id}-{tcb}.der               TCB: fmc, boot loader, tee, snp, microcode
//! amd/{product}-vlek-{tcb}.der
//! amd/{product}-{vcek|vlek}-chain.pem                  ASK or ASVK, then ARK
//! amd/unknown-vcek-{chip id}-{tcb}-chain.pem           the same, for reports of version 2
//! ```
//!
//! Hexadecimal in small letters; product is `milan`, `genoa`, `turin`, or `unknown` for reports of
//! version 2. [`Folder::store`] writes what another provider found.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use attestation::Endorsements;
use attestation::facts::SnpSigningKey;
use attestation::platform::Platform;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;

use crate::amd::chain_of;
use crate::fetch::BODY_MAX;
use crate::wanted::product_name;
use crate::{ProvideError, Provider, Wanted};

/// Largest file read, in bytes.
const FILE_MAX: u64 = 2 * BODY_MAX as u64;

/// A folder of endorsements.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    fn chain_path(&self, wanted: &Wanted) -> Option<PathBuf> {
        let Platform::Amd { product, key, .. } = &wanted.platform else {
            return None;
        };
        let Some(product) = product else {
            // Of Milan or of Genoa: kept for each chip.
            return Some(self.0.join(format!("{}-chain.pem", wanted.name())));
        };
        let product = product_name(*product);
        let kind = match key {
            SnpSigningKey::Vcek => "vcek",
            SnpSigningKey::Vlek => "vlek",
        };
        Some(self.0.join(format!("amd/{product}-{kind}-chain.pem")))
    }

    fn path(&self, wanted: &Wanted, extension: &str) -> PathBuf {
        self.0.join(format!("{}.{extension}", wanted.name()))
    }

    /// Reads the files of a platform. Blocks.
    ///
    /// # Errors
    /// [`ProvideError`].
    pub fn load(&self, wanted: &Wanted) -> Result<Endorsements, ProvideError> {
        let (found, place) = match &wanted.platform {
            Platform::Plain => return Err(wanted.not_here()),
            Platform::Intel { .. } => {
                let path = self.path(wanted, "json");
                let collateral = read(&path, wanted)?;
                (Endorsements::Dcap { collateral }, path)
            }
            Platform::Amd { .. } => {
                let path = self.path(wanted, "der");
                let vek = match (read(&path, wanted), &wanted.host) {
                    (Ok(vek), _) => vek,
                    (Err(ProvideError::NotHere { .. }), Endorsements::Snp { vek, .. }) => {
                        vek.clone()
                    }
                    (Err(error), _) => return Err(error),
                };
                let chain_path = self.chain_path(wanted).ok_or_else(|| wanted.not_here())?;
                let chain = read(&chain_path, wanted)?;
                let chain = chain_of(&chain).ok_or_else(|| ProvideError::Answer {
                    place: chain_path.display().to_string(),
                    what: "no chain of certificates",
                })?;
                (Endorsements::Snp { vek, chain }, path)
            }
        };
        wanted.accept(&found, &place.display().to_string())?;
        Ok(found)
    }

    /// Writes endorsements where [`Folder::load`] finds them. Blocks.
    ///
    /// # Errors
    /// [`ProvideError`] if they are of another platform, or a file cannot be written.
    pub fn store(&self, wanted: &Wanted, found: &Endorsements) -> Result<(), ProvideError> {
        wanted.accept(found, &self.0.display().to_string())?;
        match found {
            Endorsements::None => Ok(()),
            Endorsements::Dcap { collateral } => write(&self.path(wanted, "json"), collateral),
            Endorsements::Snp { vek, chain } => {
                write(&self.path(wanted, "der"), vek)?;
                let path = self.chain_path(wanted).ok_or_else(|| wanted.not_here())?;
                let pem: String = chain.iter().map(|der| pem(der)).collect();
                write(&path, pem.as_bytes())
            }
        }
    }
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

fn file_error(path: &Path, source: io::Error) -> ProvideError {
    ProvideError::File {
        path: path.into(),
        source,
    }
}

fn read(path: &Path, wanted: &Wanted) -> Result<Vec<u8>, ProvideError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(wanted.not_here()),
        Err(error) => return Err(file_error(path, error)),
    };
    let mut content = Vec::new();
    // One byte more than allowed, to tell.
    let mut bounded = file.take(FILE_MAX.saturating_add(1));
    bounded
        .read_to_end(&mut content)
        .map_err(|error| file_error(path, error))?;
    if content.len() as u64 > FILE_MAX {
        return Err(file_error(path, io::ErrorKind::FileTooLarge.into()));
    }
    Ok(content)
}

/// Readers see the old file or the new one, never half.
fn write(path: &Path, content: &[u8]) -> Result<(), ProvideError> {
    let written = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let temporary = path.with_extension("new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    written().map_err(|error| file_error(path, error))
}

impl Provider for Folder {
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>> {
        let (folder, wanted) = (self.clone(), wanted.clone());
        Box::pin(async move {
            let name = wanted.not_here();
            tokio::task::spawn_blocking(move || folder.load(&wanted))
                .await
                .unwrap_or(Err(name))
        })
    }
}

#[cfg(test)]
mod tests;
