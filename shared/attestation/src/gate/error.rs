//! Why the gate stays shut, and what the peer hears of it.

use protocol::{ErrorCode, WireError};

use super::frame::{Frame, FrameError};
use crate::appraisal::AppraiseError;
use crate::cbor::CborError;
use crate::evidence::CollectError;
use crate::scorecard::Scorecard;

/// Why the gate stays shut.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("reading the peer's frame")]
    Frame(#[source] FrameError),
    #[error("writing a frame")]
    Write(#[source] FrameError),
    #[error("the peer sent a frame that is not due")]
    OutOfOrder,
    #[error("the peer's hello and its certificate disagree on what it is")]
    OtherKind,
    #[error("this side's identity and its TLS connection disagree")]
    OtherIdentity,
    #[error("drawing a nonce")]
    Random,
    #[error("collecting fresh evidence")]
    Collect(#[source] CollectError),
    #[error("reading the peer's measured configuration")]
    Config(#[source] CborError),
    #[error("the peer's measured configuration is one of a {got}, expected that of a {expected}")]
    ConfigKind {
        expected: &'static str,
        got: &'static str,
    },
    #[error("the peer is not attested")]
    Appraise(#[source] AppraiseError),
    #[error("the peer refuses this side: {0}")]
    Refused(WireError),
}

impl GateError {
    /// What to tell the peer: coarse, so that it learns nothing about the policy.
    #[must_use]
    pub fn verdict(&self) -> WireError {
        match self {
            Self::Frame(_) | Self::OutOfOrder => {
                WireError::new(ErrorCode::InvalidRequest, "that is not the attest protocol")
            }
            Self::OtherKind | Self::Config(_) | Self::ConfigKind { .. } | Self::Appraise(_) => {
                WireError::new(ErrorCode::NotAttested, "the evidence was not accepted")
            }
            Self::Write(_)
            | Self::Random
            | Self::OtherIdentity
            | Self::Collect(_)
            | Self::Refused(_) => WireError::new(
                ErrorCode::Internal,
                "the service cannot attest at this time",
            ),
        }
    }

    /// The frame to send before closing; `None` if the peer has closed the gate itself.
    #[must_use]
    pub fn verdict_frame(&self) -> Option<Vec<u8>> {
        match self {
            Self::Refused(_) => None,
            _ => Frame::Verdict(Err(self.verdict())).to_wire().ok(),
        }
    }

    /// The scorecard, if it came to an appraisal.
    #[must_use]
    pub const fn scorecard(&self) -> Option<&Scorecard> {
        match self {
            Self::Appraise(error) => Some(error.scorecard()),
            _ => None,
        }
    }
}
