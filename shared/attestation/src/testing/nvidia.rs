//! A GPU in software: SPDM reports with any content, genuinely signed below a root that is not
//! NVIDIA's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::CustomExtension;

use super::p384::{P384Chain, authority, leaf};
use crate::tee::nvidia::GpuVerifier;

/// Hash of the fake's firmware.
pub const FIRMWARE_ID: [u8; 48] = [0xf1; 48];

/// Plays NVIDIA: what one signs, another does not accept.
#[derive(Debug)]
pub struct FakeGpu {
    pub chain: P384Chain,
}

/// Fields of a report, which a test may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReport {
    /// Version, code, attributes, operation, nonce (32), slot.
    pub request: Vec<u8>,
    /// Version, code, two parameters.
    pub response: [u8; 4],
    /// Number of measurement blocks; by default as many as there are.
    pub blocks: Option<u8>,
    /// Index, specification and measurement: kind, length (2, little-endian), value.
    pub measurements: Vec<(u8, u8, Vec<u8>)>,
    /// Kinds and values.
    pub opaque: Vec<(u16, Vec<u8>)>,
}

impl Default for FakeGpu {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeGpu {
    /// With a chain like an H100's, and [`FIRMWARE_ID`] in its leaf.
    #[must_use]
    pub fn new() -> Self {
        Self::with_extension(Some(firmware_extension()))
    }

    /// With this TCG DICE extension in the leaf, or none.
    #[must_use]
    pub fn with_extension(value: Option<Vec<u8>>) -> Self {
        let mut leaf = leaf("GPU FMC");
        let oid = &[2, 23, 133, 5, 4, 1];
        leaf.custom_extensions = value
            .map(|value| CustomExtension::from_oid_content(oid, value))
            .into_iter()
            .collect();
        Self {
            chain: P384Chain::issue(&[
                authority("Test Device Identity CA", 3),
                authority("Test GPU Identity", 2),
                authority("Test Provisioner", 1),
                authority("GPU BROM", 0),
                leaf,
            ]),
        }
    }

    /// Trusts this fake's root, and no other.
    #[must_use]
    pub fn verifier(&self) -> GpuVerifier {
        GpuVerifier::with_root(&self.chain.certificates[0])
    }

    /// The chain in PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> Vec<u8> {
        pem(self.chain.certificates.iter().rev())
    }

    /// The report as it comes from a device, signed.
    #[must_use]
    pub fn sign(&self, report: &GpuReport) -> Vec<u8> {
        let mut bytes = report.bytes();
        bytes.extend(self.chain.sign(&bytes));
        bytes
    }
}

impl Default for GpuReport {
    /// What an H100 would say to a nonce of 0x77, with 4 measurements.
    fn default() -> Self {
        let measurement = |index: u8| {
            let value = [&[1, 48, 0][..], &[index; 48]].concat();
            (index, 1, value)
        };
        Self {
            request: [&[0x11, 0xe0, 1, 0xff][..], &[0x77; 32], &[0]].concat(),
            response: [0x11, 0x60, 0, 0],
            blocks: None,
            measurements: (1..=4).map(measurement).collect(),
            opaque: vec![
                (3, b"550.90.07\0".to_vec()),
                (6, vec![0, 0x9f, 0, 0x96]),
                (20, FIRMWARE_ID.to_vec()),
            ],
        }
    }
}

impl GpuReport {
    /// All that is signed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let short = |len: usize| u16::try_from(len).unwrap().to_le_bytes();
        let mut record = Vec::new();
        for (index, specification, measurement) in &self.measurements {
            record.extend([*index, *specification]);
            record.extend(short(measurement.len()));
            record.extend(measurement);
        }
        let mut opaque = Vec::new();
        for (kind, value) in &self.opaque {
            opaque.extend(kind.to_le_bytes());
            opaque.extend(short(value.len()));
            opaque.extend(value);
        }
        let blocks = u8::try_from(self.measurements.len()).unwrap();
        let mut bytes = [&self.request[..], &self.response].concat();
        bytes.push(self.blocks.unwrap_or(blocks));
        bytes.extend(&u32::try_from(record.len()).unwrap().to_le_bytes()[..3]);
        bytes.extend(record);
        bytes.extend([0x99; 32]);
        bytes.extend(short(opaque.len()));
        bytes.extend(opaque);
        bytes
    }
}

/// The extension that names [`FIRMWARE_ID`], as NVIDIA writes it; the device key in it is empty.
#[must_use]
pub fn firmware_extension() -> Vec<u8> {
    let hash = [
        &[
            0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x04, 48,
        ][..],
        &FIRMWARE_ID,
    ]
    .concat();
    let len = |len: usize| u8::try_from(len).unwrap();
    let inner = [&[0x02, 1, 1, 0x30, 0, 0x30, len(hash.len())][..], &hash].concat();
    [&[0x30, len(inner.len())][..], &inner].concat()
}

/// Certificates in PEM.
pub fn pem<'a>(certificates: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let text = |der: &Vec<u8>| {
        let body = STANDARD.encode(der);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(|line| str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    };
    certificates
        .into_iter()
        .map(text)
        .collect::<String>()
        .into_bytes()
}
