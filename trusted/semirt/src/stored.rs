//! Sealed requests that lie in the model store, since they are too large for the platform.
//!
//! The reference is the host's word, as the request is. So the length is a bound before anything is
//! allocated, and what comes is looked at only after its digest fits.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use protocol::invoke::StoredAt;

use crate::sources::{Artifact, ArtifactSource, FetchError};

/// Longest time that a request takes from the store to here: as for one that is sent.
pub(crate) const FETCH_TIME: Duration = Duration::from_secs(60);

/// Why a stored request did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    #[error("fetch the stored request")]
    Fetch(#[from] FetchError),
    #[error("the stored request did not come within {} s", FETCH_TIME.as_secs())]
    TooSlow,
    #[error("the stored request has not the length of its reference")]
    Length,
    #[error("the stored request has not the digest of its reference")]
    Digest,
    #[error("the stored request is longer than this process can hold")]
    TooLarge,
}

/// The bytes that `at` names, exactly as many as it says; their digest is not yet checked. The
/// caller has found room for `at.size` bytes.
pub(crate) async fn fetch(
    source: &Arc<dyn ArtifactSource>,
    at: &StoredAt,
) -> Result<Vec<u8>, StoredError> {
    let size = usize::try_from(at.size).map_err(|_| StoredError::TooLarge)?;
    let fetching = async {
        let Artifact { len, mut chunks } = source.fetch(&at.digest).await?;
        if len != at.size {
            return Err(StoredError::Length);
        }
        let mut whole = Vec::with_capacity(size);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if chunk.len() > size - whole.len() {
                return Err(StoredError::Length);
            }
            whole.extend_from_slice(&chunk);
        }
        if whole.len() == size {
            Ok(whole)
        } else {
            Err(StoredError::Length)
        }
    };
    let timed = tokio::time::timeout(FETCH_TIME, fetching).await;
    timed.unwrap_or(Err(StoredError::TooSlow))
}
