//! A verified KeyService: connects, appraises, refuses rollback, reconnects and retries.

use std::fmt;
use std::ops::AsyncFnMut;
use std::sync::Arc;
use std::time::Duration;

use attestation::{
    Allowed, AppraisalPolicy, Appraised, ClientIdentity, RatlsError, RelyingParty, Scorecard, Tee,
    VerifierSet,
};
use crypto::IdentityKey;
use protocol::keyservice::{LogPage, Status};
use protocol::{EnclaveId, ErrorCode, PrincipalId};
use tokio::time::Instant;
use transport::channel::{CallError, ConnectError, connect};
use transport::keyservice_client::KeyserviceClient;

use crate::epochs::{EpochError, EpochMemory};
use crate::explain::{Explain, advice};
use crate::retry::RetryPolicy;
use crate::wall_time::WallTime;

mod owner;
mod user;

pub use owner::{Owner, RegisterError};
pub use user::{Demands, Registered, RequestKeyError, User};

/// Longest time for one attempt to connect, and for one call.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// Why KeyService did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyserviceError {
    #[error("cannot use the identity key for TLS")]
    Identity(#[source] RatlsError),
    #[error("no attested channel to KeyService")]
    Connect(#[from] ConnectError),
    #[error("KeyService was not accepted")]
    Epoch(#[from] EpochError),
    #[error("KeyService did not do it")]
    Call(#[from] CallError),
    #[error("KeyService did not answer within {} ms", .0.as_millis())]
    Deadline(Duration),
}

impl KeyserviceError {
    /// Every check of the appraisal, if it came to one and it failed.
    #[must_use]
    pub fn scorecard(&self) -> Option<&Scorecard> {
        match self {
            Self::Connect(error) => error.scorecard(),
            _ => None,
        }
    }
}

impl Explain for KeyserviceError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Identity(_) => ErrorCode::InvalidRequest,
            Self::Connect(error) => error.code(),
            Self::Epoch(error) => error.code(),
            Self::Call(error) => error.code(),
            Self::Deadline(_) => ErrorCode::Deadline,
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Identity(_) | Self::Deadline(_) => false,
            Self::Connect(error) => error.retryable(),
            Self::Epoch(error) => error.retryable(),
            Self::Call(error) => error.retryable(),
        }
    }

    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Connect(ConnectError::Refused { source, .. })
            | Self::Call(CallError::Remote(source)) => source.retry_after_ms,
            _ => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Identity(_) => "name an identity key that `sesemi identity new` made".to_owned(),
            Self::Connect(ConnectError::NotAttested { .. }) => {
                "send nothing to it; `sesemi verify keyservice` shows every check. If KeyService was updated, get its new E_K from who built it, not from the operator".to_owned()
            }
            Self::Connect(ConnectError::Handshake { .. } | ConnectError::NotOurs { .. }) => {
                "check that the address is KeyService's and that its version fits this client".to_owned()
            }
            Self::Epoch(error) => error.advice(),
            Self::Call(CallError::Remote(error)) if error.code == ErrorCode::NotFound => {
                "check the model's name and that you act with its owner's identity".to_owned()
            }
            other => advice(other.code()).to_owned(),
        }
    }
}

/// Which KeyService to talk to, and how it must prove itself.
#[derive(Debug, Clone)]
pub struct PinnedKeyservice {
    /// `host:port`.
    pub address: String,
    /// Verifiers and policy; the policy's `enclaves` pin E_K.
    pub relying: Arc<RelyingParty>,
}

impl PinnedKeyservice {
    /// Pins exactly one enclave, in one of the `accepted` kinds of TEE, with the strictest policy.
    #[must_use]
    pub fn new(
        address: impl Into<String>,
        enclave: EnclaveId,
        accepted: Vec<Tee>,
        verifiers: VerifierSet,
    ) -> Self {
        let policy = AppraisalPolicy::strict(accepted, Allowed::These(vec![enclave]));
        Self {
            address: address.into(),
            relying: Arc::new(RelyingParty { verifiers, policy }),
        }
    }
}

/// A KeyService that has proved to be the pinned one. Calls reconnect (and verify again) when the
/// connection breaks, and retry what may succeed later until the policy's deadline.
pub struct Keyservice {
    pinned: PinnedKeyservice,
    who: ClientIdentity,
    principal: PrincipalId,
    epochs: EpochMemory,
    retry: RetryPolicy,
    time: WallTime,
    client: Option<KeyserviceClient>,
}

impl fmt::Debug for Keyservice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyservice")
            .field("address", &self.pinned.address)
            .field("principal", &self.principal)
            .field("connected", &self.client.is_some())
            .finish_non_exhaustive()
    }
}

impl Keyservice {
    /// Connects and verifies.
    pub async fn connect(
        pinned: PinnedKeyservice,
        identity: &IdentityKey,
        epochs: EpochMemory,
        retry: RetryPolicy,
        time: WallTime,
    ) -> Result<Self, KeyserviceError> {
        let who = ClientIdentity::principal(identity).map_err(KeyserviceError::Identity)?;
        let principal = identity.principal();
        let mut keyservice = Self {
            pinned,
            who,
            principal,
            epochs,
            retry,
            time,
            client: None,
        };
        keyservice.call(async |_| Ok(())).await?;
        Ok(keyservice)
    }

    /// As whom the calls are made.
    #[must_use]
    pub const fn principal(&self) -> PrincipalId {
        self.principal
    }

    /// The witness that KeyService was verified; `None` while the connection is broken.
    #[must_use]
    pub fn appraised(&self) -> Option<&Appraised> {
        self.client
            .as_ref()
            .map(|client| client.channel().appraised())
    }

    /// What anyone may know of it.
    pub async fn status(&mut self) -> Result<Status, KeyserviceError> {
        self.call(async |client| client.status().await).await
    }

    /// The log entries that concern the caller.
    pub async fn log(&mut self) -> Result<LogPage, KeyserviceError> {
        self.call(async |client| client.log().await).await
    }

    /// What a model owner does.
    pub fn owner(&mut self) -> Owner<'_> {
        Owner { keyservice: self }
    }

    /// What a model user does.
    pub fn user(&mut self) -> User<'_> {
        User { keyservice: self }
    }

    /// One operation with retries; each attempt has a live, verified channel.
    async fn call<R>(
        &mut self,
        mut operation: impl AsyncFnMut(&mut KeyserviceClient) -> Result<R, CallError>,
    ) -> Result<R, KeyserviceError> {
        let began = Instant::now();
        let mut failures = 0;
        loop {
            let remaining = self.retry.remaining(began.elapsed());
            let attempt = async {
                let client = self.connected(remaining).await?;
                Ok(operation(client).await?)
            };
            let result = tokio::time::timeout(remaining, attempt)
                .await
                .unwrap_or(Err(KeyserviceError::Deadline(self.retry.deadline)));
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failures += 1;
            match self.retry.pause(failures, began.elapsed(), &error) {
                Some(pause) => {
                    tracing::info!(%error, failures, ?pause, "keyservice call failed, will retry");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error),
            }
        }
    }

    async fn connected(
        &mut self,
        remaining: Duration,
    ) -> Result<&mut KeyserviceClient, KeyserviceError> {
        let alive = self.client.take().filter(KeyserviceClient::is_alive);
        let client = match alive {
            Some(client) => client,
            None => {
                let now = self.time.now();
                let timeout = remaining.min(ATTEMPT_MAX);
                let pinned = &self.pinned;
                let channel =
                    connect(&pinned.address, &self.who, &pinned.relying, now, timeout).await?;
                self.epochs
                    .admit(&channel.appraised().enclave(), channel.epoch())?;
                KeyserviceClient::new(channel)
            }
        };
        Ok(self.client.insert(client))
    }

    /// Remembers an epoch that an answer carried.
    fn learn(&self, epoch: u64) -> Result<(), KeyserviceError> {
        match self.appraised() {
            Some(appraised) => Ok(self.epochs.learn(&appraised.enclave(), epoch)?),
            None => Ok(()),
        }
    }
}
