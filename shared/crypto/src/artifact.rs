//! The model artifact: Tink's streaming AEAD, type AES256-GCM-HKDF, with 1 MiB segments.
//!
//! # Bytes
//! As published at <https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming>, with
//! the parameters of Tink's template `AES256_GCM_HKDF_1MB`: HKDF with HMAC-SHA-256, 32-byte main
//! and derived key, ciphertext segments of 1 MiB (1 048 576 bytes), no offset in the first.
//!
//! ```text
//! artifact  = header | segment 0 | segment 1 | … | segment n-1
//! header    = 0x28 (its own length, 40) | salt, 32 bytes | nonce prefix, 7 bytes
//! segment i = AES-256-GCM(key, nonce_i, no associated data, plaintext_i) | tag, 16 bytes
//! key       = HKDF-SHA-256(ikm = model key, salt, info = associated data), 32 bytes
//! nonce_i   = nonce prefix | i as u32 BE | 0x01 if i = n-1, else 0x00
//! ```
//!
//! Header and segment 0 have 1 MiB together, every further segment has 1 MiB, and the last may be
//! shorter. An artifact of more than one segment has at least one byte of plaintext in its last;
//! the empty plaintext makes one segment of only a tag. So the length of an artifact and that of
//! its plaintext determine each other ([`plaintext_len`]), and each plaintext has one form.
//!
//! Associated data = `"sesemi/model/1" | 0x00 | model id | 0x00 | version in decimal ASCII` (a model
//! id has no zero byte; the version has no sign and no leading zero).
//!
//! What each attack meets: a changed, reordered, duplicated or spliced segment fails its tag, since
//! its number and the derived key are in it; a cut at a segment boundary fails, since only the last
//! segment's nonce ends in 1; another model or version derives another key; an older artifact of
//! the same version fails the digest, which KeyService names in the release.

use std::error::Error;
use std::io;

use protocol::limits::PACKAGE_MAX;
use protocol::{Digest, ModelId, ModelVersion};
use zeroize::Zeroizing;

use crate::aead::{self, Cipher, KEY_LEN, NONCE_LEN, TAG_LEN};
use crate::digest::DigestWriter;
use crate::labels;
use crate::random::RngError;
use crate::secret::ModelKey;

mod open;
mod seal;

pub use open::{ArtifactOpener, open_artifact};
pub use seal::{SealedArtifact, seal_artifact, seal_artifact_on};

pub(crate) use seal::{Fresh, seal_artifact_with, seal_segments};

/// Length of a ciphertext segment, in bytes.
pub const SEGMENT_LEN: usize = 1 << 20;
const SALT_LEN: usize = 32;
const PREFIX_LEN: usize = 7;
const HEADER_LEN: usize = 1 + SALT_LEN + PREFIX_LEN;
/// First byte of every artifact: the header's length.
const HEADER_LEN_BYTE: u8 = 40;
/// Most threads that work on one artifact; each holds two segments.
const THREADS_MAX: usize = 64;

/// Why an artifact was not sealed or not opened.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("no artifact has {len} bytes")]
    Length { len: u64 },
    #[error("an artifact of {len} bytes is larger than any that may be sealed")]
    TooLarge { len: u64 },
    #[error("the artifact ends {missing} bytes early")]
    Truncated { missing: u64 },
    #[error("the artifact has more bytes than the {len} announced")]
    TooLong { len: u64 },
    /// The bytes are not those that the owner registered, whatever else is wrong with them.
    #[error("the artifact is not the one registered: its digest is {got}, not {expected}")]
    Digest { expected: Digest, got: Digest },
    /// The bytes are those that the owner registered, but they are not an artifact under this key.
    #[error("segment {segment} of the artifact does not open under this key, model and version")]
    CannotOpen { segment: u32 },
    #[error("could not draw salt and nonce")]
    Rng(#[from] RngError),
    #[error("the cipher library refused to seal")]
    Cipher,
    #[error("could not read what to seal or open")]
    Read(#[source] io::Error),
    #[error("could not write the artifact")]
    Write(#[source] io::Error),
    #[error("the receiver of the opened artifact refused it")]
    Sink(#[from] SinkError),
}

/// Why a [`PlaintextSink`] did not take what it was given.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SinkError(Box<dyn Error + Send + Sync>);

impl SinkError {
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Takes an opened artifact, in order.
///
/// What it gets is authentic under the model key, but tentative until `finish` returns `Ok`: before
/// that it may be a beginning only, or not the version that the owner registered.
pub trait PlaintextSink {
    /// Called once, first, with the length of all that is to come, in bytes.
    fn begin(&mut self, plaintext_len: u64) -> Result<(), SinkError>;

    /// Called with the next bytes, at most one segment of them.
    fn write(&mut self, segment: &[u8]) -> Result<(), SinkError>;
}

/// Length of the plaintext inside an artifact of `ciphertext_len` bytes.
pub fn plaintext_len(ciphertext_len: u64) -> Result<u64, ArtifactError> {
    Layout::of_ciphertext(ciphertext_len).map(|layout| layout.plaintext_len)
}

/// How an artifact is cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    ciphertext_len: u64,
    plaintext_len: u64,
    segments: u32,
}

impl Layout {
    fn of_ciphertext(len: u64) -> Result<Self, ArtifactError> {
        const SEGMENT: u64 = SEGMENT_LEN as u64;
        const TAG: u64 = TAG_LEN as u64;
        const HEADER: u64 = HEADER_LEN as u64;
        let wrong = ArtifactError::Length { len };
        let segments = len.div_ceil(SEGMENT);
        let last_len = len - segments.saturating_sub(1) * SEGMENT;
        let least = if segments > 1 { TAG + 1 } else { HEADER + TAG };
        if last_len < least {
            return Err(wrong);
        }
        let plaintext_len = len - HEADER - segments * TAG;
        let segments = u32::try_from(segments)
            .ok()
            .filter(|_| plaintext_len <= PACKAGE_MAX)
            .ok_or(ArtifactError::TooLarge { len })?;
        Ok(Self {
            ciphertext_len: len,
            plaintext_len,
            segments,
        })
    }

    /// Whether segment `index` is the last.
    fn is_last(&self, index: u32) -> bool {
        index.checked_add(1) == Some(self.segments)
    }
}

fn associated_bytes(model: &ModelId, version: ModelVersion) -> Vec<u8> {
    format!("{}\0{model}\0{version}", labels::MODEL).into_bytes()
}

/// The derived key and what its nonces start with.
struct SegmentCipher {
    cipher: Cipher,
    prefix: [u8; PREFIX_LEN],
}

impl SegmentCipher {
    fn new(
        key: &ModelKey,
        salt: &[u8; SALT_LEN],
        prefix: [u8; PREFIX_LEN],
        associated: &[u8],
    ) -> Result<Self, aead::Refused> {
        let derived: Zeroizing<[u8; KEY_LEN]> = aead::derive(key.expose(), salt, associated)?;
        Ok(Self {
            cipher: Cipher::new(&derived)?,
            prefix,
        })
    }

    fn nonce(&self, index: u32, last: bool) -> [u8; NONCE_LEN] {
        let [a, b, c, d, e, f, g] = self.prefix;
        let [w, x, y, z] = index.to_be_bytes();
        [a, b, c, d, e, f, g, w, x, y, z, u8::from(last)]
    }

    fn seal(
        &self,
        index: u32,
        last: bool,
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], aead::Refused> {
        self.cipher.seal(&self.nonce(index, last), &[], in_out)
    }

    fn open(
        &self,
        index: u32,
        last: bool,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), aead::Refused> {
        self.cipher.open(&self.nonce(index, last), &[], sealed, out)
    }
}

#[cfg(test)]
mod tests;
