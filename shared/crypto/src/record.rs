//! A record at rest: sealed under a key of its own, bound to where it belongs.
//!
//! # Bytes
//! ```text
//! record = 0x01 | salt, 32 bytes | AES-256-GCM ciphertext | tag, 16 bytes
//! key    = HKDF-SHA-256(ikm = sealing key, salt, info = deterministic CBOR ["sesemi/record/1"])
//! nonce  = 12 zero bytes: the salt is fresh for each record, and so the key, which seals once
//! associated data = deterministic CBOR ["sesemi/record/1", id bstr, epoch uint]
//! ```
//!
//! The id says which record it is (a database's table and key, say): a record that is moved to
//! another place does not open. The epoch says of which state of the whole: a record of an older
//! state does not open in a newer one. Neither is in the record; who opens it must know them.
//! What this cannot show by itself: that a record is missing, or that all of the state is old.

use zeroize::Zeroizing;

use crate::aead::{self, Cipher, NONCE_LEN, TAG_LEN};
use crate::cbor;
use crate::labels;
use crate::random::{self, RngError};
use crate::secret::SealingKey;

/// Largest plaintext of a record, in bytes.
pub const RECORD_MAX: usize = 16 * 1024 * 1024;
/// How much longer a record is than its plaintext, in bytes.
pub const RECORD_OVERHEAD: usize = 1 + SALT_LEN + TAG_LEN;
const SALT_LEN: usize = 32;
const FORMAT: u8 = 1;
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Why a record was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealRecordError {
    #[error("a record of {len} bytes is larger than the limit of {RECORD_MAX}")]
    TooLarge { len: usize },
    #[error("could not draw a salt")]
    Rng(#[from] RngError),
    #[error("the cipher library refused to seal")]
    Cipher,
}

/// Why a record was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenRecordError {
    #[error("a record of {len} bytes is larger than any that may be sealed")]
    TooLarge { len: usize },
    #[error("not a sealed record, or one of another format")]
    Malformed,
    #[error("the record does not open under this key, id and epoch")]
    CannotOpen,
}

/// Seals `plain` as the record `id` of `epoch`.
pub fn seal_record(
    key: &SealingKey,
    id: &[u8],
    epoch: u64,
    plain: &[u8],
) -> Result<Vec<u8>, SealRecordError> {
    seal_record_with(key, id, epoch, plain, &random::array()?)
}

/// Opens what [`seal_record`] made for the same key, id and epoch.
pub fn open_record(
    key: &SealingKey,
    id: &[u8],
    epoch: u64,
    record: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenRecordError> {
    if record.len() > RECORD_MAX + RECORD_OVERHEAD {
        return Err(OpenRecordError::TooLarge { len: record.len() });
    }
    let (salt, sealed) = record
        .strip_prefix(&[FORMAT])
        .and_then(|rest| rest.split_first_chunk::<SALT_LEN>())
        .filter(|(_, sealed)| sealed.len() >= TAG_LEN)
        .ok_or(OpenRecordError::Malformed)?;
    let mut plain = Zeroizing::new(vec![0; sealed.len() - TAG_LEN]);
    cipher(key, salt)
        .and_then(|cipher| cipher.open(&NONCE, &associated_bytes(id, epoch), sealed, &mut plain))
        .map_err(|aead::Refused| OpenRecordError::CannotOpen)?;
    Ok(plain)
}

/// [`seal_record`] with a given salt, which must never be used twice: for vectors only.
pub(crate) fn seal_record_with(
    key: &SealingKey,
    id: &[u8],
    epoch: u64,
    plain: &[u8],
    salt: &[u8; SALT_LEN],
) -> Result<Vec<u8>, SealRecordError> {
    if plain.len() > RECORD_MAX {
        return Err(SealRecordError::TooLarge { len: plain.len() });
    }
    // Encrypted where it lies in a buffer that never grows: no copy of the plaintext is left.
    let mut out = Vec::with_capacity(RECORD_OVERHEAD + plain.len());
    out.push(FORMAT);
    out.extend_from_slice(salt);
    let start = out.len();
    out.extend_from_slice(plain);
    let tag = cipher(key, salt)
        .and_then(|cipher| {
            let in_out = out.get_mut(start..).unwrap_or_default();
            cipher.seal(&NONCE, &associated_bytes(id, epoch), in_out)
        })
        .map_err(|aead::Refused| SealRecordError::Cipher)?;
    out.extend_from_slice(&tag);
    Ok(out)
}

fn cipher(key: &SealingKey, salt: &[u8; SALT_LEN]) -> Result<Cipher, aead::Refused> {
    let info = cbor::Writer::array(1).text(labels::RECORD).done();
    Cipher::new(&*aead::derive(key.expose(), salt, &info)?)
}

fn associated_bytes(id: &[u8], epoch: u64) -> Vec<u8> {
    cbor::Writer::array(3)
        .text(labels::RECORD)
        .bytes(id)
        .unsigned(epoch)
        .done()
}

#[cfg(test)]
mod tests;
