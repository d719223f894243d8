//! Certificates of others: one spelling, one evidence, one key.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateParams, CustomExtension, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
};

use super::*;
use crate::evidence::{Tee, VerifierSet};
use crate::measured::MeasuredConfig;
use crate::policy::{Allowed, AppraisalPolicy};
use crate::ratls::RatlsIdentity;
use crate::testing::dcap::{FakeIntel, FakePck, FakePlatform, FakeReport, FakeSgx, pem};
use protocol::measured::KeyserviceMeasured;

const NOW: u64 = 1_800_000_000;

struct Maker {
    intel: FakeIntel,
    platform: FakePlatform,
    report: FakeReport,
    key: KeyPair,
}

fn maker(report: FakeReport, algorithm: &'static SignatureAlgorithm) -> Maker {
    let intel = FakeIntel::new();
    let platform = intel.platform(&FakePck::default());
    let key = KeyPair::generate_for(algorithm).unwrap();
    Maker {
        intel,
        platform,
        report,
        key,
    }
}

fn sgx() -> Maker {
    maker(FakeReport::sgx(0x11), &PKCS_ECDSA_P384_SHA384)
}

fn padded(hash: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..hash.len()].copy_from_slice(hash);
    data
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&SHA256, bytes).as_ref().to_vec()
}

fn hash_entry(id: u64, hash: &[u8]) -> Vec<u8> {
    Writer::new().array(2).uint(id).bytes(hash).done()
}

fn map(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let writer = Writer::new().map(entries.len());
    let write = |writer: Writer, (name, value): &(&str, &[u8])| writer.text(name).bytes(value);
    entries.iter().fold(writer, write).done()
}

impl Maker {
    fn spki(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    fn claims(&self) -> Vec<u8> {
        map(&[(PUBKEY_HASH, &hash_entry(1, &sha256(&self.spki())))])
    }

    fn quote(&self, claims: &[u8]) -> Vec<u8> {
        self.platform.quote(&self.report, &padded(&sha256(claims)))
    }

    fn value(&self, claims: &[u8]) -> Vec<u8> {
        let writer = Writer::new().tag(INTEL_QUOTE_TAG).array(2);
        writer.bytes(&self.quote(claims)).bytes(claims).done()
    }

    fn certificate(&self, extensions: &[(&[u64], &[u8])]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "RATLS");
        let custom =
            |(oid, value): &(&[u64], &[u8])| CustomExtension::from_oid_content(oid, value.to_vec());
        params.custom_extensions = extensions.iter().map(custom).collect();
        params.self_signed(&self.key).unwrap().der().to_vec()
    }

    fn with_value(&self, value: &[u8]) -> Result<ForeignCertificate, ForeignError> {
        ForeignCertificate::parse(&self.certificate(&[(EVIDENCE_OID, value)]))
    }

    fn with_claims(&self, claims: &[u8]) -> Result<ForeignCertificate, ForeignError> {
        self.with_value(&self.value(claims))
    }

    fn examine(&self, certificate: &[u8], expected: &Expected) -> Examination {
        let tees = vec![Tee::Sgx, Tee::Tdx];
        let verifiers = tees
            .iter()
            .map(|tee| Arc::new(self.intel.verifier(*tee)) as _);
        let relying = RelyingParty {
            verifiers: VerifierSet::new(verifiers.collect()),
            policy: AppraisalPolicy::strict(tees, Allowed::Any),
        };
        let endorsements = self.intel.endorsements(self.report.tee(), NOW);
        let now = Duration::from_secs(NOW);
        examine_certificate(&relying, certificate, &endorsements, expected, now)
    }
}

fn status(examination: &Examination, name: CheckName) -> Status {
    examination.card.check(name).unwrap().status
}

#[test]
fn certificates_of_every_kind_of_key_and_tee_are_accepted() {
    for algorithm in [
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ED25519,
    ] {
        for report in [FakeReport::sgx(0x11), FakeReport::td(0x22)] {
            let maker = maker(report, algorithm);
            let claims = maker.claims();
            let der = maker.certificate(&[(EVIDENCE_OID, &maker.value(&claims))]);
            let read = ForeignCertificate::parse(&der).unwrap();
            assert_eq!(read.spki, maker.spki());
            assert_eq!(read.evidence.tee, maker.report.tee());
            assert_eq!(read.nonce, None);
            assert_eq!(ForeignCertificate::parse(pem(&der).as_bytes()), Ok(read));

            let examination = maker.examine(&der, &Expected::default());
            assert!(examination.accepted(), "{}", examination.card);
            assert_eq!(status(&examination, CheckName::KeyHash), Status::Pass);
            // And says what it is not.
            let fresh = examination.card.check(CheckName::Freshness).unwrap();
            assert_eq!(fresh.status, Status::Unchecked);
            assert!(fresh.got.contains("not fresh"));
        }
    }
}

#[test]
fn all_three_hashes_and_both_orders_are_read() {
    let maker = sgx();
    let spki = maker.spki();
    let hash = |algorithm| digest::digest(algorithm, &spki).as_ref().to_vec();
    for (id, hash) in [(1, hash(&SHA256)), (7, hash(&SHA384)), (8, hash(&SHA512))] {
        let entry = hash_entry(id, &hash);
        let read = maker.with_claims(&map(&[(PUBKEY_HASH, &entry)])).unwrap();
        assert_eq!(read.nonce, None);
        for claims in [
            map(&[(PUBKEY_HASH, &entry), (NONCE, b"n")]),
            map(&[(NONCE, b"n"), (PUBKEY_HASH, &entry)]),
        ] {
            let read = maker.with_claims(&claims).unwrap();
            assert_eq!(read.nonce.as_deref(), Some(&b"n"[..]));
        }
    }
}

#[test]
fn claims_with_more_than_one_reading_are_refused() {
    let maker = sgx();
    let good = maker.claims();
    let entry = hash_entry(1, &sha256(&maker.spki()));
    let cut = sha256(&maker.spki())[..16].to_vec();
    let long_head = {
        let mut claims = good.clone();
        // The map's head in two bytes.
        claims.splice(0..1, [0xb8, 1]);
        claims
    };
    let indefinite = [&[0xbf][..], &good[1..], &[0xff]].concat();
    let long_entry = [&[0x98, 2][..], &entry[1..]].concat();
    for (claims, check) in [
        (Vec::new(), CheckName::EvidenceFormat),
        (map(&[]), CheckName::EvidenceFormat),
        (map(&[(NONCE, b"n")]), CheckName::EvidenceFormat),
        (
            map(&[(PUBKEY_HASH, &entry), (PUBKEY_HASH, &entry)]),
            CheckName::EvidenceFormat,
        ),
        (
            map(&[(PUBKEY_HASH, &entry), ("key_0", b"x")]),
            CheckName::EvidenceFormat,
        ),
        (
            map(&[(PUBKEY_HASH, &entry), (NONCE, b"n"), ("key_0", b"x")]),
            CheckName::EvidenceFormat,
        ),
        (
            map(&[(PUBKEY_HASH, &long_entry)]),
            CheckName::EvidenceFormat,
        ),
        (
            map(&[(PUBKEY_HASH, &entry), (NONCE, &[0; 513])]),
            CheckName::EvidenceFormat,
        ),
        (long_head, CheckName::EvidenceFormat),
        (indefinite, CheckName::EvidenceFormat),
        ([&good[..], &[0]].concat(), CheckName::EvidenceFormat),
        (
            map(&[(PUBKEY_HASH, &hash_entry(1, &cut))]),
            CheckName::KeyHash,
        ),
        // SHA-256 truncated to 128 bits, and nothing at all.
        (
            map(&[(PUBKEY_HASH, &hash_entry(2, &cut))]),
            CheckName::KeyHash,
        ),
        (
            map(&[(PUBKEY_HASH, &hash_entry(0, &[]))]),
            CheckName::KeyHash,
        ),
        (
            map(&[(PUBKEY_HASH, &hash_entry(7, &sha256(&maker.spki())))]),
            CheckName::KeyHash,
        ),
        (
            map(&[(PUBKEY_HASH, &hash_entry(1, &[1; 32]))]),
            CheckName::KeyHash,
        ),
    ] {
        let refused = maker.with_claims(&claims).map_err(|error| error.check());
        assert_eq!(refused, Err(check), "{claims:02x?}");
    }
}

#[test]
fn the_quote_is_about_the_claims_and_nothing_else() {
    let maker = sgx();
    let claims = maker.claims();
    let hash = sha256(&claims);
    let mut tail = padded(&hash);
    tail[63] = 1;
    for report_data in [tail, padded(&sha256(&maker.spki())), [0; 64]] {
        let quote = maker.platform.quote(&maker.report, &report_data);
        let writer = Writer::new().tag(INTEL_QUOTE_TAG).array(2);
        let value = writer.bytes(&quote).bytes(&claims).done();
        assert_eq!(maker.with_value(&value), Err(ForeignError::OtherClaims));
        let der = maker.certificate(&[(EVIDENCE_OID, &value)]);
        let examination = maker.examine(&der, &Expected::default());
        assert!(!examination.accepted());
        assert_eq!(status(&examination, CheckName::KeyHash), Status::Fail);
        assert!(
            examination.said.is_some(),
            "the measurement is shown all the same"
        );
    }
    // Somebody else's evidence in a certificate of one's own.
    let thief = sgx();
    let stolen = thief.with_value(&maker.value(&claims));
    assert_eq!(stolen, Err(ForeignError::OtherKey));
}

#[test]
fn the_extension_is_one_and_of_one_spelling() {
    let maker = sgx();
    let claims = maker.claims();
    let good = maker.value(&claims);
    let other = maker.value(&claims);
    let twice = maker.certificate(&[(EVIDENCE_OID, &good), (EVIDENCE_OID, &other)]);
    assert_eq!(
        ForeignCertificate::parse(&twice),
        Err(ForeignError::Duplicate)
    );
    let none = maker.certificate(&[]);
    assert_eq!(
        ForeignCertificate::parse(&none),
        Err(ForeignError::NoEvidence)
    );
    let quote = maker.quote(&claims);
    let with = |tag: u64, len| {
        Writer::new()
            .tag(tag)
            .array(len)
            .bytes(&quote)
            .bytes(&claims)
    };
    for tag in [60001, 60002, 0x7365_5301] {
        let refused = maker.with_value(&with(tag, 2).done());
        assert_eq!(refused, Err(ForeignError::Tag { got: tag }));
    }
    let long_tag = [&[0xda, 0, 0][..], &good[1..]].concat();
    let indefinite = [&good[..3], &[0x9f], &good[4..], &[0xff]].concat();
    for value in [
        Vec::new(),
        quote.clone(),
        with(INTEL_QUOTE_TAG, 3).bytes(b"").done(),
        long_tag,
        indefinite,
        [&good[..], &[0]].concat(),
        good[..good.len() - 1].to_vec(),
    ] {
        let refused = maker.with_value(&value).map_err(|error| error.check());
        assert_eq!(refused, Err(CheckName::EvidenceFormat));
    }
    let mut neither = quote;
    neither[4] = 0x80;
    let writer = Writer::new().tag(INTEL_QUOTE_TAG).array(2);
    let neither = writer.bytes(&neither).bytes(&claims).done();
    assert_eq!(maker.with_value(&neither), Err(ForeignError::Quote));
}

#[test]
fn older_extensions_say_the_same_or_spoil_the_certificate() {
    let maker = sgx();
    let claims = maker.claims();
    let value = maker.value(&claims);
    let of_key = padded(&sha256(&maker.spki()));
    let gramine = maker.platform.quote(&maker.report, &of_key);
    let sdk = maker.quote(&claims);
    let with = |legacy: &[u64], bare: &[u8]| {
        ForeignCertificate::parse(&maker.certificate(&[(legacy, bare), (EVIDENCE_OID, &value)]))
    };
    let debug = FakeReport::Sgx(FakeSgx {
        attributes: 0b111,
        ..FakeSgx::new(0x11)
    });
    for legacy in LEGACY {
        assert!(with(legacy, &gramine).is_ok());
        assert!(with(legacy, &sdk).is_ok());
        for bare in [
            maker.platform.quote(&FakeReport::sgx(0x12), &of_key),
            maker.platform.quote(&debug, &of_key),
            maker.platform.quote(&maker.report, &[1; 64]),
            b"not a quote".to_vec(),
        ] {
            assert_eq!(with(legacy, &bare), Err(ForeignError::Legacy));
        }
        // Alone it is nothing.
        let alone = maker.certificate(&[(legacy, &gramine)]);
        assert_eq!(
            ForeignCertificate::parse(&alone),
            Err(ForeignError::NoEvidence)
        );
    }
}

#[test]
fn certificates_are_signed_by_their_own_key() {
    let maker = sgx();
    let value = maker.value(&maker.claims());
    let der = maker.certificate(&[(EVIDENCE_OID, &value)]);
    assert!(ForeignCertificate::parse(&der).is_ok());
    let mut forged = der;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(
        ForeignCertificate::parse(&forged),
        Err(ForeignError::Signature)
    );
    let examination = maker.examine(&forged, &Expected::default());
    let failed = examination
        .card
        .first_failure()
        .map(|failed| failed.check());
    assert_eq!(failed, Some(CheckName::CertificateSignature));

    // Issued by somebody else, for the same key.
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![CustomExtension::from_oid_content(EVIDENCE_OID, value)];
    let other = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "CA");
    let issuer = rcgen::Issuer::from_params(&ca, &other);
    let issued = params.signed_by(&maker.key, &issuer).unwrap();
    assert_eq!(
        ForeignCertificate::parse(issued.der()),
        Err(ForeignError::Signature)
    );
}

/// mbedTLS (Gramine) writes NULL where ECDSA's algorithm identifier has no parameters. Other
/// parameters are refused.
#[test]
fn the_spelling_of_mbedtls_is_read() {
    let maker = maker(FakeReport::sgx(0x11), &PKCS_ECDSA_P256_SHA256);
    let value = maker.value(&maker.claims());
    let der = maker.certificate(&[(EVIDENCE_OID, &value)]);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let bare = [0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let sha384 = [0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
    let body = &certificate.tbs_certificate.as_ref()[4..];
    let at = body.windows(12).position(|window| window == bare).unwrap();
    let sequence = |content: &[u8]| {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82][..], &len, content].concat()
    };
    let make = |inner: &[u8], outer: &[u8]| {
        let tbs = sequence(&[&body[..at], inner, &body[at + 12..]].concat());
        let signature = rcgen::SigningKey::sign(&maker.key, &tbs).unwrap();
        let bits = u8::try_from(signature.len() + 1).unwrap();
        let bits = [&[3, bits, 0], &signature[..]].concat();
        ForeignCertificate::parse(&sequence(&[&tbs[..], outer, &bits].concat()))
    };
    let null = [&[0x30, 0x0c][..], &bare[2..], &[5, 0]].concat();
    let number = [&[0x30, 0x0d][..], &bare[2..], &[2, 1, 0]].concat();
    assert!(make(&bare, &bare).is_ok());
    assert!(make(&null, &null).is_ok());
    assert_eq!(make(&null, &bare), Err(ForeignError::Signature));
    assert_eq!(make(&number, &number), Err(ForeignError::Signature));
    assert_eq!(make(&sha384, &sha384), Err(ForeignError::Signature));
}

#[test]
fn a_nonce_is_compared_if_one_is_expected() {
    let maker = sgx();
    let entry = hash_entry(1, &sha256(&maker.spki()));
    let claims = map(&[(PUBKEY_HASH, &entry), (NONCE, b"mine")]);
    let with_nonce = maker.certificate(&[(EVIDENCE_OID, &maker.value(&claims))]);
    let without = maker.certificate(&[(EVIDENCE_OID, &maker.value(&maker.claims()))]);
    let expected = Expected {
        nonce: Some(b"mine".to_vec()),
        ..Expected::default()
    };
    assert!(maker.examine(&with_nonce, &expected).accepted());
    let refused = maker.examine(&without, &expected);
    assert_eq!(status(&refused, CheckName::Nonce), Status::Fail);
    assert!(!refused.accepted());
    let unasked = maker.examine(&with_nonce, &Expected::default());
    assert_eq!(status(&unasked, CheckName::Nonce), Status::Unchecked);
}

#[test]
fn debug_and_missing_endorsements_are_refused_by_name() {
    let debug = FakeReport::Sgx(FakeSgx {
        attributes: 0b111,
        ..FakeSgx::new(0x11)
    });
    let maker = maker(debug, &PKCS_ECDSA_P384_SHA384);
    let der = maker.certificate(&[(EVIDENCE_OID, &maker.value(&maker.claims()))]);
    let examination = maker.examine(&der, &Expected::default());
    let failed = examination
        .card
        .first_failure()
        .map(|failed| failed.check());
    assert_eq!(failed, Some(CheckName::NotDebug));
    assert_eq!(status(&examination, CheckName::KeyHash), Status::Pass);

    let relying = RelyingParty {
        verifiers: VerifierSet::new(vec![Arc::new(maker.intel.verifier(Tee::Sgx))]),
        policy: AppraisalPolicy::strict(vec![Tee::Sgx], Allowed::Any),
    };
    let now = Duration::from_secs(NOW);
    let none = Expected::default();
    let examination = examine_certificate(&relying, &der, &Endorsements::None, &none, now);
    assert_eq!(
        status(&examination, CheckName::EndorsementsPresent),
        Status::Fail
    );
    assert!(examination.said.is_some());
}

#[test]
fn what_is_not_a_certificate_is_refused() {
    let maker = sgx();
    let value = maker.value(&maker.claims());
    let der = maker.certificate(&[(EVIDENCE_OID, &value)]);
    for bytes in [
        Vec::new(),
        b"-----BEGIN CERTIFICATE-----".to_vec(),
        (pem(&der) + &pem(&der)).into_bytes(),
        [&der[..], &[0]].concat(),
        der[..der.len() - 1].to_vec(),
        vec![0x30; CERTIFICATE_MAX * 2 + 1],
        vec![0x30; CERTIFICATE_MAX + 1],
    ] {
        let refused = ForeignCertificate::parse(&bytes).map_err(|error| error.check());
        assert_eq!(refused, Err(CheckName::EvidenceFormat));
        let examination = maker.examine(&bytes, &Expected::default());
        assert!(!examination.accepted() && examination.said.is_none());
    }
    // No changed byte of a certificate is accepted.
    let accepted: Vec<_> = (0..der.len())
        .filter(|at| {
            let mut changed = der.clone();
            changed[*at] ^= 1 << (at % 8);
            ForeignCertificate::parse(&changed).is_ok()
        })
        .collect();
    assert!(accepted.len() <= 8, "{accepted:?}");
}

#[test]
fn our_own_certificates_are_of_this_format() {
    let config = {
        let policy = AppraisalPolicy::strict(vec![Tee::Sgx], Allowed::Any);
        MeasuredConfig::keyservice(&KeyserviceMeasured { lease_ttl_s: 60 }, &policy).unwrap()
    };
    for report in [FakeReport::sgx(0x11), FakeReport::td(0x22)] {
        let tee = report.tee();
        let intel = FakeIntel::new();
        let identity =
            RatlsIdentity::generate(intel.attester(report, NOW), config.clone()).unwrap();
        let der = identity.certificate();
        assert!(ForeignCertificate::parse(der).is_ok());
        let relying = RelyingParty {
            verifiers: VerifierSet::new(vec![Arc::new(intel.verifier(tee))]),
            policy: AppraisalPolicy::strict(vec![tee], Allowed::Any),
        };
        let endorsements = intel.endorsements(tee, NOW);
        let now = Duration::from_secs(NOW);
        let none = Expected::default();
        let examination = examine_certificate(&relying, der, &endorsements, &none, now);
        assert!(examination.accepted(), "{}", examination.card);
    }
}
