//! The model store: sealed artifacts by the digest of their bytes, in a folder or a cloud bucket.
//! It is not trusted: whoever reads from it checks the digest.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crypto::DigestWriter;
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt};
use protocol::{Digest, ErrorCode};
use url::Url;

/// Bytes read or sent at a time; S3 wants parts of at least 5 MiB.
const PART: usize = 8 * 1024 * 1024;
/// Parts of one upload on the way at once.
const PARTS_AT_ONCE: usize = 4;

/// Why a URL does not name a usable model store.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("'{url}' is not a URL; a model store is file:///folder, s3://, gs:// or az://")]
    Url {
        url: String,
        #[source]
        source: url::ParseError,
    },
    #[error("a model store is file:///folder, s3://, gs:// or az://, not {scheme}://")]
    Scheme { scheme: String },
    #[error("this build has no cloud model stores ({scheme}://): build with the feature `cloud`")]
    NoCloud { scheme: String },
    #[error("'{url}' does not name an absolute folder: write file:///folder")]
    NotAFolder { url: String },
    #[error("opening the folder {}", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: Box<object_store::Error>,
    },
    #[error("'{name}' is not an option of {scheme}:// model stores")]
    Option { scheme: String, name: String },
    #[error("configuring the model store {url}")]
    Cloud {
        url: String,
        #[source]
        source: Box<object_store::Error>,
    },
}

/// Why an artifact was not stored or fetched.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the model store has no artifact {digest}")]
    NotFound { digest: Digest },
    #[error("the model store cannot be reached")]
    Unavailable(#[source] Box<object_store::Error>),
    #[error("reading artifact {digest} from the model store")]
    Read {
        digest: Digest,
        #[source]
        source: io::Error,
    },
    #[error("the model store has no room left")]
    Full(#[source] Box<object_store::Error>),
    #[error("the model store denies access")]
    Denied(#[source] Box<object_store::Error>),
    #[error("reading the artifact file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the artifact file {} changed: its digest is {got}, expected {expected}", path.display())]
    Changed {
        path: PathBuf,
        expected: Digest,
        got: Digest,
    },
}

impl StoreError {
    /// The code for whoever asked for the artifact.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } | Self::Unavailable(_) | Self::Read { .. } | Self::Denied(_) => {
                ErrorCode::StoreUnavailable
            }
            Self::Full(_) => ErrorCode::StorageFull,
            Self::File { .. } => ErrorCode::InvalidRequest,
            Self::Changed { .. } => ErrorCode::ArtifactMismatch,
        }
    }

    /// Whether the same call may succeed later. An absent artifact may still be on its way.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        !matches!(self, Self::Denied(_)) && self.code().retryable()
    }
}

/// An artifact on its way out of the store.
pub struct Fetched {
    /// Length that the store states, in bytes; the stream never gives more.
    pub len: u64,
    pub stream: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A folder or bucket of sealed artifacts, each at `{digest}.sesemi`.
#[derive(Debug, Clone)]
pub struct ModelStore {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
}

impl ModelStore {
    /// Opens `file:///folder` (which must exist), `s3://bucket/prefix`, `gs://bucket/prefix` or
    /// `az://container/prefix`. Credentials of clouds come from their standard environment
    /// variables or from the machine's identity.
    ///
    /// # Errors
    /// [`OpenStoreError`]; no network is used yet.
    pub fn open(url: &str) -> Result<Self, OpenStoreError> {
        Self::open_with(url, &[])
    }

    /// As [`Self::open`], with options of the cloud's store by their `object_store` names, for
    /// example `("aws_endpoint", "http://127.0.0.1:9000")`. They win over the environment.
    ///
    /// # Errors
    /// [`OpenStoreError`]; an unknown option is one.
    pub fn open_with(url: &str, options: &[(String, String)]) -> Result<Self, OpenStoreError> {
        let parsed = Url::parse(url).map_err(|source| OpenStoreError::Url {
            url: url.into(),
            source,
        })?;
        match parsed.scheme() {
            "file" => open_folder(url, &parsed, options),
            scheme @ ("s3" | "gs" | "az") => cloud::open(scheme, &parsed, options),
            scheme => Err(OpenStoreError::Scheme {
                scheme: scheme.into(),
            }),
        }
    }

    fn location(&self, digest: &Digest) -> ObjectPath {
        self.prefix.clone().join(format!("{digest}.sesemi"))
    }

    /// Stores the file at `path`, whose bytes must have `digest`, in bounded memory. Nothing is
    /// visible under the digest until all of it is there; storing it again is no error.
    ///
    /// # Errors
    /// [`StoreError`]; a file with another digest is not stored.
    pub async fn put_file(&self, digest: &Digest, path: &Path) -> Result<u64, StoreError> {
        let file_error = |source| StoreError::File {
            path: path.into(),
            source,
        };
        let open = path.to_owned();
        let mut file = blocking(move || File::open(open))
            .await
            .map_err(file_error)?;
        let mut upload = self
            .store
            .put_multipart(&self.location(digest))
            .await
            .map_err(|error| classify(digest, error))?;
        match copy(&mut file, upload.as_mut(), digest, path).await {
            Ok(len) => Ok(len),
            Err(error) => {
                if let Err(error) = upload.abort().await {
                    tracing::debug!(%error, "aborting an upload");
                }
                Err(error)
            }
        }
    }

    /// The requests beside the models: sealed requests that are too large for the platform, in the
    /// folder `requests`, so that an operator can let them expire and give users no more than that.
    #[must_use]
    pub fn requests(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            prefix: self.prefix.clone().join("requests"),
        }
    }

    /// Stores bytes, whose digest must be `digest`. Nothing is visible before all of it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), StoreError> {
        let put = self.store.put(&self.location(digest), bytes.into()).await;
        put.map(drop).map_err(|error| classify(digest, error))
    }

    /// Removes what lies under `digest`; nothing there is no error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.store.delete(&self.location(digest)).await {
            Err(error) => match classify(digest, error) {
                StoreError::NotFound { .. } => Ok(()),
                error => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Starts fetching the artifact with `digest`. The bytes are not checked: that is for
    /// whoever opens the artifact.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fetch(&self, digest: &Digest) -> Result<Fetched, StoreError> {
        let digest = *digest;
        let found = self
            .store
            .get(&self.location(&digest))
            .await
            .map_err(|error| classify(&digest, error))?;
        let len = found.meta.size;
        let stream = match found.payload {
            GetResultPayload::File(file, _) => file_stream(file, len, digest),
            GetResultPayload::Stream(stream) => {
                let stream = stream
                    .map_err(move |error| classify(&digest, error))
                    .boxed();
                exactly(stream, len, digest)
            }
        };
        Ok(Fetched { len, stream })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Reads up to `max` bytes; fewer only at the end of the file.
async fn read_part(file: &mut File, max: usize) -> io::Result<Vec<u8>> {
    let file = file.try_clone()?;
    blocking(move || {
        let mut part = Vec::with_capacity(max);
        file.take(max as u64).read_to_end(&mut part)?;
        Ok(part)
    })
    .await
}

/// Folders are read in large parts: the store's own stream hands over 8 KiB at a time.
fn file_stream(
    file: File,
    len: u64,
    digest: Digest,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    stream::try_unfold((file, len), move |(mut file, left)| async move {
        let max = usize::try_from(left).unwrap_or(PART).min(PART);
        if max == 0 {
            return Ok(None);
        }
        let part = read_part(&mut file, max)
            .await
            .map_err(|source| StoreError::Read { digest, source })?;
        if part.len() < max {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(StoreError::Read { digest, source });
        }
        let left = left.saturating_sub(part.len() as u64);
        Ok(Some((Bytes::from(part), (file, left))))
    })
    .boxed()
}

/// Holds a store to the length that it stated.
fn exactly(
    stream: BoxStream<'static, Result<Bytes, StoreError>>,
    len: u64,
    digest: Digest,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    stream::try_unfold((stream, len), move |(mut stream, left)| async move {
        let wrong = |kind: io::ErrorKind| StoreError::Read {
            digest,
            source: kind.into(),
        };
        match stream.try_next().await? {
            Some(part) => {
                let left = left
                    .checked_sub(part.len() as u64)
                    .ok_or_else(|| wrong(io::ErrorKind::InvalidData))?;
                Ok(Some((part, (stream, left))))
            }
            None if left > 0 => Err(wrong(io::ErrorKind::UnexpectedEof)),
            None => Ok(None),
        }
    })
    .boxed()
}

async fn copy(
    file: &mut File,
    upload: &mut dyn MultipartUpload,
    digest: &Digest,
    path: &Path,
) -> Result<u64, StoreError> {
    let mut hash = DigestWriter::new();
    let mut len = 0_u64;
    let mut sending = stream::FuturesUnordered::new();
    loop {
        let part = read_part(file, PART)
            .await
            .map_err(|source| StoreError::File {
                path: path.into(),
                source,
            })?;
        // An empty file still has one (empty) part.
        if part.is_empty() && len > 0 {
            break;
        }
        let last = part.len() < PART;
        hash.update(&part);
        len = len.saturating_add(part.len() as u64);
        sending.push(upload.put_part(part.into()));
        while sending.len() >= PARTS_AT_ONCE {
            if let Some(sent) = sending.next().await {
                sent.map_err(|error| classify(digest, error))?;
            }
        }
        if last {
            break;
        }
    }
    while let Some(sent) = sending.next().await {
        sent.map_err(|error| classify(digest, error))?;
    }
    let got = hash.finish();
    if got != *digest {
        return Err(StoreError::Changed {
            path: path.into(),
            expected: *digest,
            got,
        });
    }
    upload
        .complete()
        .await
        .map_err(|error| classify(digest, error))?;
    Ok(len)
}

fn open_folder(
    url: &str,
    parsed: &Url,
    options: &[(String, String)],
) -> Result<ModelStore, OpenStoreError> {
    if let Some((name, _)) = options.first() {
        return Err(OpenStoreError::Option {
            scheme: "file".into(),
            name: name.clone(),
        });
    }
    let path = parsed
        .to_file_path()
        .map_err(|()| OpenStoreError::NotAFolder { url: url.into() })?;
    let folder =
        LocalFileSystem::new_with_prefix(&path).map_err(|source| OpenStoreError::Folder {
            path,
            source: Box::new(source),
        })?;
    // What was acknowledged must survive a crash of the machine.
    let folder = folder.with_fsync(true);
    Ok(ModelStore {
        store: Arc::new(folder),
        prefix: ObjectPath::default(),
    })
}

fn classify(digest: &Digest, error: object_store::Error) -> StoreError {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => StoreError::NotFound { digest: *digest },
        error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
            StoreError::Denied(Box::new(error))
        }
        error => match io_kind(&error) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                StoreError::Full(Box::new(error))
            }
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                StoreError::Denied(Box::new(error))
            }
            _ => StoreError::Unavailable(Box::new(error)),
        },
    }
}

/// The I/O error at the bottom of a chain, if there is one.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(not(feature = "cloud"))]
mod cloud {
    //! Refuses clouds by name.

    use url::Url;

    use super::{ModelStore, OpenStoreError};

    pub(super) fn open(
        scheme: &str,
        _url: &Url,
        _options: &[(String, String)],
    ) -> Result<ModelStore, OpenStoreError> {
        Err(OpenStoreError::NoCloud {
            scheme: scheme.into(),
        })
    }
}

#[cfg(feature = "cloud")]
mod cloud;

#[cfg(test)]
mod tests;
