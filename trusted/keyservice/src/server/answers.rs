//! Outcomes as HTTP: which code each refusal has for the peer, and the bytes that are sent.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use protocol::{ErrorCode, WireError};
use serde::Serialize;
use service::ErrorChain;
use zeroize::Zeroizing;

use crate::broker::{GrantError, RegisterModelError, RegisterRequestKeyError, ReleaseError};
use crate::command::{Answer, CommandError};
use crate::keeper::Refusal;
use crate::routes::RouteError;

/// Longer than every answer with a key in it, so that the buffer never moves.
const KEY_ANSWER_MAX: usize = 4096;

pub(super) fn of_route_error(error: &RouteError) -> WireError {
    let code = match error {
        RouteError::NotFound => ErrorCode::NotFound,
        RouteError::Id { .. } | RouteError::Parameter { .. } | RouteError::Query => {
            ErrorCode::InvalidRequest
        }
    };
    WireError::new(code, ErrorChain(error).to_string())
}

pub(super) fn of_command_error(error: &CommandError) -> WireError {
    let code = match error {
        CommandError::NotAPrincipal => ErrorCode::Unauthenticated,
        CommandError::NotAnInstance => ErrorCode::NotAttested,
        CommandError::Body(_) | CommandError::UnexpectedBody => ErrorCode::InvalidRequest,
    };
    WireError::new(code, error.to_string())
}

/// The code and sentence for the peer.
// SECURITY: a refused release must not tell which model, grant or key is missing
// (tests: denials_are_coarse).
pub(super) fn of_refusal(refusal: &Refusal) -> WireError {
    let exact = |code| WireError::new(code, ErrorChain(refusal).to_string());
    let later = |code, ms| WireError {
        retry_after_ms: Some(ms),
        ..exact(code)
    };
    match refusal {
        Refusal::RegisterModel(error) => exact(match error {
            RegisterModelError::VersionZero | RegisterModelError::KeyLength(_) => {
                ErrorCode::InvalidRequest
            }
            RegisterModelError::OtherOwner(_)
            | RegisterModelError::OtherContent { .. }
            | RegisterModelError::NotNewer { .. } => ErrorCode::Conflict,
            RegisterModelError::Limit(_) => ErrorCode::StorageFull,
        }),
        Refusal::UnknownModel(_) | Refusal::Grant(GrantError::UnknownModel(_)) => {
            exact(ErrorCode::NotFound)
        }
        Refusal::Grant(GrantError::Limit(_)) => exact(ErrorCode::StorageFull),
        Refusal::Grant(GrantError::Terms(_)) => exact(ErrorCode::InvalidRequest),
        Refusal::Grant(GrantError::OtherTerms(_)) => exact(ErrorCode::Conflict),
        Refusal::RegisterRequestKey(error) => exact(match error {
            RegisterRequestKeyError::KeyLength(_) | RegisterRequestKeyError::Terms(_) => {
                ErrorCode::InvalidRequest
            }
            RegisterRequestKeyError::OtherContent(_) => ErrorCode::Conflict,
            RegisterRequestKeyError::Limit(_) => ErrorCode::StorageFull,
        }),
        Refusal::Release(error) => match error {
            ReleaseError::UnknownModel
            | ReleaseError::NoGrant
            | ReleaseError::NoRequestKey
            | ReleaseError::OtherOwner => WireError::new(
                ErrorCode::NotGranted,
                "owner and user have not both allowed this use of this model",
            ),
            ReleaseError::GrantForOtherEnclave
            | ReleaseError::RequestKeyForOtherEnclave
            | ReleaseError::OwnerPolicy(_)
            | ReleaseError::UserPolicy(_) => WireError::new(
                ErrorCode::EnclaveNotAllowed,
                "this enclave is not one that owner and user allowed for this model",
            ),
        },
        Refusal::Busy => later(ErrorCode::Busy, 100),
        Refusal::StorageFull => later(ErrorCode::StorageFull, 1000),
        Refusal::StorageFailed => later(ErrorCode::KeyserviceUnavailable, 500),
        Refusal::Stopping => later(ErrorCode::KeyserviceUnavailable, 1000),
        Refusal::Random => exact(ErrorCode::Internal),
    }
}

pub(super) fn response(answer: &Answer) -> Response<Full<Bytes>> {
    json(StatusCode::OK, answer)
}

pub(super) fn error_response(error: &WireError) -> Response<Full<Bytes>> {
    let status =
        StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, error);
    if let Some(ms) = error.retry_after_ms {
        let seconds = HeaderValue::from(ms.div_ceil(1000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_ANSWER_MAX));
    let (status, bytes) = match serde_json::to_writer(&mut *bytes, body) {
        Ok(()) => (status, Bytes::from_owner(bytes)),
        Err(error) => {
            tracing::error!(%error, "an answer does not serialise");
            (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
        }
    };
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_coarse() {
        let error = |reason| of_refusal(&Refusal::Release(reason));
        let not_granted = error(ReleaseError::UnknownModel);
        assert_eq!(not_granted.code, ErrorCode::NotGranted);
        for reason in [
            ReleaseError::NoGrant,
            ReleaseError::NoRequestKey,
            ReleaseError::OtherOwner,
        ] {
            assert_eq!(error(reason), not_granted, "{reason:?}");
        }
        let other_enclave = error(ReleaseError::GrantForOtherEnclave);
        assert_eq!(other_enclave.code, ErrorCode::EnclaveNotAllowed);
        assert_eq!(
            error(ReleaseError::RequestKeyForOtherEnclave),
            other_enclave
        );
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        let refusals = [
            Refusal::Busy,
            Refusal::StorageFull,
            Refusal::StorageFailed,
            Refusal::Stopping,
        ];
        for refusal in refusals {
            let error = of_refusal(&refusal);
            assert!(
                error.code.retryable() && error.retry_after_ms.is_some(),
                "{refusal:?}"
            );
            let response = error_response(&error);
            assert_eq!(response.status().as_u16(), error.code.http_status());
            assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        }
    }

    #[test]
    fn answers_with_keys_are_not_stored_and_fit_their_buffer() {
        use protocol::id::LeaseId;
        use protocol::keyservice::{Lease, Release, WireKey};
        use protocol::{Digest, ModelVersion, PrincipalId};
        let release = Release {
            model: "m".repeat(64).parse().unwrap(),
            version: ModelVersion(u32::MAX),
            owner: PrincipalId::new([1; 32]),
            digest: Digest::new([1; 32]),
            model_key: WireKey::new(&[1; 32]),
            request_key: WireKey::new(&[1; 32]),
            lease: Lease {
                id: LeaseId::new([1; 16]),
                ttl_s: u64::MAX,
                epoch: u64::MAX,
            },
        };
        assert!(serde_json::to_vec(&release).unwrap().len() <= KEY_ANSWER_MAX);
        let response = response(&Answer::Release(release));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }
}
