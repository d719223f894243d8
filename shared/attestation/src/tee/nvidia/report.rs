//! The report of a GPU: an SPDM 1.1 request for measurements and its response (DMTF DSP0274 1.1,
//! sections 10.11.1 and 10.11.2), with NVIDIA's fields in the opaque part. All little-endian.

use std::collections::BTreeMap;

use crate::evidence::Malformed;
use crate::tee::p384::SIGNATURE;

/// Longest report, in bytes: an H100's has 4.1 KB.
const REPORT_MAX: usize = 64 * 1024;
const VERSION_1_1: u8 = 0x11;
const GET_MEASUREMENTS: u8 = 0xe0;
const MEASUREMENTS: u8 = 0x60;
/// Request attribute: the response is to be signed.
const SIGNED: u8 = 1;
/// Request operation: every measurement there is. A report of some only would hide the rest.
const ALL: u8 = 0xff;
/// Measurement blocks in the form that DMTF defines.
const DMTF: u8 = 1;
const SLOT: u8 = 0x0f;
const MEASUREMENT_MAX: usize = 1024;
/// Kinds of NVIDIA's opaque fields (`OPAQUE_FIELD_ID_*` of nvtrust).
const DRIVER_VERSION: u16 = 3;
const VBIOS_VERSION: u16 = 6;
const FIRMWARE_ID: u16 = 20;

/// Fields of a report, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report<'b> {
    /// What the requester chose.
    pub(super) nonce: [u8; 32],
    pub(super) measurements: BTreeMap<u8, &'b [u8]>,
    opaque: BTreeMap<u16, &'b [u8]>,
    /// Request and response, as they were sent.
    pub(super) signed: &'b [u8],
    pub(super) signature: [u8; SIGNATURE],
}

impl<'b> Report<'b> {
    pub(super) fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let field = |field| Malformed { field };
        if bytes.len() > REPORT_MAX {
            return Err(field("length"));
        }
        let (signed, signature) = bytes
            .split_last_chunk::<SIGNATURE>()
            .ok_or(field("length"))?;
        let mut reader = Fields(signed);
        let (nonce, slot) = request(&mut reader).ok_or(field("request"))?;
        let (blocks, record) = response(&mut reader, slot).ok_or(field("response"))?;
        let measurements = measurements(blocks, record).ok_or(field("measurement record"))?;
        // The responder's nonce: it keeps a requester from choosing all that is signed.
        reader.array::<32>().ok_or(field("nonce of the response"))?;
        let opaque = reader.short().and_then(|len| reader.take(len.into()));
        let opaque = opaque.and_then(opaque_fields).ok_or(field("opaque part"))?;
        if !reader.0.is_empty() {
            return Err(field("end: trailing bytes"));
        }
        Ok(Self {
            nonce,
            measurements,
            opaque,
            signed,
            signature: *signature,
        })
    }

    /// The loaded driver's version, as text.
    pub(super) fn driver(&self) -> Option<String> {
        let text = self.opaque.get(&DRIVER_VERSION)?;
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        let plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let text = text.iter().all(plain).then(|| str::from_utf8(text))?;
        text.ok().map(str::to_owned)
    }

    pub(super) fn vbios(&self) -> Option<&'b [u8]> {
        self.opaque.get(&VBIOS_VERSION).copied()
    }

    /// Hash of the firmware that holds the key which signed this.
    pub(super) fn firmware_id(&self) -> Option<&'b [u8]> {
        self.opaque.get(&FIRMWARE_ID).copied()
    }
}

/// The requester's nonce, and the slot of the certificate chain.
fn request(reader: &mut Fields<'_>) -> Option<([u8; 32], u8)> {
    if reader.array()? != [VERSION_1_1, GET_MEASUREMENTS, SIGNED, ALL] {
        return None;
    }
    let nonce = reader.array()?;
    let [slot] = reader.array()?;
    (slot & !SLOT == 0).then_some((nonce, slot))
}

/// The number of measurement blocks, and the bytes that hold them.
fn response<'b>(reader: &mut Fields<'b>, slot: u8) -> Option<(u8, &'b [u8])> {
    if reader.array()? != [VERSION_1_1, MEASUREMENTS, 0, slot] {
        return None;
    }
    let [blocks] = reader.array()?;
    let [a, b, c] = reader.array()?;
    let len = usize::try_from(u32::from_le_bytes([a, b, c, 0])).ok()?;
    Some((blocks, reader.take(len)?))
}

fn measurements(blocks: u8, record: &[u8]) -> Option<BTreeMap<u8, &[u8]>> {
    let mut reader = Fields(record);
    let mut measurements = BTreeMap::new();
    for _ in 0..blocks {
        let [index, specification] = reader.array()?;
        if index == 0 || specification != DMTF {
            return None;
        }
        let len = reader.short()?;
        let mut block = Fields(reader.take(len.into())?);
        let [_kind] = block.array()?;
        let len = block.short()?;
        let value = block.take(len.into())?;
        let whole = block.0.is_empty() && (1..=MEASUREMENT_MAX).contains(&value.len());
        if !whole || measurements.insert(index, value).is_some() {
            return None;
        }
    }
    (reader.0.is_empty() && !measurements.is_empty()).then_some(measurements)
}

fn opaque_fields(bytes: &[u8]) -> Option<BTreeMap<u16, &[u8]>> {
    let mut reader = Fields(bytes);
    let mut fields = BTreeMap::new();
    while !reader.0.is_empty() {
        let kind = reader.short()?;
        let len = reader.short()?;
        if fields.insert(kind, reader.take(len.into())?).is_some() {
            return None;
        }
    }
    Some(fields)
}

/// Bytes that are read from the front.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}
