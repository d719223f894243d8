//! What went wrong with a request, and how much of that each side learns.
//!
//! Before a request is opened, the answer goes to the host too, so it is coarse: [`Refusal`]. After
//! that it is sealed for the user, so it may be exact: [`Failure`]. The log has the whole chain of
//! causes in both cases, and never a value.

use crypto::{OpenError, SealError};
use inference::{LoadError, RunError};
use protocol::oip::OipError;
use protocol::{ErrorCode, WireError};
use service::ErrorChain;

use crate::keys::KeyError;
use crate::models::ModelError;
use crate::replay::Replayed;
use crate::sources::KeySourceError;
use crate::stored::StoredError;
use crate::workers::{Full, TooLong};

/// When to come back to an instance that is busy, in milliseconds.
const BUSY_AGAIN_MS: u64 = 500;
/// When to come back after KeyService could not be reached, in milliseconds.
const KEYSERVICE_AGAIN_MS: u64 = 2000;

/// Why a request was not opened, or its answer not sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("take the request on")]
    Full(#[from] Full),
    #[error("wait for the one worker")]
    TooLong(#[from] TooLong),
    #[error("the request is for another enclave than this")]
    OtherEnclave,
    #[error("take the request from the model store")]
    Stored(#[from] StoredError),
    #[error("get the keys")]
    Keys(#[from] KeyError),
    #[error("open the request")]
    Open(#[from] OpenError),
    #[error("take the request as new")]
    Replayed(#[from] Replayed),
    #[error("seal the answer")]
    Seal(#[from] SealError),
    #[error("the task that opens or seals failed")]
    Task,
}

impl Refusal {
    /// What everyone may know.
    pub(crate) fn wire(&self) -> WireError {
        let (code, message) = match self {
            Self::Full(_) | Self::TooLong(_) => (
                ErrorCode::Busy,
                "the instance has more requests than it may queue",
            ),
            Self::OtherEnclave => (
                ErrorCode::EnclaveNotAllowed,
                "the request is sealed for another enclave than this",
            ),
            Self::Stored(error) => stored_wire(error),
            Self::Keys(error) => return keys_wire(error),
            Self::Open(OpenError::TooLarge { .. }) => (
                ErrorCode::TooLarge,
                "the ciphertext is larger than any request may be",
            ),
            Self::Open(_) => (
                ErrorCode::CannotOpen,
                "the ciphertext does not open under the request key registered for this user, \
                 model and enclave",
            ),
            Self::Replayed(_) => (
                ErrorCode::Replayed,
                "this request id was served before; seal the request anew to ask again",
            ),
            Self::Seal(_) | Self::Task => (ErrorCode::Internal, "the answer could not be sealed"),
        };
        again(WireError::new(code, message))
    }
}

const fn stored_wire(error: &StoredError) -> (ErrorCode, &'static str) {
    match error {
        StoredError::Fetch(_) | StoredError::TooSlow => (
            ErrorCode::StoreUnavailable,
            "the sealed request could not be fetched from the model store",
        ),
        StoredError::Length | StoredError::Digest => (
            ErrorCode::ArtifactMismatch,
            "what the model store gave is not the sealed request that was named",
        ),
        StoredError::TooLarge => (
            ErrorCode::TooLarge,
            "the sealed request is larger than this instance takes",
        ),
    }
}

fn keys_wire(error: &KeyError) -> WireError {
    let (code, message) = match error {
        KeyError::Unavailable { .. } => (
            ErrorCode::KeyserviceUnavailable,
            "KeyService cannot be reached just now",
        ),
        KeyError::Source(source) => match source.as_ref() {
            KeySourceError::NotAttested(_) => (
                ErrorCode::NotAttested,
                "this instance and the KeyService that it was measured with could not attest to \
                 each other",
            ),
            KeySourceError::Refused(wire) => match wire.code {
                ErrorCode::EnclaveNotAllowed => (
                    ErrorCode::EnclaveNotAllowed,
                    "owner and user have not both allowed this enclave for this model",
                ),
                ErrorCode::NotAttested => (
                    ErrorCode::NotAttested,
                    "KeyService did not accept this instance's evidence",
                ),
                // Whatever else KeyService says no with: this user may not use this model here.
                _ => (
                    ErrorCode::NotGranted,
                    "there is no live grant and request key for this user, model and enclave",
                ),
            },
            KeySourceError::Unreachable(_) | KeySourceError::Malformed(_) => {
                (ErrorCode::Internal, "KeyService's answer could not be used")
            }
        },
        // Retryable, since another instance can serve it.
        KeyError::OtherOwner => (
            ErrorCode::Busy,
            "this instance serves the models of another owner; another instance is needed",
        ),
        KeyError::OtherModel(_) | KeyError::KeyLength(_) | KeyError::Task => {
            (ErrorCode::Internal, "KeyService's answer could not be used")
        }
    };
    again(WireError::new(code, message))
}

fn again(mut error: WireError) -> WireError {
    error.retry_after_ms = match error.code {
        ErrorCode::Busy => Some(BUSY_AGAIN_MS),
        ErrorCode::KeyserviceUnavailable => Some(KEYSERVICE_AGAIN_MS),
        _ => None,
    };
    error
}

/// Why an opened request got no outputs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("read the inference request")]
    Request(#[source] OipError),
    #[error("get the model ready")]
    Model(#[from] ModelError),
    #[error("make a session")]
    Session(#[source] LoadError),
    #[error("wait for a worker")]
    TooLong(#[from] TooLong),
    #[error("run the model")]
    Run(#[from] RunError),
    #[error("write the answer")]
    Reply(#[source] OipError),
    #[error("the task that runs the model failed")]
    Task,
}

impl Failure {
    /// What the user may know: everything, under seal.
    pub(crate) fn wire(&self) -> WireError {
        let text = match self {
            Self::Run(error) => format!("{self}: {}", error.for_user()),
            _ => ErrorChain(self).to_string(),
        };
        again(WireError::new(self.code(), text))
    }

    /// What the host may know, since it reads the log.
    ///
    /// SECURITY: causes that quote the request (names and shapes of tensors, pieces of JSON) or the
    /// model (names in its graph) are left out (test `the_log_quotes_neither_request_nor_model`).
    pub(crate) fn for_log(&self) -> String {
        match self {
            Self::Model(
                ModelError::Fetch(_)
                | ModelError::Mismatch(_)
                | ModelError::Open(_)
                | ModelError::TooLarge { .. }
                | ModelError::NoRoom
                | ModelError::Task,
            )
            | Self::TooLong(_)
            | Self::Task => ErrorChain(self).to_string(),
            Self::Model(error @ (ModelError::Package(_) | ModelError::Load(_))) => {
                format!("{self}: {error}")
            }
            Self::Request(_) | Self::Session(_) | Self::Run(_) | Self::Reply(_) => self.to_string(),
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Request(error) => match error {
                OipError::TooLarge(_) => ErrorCode::TooLarge,
                OipError::Tensor(_)
                | OipError::Element { .. }
                | OipError::NoData(_)
                | OipError::TooMany(_) => ErrorCode::InvalidTensor,
                _ => ErrorCode::InvalidRequest,
            },
            Self::Model(error) => match error {
                ModelError::Fetch(_) => ErrorCode::StoreUnavailable,
                ModelError::Mismatch(_) => ErrorCode::ArtifactMismatch,
                ModelError::Open(_) | ModelError::Package(_) | ModelError::Load(_) => {
                    ErrorCode::InvalidModel
                }
                ModelError::TooLarge { .. } => ErrorCode::TooLarge,
                ModelError::NoRoom => ErrorCode::Busy,
                ModelError::Task => ErrorCode::Internal,
            },
            Self::Run(error) if error.is_callers_fault() => ErrorCode::InvalidTensor,
            Self::Session(_) | Self::Run(_) => ErrorCode::InvalidModel,
            Self::TooLong(_) => ErrorCode::Busy,
            Self::Reply(OipError::TooLarge(_)) => ErrorCode::TooLarge,
            Self::Reply(_) | Self::Task => ErrorCode::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::oip::InferRequest;

    use super::*;

    #[test]
    fn the_log_quotes_neither_request_nor_model() {
        let json = br#"{"inputs":[{"name":"patient","shape":[1],"datatype":"SECRET"}]}"#;
        let request = Failure::Request(InferRequest::from_json(json).unwrap_err());
        let json = br#"{"inputs":[{"name":"SECRET","shape":[1],"datatype":"FP32","data":["x"]}]}"#;
        let tensor = Failure::Request(InferRequest::from_json(json).unwrap_err());
        let load = LoadError::Manifest("SECRET".into());
        let model = Failure::Model(ModelError::Load(Arc::new(load)));
        let session = Failure::Session(LoadError::Manifest("SECRET".into()));
        for failure in [request, tensor, model, session] {
            assert!(failure.wire().message.contains("SECRET"), "{failure:?}");
            assert!(!failure.for_log().contains("SECRET"), "{failure:?}");
        }
    }

    #[test]
    fn only_what_may_pass_says_when_to_come_back() {
        let busy = Refusal::from(Full).wire();
        assert_eq!(
            (busy.code, busy.retry_after_ms),
            (ErrorCode::Busy, Some(BUSY_AGAIN_MS))
        );
        let never = Refusal::OtherEnclave.wire();
        assert_eq!(
            (never.code.retryable(), never.retry_after_ms),
            (false, None)
        );
    }
}
