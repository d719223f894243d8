//! From evidence of the fake vendors to endorsements that their verifiers accept.

use attestation::facts::{SnpProduct, SnpSigningKey};
use attestation::testing::dcap::{FakeCollateral, FakeIntel, FakePck, FakeReport};
use attestation::testing::snp::{FakeAmd, FakeChip};
use attestation::{Binder, Evidence, Scorecard, Subject, Tee, Verifier};
use std::time::Duration;

use super::*;
use crate::testing::FakeServer;

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn origin(server: &FakeServer) -> Origin {
    Origin::new(&server.url(), None).unwrap()
}

pub(crate) fn quote(intel: &FakeIntel) -> Evidence {
    Evidence {
        tee: Tee::Tdx,
        body: intel
            .platform(&FakePck::default())
            .quote(&FakeReport::td(1), &[7; 64]),
    }
}

pub(crate) fn wanted(evidence: &Evidence) -> Wanted {
    Wanted::of(evidence, Endorsements::None).unwrap()
}

pub(crate) fn put_tdx(server: &FakeServer, intel: &FakeIntel, collateral: &FakeCollateral) {
    let tee = if collateral.tee == Tee::Tdx {
        "tdx"
    } else {
        "sgx"
    };
    let ca = if collateral.processor_ca {
        "processor"
    } else {
        "platform"
    };
    let fmspc = FakePck::default().fmspc;
    server.put_collateral(tee, &fmspc, ca, &intel.collateral(collateral));
}

fn accepted(verifier: &dyn Verifier, evidence: &Evidence, endorsements: &Endorsements, now: u64) {
    let subject = Subject {
        evidence,
        endorsements,
        now: Duration::from_secs(now),
    };
    let mut card = Scorecard::new(&[]);
    if let Err(failed) = verifier.verify(&subject, &mut card) {
        panic!("{failed:?}\n{card}");
    }
}

#[tokio::test]
async fn collateral_of_a_pccs_is_what_the_verifier_takes() {
    let (server, intel) = (FakeServer::start().await, FakeIntel::new());
    put_tdx(&server, &intel, &FakeCollateral::new(Tee::Tdx, NOW));
    let evidence = quote(&intel);
    let found = Pcs::new(origin(&server))
        .provide(&wanted(&evidence))
        .await
        .unwrap();
    accepted(&intel.verifier(Tee::Tdx), &evidence, &found, NOW);
}

#[tokio::test]
async fn certificates_of_a_kds_are_what_the_verifier_takes() {
    let (server, amd) = (FakeServer::start().await, FakeAmd::new());
    let chip = FakeChip::new(SnpProduct::Turin, SnpSigningKey::Vcek);
    let path = "/vcek/v1/Turin/c1c1c1c1c1c1c1c1?fmcSPL=02&blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=71";
    let endorsements = amd.endorsements(&chip);
    server.put_vek("vcek/v1/Turin", path, &endorsements);
    let evidence = Evidence {
        tee: Tee::Snp,
        body: chip.sign(chip.report().to_bytes()),
    };
    let found = Kds::new(origin(&server))
        .provide(&wanted(&evidence))
        .await
        .unwrap();
    assert_eq!(found, endorsements);
    accepted(&amd.verifier(), &evidence, &found, NOW);
}

#[tokio::test]
async fn several_are_asked_in_turn_and_the_best_error_is_told() {
    let (server, intel) = (FakeServer::start().await, FakeIntel::new());
    let evidence = quote(&intel);
    let wanted = wanted(&evidence);
    let folder = tempfile::tempdir().unwrap();
    let all = |providers: Vec<Arc<dyn Provider>>| FirstOf(providers);
    let pcs: Arc<dyn Provider> = Arc::new(Pcs::new(origin(&server)));
    let nobody = all(vec![
        Arc::new(FromHost),
        Arc::new(Folder::new(folder.path())),
        Arc::new(Kds::new(origin(&server))),
    ]);
    let error = nobody.provide(&wanted).await.unwrap_err();
    assert!(matches!(error, ProvideError::NotHere { .. }), "{error}");
    assert!(server.requests().is_empty(), "a KDS knows no quotes");

    let both = all(vec![Arc::clone(&pcs), Arc::new(Folder::new(folder.path()))]);
    let error = both.provide(&wanted).await.unwrap_err();
    assert!(matches!(error, ProvideError::Fetch { .. }), "{error}");
    let collateral = intel.endorsements(Tee::Tdx, NOW);
    Folder::new(folder.path())
        .store(&wanted, &collateral)
        .unwrap();
    assert_eq!(both.provide(&wanted).await.unwrap(), collateral);
}

#[test]
fn an_attester_finds_its_own_endorsements_on_a_blocking_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let intel = FakeIntel::new();
    let server = runtime.block_on(FakeServer::start());
    put_tdx(&server, &intel, &FakeCollateral::new(Tee::Tdx, NOW));
    let attester = Endorsing::new(
        intel.attester(FakeReport::td(1), NOW),
        Arc::new(Pcs::new(origin(&server))),
        runtime.handle().clone(),
    );
    use attestation::Attester as _;
    let evidence = attester.collect(&Binder::certificate(b"key")).unwrap();
    let found = attester.endorsements(&evidence).unwrap();
    accepted(&intel.verifier(Tee::Tdx), &evidence, &found, NOW);
    drop(server);
    let error = attester.endorsements(&evidence).unwrap_err();
    assert!(matches!(error, attestation::CollectError::Endorsements(_)));
    // Evidence that stands alone needs nobody.
    let simulated = Evidence {
        tee: Tee::Nitro,
        body: Vec::new(),
    };
    assert_eq!(
        attester.endorsements(&simulated).unwrap(),
        Endorsements::None
    );
}
