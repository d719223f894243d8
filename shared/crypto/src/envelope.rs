//! The envelope of a request and of its response: `COSE_Encrypt` (RFC 9052 section 5.1).
//!
//! # Bytes
//! One recipient with `direct+HKDF-SHA-256` (RFC 9053 section 6.1.2), content in A256GCM. In CBOR
//! diagnostic notation:
//!
//! ```text
//! 96([ h'a10103',                       / protected: {1 alg: 3 A256GCM} /
//!      {5: h'<iv, 12 bytes>'},          / unprotected: {5 IV} /
//!      h'<ciphertext | tag, 16 bytes>',
//!      [[ h'a10129',                    / recipient, protected: {1 alg: -10 direct+HKDF-SHA-256} /
//!         {-20: h'<salt, 32 bytes>'},   / unprotected: {-20 salt} /
//!         h'' ]] ])
//! ```
//!
//! There is one accepted encoding: deterministic CBOR (RFC 8949 section 4.2.1), exactly these
//! header parameters, nothing before and nothing after. Everything but iv, ciphertext and salt is
//! constant, so opening matches a template and never parses.
//!
//! * **Keys.** CEK = HKDF-SHA-256(ikm = request or response key, salt, info = `COSE_KDF_Context`),
//!   32 bytes. The context (RFC 9053 section 5.2) is
//!   `[3, [sender, null, null], [receiver, null, null], [256, h'a10129', label]]`: Party U and
//!   Party V are the user's id (32 bytes) and E_S (48 bytes) for a request, the other way round for
//!   a response; `label` is the byte string of the direction's label. The salt is fresh for each
//!   message, and so the CEK, so that no nonce can repeat under one; the iv is random besides.
//! * **Associated data.** RFC 9052 section 5.3, `["Encrypt", h'a10103', external_aad]`, where
//!   `external_aad` is the deterministic CBOR
//!   `[label, user bstr, model tstr, E_S bstr, request id bstr]` with the label
//!   `"sesemi/request/1"` or `"sesemi/response/1"`.
//! * **Plaintext.** `u32 LE length of the payload | payload | zeros` up to the Padmé size of the
//!   first two together. Opening checks length, size and zeros.
//! * **The response's key.** HKDF-SHA-256(ikm = request key, salt = the request's salt, info =
//!   deterministic CBOR `["sesemi/response-key/1", external_aad bstr, tag bstr]`), 32 bytes, with
//!   external associated data and GCM tag of the request. It is a sibling of the CEK, never equal
//!   to it, and another for each request: a response opens as the answer to one request only.
//!
//! Limits: a payload has at most [`protocol::limits::PAYLOAD_MAX`] bytes; an envelope that is
//! longer than such a payload makes is refused before anything is allocated.
//!
//! AES-GCM does not commit to its key: whoever holds two request keys can make one ciphertext that
//! opens under both. Both are then that person's own, and the associated data differ, so nothing
//! here relies on commitment.

use std::fmt;
use std::ops::Deref;

use protocol::limits::PAYLOAD_MAX;
use protocol::{EnclaveId, ModelId, PrincipalId, RequestId};
use zeroize::Zeroizing;

use crate::aead::{self, Cipher, KEY_LEN, NONCE_LEN, TAG_LEN};
use crate::cbor;
use crate::labels;
use crate::padding::padded_len;
use crate::random::{self, RngError};
use crate::secret::{RequestKey, ResponseKey};

/// Everything that a sealed message is bound to, besides its key and direction.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    pub user: &'a PrincipalId,
    pub model: &'a ModelId,
    /// E_S of the instances that may open the request.
    pub enclave: &'a EnclaveId,
    pub request_id: &'a RequestId,
}

/// Why a payload was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("a payload of {len} bytes is larger than the limit of {PAYLOAD_MAX}")]
    TooLarge { len: usize },
    #[error("could not draw salt and nonce")]
    Rng(#[from] RngError),
    #[error("the cipher library refused to seal")]
    Cipher,
}

/// Why an envelope was not opened. Only the log may tell these apart to the last detail: a peer
/// learns `cannot_open`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("an envelope of {len} bytes is larger than any that may be sealed")]
    TooLarge { len: usize },
    #[error("not an envelope in its one accepted encoding")]
    Malformed,
    #[error("the envelope does not open under this key, user, model, enclave and request")]
    CannotOpen,
    #[error("the envelope was sealed with a plaintext that is not padded as it must be")]
    Padding,
}

/// An opened payload. It is overwritten when dropped, and prints its length only.
pub struct Plaintext {
    /// `u32 LE length | payload | zeros`, checked.
    padded: Zeroizing<Vec<u8>>,
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        payload_of(&self.padded).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Plaintext {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext({} bytes)", self.len())
    }
}

/// Seals a request. Returns the envelope and the key that its answer will be sealed with.
pub fn seal_request(
    key: &RequestKey,
    binding: &Binding<'_>,
    payload: &[u8],
) -> Result<(Vec<u8>, ResponseKey), SealError> {
    seal_request_with(key, binding, payload, &Fresh::generate()?)
}

/// Opens a request. Returns the payload and the key to seal its answer with.
pub fn open_request(
    key: &RequestKey,
    binding: &Binding<'_>,
    ciphertext: &[u8],
) -> Result<(Plaintext, ResponseKey), OpenError> {
    let context = Context::new(Direction::Request, binding);
    let frame = Frame::parse(ciphertext)?;
    let plaintext = context.open(key.expose(), &frame)?;
    let response_key = context
        .response_key(key, frame.salt, frame.tag)
        .map_err(|aead::Refused| OpenError::CannotOpen)?;
    Ok((plaintext, response_key))
}

/// Seals the answer to the request that `key` came from.
pub fn seal_response(
    key: &ResponseKey,
    binding: &Binding<'_>,
    payload: &[u8],
) -> Result<Vec<u8>, SealError> {
    seal_response_with(key, binding, payload, &Fresh::generate()?)
}

/// Opens the answer to the request that `key` came from.
pub fn open_response(
    key: &ResponseKey,
    binding: &Binding<'_>,
    ciphertext: &[u8],
) -> Result<Plaintext, OpenError> {
    Context::new(Direction::Response, binding).open(key.expose(), &Frame::parse(ciphertext)?)
}

/// [`seal_request`] with a given salt and iv, which must never be used twice: for vectors only.
pub(crate) fn seal_request_with(
    key: &RequestKey,
    binding: &Binding<'_>,
    payload: &[u8],
    fresh: &Fresh,
) -> Result<(Vec<u8>, ResponseKey), SealError> {
    let context = Context::new(Direction::Request, binding);
    let (envelope, tag) = context.seal(key.expose(), payload, fresh)?;
    let response_key = context
        .response_key(key, &fresh.salt, &tag)
        .map_err(|aead::Refused| SealError::Cipher)?;
    Ok((envelope, response_key))
}

/// [`seal_response`] with a given salt and iv, which must never be used twice: for vectors only.
pub(crate) fn seal_response_with(
    key: &ResponseKey,
    binding: &Binding<'_>,
    payload: &[u8],
    fresh: &Fresh,
) -> Result<Vec<u8>, SealError> {
    let context = Context::new(Direction::Response, binding);
    context
        .seal(key.expose(), payload, fresh)
        .map(|(envelope, _)| envelope)
}

/// Seals `padded` as a request's plaintext, though it may not be one: for vectors that must fail.
pub(crate) fn seal_request_padded(
    key: &RequestKey,
    binding: &Binding<'_>,
    padded: &[u8],
    fresh: &Fresh,
) -> Result<Vec<u8>, SealError> {
    let context = Context::new(Direction::Request, binding);
    context
        .seal_padded(key.expose(), &[padded], padded.len(), fresh)
        .map(|(envelope, _)| envelope)
}

const SALT_LEN: usize = 32;
/// COSE algorithm 3: AES-GCM with a 256-bit key.
const A256GCM: u64 = 3;
const KEY_BITS: u64 = 256;
const CONTENT_PROTECTED: &[u8] = &[0xa1, 0x01, 0x03];
const RECIPIENT_PROTECTED: &[u8] = &[0xa1, 0x01, 0x29];
/// Tag 96, array of four, the protected header, and the unprotected header up to the iv.
const BEFORE_IV: &[u8] = &[0xd8, 0x60, 0x84, 0x43, 0xa1, 0x01, 0x03, 0xa1, 0x05, 0x4c];
/// The one recipient up to the salt.
const BEFORE_SALT: &[u8] = &[0x81, 0x83, 0x43, 0xa1, 0x01, 0x29, 0xa1, 0x33, 0x58, 0x20];
/// The recipient's empty ciphertext.
const AFTER_SALT: &[u8] = &[0x40];
const LENGTH_LEN: usize = 4;
/// Head of the longest ciphertext, in bytes.
const HEAD_MAX: usize = 5;
const FRAME_LEN: usize =
    BEFORE_IV.len() + NONCE_LEN + HEAD_MAX + BEFORE_SALT.len() + SALT_LEN + AFTER_SALT.len();

/// What must be new for every message.
pub(crate) struct Fresh {
    pub(crate) salt: [u8; SALT_LEN],
    pub(crate) iv: [u8; NONCE_LEN],
}

impl Fresh {
    fn generate() -> Result<Self, RngError> {
        Ok(Self {
            salt: random::array()?,
            iv: random::array()?,
        })
    }
}

/// The parts of an envelope that are not constant.
struct Frame<'a> {
    iv: &'a [u8; NONCE_LEN],
    /// Ciphertext and tag.
    sealed: &'a [u8],
    tag: &'a [u8; TAG_LEN],
    salt: &'a [u8; SALT_LEN],
}

impl<'a> Frame<'a> {
    fn parse(envelope: &'a [u8]) -> Result<Self, OpenError> {
        if envelope.len() > envelope_max() {
            return Err(OpenError::TooLarge {
                len: envelope.len(),
            });
        }
        Self::split(envelope).ok_or(OpenError::Malformed)
    }

    fn split(envelope: &'a [u8]) -> Option<Self> {
        let (iv, rest) = envelope.strip_prefix(BEFORE_IV)?.split_first_chunk()?;
        let (sealed, rest) = cbor::split_bytes(rest)?;
        let (salt, rest) = rest.strip_prefix(BEFORE_SALT)?.split_first_chunk()?;
        let (_, tag) = sealed.split_last_chunk()?;
        (rest == AFTER_SALT).then_some(Self {
            iv,
            sealed,
            tag,
            salt,
        })
    }
}

/// Length of the largest envelope, in bytes.
fn envelope_max() -> usize {
    FRAME_LEN + padded_len(LENGTH_LEN + PAYLOAD_MAX) + TAG_LEN
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

/// The two byte strings that tie a message to where it belongs.
struct Context {
    external_aad: Vec<u8>,
    kdf: Vec<u8>,
}

impl Context {
    fn new(direction: Direction, binding: &Binding<'_>) -> Self {
        let user = binding.user.as_bytes().as_slice();
        let enclave = binding.enclave.as_bytes().as_slice();
        let (label, sender, receiver) = match direction {
            Direction::Request => (labels::REQUEST, user, enclave),
            Direction::Response => (labels::RESPONSE, enclave, user),
        };
        let external_aad = cbor::Writer::array(5)
            .text(label)
            .bytes(user)
            .text(binding.model.as_str())
            .bytes(enclave)
            .bytes(binding.request_id.as_bytes())
            .done();
        let kdf = cbor::Writer::array(4)
            .unsigned(A256GCM)
            .party(sender)
            .party(receiver)
            .nested(3)
            .unsigned(KEY_BITS)
            .bytes(RECIPIENT_PROTECTED)
            .bytes(label.as_bytes())
            .done();
        Self { external_aad, kdf }
    }

    /// `Enc_structure` of RFC 9052 section 5.3.
    fn aad(&self) -> Vec<u8> {
        cbor::Writer::array(3)
            .text("Encrypt")
            .bytes(CONTENT_PROTECTED)
            .bytes(&self.external_aad)
            .done()
    }

    fn cipher(&self, key: &[u8; KEY_LEN], salt: &[u8; SALT_LEN]) -> Result<Cipher, aead::Refused> {
        Cipher::new(&*aead::derive(key, salt, &self.kdf)?)
    }

    fn seal(
        &self,
        key: &[u8; KEY_LEN],
        payload: &[u8],
        fresh: &Fresh,
    ) -> Result<(Vec<u8>, [u8; TAG_LEN]), SealError> {
        let too_large = || SealError::TooLarge { len: payload.len() };
        let length = u32::try_from(payload.len()).map_err(|_| too_large())?;
        if payload.len() > PAYLOAD_MAX {
            return Err(too_large());
        }
        let padded = padded_len(LENGTH_LEN + payload.len());
        self.seal_padded(key, &[&length.to_le_bytes(), payload], padded, fresh)
    }

    /// Seals `parts` and zeros after them, `padded` bytes together.
    fn seal_padded(
        &self,
        key: &[u8; KEY_LEN],
        parts: &[&[u8]],
        padded: usize,
        fresh: &Fresh,
    ) -> Result<(Vec<u8>, [u8; TAG_LEN]), SealError> {
        // The plaintext is laid down where the ciphertext will be and encrypted there, so no copy
        // of it is left behind: the buffer never grows.
        let mut out = Vec::with_capacity(FRAME_LEN + padded + TAG_LEN);
        out.extend_from_slice(BEFORE_IV);
        out.extend_from_slice(&fresh.iv);
        cbor::push_bytes_head(&mut out, padded + TAG_LEN);
        let start = out.len();
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out.resize(start + padded, 0);
        let plaintext = out.get_mut(start..).unwrap_or_default();
        let tag = self
            .cipher(key, &fresh.salt)
            .and_then(|cipher| cipher.seal(&fresh.iv, &self.aad(), plaintext))
            .map_err(|aead::Refused| SealError::Cipher)?;
        out.extend_from_slice(&tag);
        out.extend_from_slice(BEFORE_SALT);
        out.extend_from_slice(&fresh.salt);
        out.extend_from_slice(AFTER_SALT);
        Ok((out, tag))
    }

    fn open(&self, key: &[u8; KEY_LEN], frame: &Frame<'_>) -> Result<Plaintext, OpenError> {
        let len = frame.sealed.len().saturating_sub(TAG_LEN);
        let mut padded = Zeroizing::new(vec![0; len]);
        self.cipher(key, frame.salt)
            .and_then(|cipher| cipher.open(frame.iv, &self.aad(), frame.sealed, &mut padded))
            .map_err(|aead::Refused| OpenError::CannotOpen)?;
        let payload = payload_of(&padded).ok_or(OpenError::Padding)?;
        let unpadded = LENGTH_LEN + payload.len();
        let zeros = padded.get(unpadded..).unwrap_or_default();
        if payload.len() > PAYLOAD_MAX
            || padded.len() != padded_len(unpadded)
            || zeros.iter().any(|&b| b != 0)
        {
            return Err(OpenError::Padding);
        }
        Ok(Plaintext { padded })
    }

    /// The key for the answer to the request that this context, salt and tag belong to.
    fn response_key(
        &self,
        key: &RequestKey,
        salt: &[u8; SALT_LEN],
        tag: &[u8; TAG_LEN],
    ) -> Result<ResponseKey, aead::Refused> {
        let info = cbor::Writer::array(3)
            .text(labels::RESPONSE_KEY)
            .bytes(&self.external_aad)
            .bytes(tag)
            .done();
        aead::derive(key.expose(), salt, &info).map(|key| ResponseKey::copy_of(&key))
    }
}

impl cbor::Writer {
    /// `PartyInfo` with an identity only (RFC 9053 section 5.2).
    fn party(self, identity: &[u8]) -> Self {
        self.nested(3).bytes(identity).null().null()
    }
}

/// The payload inside `u32 LE length | payload | …`, if it is all there.
fn payload_of(padded: &[u8]) -> Option<&[u8]> {
    let (length, rest) = padded.split_first_chunk()?;
    rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests;
