//! The attestation document: COSE_Sign1 (RFC 9052) around one CBOR map, read exactly.
//!
//! Rules: AWS, `aws-nitro-enclaves-nsm-api`, docs/attestation_process.md, sections 3.1 and 3.2.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use crate::cbor::Writer;
use crate::evidence::Malformed;
use crate::tee::p384::SIGNATURE;

/// Longest document, in bytes: the response buffer of the kernel's NSM driver.
const DOCUMENT_MAX: usize = 0x3000;
/// COSE_Sign1 (RFC 9052, section 2). AWS leaves the tag out.
const TAG_SIGN1: u64 = 18;
/// `{1: -35}`: ECDSA with SHA-384 (RFC 9053). No other header, no other encoding.
const PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x22];
const DIGEST: &str = "SHA384";
const PCRS_MAX: u64 = 32;
const CERTIFICATE_MAX: usize = 1024;
/// webpki walks at most seven certificates; AWS's chains have four.
const CABUNDLE_MAX: u64 = 7;
const PUBLIC_KEY_MAX: usize = 1024;
const USER_BYTES_MAX: usize = 512;

/// Fields of a document, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document<'b> {
    pub(super) module_id: &'b str,
    pub(super) timestamp: Duration,
    pub(super) pcrs: BTreeMap<u8, [u8; 48]>,
    pub(super) certificate: &'b [u8],
    /// From the root down.
    pub(super) cabundle: Vec<&'b [u8]>,
    pub(super) public_key: Option<&'b [u8]>,
    pub(super) user_data: Option<&'b [u8]>,
    pub(super) nonce: Option<&'b [u8]>,
    payload: &'b [u8],
    pub(super) signature: [u8; SIGNATURE],
}

impl<'b> Document<'b> {
    /// Reads a document in which no byte is free: definite lengths and shortest forms everywhere
    /// but in the head of the payload's map, which AWS writes both ways and the signature covers.
    pub(super) fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let field = |field| Malformed { field };
        if bytes.len() > DOCUMENT_MAX {
            return Err(field("length"));
        }
        let mut reader = Exact::new(bytes);
        if reader.next() == Some(Type::Tag) {
            let tag = reader.head(|decoder| decoder.tag().map(|tag| tag.as_u64()), |tag| *tag);
            if tag != Ok(TAG_SIGN1) {
                return Err(field("tag"));
            }
        }
        if reader.array() != Ok(4) {
            return Err(field("COSE_Sign1 structure"));
        }
        if reader.bytes() != Ok(PROTECTED) {
            return Err(field("protected header"));
        }
        if reader.map() != Ok(Some(0)) {
            return Err(field("unprotected header"));
        }
        let payload = reader.bytes().map_err(|_| field("payload"))?;
        let signature = reader.bytes().ok();
        let signature = signature.and_then(|signature| signature.try_into().ok());
        let signature = signature.ok_or(field("signature"))?;
        if reader.next().is_some() {
            return Err(field("end: trailing bytes"));
        }
        Self::parse_payload(payload, signature)
    }

    fn parse_payload(payload: &'b [u8], signature: [u8; SIGNATURE]) -> Result<Self, Malformed> {
        let field = |field| Malformed { field };
        let mut fields = Fields::default();
        let mut reader = Exact::new(payload);
        match reader.map().map_err(|_| field("payload's map"))? {
            Some(members) => {
                for _ in 0..members {
                    fields.read_member(&mut reader)?;
                }
            }
            None => {
                while reader.next() != Some(Type::Break) {
                    fields.read_member(&mut reader)?;
                }
                reader.end_of_map().map_err(|_| field("payload's map"))?;
            }
        }
        if reader.next().is_some() {
            return Err(field("payload: trailing bytes"));
        }
        if fields.digest != Some(DIGEST) {
            return Err(field("digest"));
        }
        Ok(Self {
            module_id: fields.module_id.ok_or(field("module_id"))?,
            timestamp: fields.timestamp.ok_or(field("timestamp"))?,
            pcrs: fields.pcrs.ok_or(field("pcrs"))?,
            certificate: fields.certificate.ok_or(field("certificate"))?,
            cabundle: fields.cabundle.ok_or(field("cabundle"))?,
            public_key: fields.public_key.flatten(),
            user_data: fields.user_data.flatten(),
            nonce: fields.nonce.flatten(),
            payload,
            signature,
        })
    }

    /// What the signature is over: `Sig_structure` of RFC 9052, section 4.4.
    pub(super) fn signed(&self) -> Vec<u8> {
        sig_structure(self.payload)
    }
}

/// `Sig_structure` around a payload, with the only protected header there is.
pub(crate) fn sig_structure(payload: &[u8]) -> Vec<u8> {
    Writer::new()
        .array(4)
        .text("Signature1")
        .bytes(PROTECTED)
        .bytes(b"")
        .bytes(payload)
        .done()
}

/// What was met of the payload's map; the outer `Option` is of those that may be null.
#[derive(Debug, Default)]
struct Fields<'b> {
    module_id: Option<&'b str>,
    digest: Option<&'b str>,
    timestamp: Option<Duration>,
    pcrs: Option<BTreeMap<u8, [u8; 48]>>,
    certificate: Option<&'b [u8]>,
    cabundle: Option<Vec<&'b [u8]>>,
    public_key: Option<Option<&'b [u8]>>,
    user_data: Option<Option<&'b [u8]>>,
    nonce: Option<Option<&'b [u8]>>,
}

impl<'b> Fields<'b> {
    fn read_member(&mut self, reader: &mut Exact<'b>) -> Result<(), Malformed> {
        // A key that comes twice is refused, by whichever of the two readers would see the other.
        fn set<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
            let first = place.is_none();
            *place = Some(value?);
            first.then_some(())
        }
        let key = reader.text().map_err(|_| Malformed {
            field: "payload's key",
        })?;
        let (field, read) = match key {
            "module_id" => {
                let id = reader.text().ok().filter(|id| !id.is_empty());
                ("module_id", set(&mut self.module_id, id))
            }
            "digest" => ("digest", set(&mut self.digest, reader.text().ok())),
            "timestamp" => {
                let millis = reader.uint().ok().filter(|millis| *millis > 0);
                let timestamp = millis.map(Duration::from_millis);
                ("timestamp", set(&mut self.timestamp, timestamp))
            }
            "pcrs" => ("pcrs", set(&mut self.pcrs, read_pcrs(reader))),
            "certificate" => {
                let der = read_bounded(reader, 1, CERTIFICATE_MAX);
                ("certificate", set(&mut self.certificate, der))
            }
            "cabundle" => ("cabundle", set(&mut self.cabundle, read_cabundle(reader))),
            "public_key" => {
                let key = read_nullable(reader, 1, PUBLIC_KEY_MAX);
                ("public_key", set(&mut self.public_key, key))
            }
            "user_data" => {
                let bytes = read_nullable(reader, 0, USER_BYTES_MAX);
                ("user_data", set(&mut self.user_data, bytes))
            }
            "nonce" => {
                let bytes = read_nullable(reader, 0, USER_BYTES_MAX);
                ("nonce", set(&mut self.nonce, bytes))
            }
            _ => ("payload's key", None),
        };
        read.ok_or(Malformed { field })
    }
}

fn read_pcrs(reader: &mut Exact<'_>) -> Option<BTreeMap<u8, [u8; 48]>> {
    let count = reader.map().ok()??;
    if !(1..=PCRS_MAX).contains(&count) {
        return None;
    }
    let mut pcrs = BTreeMap::new();
    for _ in 0..count {
        let index = reader.uint().ok().filter(|index| *index < PCRS_MAX)?;
        // SHA-384 has 48 bytes; AWS's text also names 32 and 64, for digests that there are not.
        let value = reader.bytes().ok()?.try_into().ok()?;
        if pcrs.insert(u8::try_from(index).ok()?, value).is_some() {
            return None;
        }
    }
    // Image, kernel and application: what an enclave is.
    (0..3)
        .all(|index| pcrs.contains_key(&index))
        .then_some(pcrs)
}

fn read_cabundle<'b>(reader: &mut Exact<'b>) -> Option<Vec<&'b [u8]>> {
    let count = reader.array().ok()?;
    if !(1..=CABUNDLE_MAX).contains(&count) {
        return None;
    }
    (0..count)
        .map(|_| read_bounded(reader, 1, CERTIFICATE_MAX))
        .collect()
}

fn read_bounded<'b>(reader: &mut Exact<'b>, min: usize, max: usize) -> Option<&'b [u8]> {
    let bytes = reader.bytes().ok()?;
    (min..=max).contains(&bytes.len()).then_some(bytes)
}

/// A byte string, or null.
fn read_nullable<'b>(reader: &mut Exact<'b>, min: usize, max: usize) -> Option<Option<&'b [u8]>> {
    if reader.next() == Some(Type::Null) {
        reader.null().ok()?;
        return Some(None);
    }
    read_bounded(reader, min, max).map(Some)
}

/// CBOR that is definite and in its shortest form; minicbor alone reads long forms, too.
#[derive(Debug)]
struct Exact<'b>(Decoder<'b>);

/// Not the wanted item, or not its shortest form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inexact;

impl<'b> Exact<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self(Decoder::new(bytes))
    }

    /// What comes next; `None` at the end.
    fn next(&self) -> Option<Type> {
        self.0.datatype().ok()
    }

    /// Reads an item whose head has the argument `argument`, and no more bytes than it needs.
    fn head<T>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, Error>,
        argument: impl FnOnce(&T) -> u64,
    ) -> Result<T, Inexact> {
        let start = self.0.position();
        let item = read(&mut self.0).map_err(|_| Inexact)?;
        let used = self.0.position().checked_sub(start);
        if used == Some(head_len(argument(&item))) {
            Ok(item)
        } else {
            Err(Inexact)
        }
    }

    /// Reads a string: a head, and as many bytes as it says.
    fn string<T: AsRef<[u8]>>(
        &mut self,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, Error>,
    ) -> Result<T, Inexact> {
        let start = self.0.position();
        let item = read(&mut self.0).map_err(|_| Inexact)?;
        let len = item.as_ref().len();
        let head = self.0.position().checked_sub(start);
        let head = head.and_then(|used| used.checked_sub(len));
        if head == Some(head_len(len as u64)) {
            Ok(item)
        } else {
            Err(Inexact)
        }
    }

    fn uint(&mut self) -> Result<u64, Inexact> {
        self.head(Decoder::u64, |value| *value)
    }

    fn bytes(&mut self) -> Result<&'b [u8], Inexact> {
        self.string(Decoder::bytes)
    }

    fn text(&mut self) -> Result<&'b str, Inexact> {
        self.string(Decoder::str)
    }

    fn array(&mut self) -> Result<u64, Inexact> {
        let len = self.head(Decoder::array, |len| len.unwrap_or_default())?;
        len.ok_or(Inexact)
    }

    /// Number of members; `None` if it is indefinite.
    fn map(&mut self) -> Result<Option<u64>, Inexact> {
        self.head(Decoder::map, |len| len.unwrap_or_default())
    }

    fn null(&mut self) -> Result<(), Inexact> {
        self.0.null().map_err(|_| Inexact)
    }

    fn end_of_map(&mut self) -> Result<(), Inexact> {
        if self.next() != Some(Type::Break) {
            return Err(Inexact);
        }
        let after = self.0.position().checked_add(1).ok_or(Inexact)?;
        self.0.set_position(after);
        Ok(())
    }
}

/// Bytes of the shortest head with this argument (RFC 8949, section 4.2.1).
const fn head_len(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}
