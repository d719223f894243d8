//! Requests that are too large for the platform go through the model store, sealed as they are.
//!
//! Whoever serves the store learns no more than whoever carries the request: the ciphertext, its
//! length, and when it was asked for.

use std::time::Duration;

use bytes::Bytes;
use crypto::sha256;
use protocol::ErrorCode;
use protocol::invoke::{Ciphertext, SealedRequest, StoredAt, SubmittedRequest};
use protocol::limits::OPENWHISK_PAYLOAD_MAX;
use transport::store::{ModelStore, OpenStoreError, StoreError};

use crate::explain::{Explain, advice};

/// Room for everything in a request but its ciphertext: ids, names of fields, what routers add.
const BESIDE: usize = 1024;
/// Longest time for clearing up after an answer.
const REMOVE_TIME: Duration = Duration::from_secs(2);

/// Why a large request was not put into the store.
#[derive(Debug, thiserror::Error)]
pub enum RequestStoreError {
    #[error("cannot open the store for large requests")]
    Open(#[from] OpenStoreError),
    #[error("cannot put the sealed request, which is too large for the platform, into the store")]
    Put(#[from] StoreError),
}

impl Explain for RequestStoreError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Open(_) => ErrorCode::InvalidRequest,
            Self::Put(error) => error.code(),
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Open(_) => false,
            Self::Put(error) => error.retryable(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Open(_) => "correct the store's URL; a folder must exist (file:///folder)",
            Self::Put(StoreError::Denied(_)) => {
                "ask the operator for write access to `requests/` of the model store, or send a smaller request"
            }
            Self::Put(_) => advice(self.code()),
        }
        .to_owned()
    }
}

/// Where large requests go: the folder `requests` of the model store that the instances use.
#[derive(Debug, Clone)]
pub struct RequestStore {
    url: String,
    above: usize,
}

impl RequestStore {
    /// The model store at `url`, as [`crate::publish::open_store`] takes it; opened when a request
    /// is too large for OpenWhisk.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            above: OPENWHISK_PAYLOAD_MAX,
        }
    }

    /// For requests of more than `bytes`, as the platform counts them: in JSON.
    #[must_use]
    pub fn above(self, bytes: usize) -> Self {
        Self {
            above: bytes,
            ..self
        }
    }

    /// Whether this request cannot be sent as it is.
    #[must_use]
    pub fn takes(&self, request: &SealedRequest) -> bool {
        request.ciphertext.len().div_ceil(3) * 4 + BESIDE > self.above
    }

    /// Stores the ciphertext under its digest.
    pub(crate) async fn put(&self, request: &SealedRequest) -> Result<Placed, RequestStoreError> {
        let store = ModelStore::open(&self.url)?.requests();
        let at = StoredAt {
            digest: sha256(&request.ciphertext),
            size: request.ciphertext.len() as u64,
        };
        let bytes = Bytes::from(request.ciphertext.clone());
        store.put(&at.digest, bytes).await?;
        let request = SubmittedRequest {
            user: request.user,
            model: request.model.clone(),
            enclave: request.enclave,
            request_id: request.request_id,
            ciphertext: Ciphertext::Stored(at),
        };
        Ok(Placed { store, at, request })
    }
}

/// A request whose ciphertext is in the store.
#[derive(Debug)]
pub(crate) struct Placed {
    store: ModelStore,
    at: StoredAt,
    /// What to send.
    pub(crate) request: SubmittedRequest,
}

impl Placed {
    /// Removes it, as far as that is quick: what is left is ciphertext that nobody asks for again,
    /// and operators let it expire.
    pub(crate) async fn remove(self) {
        let removing = self.store.remove(&self.at.digest);
        match tokio::time::timeout(REMOVE_TIME, removing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a stored request was not removed"),
            Err(_) => tracing::debug!("a stored request was not removed in time"),
        }
    }
}
