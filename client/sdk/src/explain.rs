//! What every error of the client answers: its code, whose fault it is, and what to do about it.

use protocol::{ErrorCode, Fault};

/// An error that a person or a program can act on.
///
/// Every error enum of this crate implements it. `Display` and `source()` say what happened;
/// this trait says what follows from it.
pub trait Explain: std::error::Error {
    /// The stable name of what went wrong, from the closed set of the protocol.
    fn code(&self) -> ErrorCode;

    /// Who can mend it.
    fn fault(&self) -> Fault {
        self.code().fault()
    }

    /// Whether the same call may succeed later, unchanged.
    fn retryable(&self) -> bool {
        self.code().retryable()
    }

    /// Milliseconds after which the service asked for a retry, if it did.
    fn retry_after_ms(&self) -> Option<u64> {
        None
    }

    /// What to do about it, as one sentence for a person.
    fn advice(&self) -> String {
        advice(self.code()).to_owned()
    }
}

/// What to do about a code when nothing more precise is known.
#[must_use]
pub const fn advice(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest => "correct the request; the message names what is wrong",
        ErrorCode::CannotOpen => {
            "if the key was replaced a moment ago, wait until the lease of the old one ends; else register it again (`sesemi key register`)"
        }
        ErrorCode::InvalidTensor => "correct the input named in the message",
        ErrorCode::InvalidModel => {
            "export the model again, or pack it with operators that the engine has"
        }
        ErrorCode::TooLarge => "send a smaller payload, or split the batch",
        ErrorCode::NotFound => "check the name; `sesemi model ls` lists your models",
        ErrorCode::Conflict => "use the next version: what is registered never changes",
        ErrorCode::Replayed => "send a new request; a request id is served once",
        ErrorCode::ResponseMismatch => {
            "do not trust this answer and ask again; if it happens twice, tell the operator that answers are being exchanged"
        }
        ErrorCode::Unauthenticated => "call with the identity that owns this resource",
        ErrorCode::NotGranted => {
            "ask the model's owner for a grant (`sesemi grant add`), and register a request key for the same model and enclave (`sesemi key register`)"
        }
        ErrorCode::EnclaveNotAllowed => {
            "grant and request key must name the enclave that runs; compare `sesemi grant ls` and `sesemi key ls` with the pool's enclave id"
        }
        ErrorCode::NotAttested => {
            "do not send anything to it: it is not the enclave that you pinned, or it cannot prove it"
        }
        ErrorCode::ArtifactMismatch => {
            "tell the owner and the operator: the store holds another artifact than the registered one"
        }
        ErrorCode::Busy => "try again later, or with fewer requests at once",
        ErrorCode::Deadline => {
            "allow more time (`--deadline`), or try again when the service is less busy"
        }
        ErrorCode::KeyserviceUnavailable => {
            "check KeyService's address and that it runs, then try again"
        }
        ErrorCode::StoreUnavailable => {
            "check the model store's address and that the artifact was pushed, then try again"
        }
        ErrorCode::PlatformUnavailable => {
            "check FnPacker's address and that it and the platform run, then try again"
        }
        ErrorCode::InstanceFailed => {
            "try again; if it repeats, the operator's log says why the instance died"
        }
        ErrorCode::StorageFull => "make room in the store, then try again",
        ErrorCode::Internal => "this is a defect: report it with the operator's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_advice_that_is_a_clause_without_full_stop() {
        for code in ErrorCode::ALL {
            let text = advice(*code);
            assert!(text.len() > 20 && !text.ends_with('.'), "{code}: {text}");
        }
    }
}
