//! X.509 certificates with RSA-PSS signatures, which `rcgen` does not make: a small DER writer.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA384};

/// Object ids in DER, without tag and length.
pub mod oid {
    pub const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    pub const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    pub const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    pub const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
    pub const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
    pub const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    pub const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    /// 1.3.6.1.4.1.3704.1, AMD's extensions.
    pub const AMD: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01];
}

/// One element: tag, length, and the parts one after the other.
#[must_use]
pub fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, content].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, parts)
}

fn object(id: &[u8]) -> Vec<u8> {
    der(0x06, &[id])
}

/// A DER `INTEGER` of one byte, as VEKs have their security versions.
#[must_use]
pub fn integer(value: u8) -> Vec<u8> {
    if value < 0x80 {
        vec![0x02, 0x01, value]
    } else {
        vec![0x02, 0x02, 0x00, value]
    }
}

/// A distinguished name of one common name.
#[must_use]
pub fn name(common: &str) -> Vec<u8> {
    let value = der(0x0c, &[common.as_bytes()]);
    let attribute = sequence(&[&object(oid::COMMON_NAME), &value]);
    sequence(&[&der(0x31, &[&attribute])])
}

/// RSA-PSS with SHA-384 and this length of salt.
#[must_use]
pub fn pss(salt: u8) -> Vec<u8> {
    let hash = sequence(&[&object(oid::SHA384), &der(0x05, &[])]);
    let mask = sequence(&[&object(oid::MGF1), &hash]);
    let parameters = sequence(&[
        &der(0xa0, &[&hash]),
        &der(0xa1, &[&mask]),
        &der(0xa2, &[&integer(salt)]),
    ]);
    sequence(&[&object(oid::RSASSA_PSS), &parameters])
}

/// A public RSA key, as in a certificate.
#[must_use]
pub fn rsa_key(key: &KeyPair) -> Vec<u8> {
    let algorithm = sequence(&[&object(oid::RSA), &der(0x05, &[])]);
    let point = der(0x03, &[&[0], key.public_key().as_ref()]);
    sequence(&[&algorithm, &point])
}

/// A public key on this curve, as in a certificate.
#[must_use]
pub fn ec_key(curve: &[u8], point: &[u8]) -> Vec<u8> {
    let algorithm = sequence(&[&object(oid::EC), &object(curve)]);
    sequence(&[&algorithm, &der(0x03, &[&[0], point])])
}

/// One extension of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeExtension {
    /// In DER, without tag and length.
    pub oid: Vec<u8>,
    pub critical: bool,
    pub value: Vec<u8>,
}

impl FakeExtension {
    #[must_use]
    pub fn new(oid: &[u8], critical: bool, value: Vec<u8>) -> Self {
        Self {
            oid: oid.to_vec(),
            critical,
            value,
        }
    }

    /// Basic constraints, critical.
    #[must_use]
    pub fn authority(ca: bool) -> Self {
        let flag = der(0x01, &[&[0xff]]);
        let value = if ca {
            sequence(&[&flag])
        } else {
            sequence(&[])
        };
        Self::new(oid::BASIC_CONSTRAINTS, true, value)
    }

    /// Key usage, critical: `keyCertSign` is 0x04.
    #[must_use]
    pub fn usage(bits: u8) -> Self {
        Self::new(oid::KEY_USAGE, true, der(0x03, &[&[0, bits]]))
    }

    /// AMD's, of these last numbers.
    #[must_use]
    pub fn amd(arcs: &[u8], value: Vec<u8>) -> Self {
        Self::new(&[oid::AMD, arcs].concat(), false, value)
    }
}

/// What a certificate is to say. Every field may be changed before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeCertificate {
    /// Version minus one.
    pub version: u8,
    pub issuer: Vec<u8>,
    pub subject: Vec<u8>,
    /// `UTCTime`: not before, not after.
    pub validity: [&'static str; 2],
    /// `SubjectPublicKeyInfo`.
    pub key: Vec<u8>,
    pub extensions: Vec<FakeExtension>,
    /// Signature algorithm: inside of what is signed, and outside of it.
    pub algorithms: [Vec<u8>; 2],
}

impl FakeCertificate {
    /// Valid through 2024 to 2048, of version 3, without extensions.
    #[must_use]
    pub fn new(issuer: &str, subject: &str, key: Vec<u8>) -> Self {
        Self {
            version: 2,
            issuer: name(issuer),
            subject: name(subject),
            validity: ["240101000000Z", "481231235959Z"],
            key,
            extensions: Vec::new(),
            algorithms: [pss(48), pss(48)],
        }
    }

    /// The certificate in DER. Always signed with RSA-PSS, SHA-384 and a salt of 48 bytes.
    #[must_use]
    pub fn signed_by(&self, key: &KeyPair) -> Vec<u8> {
        let extensions: Vec<_> = self
            .extensions
            .iter()
            .map(|extension| {
                let critical = der(0x01, &[&[0xff]]);
                let critical = if extension.critical {
                    &critical[..]
                } else {
                    &[]
                };
                let value = der(0x04, &[&extension.value]);
                sequence(&[&object(&extension.oid), critical, &value])
            })
            .collect();
        let extensions = sequence(&[&extensions.concat()]);
        let [from, to] = self.validity.map(|time| der(0x17, &[time.as_bytes()]));
        let [inner, outer] = &self.algorithms;
        let signed = sequence(&[
            &der(0xa0, &[&integer(self.version)]),
            &integer(1),
            inner,
            &self.issuer,
            &sequence(&[&from, &to]),
            &self.subject,
            &self.key,
            &der(0xa3, &[&extensions]),
        ]);
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &RSA_PSS_SHA384,
            &SystemRandom::new(),
            &signed,
            &mut signature,
        )
        .unwrap();
        sequence(&[&signed, outer, &der(0x03, &[&[0], &signature])])
    }
}
