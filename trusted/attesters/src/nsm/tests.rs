//! Against the module in memory.

use attestation::binder::{ChannelBinder, Role, SpkiHash};
use attestation::measured::MeasuredConfig;
use proptest::prelude::*;
use protocol::measured::KeyserviceMeasured;
use rustix::io::Errno;

use super::*;
use crate::testing::{FakeNsm, NotedPauses, NsmFault, NsmSigner};

fn pair() -> (Arc<FakeNsm>, NitroAttester) {
    let fake = Arc::new(FakeNsm::new(NsmSigner::unsigned()));
    let attester = NitroAttester::new(Arc::clone(&fake) as _, Arc::new(NotedPauses::default()));
    (fake, attester)
}

fn channel() -> Binder {
    let config = MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s: 60 },
        &attestation::AppraisalPolicy::default(),
    )
    .unwrap();
    Binder::channel(ChannelBinder {
        role: Role::Keyservice,
        exporter: [1; 32],
        peer_nonce: [2; 32],
        own_spki: SpkiHash::of(b"own"),
        peer_spki: SpkiHash::of(b"peer"),
        config: config.hash(),
        epoch: 0,
    })
}

#[test]
fn the_document_is_about_the_binder_and_its_nonce() {
    let (_, attester) = pair();
    attester.describe().unwrap();
    for binder in [Binder::certificate(b"key"), channel()] {
        let evidence = attester.collect(&binder).unwrap();
        assert_eq!(evidence.tee, Tee::Nitro);
        let (data, nonce) = (binder.report_data(), binder.nonce());
        assert_eq!(about(&evidence.body, &data, nonce), Some(true));
        assert_eq!(about(&evidence.body, &[0; 64], nonce), Some(false));
        assert_eq!(about(&evidence.body, &data, Some(&[0; 32])), Some(false));
    }
}

#[test]
fn faults_are_errors() {
    let (_, unbothered) = pair();
    let len = unbothered.collect(&channel()).unwrap().body.len();
    for fault in [
        NsmFault::Kernel(Errno::TIMEDOUT),
        NsmFault::Kernel(Errno::IO),
        NsmFault::Module("InternalError"),
        NsmFault::Module("InputTooLarge"),
        NsmFault::Cut(0),
        NsmFault::Cut(len),
        NsmFault::Cut(20),
        NsmFault::WrongUserData,
        NsmFault::WrongNonce,
        NsmFault::Answer(b"\xa1\x6bDescribeNSM\xa0".to_vec()),
        // A document, and a byte behind it.
        NsmFault::Answer(b"\xa1\x6bAttestation\xa1\x68document\x41\x00\x00".to_vec()),
        // A length of 2^32 - 1.
        NsmFault::Answer(b"\xa1\x6bAttestation\xa1\x68document\x5a\xff\xff\xff\xff".to_vec()),
    ] {
        let (fake, attester) = pair();
        fake.script([fault.clone()]);
        assert!(attester.collect(&channel()).is_err(), "{fault:?}");
        assert_eq!(fake.faults_left(), 0, "{fault:?}");
    }
    let (fake, attester) = pair();
    fake.script([NsmFault::Kernel(Errno::INTR), NsmFault::Kernel(Errno::BUSY)]);
    attester.collect(&channel()).unwrap();
    fake.script([NsmFault::Kernel(Errno::INVAL)]);
    assert!(attester.describe().is_err());
}

#[test]
fn an_answer_that_was_cut_to_the_buffer_is_noticed() {
    let long = NsmSigner::new(|_, _| vec![0; RESPONSE_MAX]);
    let attester = NitroAttester::new(
        Arc::new(FakeNsm::new(long)),
        Arc::new(NotedPauses::default()),
    );
    let error = attester.collect(&channel()).unwrap_err();
    assert!(error.to_string().contains("cut"), "{error}");
}

#[test]
fn the_module_has_no_sealing_key() {
    let (_, attester) = pair();
    match attester.sealing_key().unwrap_err() {
        CollectError::Device { source, .. } => {
            assert_eq!(source.kind(), io::ErrorKind::Unsupported);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_what_the_module_takes() {
    let request = attestation_request(&[1; 3], None);
    let expected =
        b"\xa1\x6bAttestation\xa3\x69user_data\x43\x01\x01\x01\x65nonce\xf6\x6apublic_key\xf6";
    assert_eq!(request, expected);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        answer(&bytes);
        about(&bytes, &[0; 64], None);
        let mut document = vec![0x84, 0x40, 0xa0];
        document.extend(bytes);
        about(&document, &[0; 64], None);
    }
}
