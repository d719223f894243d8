//! The closed set of errors that cross a process boundary: stable name, whose fault, retryable.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault an error is, and so who can mend it. Also the CLI's exit-code classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The caller sent something wrong and can mend it.
    Caller,
    /// The caller asked for something that it may not have.
    Denied,
    /// The service, its host or its storage failed.
    Service,
}

macro_rules! error_codes {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $fault:ident, $retry:literal; )*) => {
        /// One error, by stable name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $( $(#[$doc])* $variant, )* }

        impl ErrorCode {
            /// Every code, in the order of docs/protocol.md.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// The HTTP status where the transport is HTTP.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $( Self::$variant => $status, )* }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $( Self::$variant => Fault::$fault, )* }
            }

            /// Whether the same call may succeed later, unchanged.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $( Self::$variant => $retry, )* }
            }
        }
    };
}

error_codes! {
    /// The message is not well-formed, or a field is missing or out of range.
    InvalidRequest = "invalid_request", 400, Caller, false;
    /// The ciphertext does not open under the key of this user, model, enclave and request.
    CannotOpen = "cannot_open", 400, Caller, false;
    /// A tensor has the wrong name, shape, datatype or length.
    InvalidTensor = "invalid_tensor", 400, Caller, false;
    /// The model file is not one that the engine can load.
    InvalidModel = "invalid_model", 422, Caller, false;
    /// The payload is larger than the limit.
    TooLarge = "too_large", 413, Caller, false;
    /// No such model, version, function or route.
    NotFound = "not_found", 404, Caller, false;
    /// It exists already with other content.
    Conflict = "conflict", 409, Caller, false;
    /// This request id was served before.
    Replayed = "replayed", 409, Caller, false;
    /// A response does not belong to the request it was offered for.
    ResponseMismatch = "response_mismatch", 502, Service, false;
    /// The caller did not prove who it is.
    Unauthenticated = "unauthenticated", 401, Denied, false;
    /// No live grant of the owner and request key of the user for this model.
    NotGranted = "not_granted", 403, Denied, false;
    /// The asking enclave is not one that owner and user allowed for this model.
    EnclaveNotAllowed = "enclave_not_allowed", 403, Denied, false;
    /// Evidence was missing or did not pass the appraisal policy.
    NotAttested = "not_attested", 403, Denied, false;
    /// The stored artifact is not the one whose digest the owner registered.
    ArtifactMismatch = "artifact_mismatch", 502, Service, false;
    /// A queue is full; try again after the time given.
    Busy = "busy", 429, Service, true;
    /// The caller's deadline or the function's time limit passed.
    Deadline = "deadline", 504, Service, true;
    /// KeyService cannot be reached.
    KeyserviceUnavailable = "keyservice_unavailable", 503, Service, true;
    /// The model store cannot be reached or has not the artifact.
    StoreUnavailable = "store_unavailable", 503, Service, true;
    /// The platform cannot be reached or refused to start an instance.
    PlatformUnavailable = "platform_unavailable", 503, Service, true;
    /// The instance died while it served the request.
    InstanceFailed = "instance_failed", 502, Service, true;
    /// There is no room left to store what was asked.
    StorageFull = "storage_full", 507, Service, true;
    /// A defect of ours; the log has the cause.
    Internal = "internal", 500, Service, false;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error as it crosses a boundary: the code, and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message} ({code})")]
pub struct WireError {
    pub code: ErrorCode,
    pub message: String,
    /// Milliseconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl WireError {
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_the_same_everywhere() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.name()));
        }
    }

    #[test]
    fn a_denial_is_never_retryable() {
        for code in ErrorCode::ALL {
            assert!(
                !(code.fault() == Fault::Denied && code.retryable()),
                "{code}"
            );
        }
    }
}
