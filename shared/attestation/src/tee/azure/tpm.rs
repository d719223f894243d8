//! A TPM's quote: `TPMS_ATTEST` of `TPMS_QUOTE_INFO` (TPM 2.0 part 2, 10.12.12), and nothing
//! behind it.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};

use super::document::PCRS;
use crate::evidence::Malformed;

const TPM_GENERATED_VALUE: u32 = 0xff54_4347;
const TPM_ST_ATTEST_QUOTE: u16 = 0x8018;
const TPM_ALG_SHA256: u16 = 0x000b;
/// Longest `TPM2B_DATA` and `TPM2B_NAME`: a hash of 64 bytes behind its algorithm.
const SIZED_MAX: usize = 66;

/// What a quote says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quote {
    /// `extraData`: the verifier's nonce.
    pub(super) nonce: Vec<u8>,
    /// Indices of the quoted registers of the SHA-256 bank, one bit each.
    selected: u32,
    pub(super) pcr_digest: [u8; 32],
}

/// Takes big-endian fields off the front.
struct Fields<'a>(&'a [u8]);

const fn bad(field: &'static str) -> Malformed {
    Malformed { field }
}

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(bad("TPM quote length"))?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// A `TPM2B`: its length, and as many bytes.
    fn sized(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16()?);
        let (value, rest) = self.0.split_at_checked(length).ok_or(bad(field))?;
        if length > SIZED_MAX {
            return Err(bad(field));
        }
        self.0 = rest;
        Ok(value)
    }
}

impl Quote {
    /// # Errors
    /// [`Malformed`] for another kind of attestation, another bank, no register at all, and for
    /// bytes that are missing or too many.
    pub(super) fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(message);
        if fields.u32()? != TPM_GENERATED_VALUE {
            return Err(bad("TPM quote magic"));
        }
        if fields.u16()? != TPM_ST_ATTEST_QUOTE {
            return Err(bad("TPM quote type"));
        }
        let _qualified_signer = fields.sized("TPM quote signer")?;
        let nonce = fields.sized("TPM quote nonce")?.to_vec();
        // Clock, reset and restart counts, and whether the clock is safe; firmware version.
        let _clock: [u8; 17] = fields.bytes()?;
        let _firmware: [u8; 8] = fields.bytes()?;
        let banks = fields.u32()?;
        let bank = fields.u16()?;
        let [octets, low, middle, high] = fields.bytes()?;
        let selected = u32::from_le_bytes([low, middle, high, 0]);
        if banks != 1 || bank != TPM_ALG_SHA256 || octets != 3 || selected == 0 {
            return Err(bad("TPM quote selection"));
        }
        let pcr_digest = fields.sized("TPM quote digest")?;
        let pcr_digest = pcr_digest.try_into().map_err(|_| bad("TPM quote digest"))?;
        if !fields.0.is_empty() {
            return Err(bad("TPM quote length"));
        }
        Ok(Self {
            nonce,
            selected,
            pcr_digest,
        })
    }

    /// The quoted ones of these registers. The others are covered by nothing.
    pub(super) fn quoted(&self, pcrs: &[[u8; 32]; PCRS]) -> BTreeMap<u8, [u8; 32]> {
        (0..24)
            .zip(pcrs)
            .filter(|(index, _)| self.selected & (1 << index) != 0)
            .map(|(index, pcr)| (index, *pcr))
            .collect()
    }
}

/// What `pcrDigest` must be: SHA-256 over the quoted registers, in the order of their indices.
pub(super) fn digest_of(quoted: &BTreeMap<u8, [u8; 32]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for pcr in quoted.values() {
        context.update(pcr);
    }
    context.finish().as_ref().try_into().unwrap_or([0; 32])
}
