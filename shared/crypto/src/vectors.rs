//! Sealing with given salts and nonces, so that vectors can be made and checked. Nobody else may
//! use this: the same salt and nonce for two messages breaks both.

use std::io::{Read, Write};

use protocol::{ModelId, ModelVersion};

use crate::artifact::{self, ArtifactError, SealedArtifact};
use crate::envelope::{self, Binding, SealError};
use crate::record::{self, SealRecordError};
use crate::secret::{ModelKey, RequestKey, ResponseKey, SealingKey};

/// Salt and iv of an envelope.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeFresh {
    pub salt: [u8; 32],
    pub iv: [u8; 12],
}

/// Salt and nonce prefix of an artifact.
#[derive(Debug, Clone, Copy)]
pub struct ArtifactFresh {
    pub salt: [u8; 32],
    pub nonce_prefix: [u8; 7],
}

/// See [`crate::seal_request`].
pub fn seal_request(
    key: &RequestKey,
    binding: &Binding<'_>,
    payload: &[u8],
    fresh: EnvelopeFresh,
) -> Result<(Vec<u8>, ResponseKey), SealError> {
    envelope::seal_request_with(key, binding, payload, &fresh.into())
}

/// A request whose plaintext is `padded` as it is, whether or not that is well padded.
pub fn seal_request_padded(
    key: &RequestKey,
    binding: &Binding<'_>,
    padded: &[u8],
    fresh: EnvelopeFresh,
) -> Result<Vec<u8>, SealError> {
    envelope::seal_request_padded(key, binding, padded, &fresh.into())
}

/// See [`crate::seal_response`].
pub fn seal_response(
    key: &ResponseKey,
    binding: &Binding<'_>,
    payload: &[u8],
    fresh: EnvelopeFresh,
) -> Result<Vec<u8>, SealError> {
    envelope::seal_response_with(key, binding, payload, &fresh.into())
}

/// See [`crate::seal_artifact`].
pub fn seal_artifact(
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    plain: &mut dyn Read,
    out: &mut dyn Write,
    fresh: ArtifactFresh,
) -> Result<SealedArtifact, ArtifactError> {
    artifact::seal_artifact_with(&fresh.into(), 2, key, model, version, plain, out)
}

/// Segments `(plaintext, is last)` as they are, whether or not they are an artifact together.
pub fn seal_segments(
    key: &ModelKey,
    model: &ModelId,
    version: ModelVersion,
    segments: &[(&[u8], bool)],
    fresh: ArtifactFresh,
) -> Result<Vec<u8>, ArtifactError> {
    artifact::seal_segments(&fresh.into(), key, model, version, segments)
}

/// See [`crate::seal_record`].
pub fn seal_record(
    key: &SealingKey,
    id: &[u8],
    epoch: u64,
    plain: &[u8],
    salt: &[u8; 32],
) -> Result<Vec<u8>, SealRecordError> {
    record::seal_record_with(key, id, epoch, plain, salt)
}

/// The bytes of a response key, which are published in the vectors.
#[must_use]
pub fn response_key_bytes(key: &ResponseKey) -> [u8; 32] {
    *key.expose()
}

impl From<EnvelopeFresh> for envelope::Fresh {
    fn from(fresh: EnvelopeFresh) -> Self {
        Self {
            salt: fresh.salt,
            iv: fresh.iv,
        }
    }
}

impl From<ArtifactFresh> for artifact::Fresh {
    fn from(fresh: ArtifactFresh) -> Self {
        Self {
            salt: fresh.salt,
            prefix: fresh.nonce_prefix,
        }
    }
}
