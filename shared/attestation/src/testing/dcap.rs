//! A fake Intel: root, PCK and TCB signing keys of its own, platforms, quotes and collateral with
//! any contents, also such as Intel would never sign. What verifies under its root verifies
//! nowhere else.
//!
//! ```ignore
//! let intel = FakeIntel::new();
//! let platform = intel.platform(FakePck::default());
//! let quote = platform.quote(&FakeReport::sgx(0x11), &report_data);
//! let endorsements = intel.endorsements(Tee::Sgx, now);
//! let verifier = intel.verifier(Tee::Sgx);
//! ```

mod json;
mod pki;
mod quote;

use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use crypto::secret::SealingKey;
use rcgen::{Issuer, KeyPair};

use crate::binder::Binder;
use crate::evidence::{Attester, CollectError, Endorsements, Evidence, Tee};
use crate::tee::dcap::DcapVerifier;

pub use json::FakeCollateral;
pub use pki::FakePck;
pub use quote::{FakeQe, FakeReport, FakeSgx, FakeTd, TdBody};

/// Seconds in a day.
pub(super) const DAY: u64 = 24 * 60 * 60;
/// Of Intel's quoting enclave, here.
const QE_SIGNER: [u8; 32] = [0x8c; 32];
/// `TEE_TCB_SVN` of fake platforms: module TDX 1.5 (byte 1) with security version 5.
const TEE_TCB_SVN: [u8; 16] = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SEAM_SIGNER: [u8; 48] = [0; 48];

/// A signing key, and the certificate for it.
#[derive(Debug)]
struct Certified {
    key: KeyPair,
    der: Vec<u8>,
}

impl Certified {
    /// `r` and `s`, 32 bytes each, as quotes and collateral have them.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.key, message)
    }
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let key = key.serialize_der();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).unwrap();
    let signature = key.sign(&SystemRandom::new(), message).unwrap();
    signature.as_ref().to_vec()
}

/// Intel, played by a test. Two of them do not trust each other. Copies are the same.
#[derive(Debug, Clone)]
pub struct FakeIntel(Arc<Keys>);

#[derive(Debug)]
struct Keys {
    root: Certified,
    platform_ca: Certified,
    processor_ca: Certified,
    tcb_signing: Certified,
    qe_identity_signing: Certified,
}

/// A machine with Intel's certificate: makes quotes.
#[derive(Debug)]
pub struct FakePlatform {
    pck: Certified,
    attestation_key: KeyPair,
    /// Leaf first, PEM.
    chain: String,
}

impl Default for FakeIntel {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeIntel {
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(pki::keys()))
    }

    /// The root certificate, DER.
    #[must_use]
    pub fn root(&self) -> Vec<u8> {
        self.0.root.der.clone()
    }

    /// The same key and name in another root certificate, as Intel has it: DER.
    #[must_use]
    pub fn reissued_root(&self) -> Vec<u8> {
        pki::reissue(&self.0.root.key)
    }

    /// The verifier of SGX or TDX that trusts this Intel.
    #[must_use]
    pub fn verifier(&self, tee: Tee) -> DcapVerifier {
        let verifier = match tee {
            Tee::Sgx => DcapVerifier::sgx(),
            Tee::Tdx => DcapVerifier::tdx(),
            other => panic!("{other} has no quotes"),
        };
        verifier.with_root(self.root())
    }

    /// A new machine.
    #[must_use]
    pub fn platform(&self, pck: &FakePck) -> FakePlatform {
        let ca = if pck.processor_ca {
            &self.0.processor_ca
        } else {
            &self.0.platform_ca
        };
        let certified = pki::pck(pck, ca);
        let chain = [&certified.der, &ca.der, &self.0.root.der];
        FakePlatform {
            chain: chain.into_iter().map(|der| pem(der)).collect(),
            attestation_key: KeyPair::generate().unwrap(),
            pck: certified,
        }
    }

    /// Collateral, as JSON.
    #[must_use]
    pub fn collateral(&self, collateral: &FakeCollateral) -> Vec<u8> {
        json::write(&self.0, collateral)
    }

    /// Collateral of an up-to-date [`FakePck::default`], issued a day before `now` (seconds since
    /// the UNIX epoch).
    #[must_use]
    pub fn endorsements(&self, tee: Tee, now: u64) -> Endorsements {
        Endorsements::Dcap {
            collateral: self.collateral(&FakeCollateral::new(tee, now)),
        }
    }
}

impl FakePlatform {
    /// A quote of Intel's quoting enclave.
    #[must_use]
    pub fn quote(&self, report: &FakeReport, report_data: &[u8; 64]) -> Vec<u8> {
        self.quote_by(&FakeQe::new(report.tee()), report, report_data)
    }

    /// A quote of another quoting enclave, or with other certification data.
    #[must_use]
    pub fn quote_by(&self, qe: &FakeQe, report: &FakeReport, report_data: &[u8; 64]) -> Vec<u8> {
        quote::write(self, qe, report, report_data)
    }

    /// The PCK certificate's chain, leaf first, PEM.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }
}

/// An enclave or TD on a fake platform, for those who need evidence and not its details.
#[derive(Debug)]
struct FakeAttester {
    platform: FakePlatform,
    report: FakeReport,
    endorsements: Endorsements,
}

impl Attester for FakeAttester {
    fn tee(&self) -> Tee {
        self.report.tee()
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        Ok(Evidence {
            tee: self.tee(),
            body: self.platform.quote(&self.report, &binder.report_data()),
        })
    }

    fn host_endorsements(&self) -> Endorsements {
        self.endorsements.clone()
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        let code = format!("{:?}", self.report);
        let key = digest::digest(&digest::SHA256, code.as_bytes());
        SealingKey::from_slice(key.as_ref()).map_err(|_| CollectError::Unexpected {
            what: "a sealing key",
        })
    }
}

impl FakeIntel {
    /// An attester on a new machine, with collateral issued a day before `now` (seconds since the
    /// UNIX epoch).
    #[must_use]
    pub fn attester(&self, report: FakeReport, now: u64) -> Arc<dyn Attester> {
        Arc::new(FakeAttester {
            platform: self.platform(&FakePck::default()),
            endorsements: self.endorsements(report.tee(), now),
            report,
        })
    }
}

/// A certificate in PEM, as Intel writes it.
#[must_use]
pub fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = body
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap());
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

/// Lets rcgen sign with a key that a test keeps.
fn issuer<'a>(params: &'a rcgen::CertificateParams, key: &'a KeyPair) -> Issuer<'a, &'a KeyPair> {
    Issuer::from_params(params, key)
}
