//! Why there is no channel, no answer, no caller; and whether to try again.

use std::io;
use std::time::Duration;

use attestation::ratls::EstablishError;
use attestation::{GateError, RatlsError, Scorecard};
use protocol::{ErrorCode, WireError};

use super::ANSWER_MAX;

/// Why there is no attested channel to KeyService.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connecting to {addr}")]
    Unreachable {
        addr: String,
        #[source]
        source: io::Error,
    },
    #[error("no attested channel to {addr} within {after:?}")]
    Timeout { addr: String, after: Duration },
    #[error("preparing TLS")]
    Prepare(#[source] RatlsError),
    #[error("the connection to {addr} broke before it was attested")]
    Broken {
        addr: String,
        #[source]
        source: io::Error,
    },
    #[error("the TLS handshake with {addr} failed")]
    Handshake {
        addr: String,
        #[source]
        source: io::Error,
    },
    #[error("what answers at {addr} does not speak the attested channel")]
    NotOurs {
        addr: String,
        #[source]
        source: EstablishError,
    },
    #[error("what answers at {addr} is not attested")]
    NotAttested {
        addr: String,
        #[source]
        source: GateError,
    },
    #[error("{addr} refuses this caller")]
    Refused {
        addr: String,
        #[source]
        source: WireError,
    },
    #[error("this side could not attest to {addr}")]
    Attest {
        addr: String,
        #[source]
        source: GateError,
    },
    #[error("starting HTTP with {addr}")]
    Http {
        addr: String,
        #[source]
        source: hyper::Error,
    },
}

impl ConnectError {
    /// The code for whoever asked for the channel.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Http { .. } => ErrorCode::KeyserviceUnavailable,
            Self::Handshake { .. } | Self::NotOurs { .. } | Self::NotAttested { .. } => {
                ErrorCode::NotAttested
            }
            Self::Refused { source, .. } => source.code,
            Self::Prepare(_) | Self::Attest { .. } => ErrorCode::Internal,
        }
    }

    /// Whether the same attempt may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        self.code().retryable()
    }

    /// The scorecard, if it came to an appraisal of the server.
    #[must_use]
    pub const fn scorecard(&self) -> Option<&Scorecard> {
        match self {
            Self::NotAttested { source, .. } => source.scorecard(),
            _ => None,
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("keyservice answers with an error")]
    Remote(#[source] WireError),
    #[error("the channel to keyservice broke")]
    Broken(#[source] hyper::Error),
    #[error("the channel to keyservice is closed")]
    Closed,
    #[error("keyservice did not answer within {after:?}")]
    Timeout { after: Duration },
    #[error("writing the request")]
    Request(#[source] RequestError),
    #[error("keyservice's answer is longer than {ANSWER_MAX} bytes")]
    TooLong,
    #[error("keyservice's answer with status {status} is not what its interface says")]
    Malformed {
        status: u16,
        #[source]
        source: serde_json::Error,
    },
}

/// Why a request cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the body does not serialise")]
    Body(#[source] serde_json::Error),
    #[error("the path or method is not one of HTTP")]
    Head(#[source] http::Error),
}

impl CallError {
    /// The code for whoever asked for the call.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Remote(error) => error.code,
            Self::Broken(_) | Self::Closed | Self::Timeout { .. } => {
                ErrorCode::KeyserviceUnavailable
            }
            Self::Request(_) | Self::TooLong | Self::Malformed { .. } => ErrorCode::Internal,
        }
    }

    /// Whether the same call may succeed later, in a new channel. Calls are idempotent.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        self.code().retryable()
    }
}

/// Why KeyService turned a connection away.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the peer did not pass the attest gate within {after:?}")]
    Timeout { after: Duration },
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the peer does not speak the attested channel")]
    NotOurs(#[source] EstablishError),
    #[error("passing the attest gate")]
    Gate(#[source] GateError),
    #[error("the connection broke in the attest gate")]
    Broken(#[source] io::Error),
}
