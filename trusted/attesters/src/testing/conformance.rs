//! Every attester passes the suite of `attestation`, with evidence that test vendors signed, over
//! an interface that disturbs it now and then.

use std::sync::Arc;
use std::time::Duration;

use attestation::facts::{SnpProduct, SnpSigningKey};
use attestation::testing::dcap::{FakeIntel, FakePck, FakeReport};
use attestation::testing::nitro::{FakeNitro, NITRO_NOW};
use attestation::testing::snp::{FakeAmd, FakeChip};
use attestation::testing::{Pair, attester_suite};
use attestation::{Attester, Binder, CollectError, Endorsements, Evidence, Tee, Verifier};
use crypto::secret::SealingKey;

use super::{
    FakeGramine, FakeNsm, FakeOcclum, FakeSevGuest, FakeTsm, GramineFault, NotedPauses, NsmFault,
    NsmSigner, OcclumFault, SevGuestFault, Signer, TsmFault, TsmProvider,
};
use crate::gramine::GramineAttester;
use crate::nsm::NitroAttester;
use crate::occlum::OcclumAttester;
use crate::retry::Pause;
use crate::sev_guest::SevGuestAttester;
use crate::tsm::{SnpAttester, TdxAttester};
use rustix::io::Errno;

const NOW: u64 = 1_800_000_000;

/// With the endorsements that a provider would find.
#[derive(Debug)]
struct Endorsed {
    attester: Arc<dyn Attester>,
    endorsements: Endorsements,
}

impl Attester for Endorsed {
    fn tee(&self) -> Tee {
        self.attester.tee()
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        self.attester.collect(binder)
    }

    fn endorsements(&self, _: &Evidence) -> Result<Endorsements, CollectError> {
        Ok(self.endorsements.clone())
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        self.attester.sealing_key()
    }
}

pub(crate) fn conforms(
    attester: impl Attester + 'static,
    verifier: impl Verifier + 'static,
    endorsements: Endorsements,
    now: Duration,
) {
    let attester = Arc::new(attester);
    attester_suite(&Pair {
        attester: Arc::new(Endorsed {
            attester,
            endorsements: endorsements.clone(),
        }),
        verifier: Arc::new(verifier),
        endorsements,
        now,
    });
}

fn pauses() -> Arc<dyn Pause> {
    Arc::new(NotedPauses::default())
}

pub(super) fn intel_signer(intel: &FakeIntel, report: FakeReport) -> Signer {
    let platform = intel.platform(&FakePck::default());
    Signer::new(move |report_data| platform.quote(&report, report_data))
}

fn amd_signer(chip: FakeChip) -> Signer {
    Signer::new(move |report_data| {
        let mut report = chip.report();
        report.report_data = *report_data;
        chip.sign(report.to_bytes())
    })
}

fn chip() -> FakeChip {
    FakeChip::new(SnpProduct::Genoa, SnpSigningKey::Vcek)
}

#[test]
fn tdx_through_configfs() {
    let intel = FakeIntel::new();
    let signer = intel_signer(&intel, FakeReport::td(1));
    let fake = FakeTsm::new(Some(TsmProvider::Tdx), signer);
    fake.limit_reads(1000);
    fake.script([
        TsmFault::Padding(100),
        TsmFault::OtherRequester,
        TsmFault::Generate(Errno::BUSY),
        TsmFault::LostWrite,
        TsmFault::StaleBlob,
    ]);
    conforms(
        TdxAttester::new(Arc::new(fake.clone()), pauses()),
        intel.verifier(Tee::Tdx),
        intel.endorsements(Tee::Tdx, NOW),
        Duration::from_secs(NOW),
    );
    assert_eq!(fake.faults_left(), 0);
    assert!(fake.folders().is_empty());
}

#[test]
fn snp_through_configfs() {
    let (amd, chip) = (FakeAmd::new(), chip());
    let endorsements = amd.endorsements(&chip);
    let provider = TsmProvider::Snp { privlevel_floor: 0 };
    let fake = FakeTsm::new(Some(provider), amd_signer(chip));
    fake.script([
        TsmFault::OtherRequesterLate,
        TsmFault::Make(Errno::EXIST),
        TsmFault::Generate(Errno::INTR),
    ]);
    let device = Arc::new(FakeSevGuest::new(1, Signer::snp_report(false)));
    conforms(
        SnpAttester::new(Arc::new(fake.clone()), Some(device), pauses()),
        amd.verifier(),
        endorsements,
        Duration::from_secs(NOW),
    );
    assert_eq!(fake.faults_left(), 0);
}

#[test]
fn snp_through_the_device() {
    let (amd, chip) = (FakeAmd::new(), chip());
    let endorsements = amd.endorsements(&chip);
    let fake = Arc::new(FakeSevGuest::new(1, amd_signer(chip)));
    fake.script([SevGuestFault::Refuse(Errno::IO, 2 << 32)]);
    conforms(
        SevGuestAttester::new(Arc::clone(&fake) as _, pauses()),
        amd.verifier(),
        endorsements,
        Duration::from_secs(NOW),
    );
    assert_eq!(fake.faults_left(), 0);
}

#[test]
fn sgx_under_gramine() {
    let intel = FakeIntel::new();
    let fake = FakeGramine::new("dcap", intel_signer(&intel, FakeReport::sgx(1)));
    fake.limit_reads(333);
    fake.script([GramineFault::OtherThread, GramineFault::Interrupt]);
    conforms(
        GramineAttester::new(Arc::new(fake.clone()), pauses()),
        intel.verifier(Tee::Sgx),
        intel.endorsements(Tee::Sgx, NOW),
        Duration::from_secs(NOW),
    );
    assert_eq!(fake.faults_left(), 0);
}

#[test]
fn sgx_under_occlum() {
    let intel = FakeIntel::new();
    let fake = Arc::new(FakeOcclum::new(intel_signer(&intel, FakeReport::sgx(1))));
    fake.script([OcclumFault::Quote(Errno::INTR)]);
    conforms(
        OcclumAttester::new(Arc::clone(&fake) as _, pauses()),
        intel.verifier(Tee::Sgx),
        intel.endorsements(Tee::Sgx, NOW),
        Duration::from_secs(NOW),
    );
    assert_eq!(fake.faults_left(), 0);
}

#[test]
fn nitro() {
    let aws = Arc::new(FakeNitro::new());
    let signer = {
        let aws = Arc::clone(&aws);
        NsmSigner::new(move |user_data, nonce| {
            let mut document = aws.document();
            document.user_data = user_data.map(<[u8]>::to_vec);
            document.nonce = nonce.map(<[u8]>::to_vec);
            aws.sign(&document).body
        })
    };
    let fake = Arc::new(FakeNsm::new(signer));
    fake.script([NsmFault::Kernel(Errno::BUSY)]);
    conforms(
        NitroAttester::new(Arc::clone(&fake) as _, pauses()),
        aws.verifier(),
        Endorsements::None,
        NITRO_NOW,
    );
    assert_eq!(fake.faults_left(), 0);
}
