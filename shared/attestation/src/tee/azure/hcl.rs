//! The report of Azure's paravisor (HCL), as it lies in the vTPM's NV index 0x01400001: a
//! hardware report, and the claims that its report data covers.

use serde::Deserialize;

use super::document::decode_base64;
use crate::evidence::Malformed;

/// Lengths of the parts in front of the claims.
const HEADER: usize = 32;
const HARDWARE: usize = 1184;
const REQUEST: usize = 20;
/// Larger than the NV index is: 2600 bytes.
const BLOB_MAX: usize = 4096;
const MAGIC: [u8; 4] = *b"HCLA";
const ATTESTATION_REQUEST: u32 = 2;
const SHA256: u32 = 1;
/// The key that the vTPM signs quotes with, by its name in the claims.
const AK: &str = "HCLAkPub";
/// Bytes of its modulus: RSA-2048 today; nothing weaker, and nothing dear to verify.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=512;

/// Which hardware's report is in it, by the number of IGVM's report types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hardware {
    Snp,
    Tdx,
}

impl Hardware {
    const fn number(self) -> u32 {
        match self {
            Self::Snp => 2,
            Self::Tdx => 4,
        }
    }
}

/// A report, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HclReport<'a> {
    /// SEV-SNP: a report with its signature. TDX: a `TDREPORT`, which only its own machine can
    /// verify; the quote beside it says the same to others.
    pub(super) hardware: &'a [u8; HARDWARE],
    /// The JSON that report data covers, as it was hashed.
    pub(super) claims: &'a [u8],
    pub(super) ak: AttestationKey,
    pub(super) secure_boot: bool,
}

/// The vTPM's attestation key (AK): big-endian numbers without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttestationKey {
    pub(super) modulus: Vec<u8>,
    pub(super) exponent: Vec<u8>,
}

#[derive(Deserialize)]
struct RuntimeClaims {
    keys: Vec<Jwk>,
    #[serde(rename = "vm-configuration")]
    vm_configuration: Configuration,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    n: Option<String>,
    e: Option<String>,
    key_ops: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Configuration {
    /// Absent is off: what is not claimed is not so.
    #[serde(rename = "secure-boot", default)]
    secure_boot: bool,
}

const fn check(ok: bool, field: &'static str) -> Result<(), Malformed> {
    if ok { Ok(()) } else { Err(Malformed { field }) }
}

/// The little-endian numbers of a structure.
fn numbers<const N: usize>(bytes: [[u8; 4]; N]) -> [u32; N] {
    bytes.map(u32::from_le_bytes)
}

/// Takes `N` fields of four bytes off the front.
fn fields<const N: usize>(blob: &[u8]) -> Option<([[u8; 4]; N], &[u8])> {
    let (chunks, _) = blob.as_chunks::<4>();
    let fields = chunks.first_chunk::<N>()?;
    let rest = blob.get(fields.as_flattened().len()..)?;
    Some((*fields, rest))
}

impl<'a> HclReport<'a> {
    /// # Errors
    /// [`Malformed`] for everything that is not exactly one such report: no signature covers
    /// the header, so it gets no choice.
    pub(super) fn parse(blob: &'a [u8], kind: Hardware) -> Result<Self, Malformed> {
        let wrong_length = Malformed {
            field: "HCL report length",
        };
        check(blob.len() <= BLOB_MAX, "HCL report length")?;
        let (header, rest) = fields::<{ HEADER / 4 }>(blob).ok_or(wrong_length)?;
        let (hardware, rest) = rest.split_first_chunk::<HARDWARE>().ok_or(wrong_length)?;
        let (request, rest) = fields::<{ REQUEST / 4 }>(rest).ok_or(wrong_length)?;

        let [data_size, version, report_type, hash_type, length] = numbers(request);
        check(version == 1, "HCL request version")?;
        check(report_type == kind.number(), "HCL report type")?;
        check(hash_type == SHA256, "HCL hash type")?;
        let (claims, padding) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(wrong_length)?;
        check(
            data_size.checked_sub(20) == Some(length),
            "HCL request length",
        )?;
        // The NV index is longer than the report.
        check(padding.iter().all(|byte| *byte == 0), "HCL padding")?;

        let [magic, header @ ..] = header;
        check(magic == MAGIC, "HCL signature")?;
        let [version, size, request, status, reserved @ ..] = numbers(header);
        check(matches!(version, 1 | 2), "HCL version")?;
        // All parts in front of the claims have 1236 bytes.
        check(size.checked_sub(1236) == Some(length), "HCL report size")?;
        check(request == ATTESTATION_REQUEST, "HCL request type")?;
        check(status == 0 && reserved == [0; 3], "HCL status")?;

        let (ak, secure_boot) = read_claims(claims)?;
        Ok(Self {
            hardware,
            claims,
            ak,
            secure_boot,
        })
    }
}

fn read_claims(json: &[u8]) -> Result<(AttestationKey, bool), Malformed> {
    let claims: RuntimeClaims = serde_json::from_slice(json).map_err(|_| Malformed {
        field: "runtime claims",
    })?;
    let mut keys = claims.keys.iter().filter(|key| key.kid == AK);
    // Of two keys, a verifier and the paravisor might not mean the same one.
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(Malformed { field: AK });
    };
    let ops = key.key_ops.as_deref();
    let signs = ops.is_none_or(|ops| ops.iter().any(|op| op == "sign"));
    check(key.kty == "RSA" && signs, AK)?;
    let number = |text: &Option<String>| {
        let number = decode_base64(text.as_deref()?)?;
        (number.first() != Some(&0)).then_some(number)
    };
    let (Some(modulus), Some(exponent)) = (number(&key.n), number(&key.e)) else {
        return Err(Malformed { field: AK });
    };
    let usual = MODULUS.contains(&modulus.len()) && exponent == [1, 0, 1];
    check(usual, AK)?;
    let ak = AttestationKey { modulus, exponent };
    Ok((ak, claims.vm_configuration.secure_boot))
}
