//! E_S and E_K: one hash over everything that the other side relies on.

use aws_lc_rs::digest;
use protocol::EnclaveId;

use crate::cbor::Writer;
use crate::measured::ConfigHash;
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

#[cfg(test)]
mod tests;
