//! The attestation report of SEV-SNP (AMD 56860, SEV-SNP firmware ABI, table 23), versions 2 to 5.

use crate::evidence::Malformed;
use crate::measurements::SnpMeasurements;

/// Length of a report, in bytes; no shorter and no longer one is a report.
pub(super) const REPORT: usize = 1184;
/// What the signature covers: everything in front of it.
pub(super) const SIGNED: usize = 0x2a0;
/// R and S are numbers of 72 bytes, least significant first, of which P-384 fills 48.
const COORDINATE: usize = 72;
const P384: usize = 48;
/// ECDSA P-384 with SHA-384, the one algorithm that the specification has.
const ECDSA_P384_SHA384: u32 = 1;

/// A report, field by field. Nothing here is believed before its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) version: u32,
    pub(super) guest_svn: u32,
    pub(super) policy: u64,
    pub(super) family_id: [u8; 16],
    pub(super) image_id: [u8; 16],
    pub(super) vmpl: u32,
    pub(super) current_tcb: [u8; 8],
    pub(super) platform_info: u64,
    pub(super) key_info: u32,
    pub(super) report_data: [u8; 64],
    pub(super) measurement: [u8; 48],
    pub(super) host_data: [u8; 32],
    pub(super) id_key_digest: [u8; 48],
    pub(super) reported_tcb: [u8; 8],
    /// CPUID family and model; a report of version 2 has none.
    pub(super) cpuid: Option<(u8, u8)>,
    pub(super) chip_id: [u8; 64],
    pub(super) committed_tcb: [u8; 8],
    /// Committed version of the firmware: major, minor, build.
    pub(super) firmware: (u8, u8, u8),
    pub(super) launch_tcb: [u8; 8],
    /// R and S, 48 bytes each, most significant first.
    pub(super) signature: [u8; 2 * P384],
}

/// Takes fields off the front, so that their offsets follow from their order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed { field: "length" })?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A reserved field: the specification has the firmware write zeros. What a report says
    /// there would be said in a language that this code does not speak.
    fn zeros<const N: usize>(&mut self) -> Result<(), Malformed> {
        let bytes: [u8; N] = self.bytes()?;
        check(bytes == [0; N], "reserved field")
    }

    /// Build, minor and major version, and a reserved byte.
    fn firmware(&mut self) -> Result<(u8, u8, u8), Malformed> {
        let [build, minor, major] = self.bytes()?;
        self.zeros::<1>()?;
        Ok((major, minor, build))
    }

    /// A number of the signature, most significant byte first.
    fn coordinate(&mut self) -> Result<[u8; P384], Malformed> {
        let mut number: [u8; P384] = self.bytes()?;
        let padding: [u8; COORDINATE - P384] = self.bytes()?;
        // Bytes here change no number: left alone, one report would have many spellings.
        check(padding == [0; COORDINATE - P384], "signature padding")?;
        number.reverse();
        Ok(number)
    }
}

const fn check(ok: bool, field: &'static str) -> Result<(), Malformed> {
    if ok { Ok(()) } else { Err(Malformed { field }) }
}

impl Report {
    /// # Errors
    /// [`Malformed`] for another length, version or signature algorithm, for reserved fields
    /// and padding that are not zero, and for a signing key that the specification has not.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        check(body.len() == REPORT, "length")?;
        let mut fields = Fields(body);
        let version = fields.u32()?;
        check(matches!(version, 2..=5), "version")?;
        let guest_svn = fields.u32()?;
        let policy = fields.u64()?;
        let family_id = fields.bytes()?;
        let image_id = fields.bytes()?;
        let vmpl = fields.u32()?;
        check(fields.u32()? == ECDSA_P384_SHA384, "signature algorithm")?;
        let current_tcb = fields.bytes()?;
        // Not checked for reserved bits: real Turin machines set bit 6.
        let platform_info = fields.u64()?;
        let key_info = fields.u32()?;
        check(key_info >> 5 == 0, "key flags")?;
        fields.zeros::<4>()?;
        let report_data = fields.bytes()?;
        let measurement = fields.bytes()?;
        let host_data = fields.bytes()?;
        let id_key_digest = fields.bytes()?;
        let _author_key_digest: [u8; 48] = fields.bytes()?;
        let _report_id: [u8; 32] = fields.bytes()?;
        let _report_id_ma: [u8; 32] = fields.bytes()?;
        let reported_tcb = fields.bytes()?;
        let [family, model, stepping] = fields.bytes()?;
        let cpuid = (version >= 3).then_some((family, model));
        check(
            cpuid.is_some() || [family, model, stepping] == [0; 3],
            "reserved field",
        )?;
        fields.zeros::<21>()?;
        let chip_id = fields.bytes()?;
        let committed_tcb = fields.bytes()?;
        let _current_firmware = fields.firmware()?;
        let firmware = fields.firmware()?;
        let launch_tcb = fields.bytes()?;
        // The mitigation vectors at launch and now.
        let mitigations: [u8; 16] = fields.bytes()?;
        check(version >= 4 || mitigations == [0; 16], "reserved field")?;
        fields.zeros::<152>()?;
        let [r, s] = [fields.coordinate()?, fields.coordinate()?];
        check(fields.0.iter().all(|byte| *byte == 0), "signature tail")?;
        let mut signature = [0; 2 * P384];
        for (place, byte) in signature.iter_mut().zip(r.into_iter().chain(s)) {
            *place = byte;
        }
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform_info,
            key_info,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            reported_tcb,
            cpuid,
            chip_id,
            committed_tcb,
            firmware,
            launch_tcb,
            signature,
        })
    }

    pub(super) const fn measurements(&self) -> SnpMeasurements {
        SnpMeasurements {
            measurement: self.measurement,
            host_data: self.host_data,
            id_key_digest: self.id_key_digest,
            policy: self.policy,
            vmpl: self.vmpl,
            family_id: self.family_id,
            image_id: self.image_id,
        }
    }

    /// `SIGNING_KEY`: 0 VCEK, 1 VLEK, 7 none, others reserved.
    pub(super) const fn signing_key(&self) -> u32 {
        (self.key_info >> 2) & 0b111
    }

    /// `MASK_CHIP_KEY`: the firmware was told not to sign with the chip's key.
    pub(super) const fn chip_key_masked(&self) -> bool {
        self.key_info & 0b10 != 0
    }

    /// A host can have the chip id left out of reports; no chip's id is zero.
    pub(super) fn chip_masked(&self) -> bool {
        self.chip_id == [0; 64]
    }
}
