//! An Intel quote, byte by byte: header, body, signature, certification, and nothing else.
//!
//! Formats: SGX quote 3 (Intel SGX ECDSA Quote Library Reference, A.4), TDX quotes 4 and 5 (Intel
//! TDX DCAP Quoting Library API, A.3), report bodies (`sgx_report.h`, `sgx_quote_5.h`).
//!
//! It is exact where other readers are lenient: lengths must add up, and only zeros may follow
//! (kernels and clouds pad). What the attestation key signs is header and body. Beside it, a quote
//! that verifies can still be altered in these ways, so neither identity nor replay protection may
//! ever hang on a hash of it: length of the zero padding; `r, n - s` for `r, s` in its two ECDSA
//! signatures; line ends of the PEM text; and certification data of types 1 to 4, of which only
//! the length matters.

use crate::evidence::{EVIDENCE_MAX, Malformed, Said};
use crate::measurements::{Measurements, SgxMeasurements, TdxMeasurements};

use super::pem;

const SGX_BODY: usize = 384;
const TD10_BODY: usize = 584;
const TD15_BODY: usize = 648;
const TD15_EX_BODY: usize = 885;
/// ECDSA with SHA-256 on P-256, the only kind of key that quoting enclaves have.
const ECDSA_P256: u16 = 2;
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
/// `INTEL_QE_VENDOR_ID`.
const INTEL: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// A certification of QE report, its signature, and a certification of the key that made it.
const CERTIFICATION_QE_REPORT: u16 = 6;
/// The PCK certificate's chain in PEM.
const CERTIFICATION_CHAIN: u16 = 5;
/// What quoting enclaves of Intel put beside the attestation key into the QE report's hash.
const QE_AUTHENTICATION: usize = 32;

/// TD attributes (Intel TDX Module ABI 348551-008US, table 3.23).
pub(super) const SERVTD_EXT: u64 = 1 << 17;
pub(super) const SEPT_VE_DISABLE: u64 = 1 << 28;
pub(super) const MIGRATABLE: u64 = 1 << 29;
/// DEBUG and three of profiling; ICSSD to bit 22; LASS to KL; TPA and PERFMON.
const TD_DEFINED: u64 = 0b0111_0001 | 0x7f << 16 | 0x1f << 27 | 0b11 << 62;
/// SGX ATTRIBUTES.FLAGS (Intel SDM vol. 3D, table 35-3): INIT, DEBUG, MODE64BIT, PROVISIONKEY,
/// EINITTOKEN_KEY, CET, KSS, AEX_NOTIFY.
const SGX_DEFINED: u64 = 0b100_1111_0111;

/// What a quote's body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) version: u16,
    pub(super) said: Said,
    /// SGX only.
    pub(super) isv_svn: u16,
    /// SGX: CONFIGID; TDX: none.
    pub(super) config_id: Option<[u8; 64]>,
    /// Attribute bits that nobody defined.
    pub(super) reserved_attributes: u64,
    pub(super) td: Option<Td>,
}

/// What only a TD's body says, beside its measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Td {
    pub(super) rtmr3: [u8; 48],
    /// Zero where there is none: bodies of TDX 1.0 have no such field.
    pub(super) mr_service_td: [u8; 48],
    /// Service TDs bound after the TD was created (TDX 1.5ex).
    pub(super) current_service_td: [u8; 48],
}

/// How the key of the quoting enclave is certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Certification {
    /// By this chain in the quote; leaf first, DER.
    Chain(Vec<Vec<u8>>),
    /// By a PCK certificate that the verifier has to have from elsewhere.
    Elsewhere,
}

/// A whole quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quote<'a> {
    /// Without the padding.
    pub(super) exact: &'a [u8],
    pub(super) report: Report,
    pub(super) certification: Certification,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed { field })?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed { field })?;
        self.0 = rest;
        Ok(*array)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// As many bytes as the 32-bit length in front of them says.
    fn counted(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.u32(field)?;
        self.bytes(usize::try_from(len).unwrap_or(usize::MAX), field)
    }

    fn end(&self, field: &'static str) -> Result<(), Malformed> {
        require(self.0.is_empty(), field)
    }
}

const fn require(ok: bool, field: &'static str) -> Result<(), Malformed> {
    if ok { Ok(()) } else { Err(Malformed { field }) }
}

/// Reads header and body, whatever follows.
pub(super) fn read_report(quote: &[u8]) -> Result<Report, Malformed> {
    report(&mut Cursor(quote))
}

/// Reads all of a quote.
pub(super) fn read(quote: &[u8]) -> Result<Quote<'_>, Malformed> {
    require(quote.len() <= EVIDENCE_MAX, "length")?;
    let mut cursor = Cursor(quote);
    let report = report(&mut cursor)?;
    let signature = cursor.counted("length of the signature")?;
    let padding = cursor.0;
    require(
        padding.iter().all(|byte| *byte == 0),
        "end: bytes that are not zero follow the quote",
    )?;
    let exact = quote
        .get(..quote.len().saturating_sub(padding.len()))
        .ok_or(Malformed { field: "length" })?;
    let certification = certification(report.version, signature)?;
    Ok(Quote {
        exact,
        report,
        certification,
    })
}

fn report(cursor: &mut Cursor<'_>) -> Result<Report, Malformed> {
    let version = cursor.u16("version")?;
    let key = cursor.u16("kind of attestation key")?;
    let tee = cursor.u32("kind of TEE")?;
    // Security versions of QE and PCE, as the host says: the certificates say it better.
    cursor.bytes(4, "header")?;
    let vendor: [u8; 16] = cursor.array("vendor of the quoting enclave")?;
    cursor.bytes(20, "user data of the header")?;
    require((3..=5).contains(&version), "version")?;
    require(key == ECDSA_P256, "kind of attestation key")?;
    require(vendor == INTEL, "vendor of the quoting enclave")?;
    let len = match (version, tee) {
        (3 | 4, TEE_SGX) => SGX_BODY,
        (4, TEE_TDX) => TD10_BODY,
        (5, TEE_SGX | TEE_TDX) => {
            let kind = cursor.u16("type of the body")?;
            let len = cursor.u32("length of the body")?;
            let expected = match (tee, kind) {
                (TEE_SGX, 1) => SGX_BODY,
                (TEE_TDX, 2) => TD10_BODY,
                (TEE_TDX, 3) => TD15_BODY,
                (TEE_TDX, 4) => TD15_EX_BODY,
                _ => {
                    return Err(Malformed {
                        field: "type of the body",
                    });
                }
            };
            require(usize::try_from(len) == Ok(expected), "length of the body")?;
            expected
        }
        _ => {
            return Err(Malformed {
                field: "kind of TEE",
            });
        }
    };
    let mut body = Cursor(cursor.bytes(len, "body")?);
    let report = if tee == TEE_SGX {
        sgx(version, &mut body)?
    } else {
        tdx(version, &mut body)?
    };
    body.end("body")?;
    Ok(report)
}

fn sgx(version: u16, body: &mut Cursor<'_>) -> Result<Report, Malformed> {
    const FIELD: &str = "body";
    body.bytes(16, FIELD)?; // CPUSVN: the PCK certificate's counts
    let misc_select = body.u32(FIELD)?;
    body.bytes(12 + 16, FIELD)?; // reserved, ISVEXTPRODID
    let attributes = body.u64(FIELD)?;
    let xfrm = body.u64(FIELD)?;
    let mrenclave = body.array(FIELD)?;
    body.bytes(32, FIELD)?;
    let mrsigner = body.array(FIELD)?;
    body.bytes(32, FIELD)?;
    let config_id = body.array(FIELD)?;
    let isv_prod_id = body.u16(FIELD)?;
    let isv_svn = body.u16(FIELD)?;
    body.bytes(2 + 42 + 16, FIELD)?; // CONFIGSVN, reserved, ISVFAMILYID
    let report_data: [u8; 64] = body.array(FIELD)?;
    Ok(Report {
        version,
        said: Said {
            measurements: Measurements::Sgx(SgxMeasurements {
                mrenclave,
                mrsigner,
                isv_prod_id,
                attributes,
                xfrm,
                misc_select,
            }),
            report_data: report_data.to_vec(),
            nonce: None,
        },
        isv_svn,
        config_id: Some(config_id),
        reserved_attributes: attributes & !SGX_DEFINED,
        td: None,
    })
}

fn tdx(version: u16, body: &mut Cursor<'_>) -> Result<Report, Malformed> {
    const FIELD: &str = "body";
    // TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM, SEAMATTRIBUTES: Intel's TCB info judges them.
    body.bytes(16 + 48 + 48 + 8, FIELD)?;
    let td_attributes = body.u64(FIELD)?;
    let xfam = body.u64(FIELD)?;
    let mrtd = body.array(FIELD)?;
    let mr_config_id = body.array(FIELD)?;
    let mr_owner = body.array(FIELD)?;
    let mr_owner_config = body.array(FIELD)?;
    let rtmr = [body.array(FIELD)?, body.array(FIELD)?, body.array(FIELD)?];
    let rtmr3 = body.array(FIELD)?;
    let report_data: [u8; 64] = body.array(FIELD)?;
    let mut td = Td {
        rtmr3,
        mr_service_td: [0; 48],
        current_service_td: [0; 48],
    };
    if !body.0.is_empty() {
        body.bytes(16, FIELD)?; // TEE_TCB_SVN2
        td.mr_service_td = body.array(FIELD)?;
    }
    if !body.0.is_empty() {
        // VMID, TD_ID, DEV_INFO, INIT_SERVICE_TD_HASH and attributes, INIT_CPUSVN,
        // INIT_TEE_TCB_SVN, INIT_TEE_FMSPC.
        body.bytes(1 + 32 + 48 + 48 + 8 + 16 + 16 + 12, FIELD)?;
        td.current_service_td = body.array(FIELD)?;
        body.bytes(8, FIELD)?;
    }
    Ok(Report {
        version,
        said: Said {
            measurements: Measurements::Tdx(Box::new(TdxMeasurements {
                mrtd,
                rtmr,
                mr_config_id,
                mr_owner,
                mr_owner_config,
                td_attributes,
                xfam,
            })),
            report_data: report_data.to_vec(),
            nonce: None,
        },
        isv_svn: 0,
        config_id: None,
        reserved_attributes: td_attributes & !TD_DEFINED,
        td: Some(td),
    })
}

fn certification(version: u16, signature: &[u8]) -> Result<Certification, Malformed> {
    let mut cursor = Cursor(signature);
    cursor.bytes(64 + 64, "signature and attestation key")?;
    if version > 3 {
        let kind = cursor.u16("certification of the attestation key")?;
        require(
            kind == CERTIFICATION_QE_REPORT,
            "certification of the attestation key",
        )?;
        let rest = cursor.counted("certification of the attestation key")?;
        cursor.end("certification of the attestation key")?;
        cursor = Cursor(rest);
    }
    cursor.bytes(SGX_BODY + 64, "report of the quoting enclave")?;
    let authentication = cursor.u16("authentication data")?;
    require(
        usize::from(authentication) == QE_AUTHENTICATION,
        "authentication data",
    )?;
    cursor.bytes(QE_AUTHENTICATION, "authentication data")?;
    let kind = cursor.u16("certification data")?;
    let text = cursor.counted("certification data")?;
    cursor.end("certification data")?;
    match kind {
        CERTIFICATION_CHAIN => pem::exact(text).map(Certification::Chain).ok_or(Malformed {
            field: "chain of certificates",
        }),
        1..=4 => Ok(Certification::Elsewhere),
        _ => Err(Malformed {
            field: "kind of certification data",
        }),
    }
}

#[cfg(test)]
mod tests;
