//! The signatures below each kind of evidence, and what verifying one of them costs.

use std::time::Duration;

use attestation::Tee;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_SHA384,
    RsaEncoding, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Serialize;

use super::{Single, cost};

const P256: &str = "ECDSA P-256";
const P384: &str = "ECDSA P-384";
const RSA_4096: &str = "RSA-PSS 4096";
const RSA_2048: &str = "RSA 2048";
/// As long as the signed part of a certificate.
const MESSAGE: [u8; 800] = [0x5e; 800];

/// How many signatures of each kind have to be verified, at the least: one for each thing that
/// is signed. Roots are pinned, so their own signatures say nothing.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Signatures {
    pub p256: u32,
    pub p384: u32,
    pub rsa_4096: u32,
    pub rsa_2048: u32,
}

impl Signatures {
    /// Leaf, three issuers, and the report.
    pub(super) const OF_GPU: Self = Self {
        p256: 0,
        p384: 5,
        rsa_4096: 0,
        rsa_2048: 0,
    };

    pub(super) fn of(tee: Tee) -> Self {
        let none = Self::default();
        // PCK certificate, its issuer, TCB signing, two revocation lists, TCB info, QE identity,
        // QE report, quote.
        let intel = Self { p256: 9, ..none };
        // ASK, VEK; report.
        let amd = Self {
            rsa_4096: 2,
            p384: 1,
            ..none
        };
        match tee {
            Tee::Sgx | Tee::Tdx => intel,
            Tee::AzTdx => Self {
                rsa_2048: 1,
                ..intel
            },
            Tee::Snp => amd,
            Tee::AzSnp => Self { rsa_2048: 1, ..amd },
            // Region, zone, instance, leaf; document.
            Tee::Nitro => Self { p384: 5, ..none },
            Tee::Simulated => none,
        }
    }

    /// What they cost together, given what one costs.
    pub(super) fn floor(&self, single: impl Fn(&'static str) -> f64) -> f64 {
        f64::from(self.p256) * single(P256)
            + f64::from(self.p384) * single(P384)
            + f64::from(self.rsa_4096) * single(RSA_4096)
            + f64::from(self.rsa_2048) * single(RSA_2048)
    }
}

struct Verification {
    name: &'static str,
    algorithm: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
    signature: Vec<u8>,
    took: Vec<Duration>,
}

/// One verification of each kind.
pub(super) struct Singles(Vec<Verification>);

impl Singles {
    pub(super) fn new() -> Self {
        Self(vec![
            ecdsa(
                P256,
                &ECDSA_P256_SHA256_ASN1,
                &ECDSA_P256_SHA256_ASN1_SIGNING,
            ),
            ecdsa(
                P384,
                &ECDSA_P384_SHA384_ASN1,
                &ECDSA_P384_SHA384_ASN1_SIGNING,
            ),
            rsa(
                RSA_4096,
                &RSA_PSS_2048_8192_SHA384,
                &RSA_PSS_SHA384,
                KeySize::Rsa4096,
            ),
            rsa(
                RSA_2048,
                &RSA_PKCS1_2048_8192_SHA256,
                &RSA_PKCS1_SHA256,
                KeySize::Rsa2048,
            ),
        ])
    }

    pub(super) fn run(&mut self, time: impl Fn(&dyn Fn() -> bool) -> Duration) {
        for single in &mut self.0 {
            let took = time(&|| {
                let key = UnparsedPublicKey::new(single.algorithm, &single.key);
                key.verify(&MESSAGE, &single.signature).is_ok()
            });
            single.took.push(took);
        }
    }

    pub(super) fn costs(self) -> Vec<Single> {
        let single = |single: Verification| Single {
            name: single.name,
            cost: cost(single.took),
        };
        self.0.into_iter().map(single).collect()
    }
}

#[expect(clippy::expect_used, reason = "keys that were just made can sign")]
fn ecdsa(
    name: &'static str,
    algorithm: &'static dyn VerificationAlgorithm,
    signing: &'static EcdsaSigningAlgorithm,
) -> Verification {
    let key = EcdsaKeyPair::generate(signing).expect("a key");
    let signature = key.sign(&SystemRandom::new(), &MESSAGE);
    Verification {
        name,
        algorithm,
        key: key.public_key().as_ref().to_vec(),
        signature: signature.expect("a signature").as_ref().to_vec(),
        took: Vec::new(),
    }
}

#[expect(clippy::expect_used, reason = "keys that were just made can sign")]
fn rsa(
    name: &'static str,
    algorithm: &'static dyn VerificationAlgorithm,
    encoding: &'static dyn RsaEncoding,
    size: KeySize,
) -> Verification {
    let key = RsaKeyPair::generate(size).expect("a key");
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), &MESSAGE, &mut signature)
        .expect("a signature");
    Verification {
        name,
        algorithm,
        key: key.public_key().as_ref().to_vec(),
        signature,
        took: Vec::new(),
    }
}
