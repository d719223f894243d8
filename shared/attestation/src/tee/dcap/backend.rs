//! dcap-qvl on AWS-LC: one cryptographic library in the trusted code instead of two.
//!
//! dcap-qvl brings ring or RustCrypto as optional features and takes another provider through its
//! [`Config`] trait. Only the primitives are replaced: its certificate parser, its encoder and all
//! of its logic stay.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::signature::DerSigEncoder;
use dcap_qvl::x509::X509CertBackend;
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};

#[derive(Debug)]
pub(super) struct AwsLc;

impl Config for AwsLc {
    type X509 = X509CertBackend;
    type SigEncoder = DerSigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for AwsLc {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &EcdsaP256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
        hash
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        let mut hash = [0; 48];
        hash.copy_from_slice(digest::digest(&digest::SHA384, data).as_ref());
        hash
    }
}

/// Every signature in Intel's chain is ECDSA with SHA-256 on P-256.
#[derive(Debug)]
struct EcdsaP256;

impl SignatureVerificationAlgorithm for EcdsaP256 {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(message, signature)
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

/// Whether `key` (an uncompressed point) signed `message`; `signature` is DER.
pub(super) fn signed_by(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    EcdsaP256.verify_signature(key, message, signature).is_ok()
}

/// The only DER of a certificate with this signed part and this signature, of the algorithm above.
///
/// The frame around both is not signed, and parsers are lenient with it.
pub(super) fn certificate(tbs: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let algorithm = alg_id::ECDSA_SHA256;
    let bits = u8::try_from(signature.len().checked_add(1)?).ok()?;
    let content = [
        tbs,
        &[0x30, u8::try_from(algorithm.len()).ok()?],
        &algorithm,
        &[0x03, bits, 0],
        signature,
    ]
    .concat();
    let len = u16::try_from(content.len()).ok()?.to_be_bytes();
    // Long form of two bytes: a certificate has more than 255.
    Some([&[0x30, 0x82][..], &len, &content].concat())
}
