//! Entry points for a fuzzer: each takes hostile bytes and must return. A return value of `true`
//! would mean that bytes nobody sealed were opened.

use protocol::limits::PACKAGE_MAX;
use protocol::{Digest, EnclaveId, ModelVersion, PrincipalId, RequestId};

use crate::artifact::{ArtifactOpener, PlaintextSink, SinkError};
use crate::envelope::{Binding, open_request, open_response};
use crate::identity::IdentityKey;
use crate::record::open_record;
use crate::secret::{ModelKey, RequestKey, ResponseKey, SealingKey};

/// Opens `bytes` as a request and as a response.
#[must_use]
pub fn envelope(bytes: &[u8]) -> bool {
    let (Ok(model), Ok(request_key), Ok(response_key)) = (
        "m".parse(),
        RequestKey::from_slice(&[1; 32]),
        ResponseKey::from_slice(&[2; 32]),
    ) else {
        return false;
    };
    let binding = Binding {
        user: &PrincipalId::new([3; 32]),
        model: &model,
        enclave: &EnclaveId::new([4; 48]),
        request_id: &RequestId::new([5; 16]),
    };
    open_request(&request_key, &binding, bytes).is_ok()
        || open_response(&response_key, &binding, bytes).is_ok()
}

/// Opens `bytes` as an artifact, pushed in pieces whose length the first byte decides.
#[must_use]
pub fn artifact(bytes: &[u8]) -> bool {
    struct Discard;
    impl PlaintextSink for Discard {
        fn begin(&mut self, len: u64) -> Result<(), SinkError> {
            if len > PACKAGE_MAX {
                Err(SinkError::new("too long"))
            } else {
                Ok(())
            }
        }
        fn write(&mut self, _: &[u8]) -> Result<(), SinkError> {
            Ok(())
        }
    }
    let (Ok(model), Ok(key)) = ("m".parse(), ModelKey::from_slice(&[1; 32])) else {
        return false;
    };
    let piece = 1 + usize::from(bytes.first().copied().unwrap_or_default());
    let (len, digest) = (bytes.len() as u64, Digest::new([0; 32]));
    let Ok(mut opener) = ArtifactOpener::new(&key, &model, ModelVersion(1), digest, len, 2) else {
        return false;
    };
    bytes
        .chunks(piece)
        .all(|chunk| opener.push(chunk, &mut Discard).is_ok())
        && opener.finish(&mut Discard).is_ok()
}

/// Opens `bytes` as a record.
#[must_use]
pub fn record(bytes: &[u8]) -> bool {
    SealingKey::from_slice(&[1; 32]).is_ok_and(|key| open_record(&key, b"id", 1, bytes).is_ok())
}

/// Reads `bytes` as an identity key, in DER and in PEM. `true` is possible here.
#[must_use]
pub fn identity(bytes: &[u8]) -> bool {
    IdentityKey::from_pkcs8_der(bytes).is_ok()
        || std::str::from_utf8(bytes).is_ok_and(|pem| IdentityKey::from_pkcs8_pem(pem).is_ok())
}
