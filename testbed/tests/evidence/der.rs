//! Certificates and revocation lists, taken apart and issued anew with other keys: everything
//! that they say stays, so that only the root can tell the forgery.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};

/// The curves of the vendors' chains.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Curve {
    P256,
    P384,
}

/// A key of the forger's.
pub(crate) struct Key {
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl Key {
    pub(crate) fn new(curve: Curve) -> Self {
        let (asn1, fixed) = match curve {
            Curve::P256 => (
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            Curve::P384 => (
                &ECDSA_P384_SHA384_ASN1_SIGNING,
                &ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
        };
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(asn1, &SystemRandom::new()).unwrap();
        let read = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        Self {
            asn1: read(asn1),
            fixed: read(fixed),
        }
    }

    /// The uncompressed point.
    fn point(&self) -> &[u8] {
        self.asn1.public_key().as_ref()
    }

    /// As in certificates: DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.asn1.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }

    /// As in quotes, collateral and COSE: r and s, as long as the curve's field.
    pub(crate) fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.fixed.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }
}

/// Header and whole length of the element that `bytes` begin with.
fn lengths(bytes: &[u8]) -> (usize, usize) {
    match bytes[1] {
        short @ 0..=0x7f => (2, 2 + usize::from(short)),
        long => {
            let count = usize::from(long & 0x7f);
            let length = bytes[2..2 + count]
                .iter()
                .fold(0, |length, byte| length * 256 + usize::from(*byte));
            (2 + count, 2 + count + length)
        }
    }
}

/// The elements inside of a constructed one.
fn children(element: &[u8]) -> Vec<&[u8]> {
    let (header, end) = lengths(element);
    let mut rest = &element[header..end];
    let mut children = Vec::new();
    while !rest.is_empty() {
        let (child, after) = rest.split_at(lengths(rest).1);
        children.push(child);
        rest = after;
    }
    children
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match content.len() {
        short @ 0..=0x7f => bytes.push(u8::try_from(short).unwrap()),
        long => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
            if long <= 0xff {
                bytes.truncate(1);
                bytes.extend([0x81, u8::try_from(long).unwrap()]);
            }
        }
    }
    bytes.extend(content);
    bytes
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// `SEQUENCE { to be signed, algorithm, signature }`, signed by `issuer`.
fn signed(tbs: &[u8], algorithm: &[u8], issuer: &Key) -> Vec<u8> {
    let signature = [&[0], &issuer.sign(tbs)[..]].concat();
    let parts = [tbs, algorithm, &element(BIT_STRING, &signature)].concat();
    element(SEQUENCE, &parts)
}

/// The same certificate for another key, signed by another issuer. Names, dates, serial number and
/// extensions stay.
pub(crate) fn reissue_certificate(certificate: &[u8], key: &Key, issuer: &Key) -> Vec<u8> {
    let parts = children(certificate);
    let fields = children(parts[0]);
    // Version, serial, algorithm, issuer, validity, subject, key, extensions.
    let spki = fields[6];
    let point = &children(spki)[1][3..];
    assert_eq!(point.len(), key.point().len(), "a key of this curve");
    let mut spki = spki.to_vec();
    let at = spki.len() - key.point().len();
    spki[at..].copy_from_slice(key.point());
    let mut fields: Vec<&[u8]> = fields;
    fields[6] = &spki;
    signed(&element(SEQUENCE, &fields.concat()), parts[1], issuer)
}

/// The same revocation list, signed by another issuer.
pub(crate) fn reissue_crl(crl: &[u8], issuer: &Key) -> Vec<u8> {
    let parts = children(crl);
    signed(parts[0], parts[1], issuer)
}

/// Whether issuer and subject are one: a root.
pub(crate) fn is_self_issued(certificate: &[u8]) -> bool {
    let fields = children(children(certificate)[0]);
    fields[3] == fields[5]
}
