//! Machines that have nothing, too much, or what does not answer. Those that work need real
//! file systems: tests/mounted.rs.

use std::fs;

use tempfile::TempDir;

use super::*;

fn machine() -> (TempDir, Machine) {
    let root = TempDir::new().unwrap();
    let machine = Machine::new(root.path());
    (root, machine)
}

fn put(root: &TempDir, path: &str, content: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn nothing_is_an_error_that_lists_every_place() {
    let (root, machine) = machine();
    let error = machine.detect().unwrap_err();
    let DetectError::Nothing(Places(looked)) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(looked.len(), CANDIDATES.len());
    let message = error.to_string();
    for (what, path, _) in CANDIDATES {
        assert!(message.contains(what), "{message}");
        let path = root.path().join(path);
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn gramine_is_taken_before_anything_else() {
    let (root, machine) = machine();
    put(&root, "dev/attestation/attestation_type", "dcap");
    put(&root, "dev/sev-guest", "");
    let attester = machine.detect().unwrap();
    assert!(format!("{attester:?}").starts_with("GramineAttester"));
}

/// Each is there, broken, with a working one behind it that must not be taken.
#[test]
fn what_is_there_and_does_not_answer_ends_the_search() {
    for (path, content) in [
        ("dev/attestation/other", ""),
        ("dev/attestation/attestation_type", "none"),
        ("dev/sgx", ""),
        ("dev/nsm", ""),
        ("dev/tdx_guest", ""),
    ] {
        let (root, machine) = machine();
        put(&root, path, content);
        put(&root, "dev/sev-guest", "");
        let error = machine.detect().unwrap_err();
        assert!(!matches!(error, DetectError::Nothing(_)), "{path}: {error}");
    }
    let (root, machine) = machine();
    fs::create_dir_all(root.path().join("dev/sev-guest")).unwrap();
    let error = machine.detect().unwrap_err();
    assert!(matches!(error, DetectError::Silent { .. }), "{error}");
}

#[test]
fn what_gramine_lacks_is_said() {
    let (root, machine) = machine();
    put(&root, "dev/attestation/attestation_type", "none\n");
    let message = machine.detect().unwrap_err().to_string();
    assert!(message.contains("sgx.remote_attestation"), "{message}");
}

#[test]
fn a_hosts_sgx_driver_is_not_occlum() {
    let (root, machine) = machine();
    put(&root, "dev/sgx/enclave", "");
    let error = machine.detect().unwrap_err();
    assert!(matches!(error, DetectError::Nothing(_)), "{error}");
}
