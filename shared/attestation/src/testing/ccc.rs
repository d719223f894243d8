//! Certificates of the CCC's format, as another stack would make them.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P384_SHA384, PublicKeyData as _,
};

use super::dcap::{FakePlatform, FakeReport};
use crate::cbor::Writer;
use crate::certificate::{EVIDENCE_OID, INTEL_QUOTE_TAG};

/// A certificate of a new key, in DER, with a quote of `platform` about that key. It has no nonce.
#[must_use]
pub fn foreign_certificate(platform: &FakePlatform, report: &FakeReport) -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let spki = digest(&SHA256, &key.subject_public_key_info());
    let hash = Writer::new().array(2).uint(1).bytes(spki.as_ref()).done();
    let claims = Writer::new().map(1).text("pubkey-hash").bytes(&hash).done();
    let mut report_data = [0; 64];
    report_data[..32].copy_from_slice(digest(&SHA256, &claims).as_ref());
    let quote = platform.quote(report, &report_data);
    let value = Writer::new().tag(INTEL_QUOTE_TAG).array(2);
    let value = value.bytes(&quote).bytes(&claims).done();
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![CustomExtension::from_oid_content(EVIDENCE_OID, value)];
    params.self_signed(&key).unwrap().der().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tee::ccc::ForeignCertificate;
    use crate::testing::dcap::{FakeIntel, FakePck};

    #[test]
    fn the_verifier_reads_it() {
        let platform = FakeIntel::new().platform(&FakePck::default());
        for report in [FakeReport::sgx(0x11), FakeReport::td(0x22)] {
            let certificate = foreign_certificate(&platform, &report);
            let read = ForeignCertificate::parse(&certificate).unwrap();
            assert_eq!(read.evidence.tee, report.tee());
        }
    }
}
