//! Asks a model: seals the inputs, sends them, opens the answer and checks that it is the answer.

use std::time::Duration;

use crypto::secret::{RequestKey, ResponseKey};
use crypto::{Binding, RngError, SealError, open_response, random_request_id, seal_request};
use protocol::invoke::{RoutedResponse, Routing, SealedRequest, Telemetry};
use protocol::oip::{InferReply, InferRequest, OipError};
use protocol::{EnclaveId, ErrorCode, ModelId, PrincipalId, RequestId, Tensor, WireError};
use tokio::time::Instant;

use crate::explain::{Explain, advice};
use crate::gateway::{Gateway, GatewayError};
use crate::keyring::{KeyringError, RequestKeyring};
use crate::request_store::{RequestStore, RequestStoreError};
use crate::retry::RetryPolicy;

/// In what an answer does not fit its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("it names another request")]
    RequestId,
    #[error("it does not open under this request's own key: it was changed, or belongs elsewhere")]
    Ciphertext,
    #[error("it comes from another model")]
    Model,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    #[error("cannot use the request key")]
    Key(#[from] KeyringError),
    #[error("cannot write the inputs as an inference request")]
    Encode(#[source] OipError),
    #[error("cannot draw a request id")]
    Random(#[from] RngError),
    #[error("cannot seal the request")]
    Seal(#[from] SealError),
    #[error("cannot send a large request")]
    Store(#[from] RequestStoreError),
    /// From the untrusted side, or from an instance that could not open the request: not
    /// authenticated.
    #[error("the request was not answered")]
    Gateway(#[from] GatewayError),
    #[error("the answer does not fit the request")]
    Mismatch(#[from] Mismatch),
    #[error("the opened answer is not an inference reply")]
    Reply(#[source] OipError),
    /// Sealed by the enclave: authentic, and nobody else could read it.
    #[error("the enclave opened the request and answered with an error")]
    Enclave(#[source] WireError),
}

impl Explain for InferError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Key(error) => error.code(),
            Self::Encode(OipError::TooLarge(_)) | Self::Seal(SealError::TooLarge { .. }) => {
                ErrorCode::TooLarge
            }
            Self::Encode(_) => ErrorCode::InvalidTensor,
            Self::Random(_) | Self::Seal(_) | Self::Reply(_) => ErrorCode::Internal,
            Self::Store(error) => error.code(),
            Self::Gateway(error) => error.code(),
            Self::Mismatch(_) => ErrorCode::ResponseMismatch,
            Self::Enclave(error) => error.code,
        }
    }

    fn retryable(&self) -> bool {
        match self {
            Self::Key(error) => error.retryable(),
            Self::Store(error) => error.retryable(),
            Self::Gateway(error) => error.retryable(),
            other => other.code().retryable(),
        }
    }

    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Gateway(error) => error.retry_after_ms(),
            Self::Enclave(error) => error.retry_after_ms,
            _ => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Key(error) => error.advice(),
            Self::Store(error) => error.advice(),
            Self::Gateway(error) => error.advice(),
            other => advice(other.code()).to_owned(),
        }
    }
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Sealed by the enclave, for this request only.
    pub outputs: Vec<Tensor>,
    /// The version that answered; the enclave's word.
    pub model_version: String,
    pub request_id: RequestId,
    /// Attempts that it took, 1 if none failed.
    pub attempts: u32,
    /// From the first attempt's start to the opened answer.
    pub elapsed: Duration,
    /// The ciphertexts' lengths in bytes: what the untrusted side saw.
    pub sent: usize,
    pub received: usize,
    /// The host's word, for speed and cost only.
    pub telemetry: Telemetry,
    /// The host's word, for speed and cost only.
    pub routing: Routing,
}

/// A request ready to be sent, and what is needed to open its answer and no other.
#[derive(Debug)]
pub struct PendingAnswer {
    request: SealedRequest,
    response_key: ResponseKey,
}

impl PendingAnswer {
    /// Seals `payload` (an [`InferRequest`] in its encoding) under a fresh request id.
    pub fn seal(
        key: &RequestKey,
        user: PrincipalId,
        model: &ModelId,
        enclave: EnclaveId,
        payload: &[u8],
    ) -> Result<Self, InferError> {
        let request_id = random_request_id()?;
        let binding = Binding {
            user: &user,
            model,
            enclave: &enclave,
            request_id: &request_id,
        };
        let (ciphertext, response_key) = seal_request(key, &binding, payload)?;
        let model = model.clone();
        let request = SealedRequest {
            user,
            model,
            enclave,
            request_id,
            ciphertext,
        };
        Ok(Self {
            request,
            response_key,
        })
    }

    /// What to send.
    #[must_use]
    pub fn request(&self) -> &SealedRequest {
        &self.request
    }

    /// Opens what came back. It is accepted only as the answer to this very request.
    pub fn open(&self, routed: &RoutedResponse) -> Result<(Vec<Tensor>, String), InferError> {
        let request = &self.request;
        if routed.sealed.request_id != request.request_id {
            return Err(Mismatch::RequestId.into());
        }
        let binding = Binding {
            user: &request.user,
            model: &request.model,
            enclave: &request.enclave,
            request_id: &request.request_id,
        };
        let opened = open_response(&self.response_key, &binding, &routed.sealed.ciphertext)
            .map_err(|_| Mismatch::Ciphertext)?;
        match InferReply::decode(&opened).map_err(InferError::Reply)? {
            InferReply::Error(error) => Err(InferError::Enclave(error)),
            InferReply::Outputs { model_name, .. } if model_name != request.model.as_str() => {
                Err(Mismatch::Model.into())
            }
            InferReply::Outputs {
                model_version,
                outputs,
                ..
            } => Ok((outputs, model_version)),
        }
    }
}

/// Sends sealed requests of one user through one FnPacker. Clones share connections.
#[derive(Debug, Clone)]
pub struct InferClient {
    gateway: Gateway,
    user: PrincipalId,
    keyring: RequestKeyring,
    retry: RetryPolicy,
    store: Option<RequestStore>,
}

impl InferClient {
    #[must_use]
    pub fn new(
        gateway: Gateway,
        user: PrincipalId,
        keyring: RequestKeyring,
        retry: RetryPolicy,
    ) -> Self {
        Self {
            gateway,
            user,
            keyring,
            retry,
            store: None,
        }
    }

    /// Sends what is too large for the platform through a store.
    #[must_use]
    pub fn with_store(self, store: RequestStore) -> Self {
        Self {
            store: Some(store),
            ..self
        }
    }

    /// Asks `model` inside `enclave`. What may succeed later is tried again until the deadline,
    /// each time sealed anew: an enclave serves a request id once.
    pub async fn infer(
        &self,
        model: &ModelId,
        enclave: &EnclaveId,
        inputs: &[Tensor],
    ) -> Result<Answer, InferError> {
        let key = self.keyring.load(model, enclave)?;
        let request = InferRequest {
            inputs: inputs.to_vec(),
        };
        let payload = request.encode().map_err(InferError::Encode)?;
        let began = Instant::now();
        let mut failures = 0;
        loop {
            let remaining = self.retry.remaining(began.elapsed());
            let error = match self
                .attempt(&key, model, enclave, &payload, remaining)
                .await
            {
                Ok((pending, routed, outputs, model_version)) => {
                    return Ok(Answer {
                        outputs,
                        model_version,
                        request_id: pending.request.request_id,
                        attempts: failures + 1,
                        elapsed: began.elapsed(),
                        sent: pending.request.ciphertext.len(),
                        received: routed.sealed.ciphertext.len(),
                        telemetry: routed.sealed.telemetry,
                        routing: routed.routing,
                    });
                }
                Err(error) => error,
            };
            failures += 1;
            match self.retry.pause(failures, began.elapsed(), &error) {
                Some(pause) => {
                    tracing::info!(%error, failures, ?pause, "request failed, will retry");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error),
            }
        }
    }

    async fn attempt(
        &self,
        key: &RequestKey,
        model: &ModelId,
        enclave: &EnclaveId,
        payload: &[u8],
        remaining: Duration,
    ) -> Result<(PendingAnswer, RoutedResponse, Vec<Tensor>, String), InferError> {
        let pending = PendingAnswer::seal(key, self.user, model, *enclave, payload)?;
        let request = pending.request();
        let routed = match self.store.as_ref().filter(|store| store.takes(request)) {
            None => self.gateway.infer(request, remaining).await?,
            Some(store) => {
                let work = self.send_stored(store, request, remaining);
                let late = GatewayError::Deadline(remaining);
                tokio::time::timeout(remaining, work)
                    .await
                    .unwrap_or(Err(late.into()))?
            }
        };
        let (outputs, version) = pending.open(&routed)?;
        Ok((pending, routed, outputs, version))
    }

    async fn send_stored(
        &self,
        store: &RequestStore,
        request: &SealedRequest,
        remaining: Duration,
    ) -> Result<RoutedResponse, InferError> {
        let placed = store.put(request).await?;
        let routed = self.gateway.submit(&placed.request, remaining).await;
        placed.remove().await;
        Ok(routed?)
    }
}

#[cfg(test)]
mod tests;
