//! Against Occlum's device in memory.

use rustix::io::Errno;

use super::*;
use crate::testing::{FakeOcclum, NotedPauses, OcclumFault, Signer};

fn pair() -> (Arc<FakeOcclum>, OcclumAttester) {
    let fake = Arc::new(FakeOcclum::new(Signer::sgx_quote(3000)));
    let attester = OcclumAttester::new(Arc::clone(&fake) as _, Arc::new(NotedPauses::default()));
    (fake, attester)
}

fn key() -> Binder {
    Binder::certificate(b"key")
}

#[test]
fn the_quote_is_about_the_binder() {
    let (_, attester) = pair();
    let evidence = attester.collect(&key()).unwrap();
    assert_eq!(evidence.tee, Tee::Sgx);
    assert_eq!(
        evidence.body,
        Signer::sgx_quote(3000).sign(&key().report_data())
    );
}

#[test]
fn faults_are_errors() {
    for fault in [
        OcclumFault::Size(Err(Errno::IO)),
        OcclumFault::Size(Ok(0)),
        OcclumFault::Size(Ok(u32::MAX)),
        // Too small for the quote that is then made.
        OcclumFault::Size(Ok(400)),
        OcclumFault::Quote(Errno::IO),
        OcclumFault::WrongReportData,
    ] {
        let (fake, attester) = pair();
        fake.script([fault]);
        assert!(attester.collect(&key()).is_err(), "{fault:?}");
        assert_eq!(fake.faults_left(), 0, "{fault:?}");
    }
    let (fake, attester) = pair();
    fake.script([
        OcclumFault::Quote(Errno::INTR),
        OcclumFault::Quote(Errno::BUSY),
    ]);
    attester.collect(&key()).unwrap();
    // A quote may be shorter than the size that was told.
    fake.script([OcclumFault::Size(Ok(5000))]);
    attester.collect(&key()).unwrap();
}

#[test]
fn the_sealing_key_is_of_mrenclave_at_the_present_versions() {
    let (fake, attester) = pair();
    let before = attester.sealing_key().unwrap();
    assert!(before.ct_eq(&attester.sealing_key().unwrap()));
    fake.set_cpu_svn(4);
    assert!(!before.ct_eq(&attester.sealing_key().unwrap()));

    let mut report = [0; REPORT];
    report[..16].fill(9);
    report[258..260].copy_from_slice(&[5, 0]);
    let request = seal_request(&report).unwrap();
    assert_eq!(request[..8], [4, 0, 1, 0, 5, 0, 0, 0]);
    assert_eq!(request[8..24], [9; 16]);
    assert_eq!(request[24..32], 0xff00_0000_0000_000b_u64.to_le_bytes());
    assert_eq!(request[72..76], 0xf000_0000_u32.to_le_bytes());
    assert!(request[76..].iter().all(|byte| *byte == 0));
}
