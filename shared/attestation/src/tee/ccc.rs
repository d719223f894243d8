//! RA-TLS certificates of others: the CCC's interoperable format (Gramine, Intel SGX SDK, ...).
//!
//! An extension 2.23.133.5.4.9 holds `60000([quote, claims])`; `claims` is a CBOR map with the
//! hash of the certificate's key and perhaps a nonce, and its SHA-256 is the quote's report data
//! (CCC-Attestation/interoperable-ra-tls, "SGX / TDX Evidence Tags and Formats"). Everything is
//! read in one spelling only, although the format says less: definite lengths, shortest heads.
//!
//! Such a certificate proves that its key was once made in such an enclave. It is not fresh, and
//! its holder is not known to be that enclave now: an [`Examination`] comes out, never the witness
//! that keys are released for.
//!
//! Older extensions hold a bare quote, under identifiers that also mean something else
//! (1.2.840.113741.1.13.1 is the one of PCK certificates). They are never evidence here; beside the
//! tagged one they have to say the same. Dates and names are ignored: clocks are the host's.

mod signature;

use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Certificate, X509Extension};

use crate::appraisal::{Examination, Expected, RelyingParty, examine};
use crate::cbor::{CborError, Reader, Writer, require_at_most, require_canonical};
use crate::certificate::{CERTIFICATE_MAX, EVIDENCE_OID, INTEL_QUOTE_TAG, tee_of};
use crate::evidence::{EVIDENCE_MAX, Endorsements, Evidence};
use crate::scorecard::{CheckName, Scorecard, Status};
use crate::tee::dcap::DcapVerifier;

const EVIDENCE: &str = "the evidence extension";
const CLAIMS: &str = "the claims of the evidence extension";
const PUBKEY_HASH: &str = "pubkey-hash";
const NONCE: &str = "nonce";
/// Largest nonce, in bytes. The format has no limit.
const NONCE_MAX: usize = 512;
const PEM_BEGIN: &[u8] = b"-----BEGIN";
/// Gramine's, Gramine's as it is really encoded (type and length are part of it), and that of
/// Intel's SDK.
const LEGACY: [&[u64]; 3] = [
    &[1, 2, 840, 113_741, 1337, 6],
    &[0, 6, 9, 42, 840, 113_741, 1337, 6],
    &[1, 2, 840, 113_741, 1, 13, 1],
];

/// Why a certificate is not one of the CCC's format, or not its key's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    #[error("the certificate has {got} bytes, at most {CERTIFICATE_MAX} are read")]
    TooLong { got: usize },
    #[error("one X.509 certificate is expected, as DER or PEM")]
    Malformed,
    #[error("an extension appears twice")]
    Duplicate,
    #[error("a critical extension is unknown")]
    Critical,
    #[error("the certificate has no evidence extension")]
    NoEvidence,
    #[error("reading the certificate: {0}")]
    Cbor(CborError),
    #[error("the evidence extension has the tag {got}, not {INTEL_QUOTE_TAG}")]
    Tag { got: u64 },
    #[error("the evidence is not a quote of SGX or TDX")]
    Quote,
    #[error("the key is hashed with algorithm {got}, not SHA-256 (1), SHA-384 (7) or SHA-512 (8)")]
    Algorithm { got: u64 },
    #[error("the claims are about another key than the certificate's")]
    OtherKey,
    #[error("the quote is about other claims")]
    OtherClaims,
    #[error("an older evidence extension says something else")]
    Legacy,
    #[error("the certificate is not signed by its own key")]
    Signature,
}

impl From<CborError> for ForeignError {
    fn from(error: CborError) -> Self {
        Self::Cbor(error)
    }
}

impl ForeignError {
    /// The name of the check that fails by it.
    #[must_use]
    pub const fn check(&self) -> CheckName {
        match self {
            Self::TooLong { .. }
            | Self::Malformed
            | Self::Duplicate
            | Self::Critical
            | Self::NoEvidence
            | Self::Cbor(_)
            | Self::Tag { .. }
            | Self::Quote
            | Self::Legacy => CheckName::EvidenceFormat,
            Self::Algorithm { .. } | Self::OtherKey | Self::OtherClaims => CheckName::KeyHash,
            Self::Signature => CheckName::CertificateSignature,
        }
    }
}

/// A certificate of the CCC's format. Its evidence is not verified, but if it is genuine, it is
/// about this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignCertificate {
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    pub evidence: Evidence,
    /// Somebody's, from before the certificate was made.
    pub nonce: Option<Vec<u8>>,
}

/// The tagged evidence of a certificate, as it is.
struct Tagged<'a> {
    evidence: Evidence,
    claims: &'a [u8],
}

impl ForeignCertificate {
    /// Reads a certificate (DER or PEM) and checks that its evidence is about its key.
    ///
    /// # Errors
    /// [`ForeignError`] for every certificate with more than one reading.
    pub fn parse(bytes: &[u8]) -> Result<Self, ForeignError> {
        let der = der_of(bytes)?;
        let certificate = x509(&der)?;
        let tagged = tagged(&certificate)?;
        Self::bind(&certificate, &tagged)
    }

    fn bind(certificate: &X509Certificate<'_>, tagged: &Tagged<'_>) -> Result<Self, ForeignError> {
        let spki = certificate.tbs_certificate.subject_pki.raw;
        let nonce = read_claims(tagged.claims, spki)?;
        let mut report_data = [0; 64];
        let (hash, _) = report_data.split_at_mut(32);
        hash.copy_from_slice(digest::digest(&SHA256, tagged.claims).as_ref());
        let said = read_quote(&tagged.evidence).ok_or(ForeignError::Quote)?;
        if said.report_data != report_data {
            return Err(ForeignError::OtherClaims);
        }
        agree(certificate, &tagged.evidence)?;
        if !signature::is_own(certificate) {
            return Err(ForeignError::Signature);
        }
        Ok(Self {
            spki: spki.to_vec(),
            evidence: tagged.evidence.clone(),
            nonce,
        })
    }
}

/// Examines a certificate (DER or PEM) against a policy. `expected.nonce` is compared with the
/// nonce among its claims, `expected.report_data` with the quote's report data. `now` is time since
/// the UNIX epoch.
///
/// What is accepted is not fresh; the card says so.
#[must_use]
pub fn examine_certificate(
    relying: &RelyingParty,
    certificate: &[u8],
    endorsements: &Endorsements,
    expected: &Expected,
    now: Duration,
) -> Examination {
    let refused = |error: &ForeignError| {
        let mut card = Scorecard::new(CheckName::EVIDENCE);
        fail(error, &mut card);
        Examination {
            card,
            said: None,
            claims: None,
            enclave: None,
        }
    };
    let der = match der_of(certificate) {
        Ok(der) => der,
        Err(error) => return refused(&error),
    };
    let (certificate, tagged) = match x509(&der).and_then(|x509| {
        let tagged = tagged(&x509)?;
        Ok((x509, tagged))
    }) {
        Ok(read) => read,
        Err(error) => return refused(&error),
    };
    let quoted = Expected {
        report_data: expected.report_data.clone(),
        nonce: None,
    };
    let mut examination = examine(relying, &tagged.evidence, endorsements, &quoted, None, now);
    let card = &mut examination.card;
    match ForeignCertificate::bind(&certificate, &tagged) {
        Ok(bound) => {
            let key = "the certificate's key";
            card.record(CheckName::KeyHash, true, key, key);
            card.record(CheckName::CertificateSignature, true, key, key);
            judge_nonce(expected.nonce.as_deref(), bound.nonce.as_deref(), card);
        }
        Err(error) => fail(&error, card),
    }
    card.note(
        CheckName::Freshness,
        Status::Unchecked,
        "evidence in a certificate is not fresh",
    );
    examination
}

fn fail(error: &ForeignError, card: &mut Scorecard) {
    let expected = "a certificate with evidence about its key";
    card.record(error.check(), false, expected, error.to_string());
}

fn judge_nonce(expected: Option<&[u8]>, got: Option<&[u8]>, card: &mut Scorecard) {
    let shown = got.map_or("absent".to_owned(), hex::encode);
    match expected {
        None => card.note(CheckName::Nonce, Status::Unchecked, shown),
        Some(nonce) => {
            card.record(
                CheckName::Nonce,
                got == Some(nonce),
                hex::encode(nonce),
                shown,
            );
        }
    }
}

fn der_of(bytes: &[u8]) -> Result<Vec<u8>, ForeignError> {
    // PEM is a third longer.
    if bytes.len() > CERTIFICATE_MAX.saturating_mul(2) {
        return Err(ForeignError::TooLong { got: bytes.len() });
    }
    let der = if bytes.starts_with(PEM_BEGIN) {
        let mut all = super::dcap::pem_certificates(bytes).ok_or(ForeignError::Malformed)?;
        match (all.pop(), all.is_empty()) {
            (Some(der), true) => der,
            _ => return Err(ForeignError::Malformed),
        }
    } else {
        bytes.to_vec()
    };
    if der.len() > CERTIFICATE_MAX {
        return Err(ForeignError::TooLong { got: der.len() });
    }
    Ok(der)
}

fn x509(der: &[u8]) -> Result<X509Certificate<'_>, ForeignError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ForeignError::Malformed),
    }
}

fn is_named(oid: &Oid<'_>, arcs: &[u64]) -> bool {
    oid.iter()
        .is_some_and(|parts| parts.eq(arcs.iter().copied()))
}

/// The one evidence extension. A certificate with more than one has more than one reading.
fn tagged<'a>(certificate: &X509Certificate<'a>) -> Result<Tagged<'a>, ForeignError> {
    let extensions = certificate.tbs_certificate.extensions();
    for (at, extension) in extensions.iter().enumerate() {
        let others = extensions.iter().skip(at.saturating_add(1));
        if others.into_iter().any(|other| other.oid == extension.oid) {
            return Err(ForeignError::Duplicate);
        }
        if extension.critical
            && extension.parsed_extension().unsupported()
            && !is_named(&extension.oid, EVIDENCE_OID)
        {
            return Err(ForeignError::Critical);
        }
    }
    let evidence = extensions
        .iter()
        .find(|extension| is_named(&extension.oid, EVIDENCE_OID))
        .ok_or(ForeignError::NoEvidence)?;
    read_tagged(evidence.value)
}

fn read_tagged(value: &[u8]) -> Result<Tagged<'_>, ForeignError> {
    let mut reader = Reader::new(EVIDENCE, value);
    let tag = reader.tag()?;
    if tag != INTEL_QUOTE_TAG {
        return Err(ForeignError::Tag { got: tag });
    }
    reader.array(2)?;
    let body = reader.bytes()?;
    let claims = reader.bytes()?;
    require_at_most(EVIDENCE, body.len(), EVIDENCE_MAX)?;
    let writer = Writer::new().tag(tag).array(2);
    let canonical = writer.bytes(body).bytes(claims).done();
    require_canonical(EVIDENCE, value, &canonical)?;
    Ok(Tagged {
        evidence: Evidence {
            tee: tee_of(tag, body).ok_or(ForeignError::Quote)?,
            body: body.to_vec(),
        },
        claims,
    })
}

/// Checks the hash of the key, and returns the nonce.
///
/// The document lists the hash first, deterministic CBOR the nonce: both orders are read.
fn read_claims(claims: &[u8], spki: &[u8]) -> Result<Option<Vec<u8>>, ForeignError> {
    let mut reader = Reader::new(CLAIMS, claims);
    let entries = reader.any_map()?;
    let mut hash_entry = None;
    let mut nonce = None;
    let mut canonical = Writer::new().map(usize::try_from(entries).unwrap_or(usize::MAX));
    // One of each is all that there can be.
    if entries > 2 {
        return Err(reader.wrong().into());
    }
    for _ in 0..entries {
        let name = reader.text()?;
        let value = reader.bytes()?;
        canonical = canonical.text(name).bytes(value);
        let place = match name {
            PUBKEY_HASH => &mut hash_entry,
            NONCE => &mut nonce,
            _ => return Err(reader.wrong().into()),
        };
        if place.replace(value).is_some() {
            return Err(reader.wrong().into());
        }
    }
    require_canonical(CLAIMS, claims, &canonical.done())?;
    require_at_most(CLAIMS, nonce.map_or(0, <[u8]>::len), NONCE_MAX)?;
    let hash_entry = hash_entry.ok_or_else(|| reader.wrong())?;
    check_key(hash_entry, spki)?;
    Ok(nonce.map(<[u8]>::to_vec))
}

/// `[algorithm, hash]`, algorithms as in IANA's "Named Information Hash Algorithm" registry.
fn check_key(hash_entry: &[u8], spki: &[u8]) -> Result<(), ForeignError> {
    let mut reader = Reader::new(CLAIMS, hash_entry);
    reader.array(2)?;
    let id = reader.uint()?;
    let hash = reader.bytes()?;
    let canonical = Writer::new().array(2).uint(id).bytes(hash).done();
    require_canonical(CLAIMS, hash_entry, &canonical)?;
    let algorithm = match id {
        1 => &SHA256,
        7 => &SHA384,
        8 => &SHA512,
        got => return Err(ForeignError::Algorithm { got }),
    };
    if digest::digest(algorithm, spki).as_ref() == hash {
        Ok(())
    } else {
        Err(ForeignError::OtherKey)
    }
}

fn read_quote(evidence: &Evidence) -> Option<crate::evidence::Said> {
    let verifier = match evidence.tee {
        crate::evidence::Tee::Sgx => DcapVerifier::sgx(),
        _ => DcapVerifier::tdx(),
    };
    verifier.read_quote(&evidence.body).ok()
}

/// A bare quote beside the tagged one: of the same enclave, and about the same key. Gramine's
/// has the hash of the key as report data, that of Intel's SDK is the same quote again.
fn agree(certificate: &X509Certificate<'_>, evidence: &Evidence) -> Result<(), ForeignError> {
    let spki = digest::digest(&SHA256, certificate.tbs_certificate.subject_pki.raw);
    let of_key = [spki.as_ref(), &[0; 32]].concat();
    let tagged = read_quote(evidence).ok_or(ForeignError::Quote)?;
    let is_legacy =
        |extension: &&X509Extension<'_>| LEGACY.iter().any(|arcs| is_named(&extension.oid, arcs));
    for extension in certificate.extensions().iter().filter(is_legacy) {
        let bare = Evidence {
            tee: evidence.tee,
            body: extension.value.to_vec(),
        };
        let bare = read_quote(&bare).ok_or(ForeignError::Legacy)?;
        let same = bare.measurements == tagged.measurements
            && (bare.report_data == tagged.report_data || bare.report_data == of_key);
        if !same {
            return Err(ForeignError::Legacy);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
