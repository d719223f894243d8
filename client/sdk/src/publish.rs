//! The owner's side of a model: its keys, sealing an artifact in bounded memory, what was pushed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use crypto::artifact::{ArtifactError, SealedArtifact, seal_artifact_on};
use crypto::secret::ModelKey;
use crypto::{KeyFileError, RngError};
use protocol::{Digest, ErrorCode, ModelId, ModelVersion};
use serde::{Deserialize, Serialize};
use transport::store::{ModelStore, OpenStoreError, StoreError};

use crate::explain::{Explain, advice};
use crate::keyring::{advice_on_key_file, code_of_key_file};
use crate::state_file::{
    StateFileError, advice_on_io, code_of_io, create_private_dir, read_small, replace_small,
    sync_folder,
};

/// Why a model was not sealed or pushed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("version {version} of model '{model}' was pushed before")]
    Pushed {
        model: ModelId,
        version: ModelVersion,
    },
    #[error("version {version} of model '{model}' was not pushed from here")]
    NotPushed {
        model: ModelId,
        version: ModelVersion,
    },
    #[error("no version of model '{model}' was pushed from here")]
    NothingPushed { model: ModelId },
    #[error("{path} is not a record of a pushed version")]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("cannot use the model key")]
    KeyFile(#[from] KeyFileError),
    #[error("cannot draw a model key")]
    Rng(#[from] RngError),
    #[error("cannot seal the model")]
    Seal(#[source] ArtifactError),
    #[error("cannot use the folder of models")]
    Folder(#[from] StateFileError),
    #[error("cannot open the model store")]
    OpenStore(#[from] OpenStoreError),
    #[error("cannot push the artifact to the model store")]
    Store(#[from] StoreError),
}

impl Explain for PublishError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Pushed { .. } => ErrorCode::Conflict,
            Self::NotPushed { .. } | Self::NothingPushed { .. } => ErrorCode::NotFound,
            Self::Record { .. } | Self::OpenStore(_) => ErrorCode::InvalidRequest,
            Self::KeyFile(error) => code_of_key_file(error),
            Self::Rng(_) => ErrorCode::Internal,
            Self::Seal(error) => code_of_artifact(error),
            Self::Folder(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.retryable(),
            _ => false,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Pushed { model, version } => format!(
                "push another version; a version never changes (`sesemi model register {model} --version {version}` registers this one)"
            ),
            Self::NotPushed { model, .. } | Self::NothingPushed { model } => format!(
                "push it first (`sesemi model push PACKAGE --model {model}`), from the machine that has the model key"
            ),
            Self::Record { path, .. } => format!("restore {} from a copy", path.display()),
            Self::KeyFile(error) => advice_on_key_file(error),
            Self::Rng(_) => "check the operating system's random number generator".to_owned(),
            Self::Seal(ArtifactError::Read(error) | ArtifactError::Write(error)) => {
                advice_on_io(error).to_owned()
            }
            Self::Folder(error) => error.advice(),
            Self::OpenStore(_) => {
                "correct the store's URL; a folder must exist (file:///folder)".to_owned()
            }
            Self::Store(StoreError::Denied(_)) => {
                "check this machine's credentials for the store".to_owned()
            }
            Self::Seal(_) | Self::Store(_) => advice(self.code()).to_owned(),
        }
    }
}

fn code_of_artifact(error: &ArtifactError) -> ErrorCode {
    match error {
        ArtifactError::TooLarge { .. } => ErrorCode::TooLarge,
        ArtifactError::Read(error) | ArtifactError::Write(error) => code_of_io(error),
        _ => ErrorCode::Internal,
    }
}

/// Opens a model store by URL: `file:///folder`, `s3://…`, `gs://…`, `az://…`.
pub fn open_store(url: &str) -> Result<ModelStore, PublishError> {
    Ok(ModelStore::open(url)?)
}

/// A version whose artifact is in the store: what there is to register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pushed {
    pub model: ModelId,
    pub version: ModelVersion,
    /// SHA-256 of the artifact.
    pub digest: Digest,
    /// Length of the artifact, in bytes.
    pub len: u64,
}

/// A sealed artifact on this machine's disk, deleted when dropped.
#[derive(Debug)]
pub struct SealedFile {
    file: tempfile::NamedTempFile,
    sealed: SealedArtifact,
    /// Held while the file is wanted; see [`stage`].
    _lock: File,
}

impl SealedFile {
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its length and digest.
    #[must_use]
    pub fn artifact(&self) -> &SealedArtifact {
        &self.sealed
    }
}

/// The owner's folder of models (mode 0700): `MODEL/VERSION.key` and, once pushed,
/// `MODEL/VERSION.json`. Sealed artifacts lie here on their way to the store.
#[derive(Debug, Clone)]
pub struct ModelShelf {
    folder: PathBuf,
}

impl ModelShelf {
    /// Keeps keys and records in `folder`, which appears with the first one.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    fn file(&self, model: &ModelId, version: ModelVersion, extension: &str) -> PathBuf {
        self.folder
            .join(model.as_str())
            .join(format!("{version}.{extension}"))
    }

    /// The versions of `model` that were pushed from here, oldest first.
    pub fn versions(&self, model: &ModelId) -> Result<Vec<Pushed>, PublishError> {
        let folder = self.folder.join(model.as_str());
        let failed = |source| StateFileError::io("read the folder", &folder, source);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error).into()),
        };
        let mut versions = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let number = name
                .to_str()
                .and_then(|n| n.strip_suffix(".json")?.parse().ok());
            if let Some(version) = number.map(ModelVersion) {
                versions.extend(self.find(model, version)?);
            }
        }
        versions.sort_by_key(|pushed| pushed.version);
        Ok(versions)
    }

    fn find(&self, model: &ModelId, version: ModelVersion) -> Result<Option<Pushed>, PublishError> {
        let path = self.file(model, version, "json");
        let Some(bytes) = read_small(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| PublishError::Record { path, source })
    }

    /// What was pushed as `version`, or as the last version.
    pub fn pushed(
        &self,
        model: &ModelId,
        version: Option<ModelVersion>,
    ) -> Result<Pushed, PublishError> {
        match version {
            Some(version) => self
                .find(model, version)?
                .ok_or_else(|| PublishError::NotPushed {
                    model: model.clone(),
                    version,
                }),
            None => self
                .versions(model)?
                .pop()
                .ok_or_else(|| PublishError::NothingPushed {
                    model: model.clone(),
                }),
        }
    }

    /// The key of a version that was pushed.
    pub fn key(&self, pushed: &Pushed) -> Result<ModelKey, PublishError> {
        Ok(ModelKey::read_file(&self.file(
            &pushed.model,
            pushed.version,
            "key",
        ))?)
    }

    /// The key to seal a new version with: fresh, or that of an attempt that did not finish.
    fn key_for_sealing(
        &self,
        model: &ModelId,
        version: ModelVersion,
    ) -> Result<ModelKey, PublishError> {
        let folder = self.folder.join(model.as_str());
        create_private_dir(&folder)?;
        let path = self.file(model, version, "key");
        if path
            .try_exists()
            .map_err(|e| StateFileError::io("look for", &path, e))?
        {
            return Ok(ModelKey::read_file(&path)?);
        }
        let key = ModelKey::generate()?;
        key.write_file(&path)?;
        sync_folder(&folder)?;
        Ok(key)
    }

    /// Seals `plain` as `version` of `model` into a file beside the keys, in bounded memory and on
    /// all cores. `progress` hears how many bytes of `plain` are done. Blocks.
    pub fn seal(
        &self,
        model: &ModelId,
        version: ModelVersion,
        plain: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<SealedFile, PublishError> {
        if self.find(model, version)?.is_some() {
            return Err(PublishError::Pushed {
                model: model.clone(),
                version,
            });
        }
        let key = self.key_for_sealing(model, version)?;
        let (staged, lock) = stage(&self.folder)?;
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut plain = Counted {
            inner: plain,
            done: 0,
            progress,
        };
        let mut out = io::BufWriter::new(staged.as_file());
        let sealed = seal_artifact_on(threads, &key, model, version, &mut plain, &mut out)
            .and_then(|sealed| out.flush().map(|()| sealed).map_err(ArtifactError::Write))
            .map_err(PublishError::Seal)?;
        drop(out);
        Ok(SealedFile {
            file: staged,
            sealed,
            _lock: lock,
        })
    }

    /// Uploads a sealed artifact (in parts, if it is large) and remembers what was pushed.
    pub async fn push(
        &self,
        store: &ModelStore,
        model: &ModelId,
        version: ModelVersion,
        sealed: &SealedFile,
    ) -> Result<Pushed, PublishError> {
        let SealedArtifact { len, digest } = *sealed.artifact();
        store.put_file(&digest, sealed.path()).await?;
        let pushed = Pushed {
            model: model.clone(),
            version,
            digest,
            len,
        };
        let path = self.file(model, version, "json");
        let json = serde_json::to_vec_pretty(&pushed).map_err(|source| PublishError::Record {
            path: path.clone(),
            source,
        })?;
        replace_small(&path, &json)?;
        Ok(pushed)
    }
}

/// First characters of the names of staged files.
const STAGED: &str = ".sealing-";

/// A new file for a sealed artifact. Whoever seals holds a shared lock; who finds nobody sealing
/// sweeps what processes that were killed have left.
fn stage(folder: &Path) -> Result<(tempfile::NamedTempFile, File), StateFileError> {
    let failed = |source| StateFileError::io("write in the folder", folder, source);
    let lock = File::create(folder.join(".sealing.lock")).map_err(failed)?;
    if lock.try_lock().is_ok() {
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(STAGED) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        lock.unlock().map_err(failed)?;
    }
    lock.lock_shared().map_err(failed)?;
    let staged = tempfile::Builder::new()
        .prefix(STAGED)
        .tempfile_in(folder)
        .map_err(failed)?;
    Ok((staged, lock))
}

struct Counted<'a> {
    inner: &'a mut dyn Read,
    done: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done = self.done.saturating_add(read as u64);
        (self.progress)(self.done);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
