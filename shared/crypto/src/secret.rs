//! Keys: one type for each purpose, 32 bytes on the heap, overwritten when dropped.
//!
//! A key cannot be cloned, serialised, compared with `==` or printed. Its bytes leave it through
//! `expose`, which only this crate can call, through [`ModelKey::to_wire`] into the attested
//! channel, and through `write_file` onto the owner's or user's own disk.

use std::fmt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use protocol::keyservice::WireKey;
use zeroize::{Zeroize, Zeroizing};

use crate::aead::{KEY_LEN, derive};
use crate::key_file::{self, KeyFileError};
use crate::labels;
use crate::random::{self, RngError};

/// A key was offered with another length than 32 bytes; it is never cut or padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has 32 bytes, got {got}")]
pub struct KeyLengthError {
    pub got: usize,
}

/// A key could not be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealing key cannot be derived")]
pub struct BindError;

struct KeyBytes(Box<[u8; KEY_LEN]>);

impl KeyBytes {
    fn zero() -> Self {
        Self(Box::new([0; KEY_LEN]))
    }

    fn generate() -> Result<Self, RngError> {
        let mut key = Self::zero();
        random::fill(&mut *key.0)?;
        Ok(key)
    }

    fn from_slice(bytes: &[u8]) -> Result<Self, KeyLengthError> {
        let bytes: &[u8; KEY_LEN] = bytes
            .try_into()
            .map_err(|_| KeyLengthError { got: bytes.len() })?;
        Ok(Self::copy_of(bytes))
    }

    fn copy_of(bytes: &[u8; KEY_LEN]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(KeyBytes);

        impl $name {
            /// A fresh key from the random number generator.
            pub fn generate() -> Result<Self, RngError> {
                KeyBytes::generate().map(Self)
            }

            /// A key from exactly 32 bytes; the caller overwrites its own copy.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyLengthError> {
                KeyBytes::from_slice(bytes).map(Self)
            }

            /// Whether both are the same key, in constant time.
            #[must_use]
            pub fn ct_eq(&self, other: &Self) -> bool {
                verify_slices_are_equal(self.expose(), other.expose()).is_ok()
            }

            pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
                &self.0.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

macro_rules! portable {
    ($name:ident, $label:expr) => {
        impl $name {
            /// The key as KeyService's messages carry it, inside the attested channel only.
            #[must_use]
            pub fn to_wire(&self) -> WireKey {
                WireKey::new(self.expose())
            }

            /// The key out of a KeyService message.
            pub fn from_wire(key: &WireKey) -> Result<Self, KeyLengthError> {
                Self::from_slice(key.bytes())
            }

            /// Writes a new file that only its owner can read; an existing file is an error.
            pub fn write_file(&self, path: &Path) -> Result<(), KeyFileError> {
                key_file::write(path, &key_file::encode($label, self.expose()))
            }

            /// Reads a file of [`Self::write_file`]; one that others can read is refused.
            pub fn read_file(path: &Path) -> Result<Self, KeyFileError> {
                let mut bytes = Zeroizing::new([0; KEY_LEN]);
                key_file::decode($label, &key_file::read(path)?, &mut bytes).ok_or_else(|| {
                    KeyFileError::Format {
                        path: path.into(),
                        expected: $label,
                    }
                })?;
                Ok(Self(KeyBytes::copy_of(&bytes)))
            }
        }
    };
}

key! {
    /// Seals the artifact of one version of one model. The owner makes it; KeyService keeps it.
    ModelKey
}
portable!(ModelKey, labels::MODEL_KEY_FILE);

key! {
    /// Seals one user's requests to one model inside one enclave identity.
    RequestKey
}
portable!(RequestKey, labels::REQUEST_KEY_FILE);

key! {
    /// Seals records at rest; the TEE derives it, so that the same enclave finds it again.
    SealingKey
}

key! {
    /// Seals the answers to one request. It comes from sealing or opening that request, and is
    /// another for each request: an answer to one never opens as the answer to another.
    ResponseKey
}

impl SealingKey {
    /// The key for what is sealed under `context`, too: other contexts give other keys, so that
    /// records made under one do not open under another.
    ///
    /// # Errors
    /// [`BindError`] if the library refuses, which it does not for keys of this length.
    pub fn bound_to(&self, context: &[u8]) -> Result<Self, BindError> {
        let salt = labels::BOUND_SEALING_KEY.as_bytes();
        let bound = derive(self.expose(), salt, context).map_err(|_| BindError)?;
        Ok(Self(KeyBytes::copy_of(&bound)))
    }
}

impl ModelKey {
    /// For the artifact opener, which outlives the borrow of its caller's key.
    pub(crate) fn duplicate(&self) -> Self {
        Self(KeyBytes::copy_of(self.expose()))
    }
}

impl ResponseKey {
    pub(crate) fn copy_of(bytes: &[u8; KEY_LEN]) -> Self {
        Self(KeyBytes::copy_of(bytes))
    }
}

#[cfg(test)]
mod tests;
