//! Entry points for a fuzzer: each takes hostile bytes and must return.

use rustls::pki_types::CertificateDer;

use crate::certificate::read_peer;
use crate::gate::frame::Frame;
use crate::measured::MeasuredConfig;
use crate::reference::ReferenceValues;

/// Reads `bytes` as the body of a gate frame; whether it is one.
#[must_use]
pub fn frame(bytes: &[u8]) -> bool {
    Frame::read(bytes).is_ok()
}

/// Reads `bytes` as the certificate of a peer; whether it is one.
#[must_use]
pub fn certificate(bytes: &[u8]) -> bool {
    read_peer(&[CertificateDer::from(bytes)]).is_ok()
}

/// Reads `bytes` as a measured configuration; what is one has no other encoding.
#[must_use]
pub fn measured(bytes: &[u8]) -> bool {
    MeasuredConfig::from_bytes(bytes).is_ok_and(|config| config.as_bytes() == bytes)
}

/// Reads `bytes` as what is signed of a bundle of reference values. Nothing is known of a signer.
#[must_use]
pub fn reference_values(bytes: &[u8]) -> Option<ReferenceValues> {
    ReferenceValues::read(bytes).ok()
}

/// The only bytes that [`reference_values`] reads these from.
#[must_use]
pub fn reference_payload(values: &ReferenceValues) -> Option<Vec<u8>> {
    values.payload().ok()
}
