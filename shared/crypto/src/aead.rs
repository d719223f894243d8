//! HKDF-SHA-256 (RFC 5869) and AES-256-GCM (NIST SP 800-38D), the only two primitives in use.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

pub(crate) const KEY_LEN: usize = 32;
pub(crate) const NONCE_LEN: usize = 12;
pub(crate) const TAG_LEN: usize = 16;

/// The cipher library refused; for opening this means that the ciphertext is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

struct KeyLen;

impl KeyType for KeyLen {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

/// HKDF-SHA-256 to 32 bytes.
pub(crate) fn derive(
    ikm: &[u8; KEY_LEN],
    salt: &[u8],
    info: &[u8],
) -> Result<Zeroizing<[u8; KEY_LEN]>, Refused> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    Salt::new(HKDF_SHA256, salt)
        .extract(ikm)
        .expand(&[info], KeyLen)
        .and_then(|okm| okm.fill(&mut *key))
        .map_err(|_| Refused)?;
    Ok(key)
}

/// One AES-256-GCM key, expanded. The caller owns the rule that no nonce repeats under it.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Result<Self, Refused> {
        UnboundKey::new(&AES_256_GCM, key)
            .map(|k| Self(LessSafeKey::new(k)))
            .map_err(|_| Refused)
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        let mut tag = [0; TAG_LEN];
        self.0
            .seal_in_place_scatter(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(aad),
                in_out,
                &[],
                &mut tag,
            )
            .map_err(|_| Refused)?;
        Ok(tag)
    }

    /// Decrypts `ciphertext | tag` into `out`, which has the length of the ciphertext. On refusal
    /// `out` is all zeros.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Refused)?;
        let opened = self.0.open_separate_gather(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(aad),
            ciphertext,
            tag,
            out,
        );
        if opened.is_err() {
            out.fill(0);
        }
        opened.map_err(|_| Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869 appendix A.1 has a 22-byte key; a 32-byte one is checked by check.py, this checks
    /// AES-256-GCM against test case 14 of the GCM specification (McGrew and Viega).
    #[test]
    fn gcm_specification_test_case_14() {
        let cipher = Cipher::new(&[0; 32]).unwrap();
        let mut block = [0; 16];
        let tag = cipher.seal(&[0; 12], b"", &mut block).unwrap();
        assert_eq!(hex::encode(block), "cea7403d4d606b6e074ec5d3baf39d18");
        assert_eq!(hex::encode(tag), "d0d1c8a799996bf0265b98b5d48ab919");
        let mut out = [7; 16];
        cipher
            .open(&[0; 12], b"", &[block, tag].concat(), &mut out)
            .unwrap();
        assert_eq!(out, [0; 16]);
        out = [7; 16];
        assert_eq!(
            cipher.open(&[0; 12], b"x", &[block, tag].concat(), &mut out),
            Err(Refused)
        );
        assert_eq!(out, [0; 16]);
    }
}
