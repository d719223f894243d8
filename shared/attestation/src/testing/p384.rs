//! Chains of P-384 certificates below a root of one's own, with any content.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SignatureAlgorithm, date_time_ymd,
};

/// A chain of certificates and the key of its leaf.
#[derive(Debug)]
pub struct P384Chain {
    /// DER, from the root down to the leaf.
    pub certificates: Vec<Vec<u8>>,
    leaf: Vec<u8>,
}

/// A certificate authority, valid through 2026, with at most `path` authorities below it.
#[must_use]
pub fn authority(name: &str, path: u8) -> CertificateParams {
    let mut params = valid_in_2026(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A certificate that may sign, valid through 2026.
#[must_use]
pub fn leaf(name: &str) -> CertificateParams {
    let mut params = valid_in_2026(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn valid_in_2026(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 12, 31);
    params
}

impl P384Chain {
    /// Issues certificates, from the root down to the leaf, each below the one before.
    #[must_use]
    pub fn issue(params: &[CertificateParams]) -> Self {
        Self::issue_mixed(params, &PKCS_ECDSA_P384_SHA384)
    }

    /// The same with a leaf key of another kind, which cannot [`Self::sign`].
    #[must_use]
    pub fn issue_mixed(params: &[CertificateParams], leaf: &'static SignatureAlgorithm) -> Self {
        let mut kinds = vec![&PKCS_ECDSA_P384_SHA384; params.len()];
        *kinds.last_mut().unwrap() = leaf;
        Self::issue_keys(params, &kinds)
    }

    /// The same with all keys of another kind.
    #[must_use]
    pub fn issue_with(params: &[CertificateParams], keys: &'static SignatureAlgorithm) -> Self {
        Self::issue_keys(params, &vec![keys; params.len()])
    }

    fn issue_keys(params: &[CertificateParams], kinds: &[&'static SignatureAlgorithm]) -> Self {
        let mut certificates = Vec::new();
        let mut above: Option<(&CertificateParams, KeyPair)> = None;
        for (params, kind) in params.iter().zip(kinds) {
            let key = KeyPair::generate_for(kind).unwrap();
            let issued = match &above {
                None => params.self_signed(&key),
                Some((issuer, above)) => {
                    params.signed_by(&key, &Issuer::from_params(issuer, above))
                }
            };
            certificates.push(issued.unwrap().der().to_vec());
            above = Some((params, key));
        }
        let (_, key) = above.unwrap();
        Self {
            certificates,
            leaf: key.serialize_der(),
        }
    }

    /// r and s of the leaf's ECDSA signature with SHA-384.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.leaf).unwrap();
        let signature = key.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }
}
