//! Against Gramine's interface in memory.

use std::thread;

use rustix::io::Errno;

use super::*;
use crate::files::Access;
use crate::testing::{FakeGramine, GramineFault, NotedPauses, Signer};

fn fake() -> FakeGramine {
    FakeGramine::new("dcap", Signer::sgx_quote(3000))
}

fn attester(fake: &FakeGramine) -> GramineAttester {
    GramineAttester::new(Arc::new(fake.clone()), Arc::new(NotedPauses::default()))
}

fn key(n: u8) -> Binder {
    Binder::certificate(&[n])
}

#[test]
fn the_quote_is_about_the_binder() {
    let fake = fake();
    let evidence = attester(&fake).collect(&key(1)).unwrap();
    let report_data = key(1).report_data();
    assert_eq!(evidence.tee, Tee::Sgx);
    assert_eq!(evidence.body, Signer::sgx_quote(3000).sign(&report_data));
    fake.limit_reads(5);
    assert_eq!(attester(&fake).collect(&key(1)).unwrap(), evidence);
}

#[test]
fn attesters_on_many_threads_share_one_state_and_get_their_own_quotes() {
    let fake = fake();
    thread::scope(|scope| {
        for n in 0..8 {
            let attester = attester(&fake);
            scope.spawn(move || {
                for _ in 0..50 {
                    let evidence = attester.collect(&key(n)).unwrap();
                    let report_data = key(n).report_data();
                    assert!(quote_about(&evidence.body, false, &report_data).is_some());
                }
            });
        }
    });
    assert_eq!(fake.quotes(), 8 * 50, "nobody had to try twice");
}

#[test]
fn a_quote_of_code_that_knows_no_lock_is_not_handed_on() {
    let fake = fake();
    fake.script([GramineFault::OtherThread; 3]);
    let evidence = attester(&fake).collect(&key(1)).unwrap();
    assert!(quote_about(&evidence.body, false, &key(1).report_data()).is_some());
    assert_eq!(fake.faults_left(), 0);
    fake.script([GramineFault::OtherThread; 6]);
    let error = attester(&fake).collect(&key(1)).unwrap_err();
    assert!(matches!(error, CollectError::Unexpected { .. }), "{error}");
}

#[test]
fn faults_are_errors() {
    let cases = [
        (GramineFault::Open(Errno::ACCESS), Errno::ACCESS),
        (GramineFault::Longer, Errno::FBIG),
    ];
    for (fault, expected) in cases {
        let fake = fake();
        fake.script([fault]);
        match attester(&fake).collect(&key(1)).unwrap_err() {
            CollectError::Device { source, .. } => {
                assert_eq!(Errno::from_io_error(&source), Some(expected));
            }
            other => panic!("{other:?}"),
        }
    }
    let interrupted = fake();
    interrupted.script([GramineFault::Interrupt; 5]);
    attester(&interrupted).collect(&key(1)).unwrap();
    let without = FakeGramine::new("none", Signer::sgx_quote(0));
    assert!(attester(&without).collect(&key(1)).is_err());
}

#[test]
fn the_sealing_key_comes_from_mrenclave() {
    let fake = fake();
    let sealing = || attester(&fake).sealing_key();
    let first = sealing().unwrap();
    assert!(first.ct_eq(&sealing().unwrap()));
    fake.set_mrenclave_key(&[1; 16]);
    assert!(!first.ct_eq(&sealing().unwrap()), "another enclave");
    for not in [&[][..], &[1; 15], &[1; 17], &[0; 16]] {
        fake.set_mrenclave_key(not);
        assert!(sealing().is_err(), "{} bytes", not.len());
    }
}

#[test]
fn the_fake_cuts_and_pads_silently() {
    let fake = fake();
    let write = |bytes: &[u8]| {
        let mut file = fake.open("user_report_data", Access::Write).unwrap();
        file.write(bytes).unwrap()
    };
    assert_eq!(write(&[7; 100]), 100, "success, and 36 bytes are gone");
    assert_eq!(fake.report_data(), [7; 64]);
    assert_eq!(write(&[9; 2]), 2);
    assert_eq!(fake.report_data()[..3], [9, 9, 0]);

    // Made when opened: a later write changes the next quote only.
    let mut open = fake.open("quote", Access::Read).unwrap();
    write(&[1; 64]);
    let mut quote = vec![0; 8192];
    let len = open.read(&mut quote).unwrap();
    let mut padded = [0; 64];
    padded[..2].fill(9);
    assert!(quote_about(&quote[..len], false, &padded).is_some());
}
