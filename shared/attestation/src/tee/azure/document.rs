//! The JSON that Azure's attesters send: one document, in the three spellings that are in use.
//!
//! The vTPM crates' own (`version` 1: hexadecimal and base64url text), the same in an envelope
//! that names the platform, and the older one with arrays of numbers. Nothing in it is believed
//! because it is there: signatures and hashes say which of its parts belong together.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use x509_parser::pem::parse_x509_pem;

use crate::evidence::{EVIDENCE_MAX, Malformed, Tee};

/// The registers of a bank.
pub(super) const PCRS: usize = 24;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What is in the document, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// `TPMS_ATTEST`.
    pub(super) message: Vec<u8>,
    pub(super) signature: Vec<u8>,
    /// SHA-256 registers by index, quoted or not.
    pub(super) pcrs: [[u8; 32]; PCRS],
    pub(super) hcl_report: Vec<u8>,
    pub(super) vek: Option<Vec<u8>>,
    pub(super) td_quote: Option<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    platform: String,
    evidence: Spelled,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelled {
    version: Option<u32>,
    #[serde(alias = "quote")]
    tpm_quote: SpelledQuote,
    #[serde(alias = "report")]
    hcl_report: Octets,
    vcek: Option<Octets>,
    td_quote: Option<Octets>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledQuote {
    signature: Octets,
    message: Octets,
    pcrs: Vec<Octets>,
}

/// Bytes as text in some encoding, or as an array of numbers.
enum Octets {
    Text(String),
    Numbers(Vec<u8>),
}

struct EitherSpelling;

impl<'de> Visitor<'de> for EitherSpelling {
    type Value = Octets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or an array of numbers from 0 to 255")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Octets, E> {
        Ok(Octets::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Octets, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(Octets::Numbers(bytes))
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherSpelling)
    }
}

impl Octets {
    fn hexadecimal(self, field: &'static str) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::Numbers(bytes) => Ok(bytes),
            Self::Text(text) => hex::decode(text).map_err(|_| Malformed { field }),
        }
    }

    fn base64(self, field: &'static str) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::Numbers(bytes) => Ok(bytes),
            Self::Text(text) => decode_base64(&text).ok_or(Malformed { field }),
        }
    }

    /// A certificate: PEM, or base64 of DER.
    fn certificate(self) -> Result<Vec<u8>, Malformed> {
        let pem = match &self {
            Self::Text(text) => text.as_bytes(),
            Self::Numbers(bytes) => bytes,
        };
        if !pem.trim_ascii_start().starts_with(b"-----BEGIN") {
            return self.base64("vcek");
        }
        match parse_x509_pem(pem) {
            Ok((_, pem)) if pem.label == "CERTIFICATE" => Ok(pem.contents),
            _ => Err(Malformed { field: "vcek" }),
        }
    }
}

/// Both alphabets, with and without padding: attesters differ.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let url = text.contains(['-', '_']);
    let engine = if url { BASE64_URL } else { BASE64 };
    engine.decode(text).ok()
}

impl Document {
    /// # Errors
    /// [`Malformed`] for what is not exactly one such document about `tee`: unknown fields and
    /// fields given twice are refused, because others might read them otherwise.
    pub(super) fn parse(body: &[u8], tee: Tee) -> Result<Self, Malformed> {
        if body.len() > EVIDENCE_MAX {
            return Err(Malformed { field: "length" });
        }
        let spelled = match serde_json::from_slice(body) {
            Ok(Envelope { platform, evidence }) if platform == tee.name() => evidence,
            Ok(Envelope { .. }) => return Err(Malformed { field: "platform" }),
            Err(_) => serde_json::from_slice::<Spelled>(body).map_err(|_| Malformed {
                field: "JSON document",
            })?,
        };
        if !matches!(spelled.version, None | Some(1)) {
            return Err(Malformed { field: "version" });
        }
        let quote = spelled.tpm_quote;
        let wrong_pcrs = Malformed { field: "pcrs" };
        if quote.pcrs.len() != PCRS {
            return Err(wrong_pcrs);
        }
        let mut pcrs = [[0; 32]; PCRS];
        for (place, pcr) in pcrs.iter_mut().zip(quote.pcrs) {
            let pcr = pcr.hexadecimal("pcrs")?;
            *place = pcr.try_into().map_err(|_| wrong_pcrs)?;
        }
        let td_quote = spelled.td_quote.map(|quote| quote.base64("td_quote"));
        Ok(Self {
            message: quote.message.hexadecimal("message")?,
            signature: quote.signature.hexadecimal("signature")?,
            pcrs,
            hcl_report: spelled.hcl_report.base64("hcl_report")?,
            vek: spelled.vcek.map(Octets::certificate).transpose()?,
            td_quote: td_quote.transpose()?,
        })
    }
}
