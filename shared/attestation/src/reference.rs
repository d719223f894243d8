//! Reference values (RFC 9334 §8.3) in signed bundles: which enclaves an owner or a publisher vouches
//! for, since when, until when, and after which bundle.
//!
//! A bundle is a `COSE_Sign1` (RFC 9052 §4.2) with EdDSA over deterministic CBOR; the signer is an
//! owner's or publisher's identity key. docs/protocol.md has the bytes.

use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use crypto::identity::IdentityKey;
use protocol::{EnclaveId, PrincipalId};
use serde::{Deserialize, Serialize};

use crate::cbor::{CborError, Reader, Writer, read_value, require_at_most, write_value};
use crate::policy::{Allowed, AppraisalPolicy, ReferenceMeasurements};

/// Largest bundle, in bytes.
pub const BUNDLE_MAX: usize = 64 * 1024;

const WHAT: &str = "a bundle of reference values";
const CONTENT_TYPE: &str = "application/vnd.sesemi.reference-values+cbor";
const SIGN1_TAG: u64 = 18;
/// DER of an Ed25519 SubjectPublicKeyInfo before the key (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What a bundle says. In TOML, the same names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// Which series of bundles this one continues; rollback is judged per signer and series.
    pub series: String,
    /// Grows with every bundle of a series.
    pub version: u64,
    /// Seconds since the UNIX epoch.
    pub not_before: u64,
    /// Seconds since the UNIX epoch; the bundle is worth nothing from then on.
    pub not_after: u64,
    /// Enclave ids; nothing is said of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enclaves: Option<Vec<EnclaveId>>,
    #[serde(default)]
    pub measurements: ReferenceMeasurements,
}

/// Why a bundle is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("reading a bundle of reference values")]
    Content(#[source] CborError),
    #[error("the bundle is signed by {got}, not by {expected}")]
    Signer {
        expected: PrincipalId,
        got: PrincipalId,
    },
    #[error("the bundle's signature is not valid")]
    Signature,
    #[error("the bundle is of series {got:?}, not {expected:?}")]
    Series { expected: String, got: String },
    #[error("the bundle is valid from {from} on, in seconds since the UNIX epoch")]
    NotYet { from: u64 },
    #[error("the bundle was valid until {until}, in seconds since the UNIX epoch")]
    Expired { until: u64 },
    #[error("the bundle has version {got}, but version {seen} was seen before")]
    RolledBack { got: u64, seen: u64 },
    #[error("the bundle cannot be signed with this key")]
    Key,
}

/// What a relying party expects of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    pub signer: PrincipalId,
    pub series: String,
    /// Highest version seen of this signer and series; 0 if none. Whoever opens a bundle must
    /// remember the version of what was opened.
    pub seen: u64,
}

impl ReferenceValues {
    /// The bundle, signed.
    ///
    /// # Errors
    /// [`ReferenceError`] if the values have no canonical form or are too long.
    pub fn sign(&self, key: &IdentityKey) -> Result<Vec<u8>, ReferenceError> {
        let payload = self.payload().map_err(ReferenceError::Content)?;
        let protected = protected(key.spki_der());
        let pair = Ed25519KeyPair::from_pkcs8(key.pkcs8_der()).map_err(|_| ReferenceError::Key)?;
        let signature = pair.sign(&to_be_signed(&protected, &payload));
        let bundle = Writer::new()
            .tag(SIGN1_TAG)
            .array(4)
            .bytes(&protected)
            .map(0)
            .bytes(&payload)
            .bytes(signature.as_ref())
            .done();
        require_at_most(WHAT, bundle.len(), BUNDLE_MAX).map_err(ReferenceError::Content)?;
        Ok(bundle)
    }

    /// Opens a bundle. `now` is time since the UNIX epoch.
    ///
    /// # Errors
    /// [`ReferenceError`] for everything that is not a current bundle of the trusted signer.
    pub fn open(bundle: &[u8], trusted: &Trusted, now: Duration) -> Result<Self, ReferenceError> {
        require_at_most(WHAT, bundle.len(), BUNDLE_MAX).map_err(ReferenceError::Content)?;
        let parts = Parts::read(bundle).map_err(ReferenceError::Content)?;
        let got = signer(&parts.spki);
        if got != trusted.signer {
            return Err(ReferenceError::Signer {
                expected: trusted.signer,
                got,
            });
        }
        let (_, key) = parts.spki.split_at(SPKI_PREFIX.len());
        UnparsedPublicKey::new(&ED25519, key)
            .verify(
                &to_be_signed(parts.protected, parts.payload),
                parts.signature,
            )
            .map_err(|_| ReferenceError::Signature)?;
        let values = Self::read(parts.payload).map_err(ReferenceError::Content)?;
        values.check(trusted, now.as_secs()).map(|()| values)
    }

    fn check(&self, trusted: &Trusted, now: u64) -> Result<(), ReferenceError> {
        if self.series != trusted.series {
            return Err(ReferenceError::Series {
                expected: trusted.series.clone(),
                got: self.series.clone(),
            });
        }
        if self.version < trusted.seen {
            return Err(ReferenceError::RolledBack {
                got: self.version,
                seen: trusted.seen,
            });
        }
        if now < self.not_before {
            return Err(ReferenceError::NotYet {
                from: self.not_before,
            });
        }
        if now >= self.not_after {
            return Err(ReferenceError::Expired {
                until: self.not_after,
            });
        }
        Ok(())
    }

    pub(crate) fn payload(&self) -> Result<Vec<u8>, CborError> {
        let shape = CborError::Shape { what: WHAT };
        let value = serde_json::to_value(self).map_err(|_| shape.clone())?;
        Ok(write_value(Writer::new(), &value).ok_or(shape)?.done())
    }

    pub(crate) fn read(payload: &[u8]) -> Result<Self, CborError> {
        let value = read_value(WHAT, payload)?;
        let values: Self =
            serde_json::from_value(value).map_err(|_| CborError::Shape { what: WHAT })?;
        crate::cbor::require_canonical(WHAT, payload, &values.payload()?)?;
        Ok(values)
    }

    /// The policy, narrowed to what this bundle vouches for: where both say which values they
    /// accept, only values that are in both are.
    #[must_use]
    pub fn narrow(&self, policy: &AppraisalPolicy) -> AppraisalPolicy {
        let enclaves = match (&self.enclaves, &policy.enclaves) {
            (None, own) => own.clone(),
            (Some(vouched), Allowed::Any) => Allowed::These(vouched.clone()),
            (Some(vouched), Allowed::These(own)) => {
                let both = own.iter().filter(|id| vouched.contains(id));
                Allowed::These(both.copied().collect())
            }
        };
        AppraisalPolicy {
            enclaves,
            measurements: policy.measurements.and(&self.measurements),
            ..policy.clone()
        }
    }
}

struct Parts<'b> {
    protected: &'b [u8],
    spki: [u8; 44],
    payload: &'b [u8],
    signature: &'b [u8],
}

impl<'b> Parts<'b> {
    fn read(bundle: &'b [u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(WHAT, bundle);
        if reader.tag()? != SIGN1_TAG {
            return Err(reader.wrong());
        }
        reader.array(4)?;
        let protected_bytes = reader.bytes()?;
        if reader.any_map()? != 0 {
            return Err(reader.wrong());
        }
        let (payload, signature) = (reader.bytes()?, reader.bytes()?);
        // The key id is the end of the one protected header that is taken.
        let spki: &[u8; 44] = protected_bytes.last_chunk().ok_or_else(|| reader.wrong())?;
        crate::cbor::require_canonical(WHAT, protected_bytes, &protected(spki))?;
        if !spki.starts_with(&SPKI_PREFIX) {
            return Err(reader.wrong());
        }
        let canonical = Writer::new()
            .tag(SIGN1_TAG)
            .array(4)
            .bytes(protected_bytes)
            .map(0)
            .bytes(payload)
            .bytes(signature)
            .done();
        crate::cbor::require_canonical(WHAT, bundle, &canonical)?;
        Ok(Self {
            protected: protected_bytes,
            spki: *spki,
            payload,
            signature,
        })
    }
}

/// `{1: -8 (EdDSA), 3: content type, 4: key id = DER of the signer's SubjectPublicKeyInfo}`.
fn protected(spki: &[u8; 44]) -> Vec<u8> {
    Writer::new()
        .map(3)
        .uint(1)
        .negative(7)
        .uint(3)
        .text(CONTENT_TYPE)
        .uint(4)
        .bytes(spki)
        .done()
}

/// `Sig_structure` of RFC 9052 §4.4, with no external data.
fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    Writer::new()
        .array(4)
        .text("Signature1")
        .bytes(protected)
        .bytes(&[])
        .bytes(payload)
        .done()
}

fn signer(spki: &[u8; 44]) -> PrincipalId {
    let mut id = [0; 32];
    id.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
    PrincipalId::new(id)
}

#[cfg(test)]
mod tests;
