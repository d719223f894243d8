//! Against the device in memory.

use super::*;
use crate::testing::{FakeSevGuest, NotedPauses, SevGuestFault, Signer, certificate_table};

fn pair() -> (Arc<FakeSevGuest>, SevGuestAttester) {
    let fake = Arc::new(FakeSevGuest::new(1, Signer::snp_report(false)));
    let attester = SevGuestAttester::new(Arc::clone(&fake) as _, Arc::new(NotedPauses::default()));
    (fake, attester)
}

fn key() -> Binder {
    Binder::certificate(b"key")
}

#[test]
fn the_report_is_about_the_binder() {
    let (_, attester) = pair();
    let evidence = attester.collect(&key()).unwrap();
    assert_eq!(evidence.tee, Tee::Snp);
    assert_eq!(
        evidence.body,
        Signer::snp_report(false).sign(&key().report_data())
    );
    assert_eq!(attester.host_endorsements(), Endorsements::None);
}

#[test]
fn certificates_of_any_allowed_length_are_taken() {
    let (fake, attester) = pair();
    for len in [100, 5000, 7000] {
        let (vek, ca) = (vec![1; len], vec![2; len]);
        fake.set_certificates(certificate_table(false, &vek, Some([&ca, &ca])));
        attester.collect(&key()).unwrap();
        let chain = vec![ca.clone(), ca];
        assert_eq!(
            attester.host_endorsements(),
            Endorsements::Snp { vek, chain },
            "{len}"
        );
    }
}

#[test]
fn a_host_that_wants_too_much_room_loses_only_its_certificates() {
    for needed in [128 * 1024 + 1, u32::MAX] {
        let (fake, attester) = pair();
        fake.script([SevGuestFault::CertificatesNeed(needed)]);
        attester.collect(&key()).unwrap();
        assert_eq!(attester.host_endorsements(), Endorsements::None);
        assert_eq!(fake.faults_left(), 0);
    }
    // One that wants ever more is not followed for ever.
    let (fake, attester) = pair();
    fake.script([
        SevGuestFault::CertificatesNeed(20_000),
        SevGuestFault::CertificatesNeed(100_000),
    ]);
    assert!(attester.collect(&key()).is_err());
}

#[test]
fn faults_are_errors_and_a_busy_host_is_asked_again() {
    for fault in [
        SevGuestFault::Refuse(Errno::NOTTY, 0),
        SevGuestFault::Refuse(Errno::IO, 0x16),
        SevGuestFault::Status(0x16),
        SevGuestFault::WrongReportData,
    ] {
        let (fake, attester) = pair();
        fake.script([fault]);
        assert!(attester.collect(&key()).is_err(), "{fault:?}");
        assert_eq!(fake.faults_left(), 0);
    }
    let (fake, attester) = pair();
    fake.script([
        SevGuestFault::Refuse(Errno::IO, 2 << 32),
        SevGuestFault::Refuse(Errno::INTR, 0),
        SevGuestFault::Refuse(Errno::BUSY, 0),
    ]);
    attester.collect(&key()).unwrap();
    fake.script([SevGuestFault::Refuse(Errno::IO, 2 << 32); 6]);
    assert!(matches!(attester.collect(&key()), Err(CollectError::Busy)));
}

#[test]
fn the_sealing_key_is_the_chips_and_the_codes() {
    let (fake, attester) = pair();
    let one = attester.sealing_key().unwrap();
    assert!(one.ct_eq(&attester.sealing_key().unwrap()));
    let elsewhere = FakeSevGuest::new(2, Signer::snp_report(false));
    assert!(!one.ct_eq(&sealing::snp(&elsewhere).unwrap()));
    fake.script([SevGuestFault::Refuse(Errno::INTR, 0)]);
    assert!(one.ct_eq(&attester.sealing_key().unwrap()));
    fake.script([SevGuestFault::Refuse(Errno::IO, 0x16)]);
    assert!(attester.sealing_key().is_err());
    let request = DerivedKeyRequest::sealing();
    assert_eq!(request.guest_field_select, 0b1001, "policy and measurement");
}
