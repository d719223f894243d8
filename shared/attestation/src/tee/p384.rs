//! Chains of P-384 certificates, as AWS and NVIDIA issue them: complete, in order, up to a root
//! that is pinned by its SHA-256.
//!
//! webpki walks the path (names, ECDSA signatures, validity, path lengths, unknown critical
//! extensions); what it leaves to its caller is checked here: key usages, the order of the
//! chain, and that no certificate of it is superfluous.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::aws_lc_rs::ECDSA_P384_SHA384;
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::KeyUsage;
use x509_parser::prelude::FromDer;

use crate::policy::Hex;
use crate::scorecard::{CheckName, Failed, Scorecard};

/// SubjectPublicKeyInfo of an uncompressed P-384 key (RFC 5480), up to the point.
const SPKI: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
/// An uncompressed point.
const POINT: usize = 97;
/// r and s, 48 bytes each.
pub(super) const SIGNATURE: usize = 96;

/// SHA-256 of a certificate's DER.
pub(super) type Pin = Hex<32>;

/// The pin of this certificate.
pub(super) fn pin(der: &[u8]) -> Pin {
    let hash = digest(&SHA256, der);
    Hex(hash.as_ref().try_into().unwrap_or_default())
}

/// A chain as it was sent; hostile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) leaf: &'a [u8],
    /// From the leaf's issuer to the one that the root issued.
    pub(super) issuers: &'a [&'a [u8]],
    pub(super) root: &'a [u8],
}

/// The key of a leaf whose chain was verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeafKey([u8; POINT]);

impl LeafKey {
    /// Whether `signature` is this key's over `message` (ECDSA, SHA-384).
    pub(super) fn signed(&self, message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, self.0);
        key.verify(message, signature).is_ok()
    }
}

#[derive(Debug)]
enum Broken {
    /// Not valid, and would not be at another time.
    Chain(String),
    /// Not valid at this time.
    Time(String),
}

impl Broken {
    fn chain(why: &str) -> Self {
        Self::Chain(why.into())
    }
}

/// Verifies a chain at `now`.
///
/// # Errors
/// [`Failed`] unless it is exactly one path from the pinned root to a leaf that may sign.
pub(super) fn verify(
    chain: &Chain<'_>,
    root: &Pin,
    now: Duration,
    card: &mut Scorecard,
) -> Result<LeafKey, Failed> {
    let got = pin(chain.root);
    card.require(
        CheckName::RootPinned,
        got == *root,
        format!("SHA-256 {root}"),
        format!("SHA-256 {got}"),
    )?;
    let wanted = "P-384, each certificate issued by the next one, up to the root";
    let current = format!("valid at {} s", now.as_secs());
    match path(chain, now) {
        Ok(key) => {
            card.record(CheckName::CertificateChain, true, wanted, "valid");
            card.record(CheckName::EndorsementsCurrent, true, current, "valid");
            Ok(key)
        }
        Err(Broken::Chain(why)) => Err(card.fail(CheckName::CertificateChain, wanted, why)),
        Err(Broken::Time(why)) => Err(card.fail(CheckName::EndorsementsCurrent, current, why)),
    }
}

fn path(chain: &Chain<'_>, now: Duration) -> Result<LeafKey, Broken> {
    let leaf = CertificateDer::from(chain.leaf);
    let root = CertificateDer::from(chain.root);
    let issuers: Vec<_> = chain
        .issuers
        .iter()
        .map(|der| CertificateDer::from(*der))
        .collect();
    let anchors = [anchor_from_trusted_cert(&root).map_err(broken)?];
    let end = EndEntityCert::try_from(&leaf).map_err(broken)?;
    let time = UnixTime::since_unix_epoch(now);
    let algorithms = &[ECDSA_P384_SHA384];
    let path = end
        .verify_for_usage(algorithms, &anchors, &issuers, time, AnyPurpose, None, None)
        .map_err(broken)?;
    // The path is searched for among the certificates: they need not be all of it.
    let walked = path.intermediate_certificates().map(|issuer| issuer.der());
    if !walked.eq(issuers.iter().cloned()) {
        return Err(Broken::chain("certificates out of order, or superfluous"));
    }
    usable(&parsed(chain.root)?, KeyUsage::key_cert_sign)?;
    for issuer in chain.issuers {
        usable(&parsed(issuer)?, KeyUsage::key_cert_sign)?;
    }
    // An anchor's dates are not webpki's business.
    root_current(&parsed(chain.root)?, now)?;
    let leaf = parsed(chain.leaf)?;
    usable(&leaf, KeyUsage::digital_signature)?;
    let point = leaf.tbs_certificate.subject_pki.raw.strip_prefix(SPKI);
    let point = point.and_then(|point| point.try_into().ok());
    point
        .map(LeafKey)
        .ok_or_else(|| Broken::chain("the leaf's key is not of P-384"))
}

fn broken(error: webpki::Error) -> Broken {
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            Broken::Time(error.to_string())
        }
        other => Broken::Chain(other.to_string()),
    }
}

fn parsed(der: &[u8]) -> Result<X509Certificate<'_>, Broken> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Broken::chain("a certificate is not X.509 in DER")),
    }
}

fn usable(
    certificate: &X509Certificate<'_>,
    usage: impl Fn(&KeyUsage) -> bool,
) -> Result<(), Broken> {
    // Neither vendor restricts its keys to purposes; attestation has none that they could name.
    match (certificate.key_usage(), certificate.extended_key_usage()) {
        (Ok(Some(extension)), Ok(None)) if usage(extension.value) => Ok(()),
        _ => Err(Broken::chain("a key is not meant for what it signed")),
    }
}

fn root_current(root: &X509Certificate<'_>, now: Duration) -> Result<(), Broken> {
    let validity = root.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        Ok(())
    } else {
        Err(Broken::Time("the root is not valid at this time".into()))
    }
}

/// Extended key usages are looked at in [`usable`].
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
