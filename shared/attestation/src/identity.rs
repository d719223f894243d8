//! E_S and E_K: one hash over everything that the other side relies on.

use aws_lc_rs::digest;
use protocol::EnclaveId;

use crate::binder::{Binder, ChannelBinder, Role, SpkiHash};
use crate::cbor::Writer;
use crate::evidence::{Attester, CollectError, Malformed, Tee, VerifierSet};
use crate::measured::{ConfigHash, Measured, MeasuredConfig};
use crate::measurements::Measurements;

const LABEL: &str = "sesemi/enclave/1";

/// E_S of a SeMIRT or E_K of a KeyService:
/// `SHA-384(CBOR ["sesemi/enclave/1", tee, [[name, value], ...], config hash])`.
#[must_use]
pub fn enclave_id(measurements: &Measurements, config: &ConfigHash) -> EnclaveId {
    let writer = Writer::new()
        .array(4)
        .text(LABEL)
        .text(measurements.tee().name());
    let bytes = measurements.write(writer).bytes(config.as_bytes()).done();
    let mut id = [0; 48];
    id.copy_from_slice(digest::digest(&digest::SHA384, &bytes).as_ref());
    EnclaveId::new(id)
}

/// Why an enclave could not learn its own identity.
#[derive(Debug, thiserror::Error)]
pub enum OwnEnclaveError {
    #[error("collect evidence about this enclave")]
    Collect(#[source] CollectError),
    #[error("this build cannot read {0} evidence")]
    NoVerifier(Tee),
    #[error("read this enclave's own evidence")]
    Read(#[source] Malformed),
}

/// An enclave's own id, with this configuration. Its own evidence is the one way to its own
/// measurements that every TEE has. It is not verified: who lies to an enclave about itself only
/// makes it useless, because KeyService and users go by what they verify. Blocks.
///
/// # Errors
/// [`OwnEnclaveError`] if the TEE gives no evidence that can be read.
pub fn own_enclave(
    attester: &dyn Attester,
    verifiers: &VerifierSet,
    config: &MeasuredConfig,
) -> Result<EnclaveId, OwnEnclaveError> {
    // No channel has this exporter, so the evidence is of no use to anybody else.
    let binder = ChannelBinder {
        role: match config.measured() {
            Measured::Semirt(_) => Role::Semirt,
            Measured::Keyservice(_) => Role::Keyservice,
        },
        exporter: [0; 32],
        peer_nonce: [0; 32],
        own_spki: SpkiHash::of(&[]),
        peer_spki: SpkiHash::of(&[]),
        config: config.hash(),
        epoch: 0,
    };
    let evidence = attester
        .collect(&Binder::channel(binder))
        .map_err(OwnEnclaveError::Collect)?;
    let verifier = verifiers
        .for_tee(evidence.tee)
        .ok_or(OwnEnclaveError::NoVerifier(evidence.tee))?;
    let said = verifier.read(&evidence).map_err(OwnEnclaveError::Read)?;
    Ok(enclave_id(&said.measurements, &config.hash()))
}

#[cfg(test)]
mod tests;
