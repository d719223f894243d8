//! What a peer's certificate says: exactly one identity key, or exactly one piece of evidence.
//!
//! The evidence extension is that of the CCC's interoperable RA-TLS: OID 2.23.133.5.4.9, value
//! `tag([bstr evidence, bstr claims-buffer])`. SGX and TDX have the registered tag 60000, the
//! others private ones. Dates and names of certificates are ignored: clocks are the host's.

use protocol::PrincipalId;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::binder::{SpkiHash, claims_buffer};
use crate::cbor::{CborError, Reader, Writer, require_at_most, require_canonical};
use crate::evidence::{EVIDENCE_MAX, Evidence, Tee};

/// tcg-dice-conceptual-message-wrapper, used as "tagged evidence" by RA-TLS.
pub const EVIDENCE_OID: &[u64] = &[2, 23, 133, 5, 4, 9];
/// Largest certificate, in bytes.
pub const CERTIFICATE_MAX: usize = 60 * 1024;

const WHAT: &str = "an evidence extension";
/// "Intel SGX/TDX ECDSA quote" in the CCC document.
pub(crate) const INTEL_QUOTE_TAG: u64 = 60000;
/// No other evidence has a registered tag; ours are "se" "S" and the kind of TEE.
const PRIVATE_TAG: u64 = 0x7365_5300;
const PRIVATE_TAGS: [(Tee, u64); 5] = [
    (Tee::Snp, PRIVATE_TAG | 1),
    (Tee::Nitro, PRIVATE_TAG | 2),
    (Tee::AzSnp, PRIVATE_TAG | 3),
    (Tee::AzTdx, PRIVATE_TAG | 4),
    (Tee::Simulated, PRIVATE_TAG | 0xff),
];
/// Where a quote (version 3 to 5) says what it is of, and what it says for SGX and TDX.
const QUOTE_TEE_TYPE: std::ops::Range<usize> = 4..8;
const QUOTE_OF_SGX: [u8; 4] = [0; 4];
const QUOTE_OF_TDX: [u8; 4] = [0x81, 0, 0, 0];

/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410), up to the 32 bytes of the key.
const ED25519_SPKI: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0,
];
/// SubjectPublicKeyInfo of an uncompressed P-256 key (RFC 5480), up to the point's coordinates.
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// Why a certificate is not one that this protocol accepts.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the peer sent {got} certificates, exactly one is expected")]
    Count { got: usize },
    #[error("the peer's certificate has {got} bytes, at most {CERTIFICATE_MAX} are allowed")]
    TooLong { got: usize },
    #[error("the peer's certificate is not X.509, or has trailing bytes")]
    Malformed,
    #[error("the peer's key is neither Ed25519 (owner or user) nor P-256 (enclave)")]
    KeyType,
    #[error("an owner's or user's certificate has no extensions, this one has {got}")]
    PrincipalExtensions { got: usize },
    #[error(
        "an enclave's certificate has the evidence extension and nothing else, this one has {got} extensions"
    )]
    InstanceExtensions { got: usize },
    #[error("the only extension of an enclave's certificate is not the evidence extension")]
    NoEvidence,
    #[error("reading the evidence extension")]
    Evidence(#[source] CborError),
    #[error("the evidence extension speaks of another key than the certificate's")]
    OtherKey,
    #[error("a server has to be an enclave, this one is an owner or user")]
    ServerIsPrincipal,
}

/// Who is on the other end, as far as the TLS handshake can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An owner or user, by identity key.
    Principal(PrincipalId),
    /// Somebody who claims to be an enclave. The evidence is not verified yet.
    Instance {
        evidence: Evidence,
        /// Of the key that the evidence has to bind, and that signed the handshake.
        spki: SpkiHash,
    },
}

impl Peer {
    /// Hash of the key that signed the TLS handshake.
    #[must_use]
    pub const fn spki(&self) -> SpkiHash {
        match self {
            Self::Principal(principal) => SpkiHash::of_principal(principal),
            Self::Instance { spki, .. } => *spki,
        }
    }
}

/// A peer with the key that its handshake signature must verify under. One parser reads both,
/// so that no certificate can show one key to the signature check and another to appraisal.
#[derive(Debug)]
pub(crate) struct PeerCertificate {
    pub(crate) peer: Peer,
    pub(crate) spki_der: Vec<u8>,
}

/// Reads the one certificate of a peer.
pub(crate) fn read_peer(chain: &[CertificateDer<'_>]) -> Result<PeerCertificate, CertificateError> {
    let [der] = chain else {
        return Err(CertificateError::Count { got: chain.len() });
    };
    if der.len() > CERTIFICATE_MAX {
        return Err(CertificateError::TooLong { got: der.len() });
    }
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
    if !rest.is_empty() {
        return Err(CertificateError::Malformed);
    }
    let spki_der = certificate.tbs_certificate.subject_pki.raw;
    let spki = SpkiHash::of(spki_der);
    let extensions = certificate.tbs_certificate.extensions();
    let is_key = |prefix: &[u8], rest: usize| {
        spki_der
            .strip_prefix(prefix)
            .is_some_and(|key| key.len() == rest)
    };
    let peer = if is_key(ED25519_SPKI, 32) {
        if !extensions.is_empty() {
            return Err(CertificateError::PrincipalExtensions {
                got: extensions.len(),
            });
        }
        Peer::Principal(spki.principal())
    } else if is_key(P256_SPKI, 64) {
        let [extension] = extensions else {
            return Err(CertificateError::InstanceExtensions {
                got: extensions.len(),
            });
        };
        let is_evidence = extension
            .oid
            .iter()
            .is_some_and(|parts| parts.eq(EVIDENCE_OID.iter().copied()));
        if !is_evidence {
            return Err(CertificateError::NoEvidence);
        }
        Peer::Instance {
            evidence: read_extension(extension.value, &spki)?,
            spki,
        }
    } else {
        return Err(CertificateError::KeyType);
    };
    Ok(PeerCertificate {
        peer,
        spki_der: spki_der.to_vec(),
    })
}

fn tag_of(tee: Tee) -> u64 {
    PRIVATE_TAGS
        .iter()
        .find(|(of, _)| *of == tee)
        .map_or(INTEL_QUOTE_TAG, |(_, tag)| *tag)
}

pub(crate) fn tee_of(tag: u64, body: &[u8]) -> Option<Tee> {
    if tag == INTEL_QUOTE_TAG {
        return match body.get(QUOTE_TEE_TYPE)?.try_into().ok()? {
            QUOTE_OF_SGX => Some(Tee::Sgx),
            QUOTE_OF_TDX => Some(Tee::Tdx),
            _ => None,
        };
    }
    PRIVATE_TAGS
        .iter()
        .find(|(_, of)| *of == tag)
        .map(|(tee, _)| *tee)
}

/// The value of the evidence extension for a certificate with this key.
pub(crate) fn write_extension(evidence: &Evidence, spki: &SpkiHash) -> Vec<u8> {
    Writer::new()
        .tag(tag_of(evidence.tee))
        .array(2)
        .bytes(&evidence.body)
        .bytes(&claims_buffer(spki))
        .done()
}

fn read_extension(value: &[u8], spki: &SpkiHash) -> Result<Evidence, CertificateError> {
    let read = || {
        let mut reader = Reader::new(WHAT, value);
        let tag = reader.tag()?;
        reader.array(2)?;
        let body = reader.bytes()?;
        let claims = reader.bytes()?;
        require_at_most(WHAT, body.len(), EVIDENCE_MAX)?;
        let tee = tee_of(tag, body).ok_or_else(|| reader.wrong())?;
        Ok((
            Evidence {
                tee,
                body: body.to_vec(),
            },
            claims,
        ))
    };
    let (evidence, claims) = read().map_err(CertificateError::Evidence)?;
    if claims != claims_buffer(spki) {
        return Err(CertificateError::OtherKey);
    }
    require_canonical(WHAT, value, &write_extension(&evidence, spki))
        .map_err(CertificateError::Evidence)?;
    Ok(evidence)
}

#[cfg(test)]
mod tests;
