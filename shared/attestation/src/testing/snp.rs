//! Plays AMD: roots, issuers, chips and their reports, signed properly and saying anything.
//!
//! A test takes what is right, changes one thing, signs, and sees which check refuses. The keys
//! are real ones, RSA of 4096 bits, and dear to make; so all fakes of a process share two.

mod certificate;
mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

pub use self::certificate::{
    FakeCertificate, FakeExtension, der, ec_key, integer, name, oid, pss, rsa_key,
};
pub use self::report::{FakeReport, REPORT};
use crate::evidence::Endorsements;
use crate::facts::{SnpProduct, SnpSigningKey};
use crate::tee::snp::{AmdRoot, SnpVerifier};

/// A time at which all that is made here is valid: October 2025.
pub const FAKE_NOW: Duration = Duration::from_secs(1_760_000_000);

const PRODUCTS: [SnpProduct; 3] = [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin];

struct Keys {
    ark: KeyPair,
    ask: KeyPair,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let ark = std::thread::spawn(|| KeyPair::generate(KeySize::Rsa4096).unwrap());
        let ask = KeyPair::generate(KeySize::Rsa4096).unwrap();
        let ark = ark.join().unwrap();
        Keys { ark, ask }
    })
}

const fn line(product: SnpProduct) -> &'static str {
    match product {
        SnpProduct::Milan => "Milan",
        SnpProduct::Genoa => "Genoa",
        SnpProduct::Turin => "Turin",
    }
}

/// Plays AMD. Clones are the same AMD.
#[derive(Clone)]
pub struct FakeAmd {
    arks: Arc<BTreeMap<SnpProduct, Vec<u8>>>,
}

impl fmt::Debug for FakeAmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeAmd")
    }
}

impl Default for FakeAmd {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeAmd {
    /// Another one each time: the roots of two have the same names and other bytes.
    #[must_use]
    pub fn new() -> Self {
        let ark = |product| {
            let certificate = Self::ark_certificate(product);
            (product, certificate.signed_by(Self::ark_key()))
        };
        Self {
            arks: Arc::new(PRODUCTS.into_iter().map(ark).collect()),
        }
    }

    /// The key of the roots.
    #[must_use]
    pub fn ark_key() -> &'static KeyPair {
        &keys().ark
    }

    /// The key of ASKs and ASVKs.
    #[must_use]
    pub fn ask_key() -> &'static KeyPair {
        &keys().ask
    }

    fn ark_certificate(product: SnpProduct) -> FakeCertificate {
        let name = format!("ARK-{}", line(product));
        let mut certificate = FakeCertificate::new(&name, &name, rsa_key(Self::ark_key()));
        certificate.extensions = vec![FakeExtension::authority(true), FakeExtension::usage(0x06)];
        certificate
    }

    /// The pins of this AMD.
    #[must_use]
    pub fn roots(&self) -> Vec<AmdRoot> {
        let pin = |(product, ark): (&SnpProduct, &Vec<u8>)| AmdRoot {
            product: *product,
            sha256: digest(&SHA256, ark).as_ref().try_into().unwrap(),
        };
        self.arks.iter().map(pin).collect()
    }

    /// Trusts this AMD.
    #[must_use]
    pub fn verifier(&self) -> SnpVerifier {
        SnpVerifier::with_roots(self.roots())
    }

    /// The root of a product line, in DER.
    #[must_use]
    pub fn ark(&self, product: SnpProduct) -> Vec<u8> {
        self.arks[&product].clone()
    }

    /// What the ASK or ASVK says; to be signed with [`Self::ark_key`].
    #[must_use]
    pub fn ask(product: SnpProduct, kind: SnpSigningKey) -> FakeCertificate {
        let issuer = format!("ARK-{}", line(product));
        let subject = Self::ask_name(product, kind);
        let mut certificate = FakeCertificate::new(&issuer, &subject, rsa_key(Self::ask_key()));
        certificate.extensions = vec![FakeExtension::authority(true), FakeExtension::usage(0x04)];
        certificate
    }

    fn ask_name(product: SnpProduct, kind: SnpSigningKey) -> String {
        match kind {
            SnpSigningKey::Vcek => format!("SEV-{}", line(product)),
            SnpSigningKey::Vlek => format!("SEV-VLEK-{}", line(product)),
        }
    }

    /// What a chip's VEK says; to be signed with [`Self::ask_key`].
    #[must_use]
    pub fn vek(chip: &FakeChip) -> FakeCertificate {
        let issuer = Self::ask_name(chip.product, chip.kind);
        let subject = match chip.kind {
            SnpSigningKey::Vcek => "SEV-VCEK",
            SnpSigningKey::Vlek => "SEV-VLEK",
        };
        let key = ec_key(oid::P384, chip.key.public_key().as_ref());
        let mut certificate = FakeCertificate::new(&issuer, subject, key);
        let product = der(0x16, &[line(chip.product).as_bytes()]);
        certificate.extensions = vec![
            FakeExtension::amd(&[1], integer(0)),
            FakeExtension::amd(&[2], product),
        ];
        let layout: [u8; 8] = match chip.product {
            SnpProduct::Milan | SnpProduct::Genoa => [1, 2, 4, 5, 6, 7, 3, 8],
            SnpProduct::Turin => [9, 1, 2, 3, 5, 6, 7, 8],
        };
        for (arc, part) in layout.into_iter().zip(chip.tcb) {
            let part = FakeExtension::amd(&[3, arc], integer(part));
            certificate.extensions.push(part);
        }
        certificate.extensions.push(match chip.kind {
            SnpSigningKey::Vcek => {
                let length = if chip.product == SnpProduct::Turin {
                    8
                } else {
                    64
                };
                FakeExtension::amd(&[4], chip.id[..length].to_vec())
            }
            SnpSigningKey::Vlek => FakeExtension::amd(&[5], der(0x16, &[b"CN=cloud.example"])),
        });
        certificate
    }

    /// The chip's VEK and its issuers.
    #[must_use]
    pub fn endorsements(&self, chip: &FakeChip) -> Endorsements {
        Endorsements::Snp {
            vek: Self::vek(chip).signed_by(Self::ask_key()),
            chain: vec![
                Self::ask(chip.product, chip.kind).signed_by(Self::ark_key()),
                self.ark(chip.product),
            ],
        }
    }
}

/// A chip with firmware, and the key that signs its reports.
pub struct FakeChip {
    pub product: SnpProduct,
    pub kind: SnpSigningKey,
    /// Turin has 8 bytes, and zeros behind them.
    pub id: [u8; 64],
    /// `TCB_VERSION` in the product's layout.
    pub tcb: [u8; 8],
    key: EcdsaKeyPair,
}

impl fmt::Debug for FakeChip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeChip({:?}, {:?})", self.product, self.kind)
    }
}

impl FakeChip {
    #[must_use]
    pub fn new(product: SnpProduct, kind: SnpSigningKey) -> Self {
        let mut id = [0; 64];
        let length = if product == SnpProduct::Turin { 8 } else { 64 };
        id[..length].fill(0xc1);
        let tcb = match product {
            SnpProduct::Milan | SnpProduct::Genoa => [4, 1, 0, 0, 0, 0, 24, 219],
            SnpProduct::Turin => [2, 4, 1, 24, 0, 0, 0, 71],
        };
        Self {
            product,
            kind,
            id,
            tcb,
            key: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        }
    }

    /// What this chip says of a guest that a strict policy accepts, in version 3.
    #[must_use]
    pub fn report(&self) -> FakeReport {
        FakeReport {
            version: 3,
            guest_svn: 7,
            policy: 0x3_0000,
            family_id: [0xfa; 16],
            image_id: [0x1a; 16],
            vmpl: 0,
            signature_algorithm: 1,
            current_tcb: self.tcb,
            platform_info: 0x25,
            key_info: match self.kind {
                SnpSigningKey::Vcek => 0,
                SnpSigningKey::Vlek => 1 << 2,
            },
            report_data: [0xda; 64],
            measurement: [0x3e; 48],
            host_data: [0x05; 32],
            id_key_digest: [0x1d; 48],
            author_key_digest: [0; 48],
            reported_tcb: self.tcb,
            cpuid: match self.product {
                SnpProduct::Milan => [0x19, 0x01, 1],
                SnpProduct::Genoa => [0x19, 0x11, 1],
                SnpProduct::Turin => [0x1a, 0x02, 1],
            },
            chip_id: self.id,
            committed_tcb: self.tcb,
            launch_tcb: self.tcb,
        }
    }

    /// Signs whatever is in front of the signature.
    #[must_use]
    pub fn sign(&self, report: [u8; REPORT]) -> Vec<u8> {
        report::sign(&self.key, report)
    }
}
