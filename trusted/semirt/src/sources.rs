//! Where keys and artifacts come from: two traits, so that the path of a request is tested with
//! real cryptography and real models but without sockets.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use protocol::keyservice::{Release, ReleaseRequest};
use protocol::{Digest, WireError};

use crate::config::Endpoints;

/// A cause of any kind.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What KeyService released, and how long that took.
#[derive(Debug)]
pub struct Released {
    pub release: Release,
    /// Making the channel and passing the attest gate; zero on a channel that was there.
    pub attest: Duration,
    /// The release call itself.
    pub keys: Duration,
}

/// Why no keys came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// Worth another try.
    #[error("reach KeyService")]
    Unreachable(#[source] Cause),
    /// Either side's evidence was not accepted.
    #[error("attest to KeyService, or KeyService to us")]
    NotAttested(#[source] Cause),
    /// KeyService answered with an error.
    #[error("ask KeyService for a release")]
    Refused(#[source] WireError),
    /// KeyService answered with something that is not an answer.
    #[error("read KeyService's answer")]
    Malformed(#[source] Cause),
}

/// KeyService, as far as SeMIRT needs it.
pub trait KeySource: Send + Sync + Debug {
    /// Asks once, without retries.
    fn release<'a>(
        &'a self,
        request: &'a ReleaseRequest,
    ) -> BoxFuture<'a, Result<Released, KeySourceError>>;
}

/// An artifact's ciphertext on its way in. Nothing of it is trusted.
pub struct Artifact {
    /// Bytes, as the store says.
    pub len: u64,
    pub chunks: BoxStream<'static, Result<Bytes, FetchError>>,
}

impl Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Why an artifact did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    #[error("the model store has no artifact {0}")]
    NotFound(Digest),
    #[error("fetch an artifact from the model store")]
    Unavailable(#[source] Cause),
}

/// The model store, as far as SeMIRT needs it.
pub trait ArtifactSource: Send + Sync + Debug {
    fn fetch<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Artifact, FetchError>>;
}

/// Both, for one instance.
#[derive(Debug, Clone)]
pub struct Sources {
    pub keys: Arc<dyn KeySource>,
    pub artifacts: Arc<dyn ArtifactSource>,
    /// Sealed requests that are too large for the platform.
    pub requests: Arc<dyn ArtifactSource>,
}

/// Why addresses cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("use {what} '{address}'")]
pub struct OpenSourcesError {
    pub what: &'static str,
    pub address: String,
    #[source]
    pub cause: Cause,
}

/// Turns addresses into sources, at `/init` or at the start. Makes no connection yet: a platform
/// may pause the instance for long between `/init` and `/run`.
pub trait OpenSources: Send + Sync + Debug {
    fn open(&self, endpoints: &Endpoints) -> Result<Sources, OpenSourcesError>;
}
