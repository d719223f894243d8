//! Random bytes from the one cryptographic provider, and the ids that are drawn at random.

use aws_lc_rs::rand;
use protocol::RequestId;
use protocol::id::LeaseId;

/// The random number generator gave nothing; nothing was sealed or generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random number generator failed")]
pub struct RngError;

pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), RngError> {
    rand::fill(bytes).map_err(|_| RngError)
}

pub(crate) fn array<const N: usize>() -> Result<[u8; N], RngError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// A fresh id for one request; 128 random bits, so two never meet.
pub fn random_request_id() -> Result<RequestId, RngError> {
    array().map(RequestId::new)
}

/// A fresh id for one lease.
pub fn random_lease_id() -> Result<LeaseId, RngError> {
    array().map(LeaseId::new)
}
