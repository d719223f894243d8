//! Whether a certificate is signed by the key that it is about.

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::der_parser::ber::Tag;
use x509_parser::der_parser::oid;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::AlgorithmIdentifier;

type Algorithm = &'static dyn VerificationAlgorithm;

const P256: Oid<'static> = oid!(1.2.840.10045.3.1.7);
const P384: Oid<'static> = oid!(1.3.132.0.34);

/// Whether the certificate's signature verifies under its own key, and names it as the issuer.
pub(super) fn is_own(certificate: &X509Certificate<'_>) -> bool {
    let tbs = &certificate.tbs_certificate;
    // mbedTLS writes NULL where ECDSA has no parameters: it is the same twice, and means nothing.
    let named_twice = tbs.signature == certificate.signature_algorithm;
    let bare = no_parameters(&certificate.signature_algorithm);
    let own = tbs.issuer.as_raw() == tbs.subject.as_raw();
    named_twice
        && bare
        && own
        && algorithm(certificate).is_some_and(|algorithm| {
            let key = &tbs.subject_pki.subject_public_key.data;
            UnparsedPublicKey::new(algorithm, key)
                .verify(tbs.as_ref(), &certificate.signature_value.data)
                .is_ok()
        })
}

fn no_parameters(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    algorithm
        .parameters
        .as_ref()
        .is_none_or(|parameters| parameters.tag() == Tag::Null && parameters.data.is_empty())
}

fn algorithm(certificate: &X509Certificate<'_>) -> Option<Algorithm> {
    let key = &certificate.tbs_certificate.subject_pki.algorithm;
    let named = &certificate.signature_algorithm.algorithm;
    let is = |oid: Oid<'static>| *named == oid;
    let curve = || key.parameters.as_ref()?.as_oid().ok();
    // Of the key and of the signature, which have to fit.
    if key.algorithm == oid!(1.2.840.10045.2.1) {
        let curve = curve()?;
        let sha256 = is(oid!(1.2.840.10045.4.3.2));
        let sha384 = is(oid!(1.2.840.10045.4.3.3));
        let found: Algorithm = match (curve == P256, curve == P384) {
            (true, _) if sha256 => &ECDSA_P256_SHA256_ASN1,
            (true, _) if sha384 => &ECDSA_P256_SHA384_ASN1,
            (_, true) if sha256 => &ECDSA_P384_SHA256_ASN1,
            (_, true) if sha384 => &ECDSA_P384_SHA384_ASN1,
            _ => return None,
        };
        return Some(found);
    }
    if key.algorithm == oid!(1.2.840.113549.1.1.1) {
        let rsa: &'static signature::RsaParameters = if is(oid!(1.2.840.113549.1.1.11)) {
            &RSA_PKCS1_2048_8192_SHA256
        } else if is(oid!(1.2.840.113549.1.1.12)) {
            &RSA_PKCS1_2048_8192_SHA384
        } else if is(oid!(1.2.840.113549.1.1.13)) {
            &RSA_PKCS1_2048_8192_SHA512
        } else {
            return None;
        };
        return Some(rsa);
    }
    let ed25519 = oid!(1.3.101.112);
    (key.algorithm == ed25519 && is(ed25519)).then_some(&ED25519 as Algorithm)
}
