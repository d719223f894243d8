//! Reports of SEV-SNP with fields of the caller's choice.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;

/// Length of a report, and of its signed part, in bytes.
pub const REPORT: usize = 1184;
const SIGNED: usize = 0x2a0;

/// What a report is to say (AMD 56860, table 23). Offsets of the fields are in the comments, for
/// tests that change bytes instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeReport {
    /// 0x00
    pub version: u32,
    /// 0x04
    pub guest_svn: u32,
    /// 0x08
    pub policy: u64,
    /// 0x10
    pub family_id: [u8; 16],
    /// 0x20
    pub image_id: [u8; 16],
    /// 0x30
    pub vmpl: u32,
    /// 0x34
    pub signature_algorithm: u32,
    /// 0x38
    pub current_tcb: [u8; 8],
    /// 0x40
    pub platform_info: u64,
    /// 0x48
    pub key_info: u32,
    /// 0x50
    pub report_data: [u8; 64],
    /// 0x90
    pub measurement: [u8; 48],
    /// 0xc0
    pub host_data: [u8; 32],
    /// 0xe0
    pub id_key_digest: [u8; 48],
    /// 0x110
    pub author_key_digest: [u8; 48],
    /// 0x180
    pub reported_tcb: [u8; 8],
    /// 0x188: family, model, stepping
    pub cpuid: [u8; 3],
    /// 0x1a0
    pub chip_id: [u8; 64],
    /// 0x1e0
    pub committed_tcb: [u8; 8],
    /// 0x1f0
    pub launch_tcb: [u8; 8],
}

impl FakeReport {
    /// The bytes, with zeros for the signature.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; REPORT] {
        let mut bytes = [0; REPORT];
        let mut put = |at: usize, field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        put(0x00, &self.version.to_le_bytes());
        put(0x04, &self.guest_svn.to_le_bytes());
        put(0x08, &self.policy.to_le_bytes());
        put(0x10, &self.family_id);
        put(0x20, &self.image_id);
        put(0x30, &self.vmpl.to_le_bytes());
        put(0x34, &self.signature_algorithm.to_le_bytes());
        put(0x38, &self.current_tcb);
        put(0x40, &self.platform_info.to_le_bytes());
        put(0x48, &self.key_info.to_le_bytes());
        put(0x50, &self.report_data);
        put(0x90, &self.measurement);
        put(0xc0, &self.host_data);
        put(0xe0, &self.id_key_digest);
        put(0x110, &self.author_key_digest);
        put(0x140, &[0x5d; 32]);
        put(0x160, &[0xff; 32]);
        put(0x180, &self.reported_tcb);
        put(0x188, &self.cpuid);
        put(0x1a0, &self.chip_id);
        put(0x1e0, &self.committed_tcb);
        put(0x1e8, &[0x1d, 55, 1, 0, 0x1c, 55, 1, 0]);
        put(0x1f0, &self.launch_tcb);
        bytes
    }
}

/// Puts a signature over the first 0x2a0 bytes behind them.
#[must_use]
pub(super) fn sign(key: &EcdsaKeyPair, mut report: [u8; REPORT]) -> Vec<u8> {
    let (signed, signature) = report.split_at_mut(SIGNED);
    let rs = key.sign(&SystemRandom::new(), signed).unwrap();
    signature.fill(0);
    for (place, number) in signature.chunks_mut(72).zip(rs.as_ref().chunks(48)) {
        place[..48].copy_from_slice(number);
        place[..48].reverse();
    }
    report.to_vec()
}
