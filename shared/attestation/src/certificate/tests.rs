//! One certificate, one kind of key, one piece of evidence, one encoding; everything else is
//! refused.

use proptest::prelude::*;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SignatureAlgorithm};

use super::*;

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn p256() -> KeyPair {
    key(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn ed25519() -> KeyPair {
    key(&rcgen::PKCS_ED25519)
}

fn spki(key: &KeyPair) -> SpkiHash {
    SpkiHash::of(&rcgen::PublicKeyData::subject_public_key_info(key))
}

fn evidence() -> Evidence {
    Evidence {
        tee: Tee::Simulated,
        body: vec![0x5e; 300],
    }
}

fn extension(oid: &[u64], value: Vec<u8>) -> CustomExtension {
    CustomExtension::from_oid_content(oid, value)
}

fn certificate(key: &KeyPair, extensions: Vec<CustomExtension>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "names do not matter");
    params.custom_extensions = extensions;
    params.self_signed(key).unwrap().der().clone()
}

fn good(key: &KeyPair) -> CertificateDer<'static> {
    let value = write_extension(&evidence(), &spki(key));
    certificate(key, vec![extension(EVIDENCE_OID, value)])
}

fn with_value(key: &KeyPair, value: Vec<u8>) -> Result<PeerCertificate, CertificateError> {
    read_peer(&[certificate(key, vec![extension(EVIDENCE_OID, value)])])
}

#[test]
fn the_two_good_certificates_are_read() {
    let key = p256();
    let read = read_peer(&[good(&key)]).unwrap();
    assert_eq!(
        read.peer,
        Peer::Instance {
            evidence: evidence(),
            spki: spki(&key)
        }
    );
    let key = ed25519();
    let read = read_peer(&[certificate(&key, vec![])]).unwrap();
    assert_eq!(read.peer, Peer::Principal(spki(&key).principal()));
    assert_eq!(
        read.spki_der,
        rcgen::PublicKeyData::subject_public_key_info(&key)
    );
}

#[test]
fn none_two_and_oversized_chains_are_refused() {
    let der = good(&p256());
    assert!(matches!(
        read_peer(&[]),
        Err(CertificateError::Count { got: 0 })
    ));
    let two = [der.clone(), der.clone()];
    assert!(matches!(
        read_peer(&two),
        Err(CertificateError::Count { got: 2 })
    ));
    let huge = CertificateDer::from(vec![0x30; CERTIFICATE_MAX + 1]);
    assert!(matches!(
        read_peer(&[huge]),
        Err(CertificateError::TooLong { .. })
    ));
    let trailing = CertificateDer::from([&der[..], &[0]].concat());
    assert!(matches!(
        read_peer(&[trailing]),
        Err(CertificateError::Malformed)
    ));
}

#[test]
fn an_enclave_has_exactly_the_evidence_extension() {
    let key = p256();
    let value = || write_extension(&evidence(), &spki(&key));
    let refused = |extensions| read_peer(&[certificate(&key, extensions)]).unwrap_err();

    assert!(matches!(
        refused(vec![]),
        CertificateError::InstanceExtensions { got: 0 }
    ));
    let twice = vec![
        extension(EVIDENCE_OID, value()),
        extension(EVIDENCE_OID, value()),
    ];
    assert!(matches!(
        refused(twice),
        CertificateError::InstanceExtensions { got: 2 }
    ));
    // Evidence and the legacy extension of Gramine: a verifier of the one ignores the other.
    let legacy = &[1, 2, 840, 113_741, 1337, 6];
    let both = vec![extension(EVIDENCE_OID, value()), extension(legacy, value())];
    assert!(matches!(
        refused(both),
        CertificateError::InstanceExtensions { got: 2 }
    ));
    let other = vec![extension(legacy, value())];
    assert!(matches!(refused(other), CertificateError::NoEvidence));
    let longer = [EVIDENCE_OID, &[1]].concat();
    assert!(matches!(
        refused(vec![extension(&longer, value())]),
        CertificateError::NoEvidence
    ));
}

#[test]
fn keys_and_extensions_decide_the_kind_and_do_not_mix() {
    let key = ed25519();
    let value = write_extension(&evidence(), &spki(&key));
    let with_evidence = certificate(&key, vec![extension(EVIDENCE_OID, value)]);
    assert!(matches!(
        read_peer(&[with_evidence]),
        Err(CertificateError::PrincipalExtensions { got: 1 })
    ));
    let key = key_p384();
    assert!(matches!(
        read_peer(&[good(&key)]),
        Err(CertificateError::KeyType)
    ));
}

fn key_p384() -> KeyPair {
    key(&rcgen::PKCS_ECDSA_P384_SHA384)
}

#[test]
fn evidence_for_another_key_is_refused() {
    let (own, other) = (p256(), p256());
    let value = write_extension(&evidence(), &spki(&other));
    assert!(matches!(
        with_value(&own, value),
        Err(CertificateError::OtherKey)
    ));
}

#[test]
fn only_one_encoding_of_the_extension_is_read() {
    let key = p256();
    let good = write_extension(&evidence(), &spki(&key));
    assert!(with_value(&key, good.clone()).is_ok());
    for cut in 0..good.len() {
        assert!(
            with_value(&key, good[..cut].to_vec()).is_err(),
            "cut at {cut}"
        );
    }
    assert!(
        with_value(&key, [&good[..], &[0]].concat()).is_err(),
        "a trailing byte"
    );

    let claims = claims_buffer(&spki(&key));
    let tagged = || Writer::new().tag(tag_of(Tee::Simulated));
    let body = evidence().body;
    let third = tagged()
        .array(3)
        .bytes(&body)
        .bytes(&claims)
        .bytes(&claims)
        .done();
    assert!(with_value(&key, third).is_err(), "three entries");
    let unknown = Writer::new()
        .tag(60003)
        .array(2)
        .bytes(&body)
        .bytes(&claims)
        .done();
    assert!(with_value(&key, unknown).is_err(), "an unknown tag");
    let empty = tagged().array(2).bytes(&[]).bytes(&claims).done();
    assert!(
        with_value(&key, empty).is_ok(),
        "empty evidence is for its verifier to refuse"
    );
    let huge = tagged()
        .array(2)
        .bytes(&vec![0; EVIDENCE_MAX + 1])
        .bytes(&claims)
        .done();
    assert!(with_value(&key, huge).is_err(), "too large");
    // The nonce claim that CCC allows: nobody here asked for one.
    let mut more = claims;
    more[0] = 0xa2;
    more.extend([0x65, b'n', b'o', b'n', b'c', b'e', 0x41, 0]);
    let more = tagged().array(2).bytes(&body).bytes(&more).done();
    assert!(matches!(
        with_value(&key, more),
        Err(CertificateError::OtherKey)
    ));

    // The same content in an indefinite array, and with a length in more bytes than it needs.
    let head = tagged().done();
    let rest = &good[head.len() + 1..];
    let indefinite = [&head[..], &[0x9f], rest, &[0xff]].concat();
    assert!(with_value(&key, indefinite).is_err());
    let long = [&head[..], &[0x98, 2], rest].concat();
    assert!(matches!(
        with_value(&key, long),
        Err(CertificateError::Evidence(CborError::NotCanonical { .. }))
    ));
}

#[test]
fn a_quote_says_itself_whether_it_is_of_sgx_or_tdx() {
    let key = p256();
    for (tee, kind) in [(Tee::Sgx, QUOTE_OF_SGX), (Tee::Tdx, QUOTE_OF_TDX)] {
        let mut body = vec![0; 100];
        body[QUOTE_TEE_TYPE].copy_from_slice(&kind);
        let evidence = Evidence { tee, body };
        let value = write_extension(&evidence, &spki(&key));
        assert_eq!(value[..3], [0xd9, 0xea, 0x60]);
        let read = with_value(&key, value).unwrap().peer;
        assert_eq!(
            read,
            Peer::Instance {
                evidence,
                spki: spki(&key)
            }
        );
    }
    let mut body = vec![0; 100];
    body[QUOTE_TEE_TYPE].copy_from_slice(&[0x82, 0, 0, 0]);
    let value = write_extension(
        &Evidence {
            tee: Tee::Sgx,
            body,
        },
        &spki(&key),
    );
    assert!(with_value(&key, value).is_err());
    let value = write_extension(
        &Evidence {
            tee: Tee::Sgx,
            body: vec![0; 7],
        },
        &spki(&key),
    );
    assert!(
        with_value(&key, value).is_err(),
        "too short to have a header"
    );
}

#[test]
fn every_kind_of_tee_has_its_own_tag() {
    let key = p256();
    for tee in Tee::ALL
        .into_iter()
        .filter(|tee| !matches!(tee, Tee::Sgx | Tee::Tdx))
    {
        let evidence = Evidence {
            tee,
            body: vec![1; 10],
        };
        let read = with_value(&key, write_extension(&evidence, &spki(&key)))
            .unwrap()
            .peer;
        assert_eq!(
            read,
            Peer::Instance {
                evidence,
                spki: spki(&key)
            }
        );
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read_peer(&[CertificateDer::from(bytes.clone())]).is_err());
        prop_assert!(read_extension(&bytes, &SpkiHash::of(b"key")).is_err());
    }

    #[test]
    fn an_altered_certificate_is_refused_or_reads_the_same_key_and_evidence(
        at in any::<prop::sample::Index>(), bit in 0_u8..8
    ) {
        let key = p256();
        let der = good(&key);
        let mut altered = der.to_vec();
        let at = at.index(altered.len());
        altered[at] ^= 1 << bit;
        // What is not the key is not bound to it: evidence may be altered, which its own
        // signature shows. An altered key is one that nobody has evidence for.
        if let Ok(read) = read_peer(&[CertificateDer::from(altered)]) {
            prop_assert_eq!(read.peer.spki(), spki(&key));
        }
    }
}
