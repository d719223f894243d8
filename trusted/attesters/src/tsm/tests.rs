//! Both attesters against configfs-tsm in memory.

use std::time::Duration;

use super::*;
use crate::files::Access;
use crate::testing::{
    FakeSevGuest, FakeTsm, NotedPauses, Signer, TsmFault, TsmProvider, certificate_table,
};

const SNP: TsmProvider = TsmProvider::Snp { privlevel_floor: 0 };

fn fake(provider: TsmProvider) -> FakeTsm {
    let signer = match provider {
        TsmProvider::Snp { .. } => Signer::snp_report(false),
        _ => Signer::td_quote(4000),
    };
    FakeTsm::new(Some(provider), signer)
}

fn tdx(fake: &FakeTsm) -> (TdxAttester, Arc<NotedPauses>) {
    let pauses = Arc::new(NotedPauses::default());
    let attester = TdxAttester::new(Arc::new(fake.clone()), Arc::clone(&pauses) as _);
    (attester, pauses)
}

fn snp(fake: &FakeTsm) -> SnpAttester {
    let device = Arc::new(FakeSevGuest::new(1, Signer::snp_report(false)));
    SnpAttester::new(
        Arc::new(fake.clone()),
        Some(device),
        Arc::new(NotedPauses::default()),
    )
}

fn key(n: u8) -> Binder {
    Binder::certificate(&[n])
}

fn errno(error: &CollectError) -> Option<Errno> {
    match error {
        CollectError::Device { source, .. } => Errno::from_io_error(source),
        _ => None,
    }
}

#[test]
fn evidence_is_about_the_binder_and_nothing_is_left_behind() {
    let fake = fake(TsmProvider::Tdx);
    let (attester, pauses) = tdx(&fake);
    for n in 0..3 {
        let evidence = attester.collect(&key(n)).unwrap();
        let report_data = key(n).report_data();
        assert_eq!(evidence.tee, Tee::Tdx);
        assert_eq!(evidence.body, Signer::td_quote(4000).sign(&report_data));
    }
    assert!(fake.folders().is_empty());
    assert!(pauses.noted().is_empty());
}

#[test]
fn wrong_blobs_are_never_handed_on() {
    let always = [
        TsmFault::StaleBlob,
        TsmFault::EmptyBlob,
        TsmFault::Cut(100),
        TsmFault::Cut(600),
        TsmFault::Padding(70_000),
    ];
    for provider in [TsmProvider::Tdx, SNP] {
        for fault in always {
            let fake = fake(provider);
            fake.script([fault; 6]);
            let refused = match provider {
                TsmProvider::Tdx => tdx(&fake).0.collect(&key(1)),
                _ => snp(&fake).collect(&key(1)),
            };
            assert!(refused.is_err(), "{provider:?} {fault:?}");
            assert!(fake.folders().is_empty(), "{provider:?} {fault:?}");
        }
    }
}

#[test]
fn interference_is_survived_and_its_blob_is_not() {
    for fault in [
        TsmFault::OtherRequester,
        TsmFault::OtherRequesterLate,
        TsmFault::LostWrite,
        TsmFault::StaleBlob,
        TsmFault::EmptyBlob,
        TsmFault::Generate(Errno::INTR),
        TsmFault::Make(Errno::EXIST),
    ] {
        for provider in [TsmProvider::Tdx, SNP] {
            let fake = fake(provider);
            fake.script([fault; 3]);
            let evidence = match provider {
                TsmProvider::Tdx => tdx(&fake).0.collect(&key(1)),
                _ => snp(&fake).collect(&key(1)),
            };
            let body = evidence.unwrap().body;
            let report_data = key(1).report_data();
            assert!(
                quote_about(&body, true, &report_data).is_some()
                    || snp_report_about(&body, &report_data).is_some(),
                "{provider:?} {fault:?}"
            );
            assert_eq!(fake.faults_left(), 0);
            assert!(fake.folders().is_empty());
        }
    }
}

#[test]
fn a_busy_kernel_is_waited_for_and_then_not() {
    let fake = fake(TsmProvider::Tdx);
    let (attester, pauses) = tdx(&fake);
    fake.script([TsmFault::Generate(Errno::BUSY); 3]);
    attester.collect(&key(1)).unwrap();
    let ms = Duration::from_millis;
    assert_eq!(pauses.noted(), [ms(50), ms(100), ms(200)]);

    fake.script([TsmFault::Generate(Errno::BUSY); 6]);
    let error = attester.collect(&key(1)).unwrap_err();
    assert!(matches!(error, CollectError::Busy), "{error:?}");
    assert!(fake.folders().is_empty());
}

#[test]
fn errors_that_will_not_pass_are_told_at_once() {
    for error in [
        Errno::TIMEDOUT,
        Errno::IO,
        Errno::NXIO,
        Errno::FBIG,
        Errno::NOTTY,
        Errno::INVAL,
    ] {
        let fake = fake(TsmProvider::Tdx);
        let (attester, pauses) = tdx(&fake);
        fake.script([TsmFault::Generate(error)]);
        let told = attester.collect(&key(1)).unwrap_err();
        assert_eq!(errno(&told), Some(error));
        assert!(pauses.noted().is_empty());
        assert!(fake.folders().is_empty(), "{error}");
    }
    let fake = fake(TsmProvider::Tdx);
    fake.script([TsmFault::Make(Errno::ACCESS)]);
    let told = tdx(&fake).0.collect(&key(1)).unwrap_err();
    assert_eq!(errno(&told), Some(Errno::ACCESS));
}

#[test]
fn a_folder_that_never_becomes_free_is_an_error() {
    let fake = fake(TsmProvider::Tdx);
    fake.script([TsmFault::Make(Errno::EXIST); NAMES]);
    let told = tdx(&fake).0.collect(&key(1)).unwrap_err();
    assert_eq!(errno(&told), Some(Errno::EXIST));
}

#[test]
fn another_provider_is_not_taken_for_ours() {
    let amd = fake(SNP);
    assert!(matches!(
        tdx(&amd).0.collect(&key(1)),
        Err(CollectError::Unexpected { .. })
    ));
    let intel = fake(TsmProvider::Tdx);
    assert!(snp(&intel).collect(&key(1)).is_err());
    assert_eq!(provider(&intel).unwrap(), Ok(Provider::Tdx));
    assert_eq!(provider(&amd).unwrap(), Ok(Provider::Snp));
    let arm = fake(TsmProvider::Arm);
    assert_eq!(provider(&arm).unwrap(), Err("arm_cca_guest".into()));
    let none = FakeTsm::new(None, Signer::td_quote(0));
    let error = provider(&none).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NXIO));
    assert!(arm.folders().is_empty() && amd.folders().is_empty());
}

#[test]
fn short_reads_and_padding_change_nothing() {
    let fake = fake(TsmProvider::Tdx);
    let (attester, _) = tdx(&fake);
    let whole = attester.collect(&key(1)).unwrap();
    fake.limit_reads(7);
    assert_eq!(attester.collect(&key(1)).unwrap(), whole);
    fake.script([TsmFault::Padding(3000)]);
    assert_eq!(
        attester.collect(&key(1)).unwrap(),
        whole,
        "zeros are not sent"
    );
}

#[test]
fn a_guest_below_vmpl_0_says_so_and_gets_a_report() {
    let below = fake(TsmProvider::Snp { privlevel_floor: 2 });
    snp(&below).collect(&key(1)).unwrap();
    // It bites: asked for level 0, firmware refuses this guest.
    below.make_folder("by-hand").unwrap();
    write_once(&below, "by-hand/inblob", &[1; 64]).unwrap();
    let refused = read_all(&below, "by-hand/outblob", 4096).unwrap_err();
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::IO));
}

#[test]
fn certificates_come_with_the_evidence_they_are_for() {
    let fake = fake(SNP);
    let attester = snp(&fake);
    attester.collect(&key(1)).unwrap();
    assert_eq!(attester.host_endorsements(), Endorsements::None);

    fake.set_certificates(certificate_table(false, b"vcek", Some([b"ask", b"ark"])));
    attester.collect(&key(1)).unwrap();
    let given = Endorsements::Snp {
        vek: b"vcek".to_vec(),
        chain: vec![b"ask".to_vec(), b"ark".to_vec()],
    };
    assert_eq!(attester.host_endorsements(), given);

    // A table too long, and one of a key that did not sign: evidence stands, certificates go.
    for table in [
        vec![1; TABLE_MAX + 1],
        certificate_table(true, b"vlek", None),
    ] {
        fake.set_certificates(table);
        attester.collect(&key(1)).unwrap();
        assert_eq!(attester.host_endorsements(), Endorsements::None);
    }
}

#[test]
fn tdx_has_no_sealing_key_and_snp_has_with_the_device() {
    let says = |error: CollectError, why: NoSealingKey| match error {
        CollectError::Device { source, .. } => assert_eq!(source.to_string(), why.to_string()),
        other => panic!("{other:?}"),
    };
    let intel = fake(TsmProvider::Tdx);
    says(tdx(&intel).0.sealing_key().unwrap_err(), NoSealingKey::Tdx);

    let amd = fake(SNP);
    let without = SnpAttester::new(
        Arc::new(amd.clone()),
        None,
        Arc::new(NotedPauses::default()),
    );
    says(
        without.sealing_key().unwrap_err(),
        NoSealingKey::SnpWithoutDevice,
    );
    let one = snp(&amd).sealing_key().unwrap();
    assert!(one.ct_eq(&snp(&amd).sealing_key().unwrap()));
}

#[test]
fn the_fake_keeps_the_kernels_rules() {
    let fake = fake(SNP);
    let errno_of = |e: io::Error| Errno::from_io_error(&e).unwrap();
    let open = |path, access| fake.open(path, access).map(drop).map_err(errno_of);
    assert_eq!(open("x/inblob", Access::Write), Err(Errno::NOENT));
    fake.make_folder("x").unwrap();
    assert_eq!(open("x/inblob", Access::Read), Err(Errno::ACCESS));
    assert_eq!(open("x/outblob", Access::Write), Err(Errno::ACCESS));
    assert_eq!(open("x/nothing", Access::Read), Err(Errno::NOENT));

    let mut inblob = fake.open("x/inblob", Access::Write).unwrap();
    inblob.write(&[1; 40]).unwrap();
    assert_eq!(errno_of(inblob.write(&[1; 40]).unwrap_err()), Errno::FBIG);
    inblob.write(&[2; 24]).unwrap();
    let generation = || read_all(&fake, "x/generation", 9).unwrap();
    assert_eq!(generation(), b"0\n", "not applied before close");
    let early = read_all(&fake, "x/outblob", 4096).unwrap_err();
    assert_eq!(errno_of(early), Errno::INVAL, "never written");
    drop(inblob);
    assert_eq!(generation(), b"1\n");
    read_all(&fake, "x/outblob", 4096).unwrap();

    write_once(&fake, "x/inblob", &[1; 63]).unwrap();
    let short = read_all(&fake, "x/outblob", 4096).unwrap_err();
    assert_eq!(errno_of(short), Errno::INVAL, "not 64 bytes");

    // The answer is kept as long as the generation stays.
    write_once(&fake, "x/inblob", &[1; 64]).unwrap();
    fake.script([TsmFault::StaleBlob]);
    let stale = read_all(&fake, "x/outblob", 4096).unwrap();
    assert_eq!(read_all(&fake, "x/outblob", 4096).unwrap(), stale);
    write_once(&fake, "x/inblob", &[1; 64]).unwrap();
    assert_ne!(read_all(&fake, "x/outblob", 4096).unwrap(), stale);
}
