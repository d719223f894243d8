//! The simulated TEE passes the suite of every TEE, and refuses what is not exactly its own.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attestation::measurements::SimulatedMeasurements;
use attestation::testing::{Pair, attester_suite};
use attestation::{
    Attester, Binder, CheckName, Claims, Endorsements, Evidence, Measurements, Scorecard, Subject,
    Verifier,
};
use testbed::simulated_tee::{Enclave, SimulatedHardware, SimulatedTeeError, SimulatedVerifier};

const NOW: Duration = Duration::ZERO;
const SIGNED: usize = 160;

fn hardware() -> (tempfile::TempDir, SimulatedHardware) {
    let folder = tempfile::tempdir().unwrap();
    let hardware = SimulatedHardware::open(&folder.path().join("tee")).unwrap();
    (folder, hardware)
}

fn verify(verifier: &SimulatedVerifier, evidence: &Evidence) -> Result<Claims, CheckName> {
    let subject = Subject {
        evidence,
        endorsements: &Endorsements::None,
        now: NOW,
    };
    let verified = verifier.verify(&subject, &mut Scorecard::new(&[]));
    verified.map_err(|failed| failed.check())
}

#[test]
fn passes_the_suite_as_a_production_and_as_a_debug_enclave() {
    let (_folder, hardware) = hardware();
    for debug in [false, true] {
        let attester = hardware.attester_as(Enclave { debug, svn: 3 }).unwrap();
        let verifier = hardware.verifier();
        attester_suite(&Pair {
            attester: Arc::new(attester),
            verifier: Arc::new(verifier),
            endorsements: Endorsements::None,
            now: NOW,
        });
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (_folder, hardware) = hardware();
    let verifier = hardware.verifier();
    let evidence = hardware
        .attester()
        .unwrap()
        .collect(&Binder::certificate(b"key"))
        .unwrap();
    assert_eq!(evidence.body.len(), SIGNED + 64);
    verify(&verifier, &evidence).unwrap();
    for bit in 0..evidence.body.len() * 8 {
        let mut altered = evidence.clone();
        altered.body[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&verifier, &altered).is_err(), "bit {bit}");
    }
    for len in 0..evidence.body.len() {
        let mut short = evidence.clone();
        short.body.truncate(len);
        assert!(verify(&verifier, &short).is_err(), "length {len}");
    }
}

#[test]
fn two_folders_are_two_vendors() {
    let (_a, ours) = hardware();
    let (_b, theirs) = hardware();
    let evidence = theirs
        .attester()
        .unwrap()
        .collect(&Binder::certificate(b"key"))
        .unwrap();
    assert_eq!(
        verify(&ours.verifier(), &evidence),
        Err(CheckName::RootPinned)
    );
    verify(&theirs.verifier(), &evidence).unwrap();
    // Not even if it says that it is of the other: the hint is no proof.
    let hint = 24..32;
    let mut renamed = evidence;
    let own = ours
        .attester()
        .unwrap()
        .collect(&Binder::certificate(b"key"))
        .unwrap();
    renamed.body[hint.clone()].copy_from_slice(&own.body[hint]);
    assert_eq!(
        verify(&ours.verifier(), &renamed),
        Err(CheckName::Signature)
    );
}

#[test]
fn the_measurement_is_of_the_executable() {
    let (folder, hardware) = hardware();
    let exe = std::env::current_exe().unwrap();
    let measured = hardware.measure(&exe).unwrap();
    assert_eq!(hardware.attester().unwrap().measurements(), measured);
    let altered = folder.path().join("altered");
    let mut bytes = std::fs::read(&exe).unwrap();
    bytes.push(0);
    std::fs::write(&altered, bytes).unwrap();
    assert_ne!(hardware.measure(&altered).unwrap(), measured);

    let empty = folder.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    let Measurements::Simulated(SimulatedMeasurements { mr, debug: false }) =
        hardware.measure(&empty).unwrap()
    else {
        panic!("not a production enclave of the simulated TEE")
    };
    // FIPS 180-4: SHA-384 of nothing.
    assert_eq!(mr[..4], [0x38, 0xb0, 0x60, 0xa7]);
    assert!(matches!(
        hardware.measure(Path::new("/nonexistent")),
        Err(SimulatedTeeError::File { .. })
    ));
}

#[test]
fn the_root_survives_and_is_one_for_all_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tee");
    let opened: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| SimulatedHardware::open(&path).map(|h| h.verifier())))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let again = SimulatedHardware::open(&path).unwrap();
    for verifier in opened {
        assert_eq!(verifier.unwrap(), again.verifier());
    }
    assert_eq!(
        SimulatedVerifier::from_root_file(&again.root_file()).unwrap(),
        again.verifier()
    );
    let mode = |name| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("root.key"), 0o600);
    let files = std::fs::read_dir(&path).unwrap().count();
    assert_eq!(files, 2, "nothing temporary stays behind");
}

#[test]
fn damaged_roots_are_refused() {
    let (_folder, ours) = hardware();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("root.key");
    std::fs::write(&key, [1; 31]).unwrap();
    let refused = SimulatedHardware::open(folder.path());
    assert!(matches!(refused, Err(SimulatedTeeError::RootKey { .. })));
    // Somebody else's public key beside this folder's secret.
    std::fs::write(&key, [1; 32]).unwrap();
    std::fs::copy(ours.root_file(), folder.path().join("root.pem")).unwrap();
    let refused = SimulatedHardware::open(folder.path());
    assert!(matches!(refused, Err(SimulatedTeeError::RootPem { .. })));
    for text in [
        "",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ] {
        let path = folder.path().join("bad.pem");
        std::fs::write(&path, text).unwrap();
        assert!(SimulatedVerifier::from_root_file(&path).is_err(), "{text}");
    }
}

#[test]
fn sealing_keys_differ_by_hardware_and_debug() {
    let (_a, ours) = hardware();
    let (_b, theirs) = hardware();
    let key = |hardware: &SimulatedHardware, debug| {
        hardware
            .attester_as(Enclave { debug, svn: 1 })
            .unwrap()
            .sealing_key()
            .unwrap()
    };
    let production = key(&ours, false);
    assert!(production.ct_eq(&key(&ours, false)));
    assert!(!production.ct_eq(&key(&ours, true)));
    assert!(!production.ct_eq(&key(&theirs, false)));
    // A new patch level must still find its records.
    let patched = ours
        .attester_as(Enclave {
            debug: false,
            svn: 2,
        })
        .unwrap();
    assert!(production.ct_eq(&patched.sealing_key().unwrap()));
}
