//! The long-term identity of a model owner or model user: an Ed25519 key (RFC 8032).
//!
//! The file is PKCS #8 in PEM (RFC 5958, RFC 7468, RFC 8410), as `openssl genpkey -algorithm
//! ed25519` writes it. Who somebody is to everybody else is the SHA-256 of the public key's
//! SubjectPublicKeyInfo in DER: 44 bytes, `30 2a 30 05 06 03 2b 65 70 03 21 00 | key, 32 bytes`.

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::PrincipalId;
use zeroize::Zeroizing;

use crate::digest::sha256;
use crate::key_file::{self, KeyFileError};
use crate::random::RngError;

/// Length of the SubjectPublicKeyInfo, in bytes.
pub const SPKI_LEN: usize = 44;
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Largest PKCS #8 document taken, in bytes; with the public key inside it has 83 or so.
const PKCS8_MAX: usize = 256;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Why something is not an identity key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("not a PEM document with one private key")]
    Pem,
    #[error("not an Ed25519 private key in PKCS #8")]
    Pkcs8,
}

/// An owner's or user's Ed25519 key. Prints its principal id only.
pub struct IdentityKey {
    pkcs8: Zeroizing<Vec<u8>>,
    spki: [u8; SPKI_LEN],
}

impl IdentityKey {
    /// A fresh key.
    pub fn generate() -> Result<Self, RngError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| RngError)?;
        // Version 1, without the public key: OpenSSL reads no other.
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| RngError)?;
        Ok(Self {
            pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()),
            spki: spki_of(&pair),
        })
    }

    /// A key from PKCS #8, version 1 or 2.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, IdentityError> {
        if der.len() > PKCS8_MAX {
            return Err(IdentityError::Pkcs8);
        }
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| IdentityError::Pkcs8)?;
        Ok(Self {
            pkcs8: Zeroizing::new(der.to_vec()),
            spki: spki_of(&pair),
        })
    }

    /// A key from the PEM of [`Self::to_pkcs8_pem`] or of OpenSSL.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, IdentityError> {
        let body = pem
            .trim()
            .strip_prefix(PEM_BEGIN)
            .and_then(|rest| rest.strip_suffix(PEM_END))
            .ok_or(IdentityError::Pem)?;
        let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
        base64.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
        // The decoder's estimate is at most three bytes above what comes out.
        let mut der = Zeroizing::new([0; PKCS8_MAX + 3]);
        let len = STANDARD
            .decode_slice(&*base64, &mut *der)
            .map_err(|_| IdentityError::Pem)?;
        Self::from_pkcs8_der(der.get(..len).unwrap_or_default())
    }

    /// The key in PEM, for its owner's disk.
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        // 64 characters to a line (RFC 7468); a key has one or two lines.
        let base64 = Zeroizing::new(STANDARD.encode(&*self.pkcs8));
        let mut pem = Zeroizing::new(String::with_capacity(64 + 2 * base64.len()));
        pem.push_str(PEM_BEGIN);
        for (i, c) in base64.chars().enumerate() {
            if i % 64 == 0 {
                pem.push('\n');
            }
            pem.push(c);
        }
        pem.push('\n');
        pem.push_str(PEM_END);
        pem.push('\n');
        pem
    }

    /// Writes the PEM to a new file that only its owner can read; an existing file is an error.
    pub fn write_file(&self, path: &Path) -> Result<(), KeyFileError> {
        key_file::write(path, self.to_pkcs8_pem().as_bytes())
    }

    /// Reads a PEM file; one that others can read is refused.
    pub fn read_file(path: &Path) -> Result<Self, KeyFileError> {
        let content = key_file::read(path)?;
        std::str::from_utf8(&content)
            .ok()
            .and_then(|pem| Self::from_pkcs8_pem(pem).ok())
            .ok_or_else(|| KeyFileError::Format {
                path: path.into(),
                expected: "PKCS #8 PEM with an Ed25519 key",
            })
    }

    /// Who the holder of this key is.
    #[must_use]
    pub fn principal(&self) -> PrincipalId {
        PrincipalId::new(*sha256(&self.spki).as_bytes())
    }

    /// The public key as SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8; SPKI_LEN] {
        &self.spki
    }

    /// The private key as PKCS #8, DER: for the TLS stack, which signs with it.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.principal())
    }
}

fn spki_of(pair: &Ed25519KeyPair) -> [u8; SPKI_LEN] {
    let mut spki = [0; SPKI_LEN];
    let bytes = SPKI_PREFIX.iter().chain(pair.public_key().as_ref());
    spki.iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    spki
}

#[cfg(test)]
mod tests;
